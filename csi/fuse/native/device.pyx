# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The descriptor of /dev/fuse: threads that read requests, answer what can be answered from the tables, and bring the
rest to Python; and replies, written from the buffers they lie in.

`csi/fuse/native/turns.pyx` says which threads read. A thread calls Python for a request where it read it, and may make
a call that waits right there, where nothing has to be woken for it, as long as another thread is left (`stay`).

`gate` guards counters and threads, and is taken before that of the turns; it is never held across a system call or
while the interpreter's lock is taken. Reading blocks; `stop` sets a flag and interrupts the readers with a signal until
all have seen it. `close` closes the descriptor when no thread uses it any more; who stays in a call then comes back to
a closed device and ends.
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EBADF, EINTR, EIO, ENODEV, ENOENT, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from csi.fuse.native.answers cimport Answers
from csi.fuse.native.buffers cimport RequestBuffer, RequestBuffers
from csi.fuse.native.quick cimport answer, asked_for, is_for_attributes
from csi.fuse.native.sending cimport is_gone
from csi.fuse.native.tables cimport Tables, monotonic
from csi.fuse.native.turns cimport (
    Place, Turns, begin_turns, come_back, disperse, end_turns, enter_python, free_turns, glance, has_more, heed,
    heed_large, is_retired, keep_watch, leave_turns, take_turn, wait_elsewhere,
)
from csi.fuse.native.wire cimport OutHeader
from csi.oss.posix cimport (
    iovec, nanosleep, pthread_kill, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t,
    pthread_mutex_unlock, pthread_self, pthread_t, timespec, writev,
)

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int, void*, size_t)
    int close(int)

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int, unsigned long, ...)

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
    GLANCE = 500000  # nanoseconds
    LARGE = 65536  # bytes of a request, or of an answer
    EVERY = 8  # one in so many names and attributes that are answered is followed by a look for the next request
    SHORT = 512  # bytes of an answer, with its header, that can wait until the interpreter's lock is free


cdef enum:  # what requests speak for (`heed`)
    ANSWERED = -1
    ASKED = 4  # one in five brought to Python is worth many readers


cdef struct Station:
    # of a thread that runs: where it stands, and an answer that goes out when it is back from Python
    Place place
    bint in_python
    size_t length
    unsigned int seen  # names and attributes that were answered
    char answer[SHORT]


cdef class Device:
    """`descriptor` is an open /dev/fuse, owned from now on; `buffer_size` is the largest request with its headers;
    `buffers` bounds the buffers that views may keep; `turns` is how many threads read at a time, `fewest` how many
    while Python is hardly called, or large requests come."""

    cdef int descriptor
    cdef Answers answers
    cdef Tables* tables
    cdef RequestBuffers buffers
    cdef Turns turns

    cdef pthread_mutex_t gate
    cdef bint stopping
    cdef bint closed
    cdef int using  # replies and notifications of Python under way
    cdef int staying
    cdef int late  # answers that wait for their thread to be back from Python
    cdef int ended  # errno of the descriptor's end
    cdef pthread_t threads[MOST_THREADS]
    cdef Station* stations[MOST_THREADS]
    cdef int running

    def __cinit__(
        self, int descriptor, Answers answers not None, Py_ssize_t buffer_size, int buffers, int turns=2, int fewest=2
    ):
        pthread_mutex_init(&self.gate, NULL)
        begin_turns(&self.turns, turns, fewest)
        self.descriptor = descriptor
        self.answers = answers
        self.tables = answers.tables
        self.buffers = RequestBuffers(buffer_size, buffers)
        if ossfuse_catch_wake() != 0:
            raise OSError(errno, "sigaction")

    def __dealloc__(self):
        free_turns(&self.turns)
        pthread_mutex_destroy(&self.gate)

    def run(self, handle):
        """Serve on this thread until `stop`, or until the descriptor ends: its errno then, 0 after `stop`.

        `handle(request)` gets a view of one whole message, which it may keep while `has_spare_buffer`; it must not
        raise and answers by `reply`.
        """
        cdef RequestBuffer buffer = self.buffers.take()
        cdef Station station
        cdef Py_ssize_t length
        if not self.join(&station):
            raise RuntimeError(f"at most {MOST_THREADS} threads")
        try:
            while True:
                with nogil:
                    length = self.next(buffer.memory, &station)
                if length <= 0:
                    return <int>-length
                view = memoryview(buffer)[:length]
                station.in_python = True
                handle(view)
                del view
                buffer = self.buffers.used(buffer)
        finally:
            self.depart(&station)

    def watch(self):
        """Run beside the threads that serve, until `stop` or the end: see the module."""
        with nogil:
            keep_watch(&self.turns, self.descriptor)

    def receive(self):
        """One message, for what comes before the service (INIT); b'' after `stop` or at the end of the descriptor."""
        cdef RequestBuffer buffer = self.buffers.take()
        cdef Station station
        cdef Py_ssize_t length
        if not self.join(&station):
            raise RuntimeError(f"at most {MOST_THREADS} threads")
        try:
            with nogil:
                length = self.next(buffer.memory, &station)
            return buffer.memory[:length] if length > 0 else b""
        finally:
            self.depart(&station)
            self.buffers.give(buffer)

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

    def reply_soon(self, uint64_t unique, int error=0, *parts):
        """`reply` that may wait until `handle` returns, which is sooner than the interpreter's lock would be had again:
        0 then, whatever the kernel says to it later. Refused for what it says, it is followed by EIO."""
        cdef Station* station = self.station()
        cdef OutHeader* header
        cdef size_t length = HEADER
        cdef bytes piece
        if station == NULL or not station.in_python or station.length:
            return self.reply(unique, error, *parts)
        for part in parts:
            if type(part) is not bytes or length + <size_t>len(<bytes>part) > SHORT:
                return self.reply(unique, error, *parts)
            piece = part
            memcpy(&station.answer[length], <const char*>piece, len(piece))
            length += <size_t>len(piece)
        header = <OutHeader*>station.answer
        header.length = <uint32_t>length
        header.error = -error
        header.unique = unique
        station.length = length
        pthread_mutex_lock(&self.gate)
        self.late += 1
        pthread_mutex_unlock(&self.gate)
        return 0

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

    def stay(self, bint long):
        """Whether this thread, in `handle`, may make a call that waits; to be followed by `leave` when it has. `long`:
        it mostly does wait, so that others should read meanwhile."""
        cdef Station* station
        if self.staying + 2 > self.running:
            return False
        self.staying += 1
        if long:
            station = self.station()
            if station != NULL:
                wait_elsewhere(&self.turns, &station.place)
        return True

    def leave(self):
        self.staying -= 1

    def has_spare_buffer(self):
        """Whether the view of a request may be kept for a while: there is another buffer for the thread."""
        return self.buffers.has_spare()

    def stop(self):
        """Make `run` and `watch` return soon, on every thread; from any thread, any number of times."""
        self.stopping = True
        end_turns(&self.turns)
        self.interrupt()

    def interrupt(self):
        """Wake a thread that was about to block when `stop` was called; to be repeated until all have returned."""
        cdef int at
        pthread_mutex_lock(&self.gate)
        for at in range(self.running):
            pthread_kill(self.threads[at], OSSFUSE_WAKE)
        pthread_mutex_unlock(&self.gate)

    def is_over(self):
        """Whether the descriptor has ended or `stop` was called, and nobody reads it or has answers for it any more."""
        return (self.stopping or self.ended != 0) and self.running <= self.staying and self.late == 0

    def close(self, double patience):
        """Close the descriptor, once nothing is written to it any more; False when that took longer than `patience`
        seconds (a notification may wait in the kernel), and it was closed all the same. Replies are refused from now
        on. Idempotent."""
        cdef int64_t end = monotonic() + <int64_t>(patience * 1e9)
        cdef timespec moment
        cdef bint idle, closed
        moment.tv_sec = 0
        moment.tv_nsec = GLANCE
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
        return self.turns.calls, self.turns.deposed

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

    cdef bint join(self, Station* station) noexcept:
        cdef bint joined = False
        station.place = Place(0, 0)
        station.in_python = False
        station.length = 0
        station.seen = 0
        pthread_mutex_lock(&self.gate)
        if self.running < MOST_THREADS:
            self.threads[self.running] = pthread_self()
            self.stations[self.running] = station
            self.running += 1
            joined = True
        pthread_mutex_unlock(&self.gate)
        return joined

    cdef void depart(self, Station* station) noexcept:
        cdef int at
        self.answer_late(station)
        pthread_mutex_lock(&self.gate)
        for at in range(self.running):
            if self.stations[at] == station:
                self.running -= 1
                self.threads[at] = self.threads[self.running]
                self.stations[at] = self.stations[self.running]
                break
        pthread_mutex_unlock(&self.gate)
        leave_turns(&self.turns, &station.place)

    cdef Station* station(self) noexcept:
        """Of this thread; NULL of one that does not run here."""
        cdef int at
        cdef Station* found = NULL
        cdef pthread_t own = pthread_self()
        pthread_mutex_lock(&self.gate)
        for at in range(self.running):
            if self.threads[at] == own:
                found = self.stations[at]
                break
        pthread_mutex_unlock(&self.gate)
        return found

    cdef void answer_late(self, Station* station) noexcept nogil:
        """What `reply_soon` has left."""
        cdef OutHeader* header = <OutHeader*>station.answer
        cdef iovec piece
        cdef int failure
        if not station.length:
            return
        piece.iov_base = station.answer
        piece.iov_len = station.length
        station.length = 0
        failure = self.write(&piece, 1)
        if failure and not is_gone(failure):
            header.length = HEADER
            header.error = -EIO
            piece.iov_len = HEADER
            self.write(&piece, 1)
        pthread_mutex_lock(&self.gate)
        self.late -= 1
        pthread_mutex_unlock(&self.gate)

    cdef Py_ssize_t next(self, char* request, Station* station) noexcept nogil:
        """The length of the next request that needs Python, 0 after `stop`, -errno at the end of the descriptor."""
        cdef Py_ssize_t length
        cdef bint answered
        cdef size_t asked
        cdef Place* place = &station.place
        station.in_python = False
        self.answer_late(station)
        come_back(&self.turns, place)
        while True:
            if is_retired(&self.turns, place):
                leave_turns(&self.turns, place)
            if place.owner == 0:
                take_turn(&self.turns, place)
            if self.stopping:
                return 0
            if self.ended:
                return -self.ended
            length = read(self.descriptor, request, self.buffers.size)
            if length == 0:  # no device does that; a socket that stands for one ends so
                self.end(ENODEV)
                continue
            if length < 0:
                if errno == EINTR or errno == ENOENT:
                    continue
                if errno == EAGAIN:
                    has_more(self.descriptor, 100)
                    continue
                self.end(errno)
                continue
            answered = answer(self.tables, self.descriptor, request, <size_t>length)
            if length > LARGE:
                heed_large(&self.turns, not has_more(self.descriptor, 0))
            elif answered:
                asked = asked_for(request, <size_t>length)
                if asked:
                    disperse(&self.turns)
                elif is_for_attributes(request):
                    station.seen += 1
                    if station.seen % EVERY == 0:
                        glance(&self.turns, has_more(self.descriptor, 0))
                heed(&self.turns, ANSWERED, asked > LARGE)
            else:
                heed(&self.turns, ASKED, False)
            if answered:
                continue
            enter_python(&self.turns, place)
            return length

    cdef void end(self, int number) noexcept nogil:
        self.ended = number
        end_turns(&self.turns)
