"""One exchange on a connected socket; see wire.pyx."""

cdef enum:
    DONE = 0
    REFUSED = 1
    OVERFLOW = 2
    FOREIGN = 3
    GONE = 4
    BROKEN = 5
    LATE = 6
    CHUNKED = 7


cdef struct Exchange:
    int descriptor
    const char *head
    Py_ssize_t head_size
    char *target
    Py_ssize_t target_size
    char *scratch
    Py_ssize_t room
    double timeout
    double stall
    double started
    double moved
    double wait
    double armed
    bint late
    Py_ssize_t filled
    Py_ssize_t end
    Py_ssize_t size
    Py_ssize_t received
    int status
    int error


cdef double now() noexcept nogil
cdef void prepare(Exchange *x, int descriptor, const char *head, Py_ssize_t size, double armed) noexcept nogil
cdef int exchange(Exchange *x) noexcept nogil
