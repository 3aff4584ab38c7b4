# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Answers, written to the device."""

from libc.errno cimport EBADF, ECONNABORTED, ECONNRESET, EINTR, EIO, ENODEV, ENOENT, ENOTCONN, EPIPE, errno
from libc.stdint cimport uint32_t, uint64_t

from csi.fuse.native.wire cimport OutHeader
from csi.oss.posix cimport iovec, writev


cdef bint send(int descriptor, uint64_t unique, int error, const void* body, size_t length) noexcept nogil:
    """Whether the kernel took it: not if the request was withdrawn or the connection is gone."""
    cdef iovec parts[2]
    parts[1].iov_base = <void*>body
    parts[1].iov_len = length
    return send_parts(descriptor, unique, error, parts, 2 if length else 1)


cdef bint send_parts(int descriptor, uint64_t unique, int error, iovec* parts, int count) noexcept nogil:
    """`send` of bytes from where they lie; the first of the parts is for the header."""
    cdef OutHeader header
    cdef int at
    header.length = sizeof(OutHeader)
    for at in range(1, count):
        header.length += <uint32_t>parts[at].iov_len
    header.error = -error
    header.unique = unique
    parts[0].iov_base = &header
    parts[0].iov_len = sizeof(OutHeader)
    while writev(descriptor, parts, count) < 0:
        if errno != EINTR:
            if error == 0 and not is_gone(errno):
                send(descriptor, unique, EIO, NULL, 0)  # refused for what it says: its caller still waits
            return False
    return True


cdef bint is_gone(int number) noexcept nogil:
    """Whether an answer was refused because nobody waits for it: withdrawn, unmounted, aborted."""
    return (
        number == ENOENT
        or number == ENODEV
        or number == ECONNABORTED
        or number == ENOTCONN
        or number == EPIPE
        or number == ECONNRESET
        or number == EBADF
    )
