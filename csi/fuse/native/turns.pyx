# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Who of the device's threads reads: as few as keep up with the requests, at most about as many as processors do.

The kernel wakes exactly one of those that wait in read(2) for a request, which costs less than handing requests over;
but it wakes them one after the other, so that each finds its memory and its processor cold. So there is one turn at
first. Who comes back from a request that took a while, or from many that did not, looks whether others came in
meanwhile (`look_round`). When there always are, one more reads, up to half of what there may be: more than processors
are of use only to threads that stay in Python. When there never are, one less does.

A thread keeps its turn while it calls Python, which is a matter of microseconds when nobody else holds the
interpreter's lock. When all turns are with threads that have been in Python for longer than PATIENCE while requests
wait, `keep_watch` adds one, or takes one away and gives it to another thread, so that requests which need no Python
never wait for it, whatever happens there. For a while after that, who would be the last reader gives its turn up before
it calls Python. As long as anybody reads, nothing is handed over: a request whose bytes were just read is best dealt
with where they are in the cache.

`gate` guards everything; it is never held across a system call that waits or while the interpreter's lock is taken.
"""

from libc.string cimport memset

from csi.fuse.native.posix cimport (
    nanosleep, pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_wait,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, timespec,
)
from csi.fuse.native.tables cimport monotonic

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
    WARY = 16  # calls of Python before which the last reader gives its turn up, after all were held up
    PRESSED = 4  # looks in a row that find requests waiting before there is one reader more
    CALM = 16  # looks in a row that find none before there is one less


cdef void begin_turns(Turns* turns, int count) noexcept nogil:
    memset(turns, 0, sizeof(Turns))
    pthread_mutex_init(&turns.gate, NULL)
    pthread_cond_init(&turns.free, NULL)
    pthread_cond_init(&turns.python_called, NULL)
    turns.count = 1 if count < 1 else MOST_TURNS if count > MOST_TURNS else count
    turns.allowed = 1


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


cdef void take_turn(Turns* turns, Place* place) noexcept nogil:
    """Wait for a turn; without one at the end."""
    cdef int at
    pthread_mutex_lock(&turns.gate)
    while not turns.over:
        at = free_turn(turns)
        if at >= 0:
            turns.taken += 1
            turns.all[at].owner = turns.taken
            place.turn = at
            place.owner = turns.taken
            break
        turns.waiting += 1
        pthread_cond_wait(&turns.free, &turns.gate)
        turns.waiting -= 1
    pthread_mutex_unlock(&turns.gate)


cdef void enter_python(Turns* turns, Place* place) noexcept nogil:
    """A request that needs Python was read."""
    pthread_mutex_lock(&turns.gate)
    turns.calls += 1
    if not holds(turns, place):
        place.owner = 0
    elif turns.wary and turns.waiting and not is_read_by_others(turns, place.turn):
        turns.wary -= 1
        give_up(turns, place)
    else:
        turns.all[place.turn].in_python = monotonic()
        if not turns.watching:
            pthread_cond_signal(&turns.python_called)
    pthread_mutex_unlock(&turns.gate)


cdef void look_round(Turns* turns, Place* place, int descriptor, bint told) noexcept nogil:
    """A thread that has a turn has done something that took a while, or many that did not; perhaps without one at the
    end. `told`: long enough ago for who asked to have asked for more, which says nothing."""
    cdef bint more
    if turns.count == 1:
        return
    more = has_more(descriptor, 0)
    pthread_mutex_lock(&turns.gate)
    if more and not told:
        turns.calm = 0
        turns.pressed += 1
        if turns.pressed >= PRESSED and turns.waiting and 2 * turns.allowed < turns.count:
            turns.pressed = 0
            allow_more(turns)
    elif not more:
        turns.pressed = 0
        turns.calm += 1
        if turns.calm >= CALM and holds(turns, place) and is_read_by_others(turns, place.turn):
            turns.calm = 0
            turns.allowed -= 1
            turns.all[place.turn].owner = 0
            place.owner = 0
    pthread_mutex_unlock(&turns.gate)


cdef void wait_elsewhere(Turns* turns, Place* place) noexcept nogil:
    """A thread that is in Python is going to wait there: it is not to be the last reader."""
    pthread_mutex_lock(&turns.gate)
    if holds(turns, place) and turns.waiting and not is_read_by_others(turns, place.turn):
        if not allow_more(turns):
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
    cdef int quiet = 0, at, taken, inside, held_up
    cdef bint called, more = False
    cdef int64_t now
    tick.tv_sec = 0
    pthread_mutex_lock(&turns.gate)
    while not turns.over:
        called = False
        taken = inside = held_up = 0
        now = monotonic()
        for at in range(turns.count):
            taken += turns.all[at].owner != 0
            if turns.all[at].in_python:
                called = True
                inside += 1
                held_up += now - turns.all[at].in_python >= PATIENCE
        if more and turns.waiting and held_up == taken:
            if not allow_more(turns):
                turns.all[0].owner = 0
                turns.all[0].in_python = 0
                turns.deposed += 1
                pthread_cond_signal(&turns.free)
            turns.wary = WARY
        quiet = quiet + 1 if turns.calls == calls else 0
        calls = turns.calls
        if quiet >= QUIET and not called:
            turns.watching = False
            pthread_cond_wait(&turns.python_called, &turns.gate)
            quiet = 0
        turns.watching = True
        pthread_mutex_unlock(&turns.gate)
        tick.tv_nsec = PATIENCE if inside == taken else 2 * PATIENCE
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


cdef int free_turn(Turns* turns) noexcept nogil:
    """-1: there is none, or those there are, are enough."""
    cdef int at, found = -1, taken = 0
    for at in range(turns.count):
        if turns.all[at].owner:
            taken += 1
        elif found < 0:
            found = at
    return found if taken < turns.allowed else -1


cdef bint allow_more(Turns* turns) noexcept nogil:
    """Have one more read; False: there are no more turns."""
    if turns.allowed == turns.count:
        return False
    turns.allowed += 1
    pthread_cond_signal(&turns.free)
    return True


cdef void give_up(Turns* turns, Place* place) noexcept nogil:
    turns.all[place.turn].owner = 0
    turns.all[place.turn].in_python = 0
    place.owner = 0
    pthread_cond_signal(&turns.free)


cdef bint is_read_by_others(Turns* turns, int turn) noexcept nogil:
    """Whether somebody else reads, or is about to."""
    cdef int at, taken = 0
    for at in range(turns.count):
        if turns.all[at].owner:
            taken += 1
            if at != turn and turns.all[at].in_python == 0:
                return True
    return turns.waiting > 0 and taken < turns.allowed
