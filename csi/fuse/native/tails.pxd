"""Writes that go on where the last one ended; see tails.pyx."""

from csi.fuse.native.tables cimport Tables
from csi.fuse.native.wire cimport InHeader


cdef bint append(Tables* tables, int descriptor, InHeader* header, size_t length) noexcept nogil
