"""Requests answered from the tables, without the interpreter; see quick.pyx."""

from csi.fuse.native.tables cimport Tables


cdef bint answer(Tables* tables, int descriptor, char* request, size_t length) noexcept nogil
cdef size_t asked_for(const char* request, size_t length) noexcept nogil
cdef bint is_for_attributes(const char* request) noexcept nogil
