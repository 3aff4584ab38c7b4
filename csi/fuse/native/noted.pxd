from libc.stdint cimport uint64_t

from csi.fuse.native.tables cimport Plan, Tables


cdef bint note_in(Tables* tables, int descriptor, uint64_t offset, size_t size) noexcept nogil

cdef void end_notes(Tables* tables) noexcept nogil

# with `lock`

cdef bint note_opened(Tables* tables, uint64_t inode, Plan* plan) noexcept nogil
cdef void note_released(Tables* tables, Plan* plan) noexcept nogil
cdef void free_slot(Tables* tables, size_t slot) noexcept nogil
