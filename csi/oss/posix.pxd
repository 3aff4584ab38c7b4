"""What modules in Cython call of the C library, beside what Cython knows of it."""

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void**, size_t, size_t)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    ssize_t writev(int, const iovec*, int)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC, CLOCK_REALTIME
    int clock_gettime(int, timespec*)
    int nanosleep(const timespec*, timespec*)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct pthread_condattr_t:
        pass
    ctypedef unsigned long pthread_t
    pthread_t pthread_self()
    int pthread_kill(pthread_t, int)
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_cond_init(pthread_cond_t*, pthread_condattr_t*)
    int pthread_cond_destroy(pthread_cond_t*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_broadcast(pthread_cond_t*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)
    int pthread_cond_timedwait(pthread_cond_t*, pthread_mutex_t*, const timespec*)
    int pthread_condattr_init(pthread_condattr_t*)
    int pthread_condattr_destroy(pthread_condattr_t*)
    int pthread_condattr_setclock(pthread_condattr_t*, int)


cdef inline timespec moment_in(double seconds) noexcept nogil:
    """That many seconds from now, for a condition of `begin_condition`."""
    cdef timespec moment
    cdef long nanoseconds
    clock_gettime(CLOCK_MONOTONIC, &moment)
    nanoseconds = moment.tv_nsec + <long>(seconds % 1.0 * 1e9)
    moment.tv_sec += <long>seconds + nanoseconds // 1000000000
    moment.tv_nsec = nanoseconds % 1000000000
    return moment


cdef inline void begin_condition(pthread_cond_t* condition) noexcept nogil:
    """Whose waits end by the steady clock."""
    cdef pthread_condattr_t attributes
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
