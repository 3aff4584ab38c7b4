# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Who of the device's threads reads: a few at a time, some for each processor.

The kernel wakes exactly one of those that wait in read(2) for a request, which costs less than handing requests over.
Each has a turn, and keeps it while it calls Python, which is a matter of microseconds when nobody else holds the
interpreter's lock. When all turns are with threads that have been in Python for longer than PATIENCE while requests
wait, `keep_watch` takes one away and gives it to another thread, so that requests which need no Python never wait for
it, whatever happens there. For a while after that, who would be the last reader gives its turn up before it calls
Python. As long as anybody reads, nothing is handed over: a request whose bytes were just read is best dealt with where
they are in the cache.

There are many turns while Python is called, and few while it is not: then whoever reads is soon back, and a thread less
is a switch less. They are twice as many while large answers are given: a switch is little beside one of those, and
where other threads compute, the processors are shared out by the thread. Few while large requests come, which are
writes, for each thread brings a buffer of its own into the cache; and one alone while none of them comes before the last
was dealt with. Half of the few while names and attributes are asked for by a crowd, the next before the last is
answered: who reads never sleeps then, and others would only be woken for what it is about to read. Who comes back with
a turn that there is not any more gives it up.

`gate` guards everything; it is never held across a system call that waits or while the interpreter's lock is taken.
"""

from libc.string cimport memset

from csi.fuse.native.tables cimport monotonic, ossfuse_add, ossfuse_load, ossfuse_store
from csi.oss.posix cimport (
    nanosleep, pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_wait,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, timespec,
)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd*, unsigned long, int)
    short POLLIN

cdef enum:
    PATIENCE = 500000  # nanoseconds in Python before another thread gets the turn
    QUIET = 40  # ticks of the watch without a call of Python before it sleeps
    MANY = 32  # for all turns
    MOST_SCORE = 64
    LARGE = -64  # weight of a large request
    ALONE = 8  # large requests in a row for a single turn
    BULK = 8  # weight of large answers for twice the turns
    MOST_BULK = 32
    LARGE_ANSWER = 2  # half of the requests may be small ones: a read of memory that begins within a page makes two
    CROWD = 64  # score of glances for half of the few turns, until it is 0 again
    FOLLOWED = 2  # weight of a glance that saw the next request
    LEFT_ALONE = -3  # of one that did not: three in five must see one, and a single program's FORGETs make it two
    LEFT_ALONE_BY_CROWD = -18  # while the turns are half of the few: nine in ten must
    WARY = 16  # calls of Python before which the last reader gives its turn up, after all were held up


cdef void begin_turns(Turns* turns, int most, int fewest) noexcept nogil:
    memset(turns, 0, sizeof(Turns))
    pthread_mutex_init(&turns.gate, NULL)
    pthread_cond_init(&turns.free, NULL)
    pthread_cond_init(&turns.python_called, NULL)
    turns.most = turns.count = min(max(most, 1), <int>MOST_TURNS)
    turns.fewest = min(max(fewest, 1), turns.most)
    turns.score = MANY


cdef void free_turns(Turns* turns) noexcept nogil:
    pthread_cond_destroy(&turns.python_called)
    pthread_cond_destroy(&turns.free)
    pthread_mutex_destroy(&turns.gate)


cdef void come_back(Turns* turns, Place* place) noexcept nogil:
    """A thread is back from Python, perhaps without the turn that it had."""
    pthread_mutex_lock(&turns.gate)
    if holds(turns, place):
        turns.all[place.turn].in_python = 0
    else:
        place.owner = 0
    pthread_mutex_unlock(&turns.gate)


cdef void heed(Turns* turns, int weight, bint large_answer) noexcept nogil:
    """A request was dealt with that speaks for many readers, or (less than 0) for few."""
    cdef int bulk = ossfuse_load(&turns.bulk)
    if ossfuse_load(&turns.alone):
        ossfuse_store(&turns.alone, 0)
    if large_answer and bulk < MOST_BULK:
        ossfuse_add(&turns.bulk, LARGE_ANSWER)
    elif not large_answer and bulk > 0:
        ossfuse_add(&turns.bulk, -1)
    add_up(turns, weight)


cdef void glance(Turns* turns, bint more) noexcept nogil:
    """A name or attributes were answered; `more`: the next request waits already."""
    cdef bint few = ossfuse_load(&turns.count) >= turns.fewest
    cdef int crowd = ossfuse_load(&turns.crowd)
    crowd += FOLLOWED if more else (LEFT_ALONE if few else LEFT_ALONE_BY_CROWD)
    ossfuse_store(&turns.crowd, min(max(crowd, 0), <int>CROWD))


cdef void disperse(Turns* turns) noexcept nogil:
    """Something else than names and attributes was asked for."""
    if ossfuse_load(&turns.crowd):
        ossfuse_store(&turns.crowd, 0)


cdef void heed_large(Turns* turns, bint alone) noexcept nogil:
    """A large request was dealt with; `alone`: no other waits."""
    disperse(turns)
    if ossfuse_load(&turns.bulk):
        ossfuse_store(&turns.bulk, 0)
    if not alone:
        ossfuse_store(&turns.alone, 0)
    elif ossfuse_load(&turns.alone) < ALONE:
        ossfuse_add(&turns.alone, 1)
    add_up(turns, LARGE)


cdef void add_up(Turns* turns, int weight) noexcept nogil:
    cdef int score = ossfuse_load(&turns.score)
    if score < MOST_SCORE if weight > 0 else score > 0:
        ossfuse_add(&turns.score, weight)
    if ossfuse_load(&turns.count) != worth(turns):
        pthread_mutex_lock(&turns.gate)
        ossfuse_store(&turns.count, worth(turns))
        pthread_cond_broadcast(&turns.free)
        pthread_mutex_unlock(&turns.gate)


cdef inline int worth(Turns* turns) noexcept nogil:
    """How many turns there should be."""
    cdef int score = ossfuse_load(&turns.score), crowd = ossfuse_load(&turns.crowd), count = ossfuse_load(&turns.count)
    if score >= MANY:
        return turns.most
    if score > 0:
        return count
    if ossfuse_load(&turns.alone) >= ALONE:
        return 1
    if crowd >= CROWD or (crowd > 0 and count < turns.fewest):
        return max(turns.fewest // 2, 1)
    return turns.fewest if ossfuse_load(&turns.bulk) < BULK else min(2 * turns.fewest, turns.most)


cdef bint is_retired(Turns* turns, Place* place) noexcept nogil:
    """Whether a thread that has a turn should give it up rather than read."""
    return place.owner != 0 and place.turn >= ossfuse_load(&turns.count)


cdef void take_turn(Turns* turns, Place* place) noexcept nogil:
    """Wait for a turn; without one at the end."""
    cdef int at
    pthread_mutex_lock(&turns.gate)
    while not turns.over:
        for at in range(turns.count):
            if turns.all[at].owner == 0:
                turns.taken += 1
                turns.all[at].owner = turns.taken
                place.turn = at
                place.owner = turns.taken
                pthread_mutex_unlock(&turns.gate)
                return
        turns.waiting += 1
        pthread_cond_wait(&turns.free, &turns.gate)
        turns.waiting -= 1
    pthread_mutex_unlock(&turns.gate)


cdef void enter_python(Turns* turns, Place* place) noexcept nogil:
    """A request that needs Python was read."""
    pthread_mutex_lock(&turns.gate)
    turns.calls += 1
    if turns.wary and turns.waiting and not is_read_by_others(turns, place.turn):
        turns.wary -= 1
        give_up(turns, place)
    else:
        turns.all[place.turn].in_python = monotonic()
        if not turns.watching:
            pthread_cond_signal(&turns.python_called)
    pthread_mutex_unlock(&turns.gate)


cdef void wait_elsewhere(Turns* turns, Place* place) noexcept nogil:
    """A thread that is in Python is going to wait there: it is not to be the last reader."""
    pthread_mutex_lock(&turns.gate)
    if holds(turns, place) and turns.waiting and not is_read_by_others(turns, place.turn):
        give_up(turns, place)
    pthread_mutex_unlock(&turns.gate)


cdef void leave_turns(Turns* turns, Place* place) noexcept nogil:
    """A thread ends."""
    pthread_mutex_lock(&turns.gate)
    if holds(turns, place):
        give_up(turns, place)
    pthread_mutex_unlock(&turns.gate)


cdef void end_turns(Turns* turns) noexcept nogil:
    """Nobody waits for a turn any more, and the watch ends."""
    pthread_mutex_lock(&turns.gate)
    turns.over = True
    pthread_cond_broadcast(&turns.free)
    pthread_cond_broadcast(&turns.python_called)
    pthread_mutex_unlock(&turns.gate)


cdef void keep_watch(Turns* turns, int descriptor) noexcept nogil:
    """Until `end_turns`: no request waits for threads that stay in Python."""
    cdef timespec tick
    cdef uint64_t calls = 0
    cdef int quiet = 0, at, inside, held_up
    cdef bint called, more = False
    cdef int64_t now
    tick.tv_sec = 0
    pthread_mutex_lock(&turns.gate)
    while not turns.over:
        called = False
        inside = held_up = 0
        now = monotonic()
        for at in range(turns.count):
            if turns.all[at].in_python:
                called = True
                inside += 1
                held_up += now - turns.all[at].in_python >= PATIENCE
        if more and turns.waiting and held_up == turns.count:
            turns.all[0].owner = 0
            turns.all[0].in_python = 0
            turns.deposed += 1
            turns.wary = WARY
            pthread_cond_signal(&turns.free)
        quiet = quiet + 1 if turns.calls == calls else 0
        calls = turns.calls
        if quiet >= QUIET and not called:
            turns.watching = False
            pthread_cond_wait(&turns.python_called, &turns.gate)
            quiet = 0
        turns.watching = True
        pthread_mutex_unlock(&turns.gate)
        tick.tv_nsec = PATIENCE if inside == turns.count else 2 * PATIENCE
        nanosleep(&tick, NULL)
        more = called and has_more(descriptor, 0)
        pthread_mutex_lock(&turns.gate)
    turns.watching = False
    pthread_mutex_unlock(&turns.gate)


cdef bint has_more(int descriptor, int milliseconds) noexcept nogil:
    """Whether requests wait to be read, or one comes in time."""
    cdef pollfd asked
    asked.fd = descriptor
    asked.events = POLLIN
    return poll(&asked, 1, milliseconds) > 0


# --- with `gate` ---


cdef bint holds(Turns* turns, Place* place) noexcept nogil:
    return place.owner != 0 and turns.all[place.turn].owner == place.owner


cdef void give_up(Turns* turns, Place* place) noexcept nogil:
    turns.all[place.turn].owner = 0
    turns.all[place.turn].in_python = 0
    place.owner = 0
    pthread_cond_signal(&turns.free)


cdef bint is_read_by_others(Turns* turns, int turn) noexcept nogil:
    """Whether somebody else reads, or is about to."""
    cdef int at
    for at in range(turns.count):
        if at != turn and turns.all[at].in_python == 0:
            return True
    return False
