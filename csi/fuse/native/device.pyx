# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The descriptor of /dev/fuse: threads that read requests, answer what can be answered from the tables, and bring the
rest to Python; and replies, written from the buffers they lie in.

A few threads read, about as many as there are processors: the kernel wakes exactly one of those that wait in read(2)
for a request, which costs less than handing requests over. Each has a turn, and keeps it while it calls Python, which
is a matter of microseconds when nobody else holds the interpreter's lock. `watch` takes the turn from a thread that
stays there for longer than PATIENCE while requests wait, and gives it to another one, so that requests which need no
Python never wait for it, whatever happens there; for a while after that, turns are given up before Python is called. So
a call that may wait can be made right there, where nothing has to be woken for it, as long as another thread is left
(`stay`).

`gate` guards the turns and the counters; it is never held across a system call or while the interpreter's lock is taken.
Reading blocks; `stop` sets a flag and interrupts the readers with a signal until all have seen it. `close` closes the
descriptor when no thread uses it any more; who stays in a call then comes back to a closed device and ends.
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EBADF, EINTR, ENODEV, ENOENT, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from csi.fuse.native.answers cimport Answers
from csi.fuse.native.quick cimport answer
from csi.fuse.native.tables cimport (
    Tables, monotonic, pthread_cond_broadcast, pthread_cond_t, pthread_mutex_lock, pthread_mutex_t,
    pthread_mutex_unlock,
)
from csi.fuse.native.wire cimport OutHeader

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int, void*, size_t)
    int close(int)

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int, unsigned long, ...)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void**, size_t, size_t)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    ssize_t writev(int, const iovec*, int)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd*, unsigned long, int)
    short POLLIN

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int nanosleep(const timespec*, timespec*)

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    pthread_t pthread_self()
    int pthread_kill(pthread_t, int)
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_cond_init(pthread_cond_t*, void*)
    int pthread_cond_destroy(pthread_cond_t*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)

cdef extern from "<signal.h>" nogil:
    """
    #include <signal.h>
    #define OSSFUSE_WAKE (SIGRTMIN + 6)
    static void ossfuse_woken(int number) { (void)number; }
    static int ossfuse_catch_wake(void) {
        struct sigaction action = {0};
        action.sa_handler = ossfuse_woken;  /* without SA_RESTART: the read returns */
        return sigaction(OSSFUSE_WAKE, &action, NULL);
    }
    """
    int OSSFUSE_WAKE
    int ossfuse_catch_wake()

cdef enum:
    HEADER = 16
    MOST_THREADS = 64
    MOST_PARTS = 64
    PATIENCE = 500000  # nanoseconds in Python before another thread gets the turn
    QUIET = 40  # ticks of the watch without a call of Python before it sleeps
    WARY = 16  # calls of Python before which the turn is given up, after one that held up others
    MOST_TURNS = 16
    PAGE = 4096


cdef struct Turn:
    uint64_t owner  # a number for each time it was taken; 0: free
    int64_t in_python  # since when its owner is; 0: it is not


cdef struct Place:
    # where a thread is: its turn, and the number it took it with, 0 without one
    int turn
    uint64_t owner


cdef class RequestBuffer:
    """Memory for one request. It goes back to its pool once nobody has a view of it any more."""

    cdef char* memory
    cdef Py_ssize_t size
    cdef int views
    cdef bint lent
    cdef list pool

    def __cinit__(self, list pool, Py_ssize_t size):
        cdef void* memory = NULL
        if posix_memalign(&memory, PAGE, size) != 0:
            raise MemoryError
        self.memory = <char*>memory
        self.size = size
        self.pool = pool

    def __dealloc__(self):
        free(self.memory)

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


cdef class Device:
    """`descriptor` is an open /dev/fuse, owned from now on; `buffer_size` is the largest request with its headers;
    `buffers` bounds the buffers that views may keep; `turns` is how many threads read at a time."""

    cdef int descriptor
    cdef Answers answers
    cdef Tables* tables
    cdef Py_ssize_t buffer_size
    cdef int buffers
    cdef int made
    cdef list spare

    cdef pthread_mutex_t gate
    cdef pthread_cond_t turn_free
    cdef pthread_cond_t python_called
    cdef Turn turns[MOST_TURNS]
    cdef int turn_count
    cdef uint64_t taken
    cdef int waiting
    cdef uint64_t calls
    cdef uint64_t deposed
    cdef int wary
    cdef bint watching
    cdef bint stopping
    cdef bint closed
    cdef int using  # replies and notifications of Python under way
    cdef int staying
    cdef int ended  # errno of the descriptor's end
    cdef pthread_t[MOST_THREADS] threads
    cdef int running

    def __cinit__(
        self, int descriptor, Answers answers not None, Py_ssize_t buffer_size, int buffers, int turns=2
    ):
        pthread_mutex_init(&self.gate, NULL)
        pthread_cond_init(&self.turn_free, NULL)
        pthread_cond_init(&self.python_called, NULL)
        self.descriptor = descriptor
        self.answers = answers
        self.tables = answers.tables
        self.buffer_size = buffer_size
        self.buffers = buffers
        self.turn_count = max(1, min(turns, MOST_TURNS))
        memset(self.turns, 0, sizeof(self.turns))
        self.spare = []
        if ossfuse_catch_wake() != 0:
            raise OSError(errno, "sigaction")

    def __dealloc__(self):
        pthread_cond_destroy(&self.python_called)
        pthread_cond_destroy(&self.turn_free)
        pthread_mutex_destroy(&self.gate)

    def run(self, handle):
        """Serve on this thread until `stop`, or until the descriptor ends: its errno then, 0 after `stop`.

        `handle(request)` gets a view of one whole message, which it may keep while `has_spare_buffer`; it must not
        raise and answers by `reply`.
        """
        cdef RequestBuffer buffer = self.buffer()
        cdef Place place = Place(0, 0)
        cdef Py_ssize_t length
        if not self.join():
            raise RuntimeError(f"at most {MOST_THREADS} threads")
        try:
            while True:
                with nogil:
                    length = self.next(buffer.memory, &place)
                if length <= 0:
                    return <int>-length
                view = memoryview(buffer)[:length]
                handle(view)
                del view
                if buffer.views:
                    buffer.lent = True
                    buffer = self.buffer()
        finally:
            self.depart(place)

    def watch(self):
        """Run beside the threads that serve, until `stop` or the end: see the module."""
        with nogil:
            self.keep_watch()

    def receive(self):
        """One message, for what comes before the service (INIT); b'' after `stop` or at the end of the descriptor."""
        cdef RequestBuffer buffer = self.buffer()
        cdef Place place = Place(0, 0)
        cdef Py_ssize_t length
        if not self.join():
            raise RuntimeError(f"at most {MOST_THREADS} threads")
        try:
            with nogil:
                length = self.next(buffer.memory, &place)
            return buffer.memory[:length] if length > 0 else b""
        finally:
            self.depart(place)
            self.spare.append(buffer)

    def reply(self, uint64_t unique, int error=0, *parts):
        """Answer a request with an errno, or with the bytes of `parts` one after another, where they lie.

        Returns 0, or the errno with which the kernel refused it: ENOENT when the request is gone (interrupted,
        answered before, connection aborted).
        """
        cdef Py_buffer views[MOST_PARTS]
        cdef iovec pieces[MOST_PARTS + 1]
        cdef OutHeader header
        cdef int count = 0, at, failure
        cdef size_t length = 0
        if len(parts) > MOST_PARTS:
            parts = (b"".join(parts),)
        try:
            for part in parts:
                PyObject_GetBuffer(part, &views[count], PyBUF_SIMPLE)
                count += 1
                pieces[count].iov_base = views[count - 1].buf
                pieces[count].iov_len = <size_t>views[count - 1].len
                length += <size_t>views[count - 1].len
            header.length = <uint32_t>(HEADER + length)
            header.error = -error
            header.unique = unique
            pieces[0].iov_base = &header
            pieces[0].iov_len = HEADER
            with nogil:
                failure = self.write(pieces, count + 1)
        finally:
            for at in range(count):
                PyBuffer_Release(&views[at])
        return failure

    def notify(self, bytes message):
        """Send a notification: 0, or the errno with which the kernel refused it."""
        cdef iovec piece
        cdef int failure
        piece.iov_base = <char*>message
        piece.iov_len = <size_t>len(message)
        with nogil:
            failure = self.write(&piece, 1)
        return failure

    def control(self, unsigned long command, bytes argument):
        """ioctl(2) with what `argument` holds, which nothing is written to. Raises OSError, EBADF after `close`."""
        cdef const char* data = argument
        cdef int result
        if not self.begin():
            raise OSError(EBADF, os.strerror(EBADF))
        with nogil:
            result = ioctl(self.descriptor, command, data)
        if result < 0:
            result = -errno
        self.finish()
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def stay(self):
        """Whether this thread, in `handle`, may make a call that waits; to be followed by `leave` when it has."""
        if self.staying + 2 > self.running:
            return False
        self.staying += 1
        return True

    def leave(self):
        self.staying -= 1

    def has_spare_buffer(self):
        """Whether the view of a request may be kept for a while: there is another buffer for the thread."""
        return len(self.spare) > 0 or self.made < self.buffers

    def stop(self):
        """Make `run` and `watch` return soon, on every thread; from any thread, any number of times."""
        pthread_mutex_lock(&self.gate)
        self.stopping = True
        pthread_cond_broadcast(&self.turn_free)
        pthread_cond_broadcast(&self.python_called)
        pthread_mutex_unlock(&self.gate)
        self.interrupt()

    def interrupt(self):
        """Wake a thread that was about to block when `stop` was called; to be repeated until all have returned."""
        cdef int at
        pthread_mutex_lock(&self.gate)
        for at in range(self.running):
            pthread_kill(self.threads[at], OSSFUSE_WAKE)
        pthread_mutex_unlock(&self.gate)

    def is_over(self):
        """Whether the descriptor has ended or `stop` was called, and nobody reads it any more."""
        return (self.stopping or self.ended != 0) and self.running <= self.staying

    def close(self, double patience):
        """Close the descriptor, once nothing is written to it any more; False when that took longer than `patience`
        seconds (a notification may wait in the kernel), and it was closed all the same. Replies are refused from now
        on. Idempotent."""
        cdef int64_t end = monotonic() + <int64_t>(patience * 1e9)
        cdef timespec moment
        cdef bint idle, closed
        moment.tv_sec = 0
        moment.tv_nsec = PATIENCE
        with nogil:
            pthread_mutex_lock(&self.gate)
            closed = self.closed
            self.closed = True
            self.stopping = True
            while self.using and monotonic() < end:
                pthread_mutex_unlock(&self.gate)
                nanosleep(&moment, NULL)
                pthread_mutex_lock(&self.gate)
            idle = self.using == 0
            pthread_mutex_unlock(&self.gate)
            if not closed:
                close(self.descriptor)
        return idle

    def counters(self):
        """(requests brought to Python, times a turn was taken from a thread that stayed there)."""
        return self.calls, self.deposed

    # --- private ---

    cdef int write(self, const iovec* pieces, int count) noexcept nogil:
        """0 or an errno; the device takes all or nothing."""
        cdef int failure = 0
        if not self.begin():
            return EBADF
        while writev(self.descriptor, pieces, count) < 0:
            if errno != EINTR:
                failure = errno
                break
        self.finish()
        return failure

    cdef bint begin(self) noexcept nogil:
        """Use the descriptor; False when it is closed. Followed by `finish`."""
        cdef bint closed
        pthread_mutex_lock(&self.gate)
        closed = self.closed
        if not closed:
            self.using += 1
        pthread_mutex_unlock(&self.gate)
        return not closed

    cdef void finish(self) noexcept nogil:
        pthread_mutex_lock(&self.gate)
        self.using -= 1
        pthread_mutex_unlock(&self.gate)

    cdef RequestBuffer buffer(self):
        if self.spare:
            return self.spare.pop()
        self.made += 1
        return RequestBuffer(self.spare, self.buffer_size)

    cdef bint join(self) noexcept:
        cdef bint joined = False
        pthread_mutex_lock(&self.gate)
        if self.running < MOST_THREADS:
            self.threads[self.running] = pthread_self()
            self.running += 1
            joined = True
        pthread_mutex_unlock(&self.gate)
        return joined

    cdef void depart(self, Place place) noexcept:
        cdef int at
        cdef pthread_t own = pthread_self()
        pthread_mutex_lock(&self.gate)
        for at in range(self.running):
            if self.threads[at] == own:
                self.running -= 1
                self.threads[at] = self.threads[self.running]
                break
        if self.holds(&place):
            self.give_up(&place)
        pthread_mutex_unlock(&self.gate)

    cdef Py_ssize_t next(self, char* request, Place* place) noexcept nogil:
        """The length of the next request that needs Python, 0 after `stop`, -errno at the end of the descriptor."""
        cdef Py_ssize_t length
        pthread_mutex_lock(&self.gate)
        if self.holds(place):
            self.turns[place.turn].in_python = 0
        else:  # the watch took it away
            place.owner = 0
        pthread_mutex_unlock(&self.gate)
        while True:
            if place.owner == 0:
                self.take_turn(place)
            if self.stopping:
                return 0
            if self.ended:
                return -self.ended
            length = read(self.descriptor, request, self.buffer_size)
            if length == 0:  # no device does that; a socket that stands for one ends so
                self.end(ENODEV)
                continue
            if length < 0:
                if errno == EINTR or errno == ENOENT:
                    continue
                if errno == EAGAIN:
                    self.has_more(100)
                    continue
                self.end(errno)
                continue
            if answer(self.tables, self.descriptor, request, <size_t>length):
                continue
            pthread_mutex_lock(&self.gate)
            self.calls += 1
            if self.wary and self.waiting:
                self.wary -= 1
                self.give_up(place)
            else:
                self.turns[place.turn].in_python = monotonic()
                if not self.watching:
                    pthread_cond_signal(&self.python_called)
            pthread_mutex_unlock(&self.gate)
            return length

    cdef bint holds(self, Place* place) noexcept nogil:
        """With `gate`."""
        return place.owner != 0 and self.turns[place.turn].owner == place.owner

    cdef void give_up(self, Place* place) noexcept nogil:
        """With `gate`."""
        self.turns[place.turn].owner = 0
        self.turns[place.turn].in_python = 0
        place.owner = 0
        pthread_cond_signal(&self.turn_free)

    cdef bint has_more(self, int milliseconds) noexcept nogil:
        cdef pollfd asked
        asked.fd = self.descriptor
        asked.events = POLLIN
        return poll(&asked, 1, milliseconds) > 0

    cdef void take_turn(self, Place* place) noexcept nogil:
        """Wait for a turn; without one at the end."""
        cdef int at
        pthread_mutex_lock(&self.gate)
        while not self.stopping and not self.ended:
            for at in range(self.turn_count):
                if self.turns[at].owner == 0:
                    self.taken += 1
                    self.turns[at].owner = self.taken
                    place.turn = at
                    place.owner = self.taken
                    pthread_mutex_unlock(&self.gate)
                    return
            self.waiting += 1
            pthread_cond_wait(&self.turn_free, &self.gate)
            self.waiting -= 1
        pthread_mutex_unlock(&self.gate)

    cdef void end(self, int number) noexcept nogil:
        pthread_mutex_lock(&self.gate)
        self.ended = number
        pthread_cond_broadcast(&self.turn_free)
        pthread_cond_broadcast(&self.python_called)
        pthread_mutex_unlock(&self.gate)

    cdef void keep_watch(self) noexcept nogil:
        cdef timespec tick
        cdef uint64_t calls = 0
        cdef int quiet = 0, at
        cdef bint called, more = False
        cdef int64_t now
        tick.tv_sec = 0
        tick.tv_nsec = PATIENCE
        pthread_mutex_lock(&self.gate)
        while not self.stopping and not self.ended:
            called = False
            now = monotonic()
            for at in range(self.turn_count):
                if self.turns[at].in_python:
                    called = True
                    if more and self.waiting and now - self.turns[at].in_python >= PATIENCE:
                        self.turns[at].owner = 0
                        self.turns[at].in_python = 0
                        self.deposed += 1
                        self.wary = WARY
                        pthread_cond_signal(&self.turn_free)
            quiet = quiet + 1 if self.calls == calls else 0
            calls = self.calls
            if quiet >= QUIET and not called:
                self.watching = False
                pthread_cond_wait(&self.python_called, &self.gate)
                quiet = 0
            self.watching = True
            pthread_mutex_unlock(&self.gate)
            nanosleep(&tick, NULL)
            more = self.has_more(0)
            pthread_mutex_lock(&self.gate)
        self.watching = False
        pthread_mutex_unlock(&self.gate)
