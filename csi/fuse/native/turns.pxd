"""Who of the device's threads reads; see turns.pyx."""

from libc.stdint cimport int64_t, uint64_t

from csi.oss.posix cimport pthread_cond_t, pthread_mutex_t

cdef enum:
    MOST_TURNS = 16


cdef struct Turn:
    uint64_t owner  # a number for each time it was taken; 0: free
    int64_t in_python  # since when its owner is; 0: it is not


cdef struct Place:
    # where a thread is: its turn, and the number it took it with, 0 without one
    int turn
    uint64_t owner


cdef struct Turns:
    pthread_mutex_t gate
    pthread_cond_t free
    pthread_cond_t python_called
    Turn all[MOST_TURNS]
    int count  # of turns there are now
    int most
    int fewest
    int score  # what the latest requests speak for
    int alone  # large requests in a row that none followed while they were dealt with
    int crowd  # how much the latest glances saw of other requests
    int bulk  # what the latest answers weigh
    uint64_t taken
    int waiting
    uint64_t calls  # of Python
    uint64_t deposed
    int wary
    bint watching
    bint over


cdef void begin_turns(Turns* turns, int most, int fewest) noexcept nogil
cdef void free_turns(Turns* turns) noexcept nogil
cdef void come_back(Turns* turns, Place* place) noexcept nogil
cdef void heed(Turns* turns, int weight, bint large_answer) noexcept nogil
cdef void glance(Turns* turns, bint more) noexcept nogil
cdef void disperse(Turns* turns) noexcept nogil
cdef void heed_large(Turns* turns, bint alone) noexcept nogil
cdef bint is_retired(Turns* turns, Place* place) noexcept nogil
cdef void take_turn(Turns* turns, Place* place) noexcept nogil
cdef void enter_python(Turns* turns, Place* place) noexcept nogil
cdef void wait_elsewhere(Turns* turns, Place* place) noexcept nogil
cdef void leave_turns(Turns* turns, Place* place) noexcept nogil
cdef void end_turns(Turns* turns) noexcept nogil
cdef void keep_watch(Turns* turns, int descriptor) noexcept nogil
cdef bint has_more(int descriptor, int milliseconds) noexcept nogil
