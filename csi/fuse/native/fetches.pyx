# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Small files read without the interpreter: a READ becomes a job, a courier fetches the object, and its answer is written
from where it was received.

A plan says which version of which object a file is. What reads it asks for the whole object, once: whoever comes while
the GET is under way waits for the same job, and its bytes are there until each was read once. Jobs may be made ahead of
a reader; those wait behind the others. A courier is a thread with a connection (`csi/data/couriers.py`), woken with a
job in hand, the one that worked last first. What goes wrong in any way gives the READs of the job to the filesystem,
which makes the request again and knows what to say.

Everything is guarded by the tables' `lock`, which is not held while a courier fetches or an answer is written; `uses`
keeps a job's bytes meanwhile. Buffers are taken from `reserve` bytes; jobs that nobody has read yet give theirs up when
there is need, the oldest first. Messages are copied: who reads the device goes on at once.
"""

from libc.errno cimport EINTR, EIO
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from csi.fuse.native.sending cimport send
from csi.fuse.native.tables cimport (
    CLASSES, LIGHT, Idler, Inode, Job, Jobs, Plan, Tables, Waiter, find, leave_plan, monotonic, note,
)
from csi.fuse.native.wire cimport InHeader, ReadIn
from csi.oss.getting cimport AGAIN, GOT, Line, Recipe, Wanted, get
from csi.oss.posix cimport (
    begin_condition, moment_in, nanosleep, posix_memalign, pthread_cond_broadcast, pthread_cond_destroy,
    pthread_cond_signal, pthread_cond_timedwait, pthread_mutex_lock, pthread_mutex_unlock, timespec,
)
from csi.oss.wire cimport now as seconds

cdef enum:
    NEW = 0
    ASKED = 1
    FLYING = 2
    HERE = 3

cdef enum:
    MESSAGE = 80  # sizeof(InHeader) + sizeof(ReadIn)
    SMALLEST = 14  # bits: 16 KiB
    MOST_JOBS = 4096
    TRIES = 3
    MISSES = 4
    PAUSE = 20000  # nanoseconds

cdef int64_t WORTH_AHEAD = 4000000  # nanoseconds of a GET: one made ahead costs another thread and two switches
cdef int64_t RECOVERY = 5000000000
cdef int64_t PATIENCE = 1000000000  # of who was interrupted
cdef double MOMENT = 0.002  # seconds


# --- plans; `lock` is held ---


cdef bint plan(
    Inode* inode, const char* key, size_t key_size, const char* etag, size_t etag_size, size_t size, int64_t until, int keeps,
    bint opened
) noexcept nogil:
    """Let `inode` be opened until `until` by a plan; False without memory, and when the plan it has is of another
    version."""
    if inode.plan == NULL:
        inode.plan = make_plan(key, key_size, etag, etag_size, size)
        if inode.plan == NULL:
            return False
    elif inode.plan.size != size or inode.plan.etag_size != etag_size or memcmp(inode.plan.etag, etag, etag_size):
        return False
    inode.plan.until = until
    inode.plan.keeps = keeps
    inode.plan.opened = inode.plan.opened or opened
    return True


cdef Plan* make_plan(
    const char* key, size_t key_size, const char* etag, size_t etag_size, uint64_t size
) noexcept nogil:
    """One that allows nothing yet; NULL without memory."""
    cdef Plan* made = <Plan*>malloc(sizeof(Plan) + key_size + etag_size)
    if made == NULL:
        return NULL
    memset(made, 0, sizeof(Plan))
    made.holders = 1
    made.slot = -1
    made.size = size
    made.key_size = key_size
    made.etag_size = etag_size
    made.key = <char*>made + sizeof(Plan)
    made.etag = made.key + key_size
    memcpy(made.key, key, key_size)
    memcpy(made.etag, etag, etag_size)
    return made


cdef void end_open(Tables* tables, Plan* plan) noexcept nogil:
    """RELEASE of an open that was answered here."""
    plan.opens -= 1
    tables.opens -= 1
    if plan.opens == 0:
        drop_read(tables, plan.job)


cdef void drop_read(Tables* tables, Job* job) noexcept nogil:
    """Nobody has the file open: bytes that were read are not wanted any more."""
    if job != NULL and job.state == HERE and job.served and job.uses == 0:
        drop_job(tables, job)


cdef void drop_unread(Tables* tables, Plan* plan) noexcept nogil:
    """The file is not read here any more: bytes that are there are of no use."""
    if plan.job != NULL and plan.job.state == HERE and plan.job.uses == 0:
        drop_job(tables, plan.job)


# --- reads ---


cdef bint read_planned(Tables* tables, int descriptor, InHeader* header) noexcept nogil:
    """READ of a handle that was given out here: answered now, or by a courier. False: for the filesystem."""
    cdef ReadIn* asked = <ReadIn*>(<char*>header + sizeof(InHeader))
    cdef Inode* inode
    cdef Plan* plan
    cdef Job* job
    cdef bint waits
    pthread_mutex_lock(&tables.lock)
    inode = <Inode*>find(&tables.inodes, header.node)
    plan = inode.plan if inode != NULL else NULL
    if plan == NULL or plan.opens == 0 or asked.handle != (LIGHT | header.node) or not is_fetching(tables):
        pthread_mutex_unlock(&tables.lock)
        return False
    tables.fetching.descriptor = descriptor
    if asked.offset >= plan.size:
        pthread_mutex_unlock(&tables.lock)
        send(descriptor, header.unique, 0, NULL, 0)
        return True
    if asked.offset == 0 and tables.fetching.quickest >= WORTH_AHEAD:
        note(tables, asked.handle, 0, plan.size)
    job = plan.job
    if job != NULL:
        come_for(tables, job)
    if job != NULL and job.state == HERE:
        tables.answered[3] += 1
        job.uses += 1
        pthread_mutex_unlock(&tables.lock)
        give(tables, job, header)
        return True
    if job == NULL:
        job = make_job(tables, plan)
    waits = job != NULL and await_job(tables, job, header)
    pthread_mutex_unlock(&tables.lock)
    return waits


cdef bint await_job(Tables* tables, Job* job, InHeader* header) noexcept nogil:
    """Answer a READ when its job has its bytes; with `lock`. False without memory, and one that nobody waits for is gone
    then."""
    cdef Waiter* waiter = <Waiter*>malloc(sizeof(Waiter))
    cdef Waiter** at = &job.waiters
    if waiter == NULL:
        if job.state == NEW:
            drop_job(tables, job)
        return False
    waiter.next = NULL
    waiter.interrupted = 0
    memcpy(waiter.message, header, MESSAGE)
    while at[0] != NULL:
        at = &at[0].next
    at[0] = waiter
    tables.answered[3] += 1
    if not job.urgent:
        job.urgent = True
        if job.state == ASKED:
            take_out(&tables.fetching.ahead, job)
        if job.state == ASKED or job.state == NEW:
            hand_out(tables, job)
    return True


cdef void give(Tables* tables, Job* job, InHeader* header) noexcept nogil:
    """Answer a READ from a job's bytes, one of whose uses is the caller's; without `lock`."""
    cdef ReadIn* asked = <ReadIn*>(<char*>header + sizeof(InHeader))
    cdef size_t left = job.begin + job.size - asked.offset
    cdef size_t size = asked.size if asked.size < left else left
    cdef bint open_for_answers = begin_sending(tables)
    if open_for_answers:
        send(tables.fetching.descriptor, header.unique, 0, job.body + (asked.offset - job.begin), size)
    pthread_mutex_lock(&tables.lock)
    if open_for_answers:
        tables.fetching.sending -= 1
    job.uses -= 1
    job.served += size
    if job.uses == 0 and (job.served >= job.size or not job.found or (job.plan.opens == 0 and job.waiters == NULL)):
        drop_job(tables, job)
    pthread_mutex_unlock(&tables.lock)


cdef bint interrupt_read(Tables* tables, uint64_t unique) noexcept nogil:
    """INTERRUPT of a READ that waits here: it is answered when it has been patient. False: there is no such READ."""
    cdef Job* job
    cdef Waiter* waiter
    cdef bint found = False
    pthread_mutex_lock(&tables.lock)
    job = tables.fetching.all
    while job != NULL and not found:
        waiter = job.waiters
        while waiter != NULL and not found:
            if (<InHeader*>waiter.message).unique == unique:
                found = True
                if waiter.interrupted == 0:
                    waiter.interrupted = monotonic()
                    tables.fetching.interrupted += 1
            waiter = waiter.next
        job = job.older
    pthread_mutex_unlock(&tables.lock)
    return found


# --- jobs; `lock` is held ---


cdef bint is_fetching(Tables* tables) noexcept nogil:
    return (
        tables.fetching.most > 0
        and not tables.fetching.stopped
        and (tables.fetching.paused == 0 or tables.fetching.paused <= monotonic())
    )


cdef int class_of(size_t size) noexcept nogil:
    """The class of the smallest buffer for `size` bytes; CLASSES: there is none."""
    cdef int found = 0
    while found < CLASSES and (<size_t>1 << (SMALLEST + found)) < size:
        found += 1
    return found


cdef Job* make_job(Tables* tables, Plan* plan) noexcept nogil:
    """`make_range` of the whole object, to be found by its plan."""
    cdef Job* made = make_range(tables, plan, 0, plan.size)
    if made != NULL:
        made.found = True
        plan.job = made
    return made


cdef Job* make_range(Tables* tables, Plan* plan, uint64_t begin, size_t size) noexcept nogil:
    """A job that is in no queue, not urgent; NULL when it is too large or there are too many."""
    cdef int room = class_of(size)
    cdef Job* made
    if room == CLASSES or (<size_t>1 << (SMALLEST + room)) > tables.fetching.reserve:
        return NULL
    if tables.fetching.count >= MOST_JOBS:
        return NULL
    made = <Job*>calloc(1, sizeof(Job))
    if made == NULL:
        return NULL
    made.plan = plan
    made.begin = begin
    made.size = size
    made.room = room
    plan.holders += 1
    made.older = tables.fetching.all
    if made.older != NULL:
        made.older.younger = made
    tables.fetching.all = made
    tables.fetching.count += 1
    return made


cdef void drop_job(Tables* tables, Job* job) noexcept nogil:
    """It is in no queue, and nobody uses or waits for it."""
    come_for(tables, job)
    if job.state == HERE:
        take_out(&tables.fetching.here, job)
        if job.served == 0:
            tables.fetching.unread += 1
    if job.found:
        job.plan.job = NULL
    leave_plan(job.plan)
    give_back(tables, job)
    if job.older != NULL:
        job.older.younger = job.younger
    if job.younger != NULL:
        job.younger.older = job.older
    else:
        tables.fetching.all = job.older
    tables.fetching.count -= 1
    free(job)


cdef inline void come_for(Tables* tables, Job* job) noexcept nogil:
    if job.early:
        job.early = False
        tables.fetching.early -= 1


cdef void put_last(Jobs* queue, Job* job) noexcept nogil:
    job.next = NULL
    job.last = queue.last
    if queue.last != NULL:
        queue.last.next = job
    else:
        queue.first = job
    queue.last = job
    queue.count += 1


cdef void put_first(Jobs* queue, Job* job) noexcept nogil:
    job.last = NULL
    job.next = queue.first
    if queue.first != NULL:
        queue.first.last = job
    else:
        queue.last = job
    queue.first = job
    queue.count += 1


cdef void take_out(Jobs* queue, Job* job) noexcept nogil:
    """Out of the queue it is in; nothing if it is in none."""
    if job.last == NULL and queue.first != job:
        return
    if job.last != NULL:
        job.last.next = job.next
    else:
        queue.first = job.next
    if job.next != NULL:
        job.next.last = job.last
    else:
        queue.last = job.last
    job.next = job.last = NULL
    queue.count -= 1


cdef void hand_out(Tables* tables, Job* job) noexcept nogil:
    """To a courier who waits, or to the queue, where one that is wanted finds it."""
    cdef Idler* idler = tables.fetching.idlers
    if idler != NULL:
        tables.fetching.idlers = idler.next
        idler.taken = True
        idler.job = job
        job.state = FLYING
        pthread_cond_signal(&idler.woken)
        return
    job.state = ASKED
    put_last(&tables.fetching.urgent if job.urgent else &tables.fetching.ahead, job)
    if tables.fetching.couriers < tables.fetching.most:
        pthread_cond_signal(&tables.fetching.wanted)


cdef Job* next_job(Tables* tables) noexcept nogil:
    cdef Job* job = tables.fetching.urgent.first
    if job != NULL:
        take_out(&tables.fetching.urgent, job)
    else:
        job = tables.fetching.ahead.first
        if job == NULL:
            return NULL
        take_out(&tables.fetching.ahead, job)
    job.state = FLYING  # in a courier's hands
    return job


cdef void put_back(Tables* tables, Job* job) noexcept nogil:
    """What `next_job` or `hand_out` gave: it is the next one again."""
    job.state = ASKED
    put_first(&tables.fetching.urgent if job.urgent else &tables.fetching.ahead, job)


cdef bint may_open(Tables* tables, Plan* plan, int64_t now) noexcept nogil:
    """Whether an open may be answered here."""
    return plan.until > now and is_fetching(tables)


cdef bint ask_ahead(Tables* tables, Inode* inode, int64_t now) noexcept nogil:
    """Fetch a file that will probably be opened; False when nothing more of this kind should be asked for now."""
    cdef Plan* plan = inode.plan
    cdef Job* job
    if not is_fetching(tables):
        return False
    if plan == NULL or plan.until <= now or plan.opened or plan.job != NULL or plan.size == 0:
        return True
    if (tables.fetching.early + 1) << (SMALLEST + class_of(plan.size)) > tables.fetching.reserve // 4:
        return False  # the rest is for who waits, and for who reads in parts
    job = make_job(tables, plan)
    if job == NULL:
        return False
    job.early = True
    tables.fetching.early += 1
    hand_out(tables, job)
    return True


# --- buffers; `lock` is held ---


cdef bint borrow(Tables* tables, Job* job) noexcept nogil:
    """Memory for a job; False when there is none."""
    cdef size_t size = <size_t>1 << (SMALLEST + job.room)
    cdef void* made = tables.fetching.spare[job.room]
    if made != NULL:
        tables.fetching.spare[job.room] = (<void**>made)[0]
        job.body = <char*>made
        return True
    if tables.fetching.buffers + size > tables.fetching.reserve:
        free_spare(tables)
    while tables.fetching.buffers + size > tables.fetching.reserve and give_up_oldest(tables):
        free_spare(tables)
    if tables.fetching.buffers + size > tables.fetching.reserve or posix_memalign(&made, 4096, size) != 0:
        return False
    tables.fetching.buffers += size
    job.body = <char*>made
    return True


cdef void give_back(Tables* tables, Job* job) noexcept nogil:
    if job.body != NULL:
        (<void**>job.body)[0] = tables.fetching.spare[job.room]
        tables.fetching.spare[job.room] = job.body
        job.body = NULL


cdef void free_spare(Tables* tables) noexcept nogil:
    cdef void* spare
    cdef int room
    for room in range(CLASSES):
        while tables.fetching.spare[room] != NULL:
            spare = tables.fetching.spare[room]
            tables.fetching.spare[room] = (<void**>spare)[0]
            free(spare)
            tables.fetching.buffers -= <size_t>1 << (SMALLEST + room)


cdef bint give_up_oldest(Tables* tables) noexcept nogil:
    """Of the jobs whose bytes are here."""
    cdef Job* job = tables.fetching.here.first
    while job != NULL:
        if job.uses == 0:
            drop_job(tables, job)
            return True
        job = job.next
    return False


# --- couriers ---


cdef int serve_line(Tables* tables, Line* line, Recipe* recipe, double idle, Waiter** failed) noexcept nogil:
    """Fetch what is asked for until the connection ENDED, the recipe is STALE, nothing was asked for in `idle` seconds
    (IDLE), or a job FAILED, whose READs are then the caller's to have answered."""
    cdef Idler own
    cdef Job* job
    cdef int reason = CLOSED
    begin_condition(&own.woken)
    failed[0] = NULL
    pthread_mutex_lock(&tables.lock)
    while not tables.fetching.stopped:
        if line.ends:
            reason = ENDED
            break
        job = next_job(tables)
        if job == NULL:
            job = wait_for_job(tables, &own, idle)
        if job == NULL:
            reason = CLOSED if tables.fetching.stopped else IDLE
            break
        if seconds() >= recipe.until:
            put_back(tables, job)
            reason = STALE
            break
        if not borrow(tables, job) and tables.fetching.flying:
            put_back(tables, job)
            job = wait_for_job(tables, &own, MOMENT)  # what is under way has the memory
            if job != NULL:
                put_back(tables, job)
            continue
        if not fetch(tables, line, recipe, job, failed):
            reason = ENDED if failed[0] == NULL else FAILED
            break
    if tables.fetching.stopped:
        drop_waiting(tables)
    pthread_mutex_unlock(&tables.lock)
    pthread_cond_destroy(&own.woken)
    return reason


cdef Job* wait_for_job(Tables* tables, Idler* own, double patience) noexcept nogil:
    """Lets go of `lock` meanwhile."""
    cdef timespec end = moment_in(patience)
    cdef Idler** at
    own.job = NULL
    own.taken = False
    own.next = tables.fetching.idlers
    tables.fetching.idlers = own
    while not own.taken and not tables.fetching.stopped:
        if pthread_cond_timedwait(&own.woken, &tables.lock, &end) != 0:
            break
    if not own.taken:
        at = &tables.fetching.idlers
        while at[0] != own:
            at = &at[0].next
        at[0] = own.next
    return own.job


cdef bint fetch(Tables* tables, Line* line, Recipe* recipe, Job* job, Waiter** failed) noexcept nogil:
    """Make the request of `job` and answer who waits for it; with `lock`, but for while it lasts. False when the line is
    of no use any more, or the job failed."""
    cdef Wanted wanted
    cdef int64_t begun, took
    cdef int outcome
    if job.body == NULL:
        fail(tables, job, failed)
        return failed[0] == NULL
    tables.fetching.flying += 1
    pthread_mutex_unlock(&tables.lock)
    begun = monotonic()
    wanted.key, wanted.key_size = job.plan.key, job.plan.key_size
    wanted.etag, wanted.etag_size = job.plan.etag, job.plan.etag_size
    wanted.begin, wanted.size, wanted.total = job.begin, job.size, job.plan.size
    outcome = get(line, recipe, &wanted, job.body)
    took = monotonic() - begun
    pthread_mutex_lock(&tables.lock)
    tables.fetching.flying -= 1
    if outcome == GOT:
        tables.fetching.misses = 0
        tables.fetching.gets += 1
        tables.fetching.bytes += job.size
        if job.size == job.plan.size:  # a range says little of whole ones
            note_time(tables, took)
        deliver(tables, job)
        return True
    job.tries += 1
    job.state = ASKED
    if outcome == AGAIN and job.tries < TRIES and not tables.fetching.stopped:
        give_back(tables, job)
        hand_out(tables, job)
        return False
    miss(tables)
    fail(tables, job, failed)
    return False


cdef void note_time(Tables* tables, int64_t took) noexcept nogil:
    if tables.fetching.quickest == 0 or took < tables.fetching.quickest:
        tables.fetching.quickest = took
    else:  # forgets, in some sixty requests, what the fastest once was
        tables.fetching.quickest += tables.fetching.quickest >> 4


cdef void miss(Tables* tables) noexcept nogil:
    """Something failed, as others perhaps did one after another: nothing is fetched for a while then."""
    tables.fetching.misses += 1
    if tables.fetching.misses >= MISSES:
        tables.fetching.paused = monotonic() + RECOVERY


cdef void deliver(Tables* tables, Job* job) noexcept nogil:
    """The bytes of `job` are there; with `lock`, but for while answers are written."""
    cdef Waiter* waiter
    job.state = HERE
    job.since = monotonic()
    put_last(&tables.fetching.here, job)
    if job.waiters == NULL:
        if not job.found or tables.fetching.stopped:
            drop_job(tables, job)
        return
    job.uses += 1  # until all have been answered
    while job.waiters != NULL:
        waiter = take_waiter(tables, &job.waiters)
        job.uses += 1
        pthread_mutex_unlock(&tables.lock)
        give(tables, job, <InHeader*>waiter.message)
        free(waiter)
        pthread_mutex_lock(&tables.lock)
    job.uses -= 1
    if job.uses == 0 and (job.served >= job.size or not job.found or job.plan.opens == 0):
        drop_job(tables, job)


cdef void fail(Tables* tables, Job* job, Waiter** failed) noexcept nogil:
    """Give up `job`, which is in no queue: READs that wait for it are added to `failed`, interrupted ones answered."""
    cdef Waiter* waiter
    cdef Waiter** at = failed
    while at[0] != NULL:
        at = &at[0].next
    while job.waiters != NULL:
        waiter = take_waiter(tables, &job.waiters)
        if waiter.interrupted:
            refuse(tables, waiter, EINTR)
        else:
            waiter.next = NULL
            at[0] = waiter
            at = &waiter.next
    drop_job(tables, job)


cdef Waiter* refuse_waiting(Tables* tables) noexcept nogil:
    """No courier can come: give up all jobs that are not under way; returns the READs that wait for them."""
    cdef Waiter* refused = NULL
    cdef Job* job
    pthread_mutex_lock(&tables.lock)
    job = next_job(tables)
    while job != NULL:
        fail(tables, job, &refused)
        job = next_job(tables)
    miss(tables)
    pthread_mutex_unlock(&tables.lock)
    return refused


cdef int wait_for_want(Tables* tables, double patience) noexcept nogil:
    """How many more couriers there is work for; waits for some, at most `patience` seconds."""
    cdef timespec end = moment_in(patience)
    cdef int wanted
    pthread_mutex_lock(&tables.lock)
    while not tables.fetching.stopped:
        wanted = <int>min(tables.fetching.urgent.count + tables.fetching.ahead.count, <size_t>1024)
        wanted = min(wanted - tables.fetching.starting, tables.fetching.most - tables.fetching.couriers)
        if wanted > 0:
            break
        if pthread_cond_timedwait(&tables.fetching.wanted, &tables.lock, &end) != 0:
            break
    if tables.fetching.stopped:
        wanted = 0
    pthread_mutex_unlock(&tables.lock)
    return max(wanted, 0)


cdef void tidy(Tables* tables, int64_t older) noexcept nogil:
    """Answer who was interrupted and has been patient; give up bytes that nobody has come for in `older` nanoseconds."""
    cdef int64_t now = monotonic()
    cdef Job* job
    cdef Job* next
    cdef Waiter** at
    cdef Waiter* waiter
    pthread_mutex_lock(&tables.lock)
    job = tables.fetching.all if tables.fetching.interrupted else NULL
    while job != NULL:
        at = &job.waiters
        while at[0] != NULL:
            waiter = at[0]
            if waiter.interrupted and now - waiter.interrupted >= PATIENCE:
                refuse(tables, take_waiter(tables, at), EINTR)
            else:
                at = &waiter.next
        job = job.older
    job = tables.fetching.here.first
    while job != NULL:
        next = job.next
        if job.uses == 0 and now - job.since >= older:
            drop_job(tables, job)
        job = next
    if tables.fetching.couriers == 0:
        free_spare(tables)
    pthread_mutex_unlock(&tables.lock)


cdef void end_fetching(Tables* tables) noexcept nogil:
    """Give back all memory: nobody uses the tables any more."""
    while give_up_oldest(tables):
        pass
    free_spare(tables)


cdef void stop_fetching(Tables* tables) noexcept nogil:
    """Make no more requests: who waits is answered EIO, also while a courier is still busy, and nothing is written to the
    device when this returns."""
    cdef Job* job
    cdef timespec moment
    cdef Idler* idler
    moment.tv_sec = 0
    moment.tv_nsec = PAUSE
    pthread_mutex_lock(&tables.lock)
    job = tables.fetching.all
    while job != NULL and not tables.fetching.stopped:
        while job.waiters != NULL:
            refuse(tables, take_waiter(tables, &job.waiters), EIO)
        job = job.older
    tables.fetching.stopped = True
    idler = tables.fetching.idlers
    while idler != NULL:
        pthread_cond_signal(&idler.woken)
        idler = idler.next
    pthread_cond_broadcast(&tables.fetching.wanted)
    drop_waiting(tables)
    while tables.fetching.sending:
        pthread_mutex_unlock(&tables.lock)
        nanosleep(&moment, NULL)
        pthread_mutex_lock(&tables.lock)
    end_fetching(tables)
    pthread_mutex_unlock(&tables.lock)


cdef void drop_waiting(Tables* tables) noexcept nogil:
    """Jobs that nobody has begun, and nobody waits for any more."""
    cdef Job* job = next_job(tables)
    while job != NULL:
        drop_job(tables, job)
        job = next_job(tables)


cdef Waiter* take_waiter(Tables* tables, Waiter** at) noexcept nogil:
    """The one at a place among those of a job: it waits no more. With `lock`."""
    cdef Waiter* waiter = at[0]
    at[0] = waiter.next
    if waiter.interrupted:
        tables.fetching.interrupted -= 1
    return waiter


cdef void refuse(Tables* tables, Waiter* waiter, int error) noexcept nogil:
    """With `lock`: rare, and short."""
    if not tables.fetching.stopped:
        send(tables.fetching.descriptor, (<InHeader*>waiter.message).unique, error, NULL, 0)
    free(waiter)


cdef bint begin_sending(Tables* tables) noexcept nogil:
    """Whether answers may still be written; `sending` is then to be taken back."""
    cdef bint allowed
    pthread_mutex_lock(&tables.lock)
    allowed = not tables.fetching.stopped
    tables.fetching.sending += allowed
    pthread_mutex_unlock(&tables.lock)
    return allowed
