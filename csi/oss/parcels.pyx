# cython: language_level=3, boundscheck=False, wraparound=False, binding=False
"""Whole small objects for one process, fetched by threads that need no interpreter: who wants one leaves a parcel, and
waits for it without the interpreter's lock.

A courier is a thread with a connection (`Parcels.serve`). As many are at work as the time of a GET makes worth it: where
answers come at once, more threads than a few only take each other's processor. The one that rested last is woken first.
What is not answered as expected is given back to the interpreter with its courier, which makes the request again in the
ordinary way. Described in parcels.pyi.

`lock` guards the queue, the counts and the states of parcels; nothing waits and no Python runs while it is held. `held`
keeps a parcel alive while a courier may write to it, and is used with the interpreter's lock only.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.string cimport memcpy

from csi.oss.getting cimport AGAIN, GOT, Line, Recipe, Stamp, Wanted, get
from csi.oss.posix cimport (
    begin_condition, moment_in, pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_signal, pthread_cond_t,
    pthread_cond_timedwait, pthread_cond_wait, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_t, pthread_mutex_unlock, timespec,
)
from csi.oss.wire cimport now

cdef enum:
    WAITS = 0
    FLIES = 1
    HERE = 2
    LOST = 3  # the ordinary way has it

cdef enum:
    ENDED = 0
    CLOSED = 1
    STALE = 2
    FAILED = 3
    SLOW = 4
    SHORT = 5

cdef enum:
    TRIES = 2
    FEWEST = 3
    AT_FIRST = 4  # while nobody knows how long a GET takes
    RISE = 64

cdef double EACH = 0.0003
"""Seconds of a GET that make another courier worth it."""
cdef double GLANCE = 0.1
"""Seconds after which who waits looks whether a signal has come."""


cdef struct Job:
    Wanted wanted
    char *target
    int state
    int tries
    bint awaited
    void *owner
    Job *before
    Job *after


cdef struct Idler:
    pthread_cond_t wake
    bint woken
    Idler *next


cdef class Parcel:
    cdef Job job
    cdef object target
    cdef tuple texts


cdef class Parcels:
    cdef pthread_mutex_t lock
    cdef pthread_cond_t arrived
    cdef Job *first
    cdef Job *last
    cdef Idler *idlers
    cdef int queued
    cdef int busy
    cdef int most
    cdef double usual  # seconds of a GET where nothing holds it up; 0: nobody knows
    cdef bint closed
    cdef dict held
    cdef readonly int gets
    cdef public int hired

    def __cinit__(self, int most):
        pthread_mutex_init(&self.lock, NULL)
        begin_condition(&self.arrived)
        self.most = most
        self.held = {}

    def __dealloc__(self):
        pthread_cond_destroy(&self.arrived)
        pthread_mutex_destroy(&self.lock)

    # --- for who wants objects ---

    def put(self, bytes key, bytes etag, Py_ssize_t size, slot):
        cdef Parcel parcel = Parcel.__new__(Parcel)
        cdef Job *job = &parcel.job
        cdef int needed
        parcel.target = PyBytes_FromStringAndSize(NULL, size)
        parcel.texts = (key, etag)
        job.wanted.key = PyBytes_AS_STRING(key)
        job.wanted.key_size = len(key)
        job.wanted.etag = PyBytes_AS_STRING(etag)
        job.wanted.etag_size = len(etag)
        job.target = PyBytes_AS_STRING(parcel.target)
        job.wanted.begin = 0
        job.wanted.size = job.wanted.total = size
        job.owner = <void *>parcel
        self.held[parcel] = slot
        pthread_mutex_lock(&self.lock)
        append(self, job)
        needed = min(worth(self), self.busy + self.queued)
        if self.busy < needed:
            wake(self)
        pthread_mutex_unlock(&self.lock)
        return parcel, needed

    def wait(self, Parcel parcel):
        cdef int state
        while True:
            with nogil:
                state = arrival(self, &parcel.job)
            if state >= HERE:
                break
            try:
                PyErr_CheckSignals()
            except BaseException:
                self.forget(parcel)
                raise
        self.held.pop(parcel, None)
        if state != HERE:
            return None
        target, parcel.target = parcel.target, None
        return target

    def forget(self, Parcel parcel):
        if parcel in self.held:
            self.held[parcel] = None
        self.sweep(parcel)

    def close(self):
        pthread_mutex_lock(&self.lock)
        self.closed = True
        while wake(self):
            pass
        pthread_mutex_unlock(&self.lock)

    # --- for couriers ---

    def serve(self, int descriptor, Stamp stamp, double slow):
        cdef Line line
        cdef Job *job = NULL
        cdef char key[1024]
        cdef size_t key_size = 0, size = 0
        cdef double seconds = 0.0
        cdef int why
        line.descriptor = descriptor
        line.armed = -1.0
        line.ends = False
        with nogil:
            why = serve_line(self, &line, &stamp.recipe, slow, &job, key, &key_size, &size, &seconds)
        for parcel in [parcel for parcel, slot in self.held.items() if slot is None]:
            self.sweep(parcel)  # what was forgotten while it flew
        if why == SLOW:
            return why, not line.ends, (key[:key_size], size, seconds)
        if why == FAILED:
            return why, False, self.lose(<Parcel>job.owner)
        return why, not line.ends, None

    def take(self):
        cdef Job *job
        pthread_mutex_lock(&self.lock)
        job = self.first
        if job != NULL:
            unlink(self, job)
            job.state = FLIES
            self.busy += 1
        pthread_mutex_unlock(&self.lock)
        return self.lose(<Parcel>job.owner) if job != NULL else None

    @property
    def waiting(self):
        return self.queued

    @property
    def needed(self):
        return min(worth(self), self.busy + self.queued)

    cdef lose(self, Parcel parcel):
        """Hand a parcel that flies over to the ordinary way: what was left with it, None when it was forgotten."""
        slot = self.held.pop(parcel, None)
        pthread_mutex_lock(&self.lock)
        parcel.job.state = LOST
        self.busy -= 1
        if parcel.job.awaited:
            pthread_cond_broadcast(&self.arrived)
        pthread_mutex_unlock(&self.lock)
        return slot

    cdef sweep(self, Parcel parcel):
        """Let go of a parcel that was forgotten, unless it flies."""
        cdef bint flies
        pthread_mutex_lock(&self.lock)
        if parcel.job.state == WAITS:  # also for the second time, after its connection had ended
            unlink(self, &parcel.job)
            parcel.job.state = LOST
        flies = parcel.job.state == FLIES
        pthread_mutex_unlock(&self.lock)
        if not flies:
            self.held.pop(parcel, None)


cdef void append(Parcels parcels, Job *job) noexcept nogil:
    job.state = WAITS
    job.after = NULL
    job.before = parcels.last
    if parcels.last != NULL:
        parcels.last.after = job
    else:
        parcels.first = job
    parcels.last = job
    parcels.queued += 1


cdef void put_first(Parcels parcels, Job *job) noexcept nogil:
    job.state = WAITS
    job.before = NULL
    job.after = parcels.first
    if parcels.first != NULL:
        parcels.first.before = job
    else:
        parcels.last = job
    parcels.first = job
    parcels.queued += 1


cdef void unlink(Parcels parcels, Job *job) noexcept nogil:
    if job.before != NULL:
        job.before.after = job.after
    else:
        parcels.first = job.after
    if job.after != NULL:
        job.after.before = job.before
    else:
        parcels.last = job.before
    parcels.queued -= 1


cdef inline int worth(Parcels parcels) noexcept nogil:
    """How many couriers may be at work."""
    cdef int count
    count = <int>(parcels.usual / EACH) + 1
    return min(parcels.most, max(count, <int>FEWEST if parcels.usual else <int>AT_FIRST))


cdef inline bint wake(Parcels parcels) noexcept nogil:
    cdef Idler *idler = parcels.idlers
    if idler == NULL:
        return False
    parcels.idlers = idler.next
    parcels.busy += 1  # in its name, so that nobody else is woken for the same parcel
    idler.woken = True
    pthread_cond_signal(&idler.wake)
    return True


cdef int arrival(Parcels parcels, Job *job) noexcept nogil:
    """The state of a job once it is settled, or after a while."""
    cdef timespec until
    cdef int state
    pthread_mutex_lock(&parcels.lock)
    if job.state < HERE:
        job.awaited = True
        until = moment_in(GLANCE)
        while job.state < HERE:
            if pthread_cond_timedwait(&parcels.arrived, &parcels.lock, &until):
                break
        job.awaited = False
    state = job.state
    pthread_mutex_unlock(&parcels.lock)
    return state


cdef Job *next_job(Parcels parcels, double until, int *why) noexcept nogil:
    """`lock` is held, and `busy` counts who asks; NULL, and it does not any more, when it has to go, as `why` says."""
    cdef Idler idler
    cdef Job *job
    while True:
        job = parcels.first
        if job != NULL and parcels.busy <= worth(parcels):
            if now() >= until:
                why[0] = STALE
                break
            unlink(parcels, job)
            job.state = FLIES
            return job
        if parcels.closed:  # what is left is fetched by who is at work: nobody would wake this one
            why[0] = ENDED
            break
        parcels.busy -= 1
        begin_condition(&idler.wake)
        idler.woken = False
        idler.next = parcels.idlers
        parcels.idlers = &idler
        while not idler.woken:
            pthread_cond_wait(&idler.wake, &parcels.lock)
        pthread_cond_destroy(&idler.wake)
    parcels.busy -= 1
    return NULL


cdef int serve_line(
    Parcels parcels, Line *line, Recipe *recipe, double slow, Job **failed, char *key, size_t *key_size, size_t *size,
    double *seconds,
) noexcept nogil:
    cdef Job *job
    cdef int outcome, why = ENDED
    cdef double began
    pthread_mutex_lock(&parcels.lock)
    parcels.busy += 1
    while True:
        job = next_job(parcels, recipe.until, &why)
        if job == NULL:
            break
        job.tries += 1
        pthread_mutex_unlock(&parcels.lock)
        began = now()
        outcome = get(line, recipe, &job.wanted, job.target)
        seconds[0] = now() - began
        if outcome != GOT and (outcome != AGAIN or job.tries >= TRIES):
            failed[0] = job
            return FAILED  # still counted as busy, until it was handed over
        if seconds[0] >= slow:
            key_size[0] = min(job.wanted.key_size, <size_t>1024)
            memcpy(key, job.wanted.key, key_size[0])
            size[0] = job.wanted.size
        pthread_mutex_lock(&parcels.lock)
        if outcome == AGAIN:
            put_first(parcels, job)
            parcels.busy -= 1
            why = CLOSED
            break
        parcels.gets += 1
        parcels.usual = seconds[0] if seconds[0] < parcels.usual or parcels.usual == 0.0 else (
            parcels.usual + (seconds[0] - parcels.usual) / RISE
        )
        job.state = HERE
        if job.awaited:
            pthread_cond_broadcast(&parcels.arrived)
        if parcels.first != NULL and parcels.busy < worth(parcels) and not wake(parcels) and parcels.hired < worth(parcels):
            parcels.busy -= 1
            why = SHORT
            break
        if seconds[0] >= slow or line.ends:
            parcels.busy -= 1
            why = SLOW if seconds[0] >= slow else CLOSED
            break
    pthread_mutex_unlock(&parcels.lock)
    return why
