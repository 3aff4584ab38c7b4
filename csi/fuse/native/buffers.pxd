"""Memory for requests; see buffers.pyx."""


cdef class RequestBuffer:
    cdef void* start
    cdef char* memory
    cdef Py_ssize_t size
    cdef int views
    cdef bint lent
    cdef list pool


cdef class RequestBuffers:
    cdef Py_ssize_t size
    cdef int most
    cdef int made
    cdef list spare

    cdef RequestBuffer take(self)
    cdef RequestBuffer used(self, RequestBuffer buffer)
    cdef void give(self, RequestBuffer buffer)
    cdef bint has_spare(self) noexcept
