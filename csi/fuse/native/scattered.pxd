"""Large files read at random places; see scattered.pyx."""

from libc.stdint cimport uint64_t

from csi.fuse.native.tables cimport File, Tables
from csi.fuse.native.wire cimport InHeader

# with `lock`

cdef bint read_range(
    Tables* tables, int descriptor, File* file, InHeader* header, uint64_t offset, uint64_t end
) noexcept nogil
