# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Memory for requests: who handles one may keep a view of it, and the thread that read it goes on with another buffer
until nobody looks at the first one any more. Guarded by the interpreter's lock."""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport free

from csi.oss.posix cimport posix_memalign

cdef enum:
    PAGE = 4096
    BEFORE = 80  # bytes of a WRITE in front of its payload


cdef class RequestBuffer:
    """Memory for one request. It goes back to its pool once nobody has a view of it any more."""

    def __cinit__(self, list pool, Py_ssize_t size):
        cdef void* memory = NULL
        if posix_memalign(&memory, PAGE, PAGE + size) != 0:
            raise MemoryError
        self.start = memory
        # pages of a payload go where pages are: the kernel copies each of them in one
        self.memory = <char*>memory + PAGE - BEFORE
        # a thread that is killed while the kernel would have to find the page takes its request with it: EIO for who
        # asked, where it is asked again of a successor otherwise; only payloads of writes are longer
        if size > PAGE:
            self.memory[0] = self.memory[PAGE] = 0
        self.size = size
        self.pool = pool

    def __dealloc__(self):
        free(self.start)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.memory, self.size, 1, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.views -= 1
        if self.views == 0 and self.lent:
            self.lent = False
            if self.pool is None:  # cleared by a garbage collection: the device is gone
                return
            self.pool.append(self)


cdef class RequestBuffers:
    """Of `size` bytes each, made when they are needed; `most` is how many there should be at a time."""

    def __cinit__(self, Py_ssize_t size, int most):
        self.size = size
        self.most = most
        self.spare = []

    cdef RequestBuffer take(self):
        if self.spare:
            return self.spare.pop()
        self.made += 1
        return RequestBuffer(self.spare, self.size)

    cdef RequestBuffer used(self, RequestBuffer buffer):
        """What to read the next request into: `buffer` itself, unless somebody still looks at it."""
        if not buffer.views:
            return buffer
        buffer.lent = True
        return self.take()

    cdef void give(self, RequestBuffer buffer):
        self.spare.append(buffer)

    cdef bint has_spare(self) noexcept:
        return len(self.spare) > 0 or self.made < self.most
