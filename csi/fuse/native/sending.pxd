"""Answers, written to the device; see sending.pyx."""

from libc.stdint cimport uint64_t

from csi.oss.posix cimport iovec


cdef bint send(int descriptor, uint64_t unique, int error, const void* body, size_t length) noexcept nogil
cdef bint send_parts(int descriptor, uint64_t unique, int error, iovec* parts, int count) noexcept nogil
cdef bint is_gone(int number) noexcept nogil
