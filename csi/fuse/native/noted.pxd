from libc.stdint cimport uint16_t, uint32_t, uint64_t

from csi.fuse.native.tables cimport Plan, Tables


cdef enum:
    TEXT_SIZE = 488

cdef struct Slot:
    # as `csi/fs/light_opens.py` reads it
    uint64_t inode
    uint64_t size
    uint32_t opens
    uint16_t key_size
    uint16_t etag_size
    char text[TEXT_SIZE]


cdef void end_notes(Tables* tables) noexcept nogil

# with `lock`

cdef bint note_in(Tables* tables, int descriptor, uint64_t offset, size_t size) noexcept nogil
cdef bint note_opened(Tables* tables, uint64_t inode, Plan* plan) noexcept nogil
cdef Slot* leave_slot(Tables* tables, Plan* plan) noexcept nogil
cdef void put_back(Tables* tables, size_t slot) noexcept nogil

# without `lock`

cdef void count_down(Slot* slot, uint32_t opens) noexcept nogil
cdef Slot* slot_at(Tables* tables, Py_ssize_t slot) noexcept nogil
