"""Files that are read here: opens, reads and the GETs they wait for; see fetches.pyx."""

from libc.stdint cimport int64_t, uint64_t

from csi.fuse.native.tables cimport Inode, Job, Plan, Tables, Waiter
from csi.fuse.native.wire cimport InHeader
from csi.oss.getting cimport Line, Recipe

cdef enum:
    ENDED = 0
    CLOSED = 1
    STALE = 2
    IDLE = 3
    FAILED = 4

# without `lock`

cdef bint read_planned(Tables* tables, int descriptor, InHeader* header) noexcept nogil
cdef bint interrupt_read(Tables* tables, uint64_t unique) noexcept nogil
cdef int serve_line(Tables* tables, Line* line, Recipe* recipe, double idle, Waiter** failed) noexcept nogil
cdef int wait_for_want(Tables* tables, double patience) noexcept nogil
cdef Waiter* refuse_waiting(Tables* tables) noexcept nogil
cdef void stop_fetching(Tables* tables) noexcept nogil
cdef void tidy(Tables* tables, int64_t older) noexcept nogil

# with `lock`

cdef bint plan(
    Inode* inode, const char* key, size_t key_size, const char* etag, size_t etag_size, size_t size, int64_t until, int keeps,
    bint opened
) noexcept nogil
cdef Plan* make_plan(
    const char* key, size_t key_size, const char* etag, size_t etag_size, uint64_t size
) noexcept nogil
cdef Job* make_range(Tables* tables, Plan* plan, uint64_t begin, size_t size) noexcept nogil
cdef bint await_job(Tables* tables, Job* job, InHeader* header) noexcept nogil
cdef bint ask_ahead(Tables* tables, Inode* inode, int64_t now) noexcept nogil
cdef bint is_fetching(Tables* tables) noexcept nogil
cdef bint may_open(Tables* tables, Plan* plan, int64_t now) noexcept nogil
cdef void end_open(Tables* tables, Plan* plan) noexcept nogil
cdef void drop_unread(Tables* tables, Plan* plan) noexcept nogil

# by the last user

cdef void end_fetching(Tables* tables) noexcept nogil
