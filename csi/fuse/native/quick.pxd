"""Requests answered from the tables, without the interpreter; see quick.pyx."""

from libc.stdint cimport uint64_t

from csi.fuse.native.tables cimport Tables


cdef bint answer(Tables* tables, int descriptor, char* request, size_t length) noexcept nogil
cdef bint send(int descriptor, uint64_t unique, int error, const void* body, size_t length) noexcept nogil
