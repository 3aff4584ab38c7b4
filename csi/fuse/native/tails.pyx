# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Writes that go on where the last one ended, put into the memory of their writer without the interpreter.

`lock` of the tables guards a tail. Bytes get their place under it and are copied there without it, counted in `uses`:
who recalls a tail waits for them.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from csi.fuse.native.answers cimport Answers
from csi.fuse.native.sending cimport send
from csi.fuse.native.tables cimport (
    A_WRITE, SPANS, Tables, Tail, find, hook_tail, ossfuse_add, ossfuse_load, unhook_tail, wait_for, wall_clock,
)
from csi.fuse.native.wire cimport O_DSYNC, WRITE_CACHE, InHeader, WriteIn
from csi.oss.posix cimport iovec, pthread_mutex_lock, pthread_mutex_unlock


cdef struct WriteOut:
    uint32_t size
    uint32_t padding


cdef bint append(Tables* tables, int descriptor, InHeader* header, size_t length) noexcept nogil:
    """Answer a WRITE whose bytes belong at the end of what its handle has written, if there is room for all of them."""
    cdef WriteIn* asked = <WriteIn*>(<char*>header + sizeof(InHeader))
    cdef const char* source = <char*>header + sizeof(InHeader) + sizeof(WriteIn)
    cdef iovec places[SPANS]
    cdef int count = 0, at
    cdef Tail* tail
    cdef WriteOut out
    if length < sizeof(InHeader) + sizeof(WriteIn) or length - sizeof(InHeader) - sizeof(WriteIn) != asked.size:
        return False
    if asked.size == 0 or asked.write_flags & WRITE_CACHE or asked.flags & O_DSYNC:
        return False
    pthread_mutex_lock(&tables.lock)
    tail = <Tail*>find(&tables.tails, asked.handle)
    if tail == NULL or asked.offset != tail.position or asked.size > tail.room:
        pthread_mutex_unlock(&tables.lock)
        return False
    count = take_room(tail, asked.size, places)
    tail.written = wall_clock()
    ossfuse_add(&tail.uses, 1)
    tables.answered[A_WRITE] += 1
    pthread_mutex_unlock(&tables.lock)
    for at in range(count):
        memcpy(places[at].iov_base, source, places[at].iov_len)
        source += places[at].iov_len
    ossfuse_add(&tail.uses, -1)
    out.size = asked.size
    out.padding = 0
    send(descriptor, header.unique, 0, &out, sizeof(WriteOut))
    return True


cdef int take_room(Tail* tail, size_t size, iovec* places) noexcept nogil:
    """With `lock`, and room for `size` bytes: where they belong, in how many places."""
    cdef int count = 0
    cdef iovec* span
    tail.position += size
    tail.room -= size
    while size:
        span = &tail.spans[tail.span]
        places[count].iov_base = span.iov_base
        places[count].iov_len = size if size < span.iov_len else span.iov_len
        size -= places[count].iov_len
        span.iov_base = <char*>span.iov_base + places[count].iov_len
        span.iov_len -= places[count].iov_len
        if span.iov_len == 0:
            tail.span += 1
        count += 1
    return count


@cython.no_gc_clear  # the tables are there for as long as the tail is in them
cdef class WriterTail:
    """Implements `csi.data.streams.Tail`. `answers` are the tables that it is shown in. Thread-safe."""

    cdef Answers answers
    cdef Tail tail
    cdef list lent

    def __cinit__(self, Answers answers not None):
        self.answers = answers

    def __dealloc__(self):
        if self.answers is not None:  # it was not refused
            self.conceal()
            wait_for(&self.tail.uses)

    @property
    def position(self):
        return <uint64_t>self.seen(<int64_t*>&self.tail.position)

    @property
    def written_ns(self):
        return self.seen(&self.tail.written)

    def lend(self, uint64_t position, list room not None):
        cdef iovec spans[SPANS]
        cdef Py_buffer view
        cdef int count = 0
        cdef size_t size = 0
        room = room[:SPANS]
        for memory in room:
            PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
            spans[count].iov_base = view.buf
            spans[count].iov_len = <size_t>view.len
            PyBuffer_Release(&view)  # `lent` keeps it
            size += spans[count].iov_len
            count += spans[count].iov_len > 0
        self.recall()
        self.lent = room
        pthread_mutex_lock(&self.answers.tables.lock)
        memcpy(self.tail.spans, spans, <size_t>count * sizeof(iovec))
        self.tail.span = 0
        self.tail.position = position
        self.tail.room = size
        pthread_mutex_unlock(&self.answers.tables.lock)

    def recall(self):
        cdef list lent = self.lent
        cdef uint64_t position
        pthread_mutex_lock(&self.answers.tables.lock)
        self.tail.room = 0
        position = self.tail.position
        pthread_mutex_unlock(&self.answers.tables.lock)
        if ossfuse_load(&self.tail.uses) != 0:
            with nogil:
                wait_for(&self.tail.uses)
        if self.lent is lent:  # else it was lent again while this waited
            self.lent = None
        return position

    def show(self, uint64_t handle):
        pthread_mutex_lock(&self.answers.tables.lock)
        unhook_tail(self.answers.tables, &self.tail)
        if find(&self.answers.tables.tails, handle) == NULL:
            hook_tail(self.answers.tables, &self.tail, handle)
        pthread_mutex_unlock(&self.answers.tables.lock)

    def hide(self):
        self.conceal()

    # --- private ---

    cdef int64_t seen(self, int64_t* field) noexcept:
        cdef int64_t value
        pthread_mutex_lock(&self.answers.tables.lock)
        value = field[0]
        pthread_mutex_unlock(&self.answers.tables.lock)
        return value

    cdef void conceal(self) noexcept:
        pthread_mutex_lock(&self.answers.tables.lock)
        unhook_tail(self.answers.tables, &self.tail)
        pthread_mutex_unlock(&self.answers.tables.lock)
