# cython: language_level=3, boundscheck=False, wraparound=False, binding=False
"""`speak` of csi/oss/speaking.py in C: one exchange without the interpreter lock, which is waited for once, at its end.

Touches no Python object while the lock is not held. Described there; the types are in wire.pyi.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memchr, memcpy

from csi.oss.posix cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef extern from "string.h" nogil:
    void *memmem(const void *haystack, size_t size, const void *needle, size_t length)

cdef extern from "strings.h" nogil:
    int strncasecmp(const char *one, const char *other, size_t size)

cdef extern from "sys/time.h" nogil:
    struct timeval:
        long tv_sec
        long tv_usec

cdef extern from "sys/socket.h" nogil:
    int MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, MSG_WAITALL, SOL_SOCKET, SO_RCVTIMEO
    ssize_t send(int descriptor, const void *data, size_t size, int flags)
    ssize_t recv(int descriptor, void *data, size_t size, int flags)
    int setsockopt(int descriptor, int level, int name, const void *value, unsigned int size)


cdef enum:
    FIRST = 4096  # bytes received at first: a head, and little of a body that has to be moved
    LOOKS = 4

cdef Py_ssize_t LONGEST = <Py_ssize_t>1 << 55


cdef double now() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return moment.tv_sec + moment.tv_nsec * 1e-9


cdef Py_ssize_t receive(Exchange *x, char *where, Py_ssize_t size, int flags) noexcept nogil:
    """Bytes received; 0 is the end, −1 an error. With `late` set afterwards there is no more time."""
    cdef timeval limit
    cdef Py_ssize_t count
    cdef double moment, left
    while True:
        if x.wait != x.armed:
            limit.tv_sec = <long>x.wait
            limit.tv_usec = <long>((x.wait - limit.tv_sec) * 1e6)
            if limit.tv_sec == 0 and limit.tv_usec == 0:
                limit.tv_usec = 1
            setsockopt(x.descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit))
            x.armed = x.wait
        count = recv(x.descriptor, where, size, flags)
        if count == 0 or (count == size and flags & MSG_WAITALL):
            return count
        if count < 0 and errno != EAGAIN and errno != EINTR:
            x.error = errno
            return -1
        moment = now()
        if count > 0:
            x.moved = moment
        left = min(x.started + x.timeout, x.moved + x.stall) - moment
        if left <= 0:
            x.late = True
            return max(count, 0)
        x.wait = min(x.stall / LOOKS, left)
        if count > 0:
            return count


cdef bint understand(Exchange *x) noexcept nogil:
    """Status and length of the body (−1: it comes in chunks) from the head in `scratch`; False when only libcurl can
    tell."""
    cdef const char *line = x.scratch
    cdef const char *end = x.scratch + x.end
    cdef const char *stop
    cdef const char *digit
    cdef bint found = False, chunked = False
    cdef int index
    if x.end < 12 or strncasecmp(line, b"HTTP/1.1 ", 9):
        return False
    for index in range(9, 12):
        if not c"0" <= line[index] <= c"9":
            return False
    x.status = (line[9] - c"0") * 100 + (line[10] - c"0") * 10 + line[11] - c"0"
    if x.status < 200 or x.status == 204 or x.status == 304:
        return False
    while line < end:
        stop = <const char *>memchr(line, c"\n", end - line)
        if stop == NULL:
            stop = end
        if stop - line >= 18 and strncasecmp(line, b"transfer-encoding:", 18) == 0:
            if chunked or not is_word(line + 18, stop, b"chunked", 7):
                return False
            chunked = True
        if stop - line >= 15 and strncasecmp(line, b"content-length:", 15) == 0:
            if found:
                return False
            found = True
            digit = line + 15
            while digit < stop and digit[0] == c" ":
                digit += 1
            if digit == stop or digit[0] < c"0" or digit[0] > c"9":
                return False
            x.size = 0
            while digit < stop and c"0" <= digit[0] <= c"9" and x.size < LONGEST:
                x.size = x.size * 10 + digit[0] - c"0"
                digit += 1
            while digit < stop and (digit[0] == c" " or digit[0] == c"\r"):
                digit += 1
            if digit != stop:
                return False
        line = stop + 1
    if chunked:
        x.size = -1
    return found != chunked


cdef bint is_word(const char *begin, const char *end, const char *word, Py_ssize_t length) noexcept nogil:
    """Whether a header's value is this, whatever case it is in."""
    while begin < end and (begin[0] == c" " or begin[0] == c"\t"):
        begin += 1
    while begin < end and ((end - 1)[0] == c" " or (end - 1)[0] == c"\t" or (end - 1)[0] == c"\r"):
        end -= 1
    return end - begin == length and strncasecmp(begin, word, length) == 0


cdef void prepare(Exchange *x, int descriptor, const char *head, Py_ssize_t size, double armed) noexcept nogil:
    """Of a request whose answer's place and times are still to be said."""
    x.descriptor = descriptor
    x.head = head
    x.head_size = size
    x.armed = armed
    x.late = False
    x.filled = x.size = x.received = 0
    x.status = x.error = 0
    x.end = -1


cdef bint is_quiet(int descriptor) noexcept nogil:
    """Nothing lies there that nobody asked for, and the other end has not closed."""
    cdef char one
    return recv(descriptor, &one, 1, MSG_PEEK | MSG_DONTWAIT) < 0 and errno == EAGAIN


cdef int exchange(Exchange *x) noexcept nogil:
    cdef Py_ssize_t sent = 0
    cdef Py_ssize_t count, begin
    cdef char *found
    if x.head_size and not is_quiet(x.descriptor):
        return GONE
    while sent < x.head_size:
        count = send(x.descriptor, x.head + sent, x.head_size - sent, MSG_NOSIGNAL)
        if count < 0:
            if errno == EINTR:
                continue
            return GONE
        sent += count
    x.started = x.moved = now()
    x.wait = min(x.stall / LOOKS, x.timeout)
    x.end = -1
    while x.end < 0:
        if x.filled == x.room:
            return FOREIGN
        count = receive(x, x.scratch + x.filled, min(<Py_ssize_t>FIRST, x.room - x.filled), 0)
        if x.late:
            return LATE
        if count <= 0:
            return GONE
        begin = max(<Py_ssize_t>0, x.filled - 3)
        x.filled += count
        found = <char *>memmem(x.scratch + begin, x.filled - begin, b"\r\n\r\n", 4)
        if found != NULL:
            x.end = found - x.scratch
    if not understand(x):
        return FOREIGN
    if x.size < 0:
        return CHUNKED
    count = x.filled - x.end - 4
    if count > x.size:
        return FOREIGN
    if x.status >= 300:
        return REFUSED
    if x.size > x.target_size:
        return OVERFLOW
    memcpy(x.target, x.scratch + x.end + 4, count)
    x.received = count
    while x.received < x.size:
        count = receive(x, x.target + x.received, x.size - x.received, MSG_WAITALL)
        if count > 0:
            x.received += count
        if x.late and x.received < x.size:
            return LATE
        if count <= 0 and x.received < x.size:
            return BROKEN
    return DONE


cdef dict fields_of(const char *head, Py_ssize_t size):
    cdef dict fields = {}
    cdef const char *end = head + size
    cdef const char *line = <const char *>memchr(head, c"\n", size)
    cdef const char *stop
    cdef const char *colon
    cdef const char *value
    cdef const char *last
    cdef char name[256]
    cdef Py_ssize_t length, index
    while line != NULL:
        line += 1
        stop = <const char *>memchr(line, c"\n", end - line)
        last = end if stop == NULL else stop
        colon = <const char *>memchr(line, c":", last - line)
        if colon != NULL and colon - line <= 256:
            length = colon - line
            for index in range(length):
                name[index] = line[index] + 32 if c"A" <= line[index] <= c"Z" else line[index]
            value = colon + 1
            while value < last and (value[0] == c" " or value[0] == c"\t"):
                value += 1
            while last > value and ((last - 1)[0] == c" " or (last - 1)[0] == c"\t" or (last - 1)[0] == c"\r"):
                last -= 1
            fields[PyUnicode_DecodeUTF8(name, length, b"surrogateescape")] = PyUnicode_DecodeUTF8(
                value, last - value, b"surrogateescape"
            )
        line = stop
    return fields


def speak(connection, bytes head, target, bytearray scratch, double timeout, double stall, double armed):
    cdef Exchange x
    cdef Py_buffer into
    cdef int outcome
    prepare(&x, connection.fileno(), PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head), armed)
    x.scratch = scratch
    x.room = len(scratch)
    x.timeout = timeout
    x.stall = stall
    PyObject_GetBuffer(target, &into, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        x.target = <char *>into.buf
        x.target_size = into.len
        with nogil:
            outcome = exchange(&x)
    finally:
        PyBuffer_Release(&into)
    fields = fields_of(x.scratch, x.end) if x.end >= 0 and outcome != FOREIGN else {}
    return outcome, x.status, fields, x.received, x.size, x.end, x.filled, x.error, x.armed
