# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Hash tables of what may be answered without the interpreter: names, inodes, files, contents
with their blocks, and the tails of files that are written.

`lock` guards everything and is held for table look-ups only: never across a system call, never while the interpreter's
lock is taken. Replies are written outside of it: what uses a reply's source is counted, and who takes something back
waits until that count is zero. Small replies are counted by epoch (`active`): `settle` begins a new one and waits for
the old one to run dry, `turn` lets one caller do that at a time. Files and blocks have use counts of their own, since
their replies take longer.

A name belongs to its inode and goes with it. An inode that is too old to answer with may go once the lookups counted in
it were given back.
"""

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from csi.oss.posix cimport (
    CLOCK_MONOTONIC, CLOCK_REALTIME, begin_condition, clock_gettime, moment_in, nanosleep, pthread_cond_broadcast, pthread_cond_destroy,
    pthread_cond_timedwait, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    timespec,
)

cdef enum:
    FIRST_BUCKETS = 256
    PAUSE = 20000  # nanoseconds

cdef int64_t SECOND = 1000000000
LIGHT = <uint64_t>1 << 63


cdef Tables* make_tables(size_t capacity) noexcept nogil:
    """NULL without memory."""
    cdef Tables* made = <Tables*>calloc(1, sizeof(Tables))
    if made == NULL:
        return NULL
    pthread_mutex_init(&made.lock, NULL)
    pthread_mutex_init(&made.turn, NULL)
    begin_condition(&made.noted)
    begin_condition(&made.fetching.wanted)
    made.capacity = capacity
    if not (
        make(&made.names)
        and make(&made.parents)
        and make(&made.inodes)
        and make(&made.files)
        and make(&made.contents)
        and make(&made.tails)
    ):
        free_tables(made)
        return NULL
    return made


cdef void free_tables(Tables* tables) noexcept nogil:
    """Nobody uses them any more, and there are no blocks in them."""
    cdef size_t at
    cdef Link* link
    if tables.contents.buckets != NULL:
        for at in range(tables.contents.mask + 1):
            link = tables.contents.buckets[at]
            while link != NULL:
                free((<Content*>link).blocks)
                link = link.next
    if tables.inodes.buckets != NULL:
        for at in range(tables.inodes.mask + 1):
            link = tables.inodes.buckets[at]
            while link != NULL:
                drop_plan(<Inode*>link)
                link = link.next
    if tables.files.buckets != NULL:
        for at in range(tables.files.mask + 1):
            link = tables.files.buckets[at]
            while link != NULL:
                give_plan(<File*>link, NULL)
                link = link.next
    empty(&tables.names)
    empty(&tables.parents)
    empty(&tables.inodes)
    empty(&tables.files)
    empty(&tables.contents)
    free(tables.tails.buckets)  # they belong to their writers, who have taken them out
    pthread_cond_destroy(&tables.fetching.wanted)
    pthread_cond_destroy(&tables.noted)
    pthread_mutex_destroy(&tables.turn)
    pthread_mutex_destroy(&tables.lock)
    free(tables)


cdef int64_t monotonic() noexcept nogil:
    """Nanoseconds."""
    return nanoseconds_of(CLOCK_MONOTONIC)


cdef int64_t wall_clock() noexcept nogil:
    """Nanoseconds since the epoch."""
    return nanoseconds_of(CLOCK_REALTIME)


cdef int64_t nanoseconds_of(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t>now.tv_sec * SECOND + now.tv_nsec


cdef uint64_t mixed(uint64_t number) noexcept nogil:
    number ^= number >> 33
    number *= <uint64_t>0xff51afd7ed558ccd
    return number ^ (number >> 33)


cdef uint64_t name_hash(uint64_t parent, const char* text, size_t length) noexcept nogil:
    """FNV-1a, seeded with the parent."""
    cdef uint64_t found = mixed(parent) ^ <uint64_t>0xcbf29ce484222325
    cdef size_t at
    for at in range(length):
        found = (found ^ <unsigned char>text[at]) * <uint64_t>0x100000001b3
    return mixed(found)


# --- one table; `lock` is held ---


cdef bint make(Table* table) noexcept nogil:
    table.buckets = <Link**>calloc(FIRST_BUCKETS, sizeof(Link*))
    table.mask = FIRST_BUCKETS - 1
    return table.buckets != NULL


cdef void empty(Table* table) noexcept nogil:
    cdef size_t at
    cdef Link* link
    if table.buckets != NULL:
        for at in range(table.mask + 1):
            while table.buckets[at] != NULL:
                link = table.buckets[at]
                table.buckets[at] = link.next
                free(link)
    free(table.buckets)


cdef Link* find(Table* table, uint64_t number) noexcept nogil:
    cdef Link* link = table.buckets[mixed(number) & table.mask]
    while link != NULL and link.number != number:
        link = link.next
    return link


cdef void hook(Table* table, Link* link, uint64_t hash) noexcept nogil:
    cdef size_t mask, at
    cdef Link** grown
    cdef Link* moved
    if table.count > table.mask:
        mask = table.mask * 2 + 1
        grown = <Link**>calloc(mask + 1, sizeof(Link*))
        if grown != NULL:  # else the chains get longer
            for at in range(table.mask + 1):
                while table.buckets[at] != NULL:
                    moved = table.buckets[at]
                    table.buckets[at] = moved.next
                    moved.next = grown[moved.hash & mask]
                    grown[moved.hash & mask] = moved
            free(table.buckets)
            table.buckets = grown
            table.mask = mask
    link.hash = hash
    link.next = table.buckets[hash & table.mask]
    table.buckets[hash & table.mask] = link
    table.count += 1


cdef void unhook(Table* table, Link* link) noexcept nogil:
    """Out of the table; the caller frees it."""
    cdef Link** at = &table.buckets[link.hash & table.mask]
    while at[0] != link:
        at = &at[0].next
    at[0] = link.next
    table.count -= 1


# --- inodes and names; `lock` is held ---


cdef Inode* add_inode(Tables* tables, uint64_t number) noexcept nogil:
    """One that answers nothing yet; NULL when there is no room."""
    cdef Inode* made
    if not has_room(tables, &tables.inodes):
        return NULL
    made = <Inode*>calloc(1, sizeof(Inode))
    if made != NULL:
        made.link.number = number
        hook(&tables.inodes, &made.link, mixed(number))
    return made


cdef void unhook_inode(Tables* tables, Inode* inode) noexcept nogil:
    """Out of the table, with its names and its plan; the caller frees it."""
    drop_plan(inode)
    while inode.names != NULL:
        drop_name(tables, inode.names)
    unhook(&tables.inodes, &inode.link)


cdef void drop_plan(Inode* inode) noexcept nogil:
    if inode.plan != NULL:
        leave_plan(take_plan(inode))


cdef Plan* take_plan(Inode* inode) noexcept nogil:
    """The file, which has a plan, is not opened here any more, and nobody finds its job. To be followed by `leave_plan`."""
    cdef Plan* plan = inode.plan
    inode.plan = NULL
    if plan.job != NULL:
        plan.job.found = False
        plan.job = NULL
    return plan


cdef void leave_plan(Plan* plan) noexcept nogil:
    plan.holders -= 1
    if plan.holders == 0:
        free(plan)


cdef Name* find_name(Tables* tables, uint64_t parent, uint64_t hash, const char* text, size_t length) noexcept nogil:
    cdef Link* link = tables.names.buckets[hash & tables.names.mask]
    cdef Name* name
    while link != NULL:
        name = <Name*>link
        if (
            link.hash == hash
            and link.number == parent
            and name.length == length
            and memcmp(name.text, text, length) == 0
        ):
            return name
        link = link.next
    return NULL


cdef Name* add_name(Tables* tables, uint64_t parent, uint64_t hash, const char* text, size_t length) noexcept nogil:
    """One that leads nowhere yet; NULL when there is no room."""
    cdef Name* made
    cdef Parent* family
    if not has_room(tables, &tables.names):
        return NULL
    family = add_parent(tables, parent)
    if family == NULL:
        return NULL
    made = <Name*>malloc(sizeof(Name) + length)
    if made == NULL:
        drop_childless(tables, family)
        return NULL
    memset(made, 0, sizeof(Name))
    made.link.number = parent
    made.length = <uint32_t>length
    made.text = <char*>made + sizeof(Name)
    memcpy(made.text, text, length)
    made.parent = family
    made.older = family.names
    if family.names != NULL:
        family.names.younger = made
    family.names = made
    hook(&tables.names, &made.link, hash)
    return made


cdef Parent* add_parent(Tables* tables, uint64_t number) noexcept nogil:
    cdef Parent* made = <Parent*>find(&tables.parents, number)
    if made == NULL:
        made = <Parent*>calloc(1, sizeof(Parent))
        if made != NULL:
            made.link.number = number
            hook(&tables.parents, &made.link, mixed(number))
    return made


cdef void drop_childless(Tables* tables, Parent* parent) noexcept nogil:
    if parent.names == NULL:
        unhook(&tables.parents, &parent.link)
        free(parent)


cdef void drop_children(Tables* tables, uint64_t number) noexcept nogil:
    """All names of one parent."""
    cdef Parent* parent = <Parent*>find(&tables.parents, number)
    cdef Name* name
    cdef Name* older
    if parent != NULL:
        name = parent.names
        while name != NULL:  # the parent goes with the last
            older = name.older
            drop_name(tables, name)
            name = older


cdef void lead_name(Name* name, Inode* inode) noexcept nogil:
    """Make it lead to another inode, or (NULL) to none."""
    cdef Name** at
    if name.inode == inode:
        return
    if name.inode != NULL:
        at = &name.inode.names
        while at[0] != name:
            at = &at[0].sibling
        at[0] = name.sibling
    name.inode = inode
    name.sibling = NULL
    if inode != NULL:
        name.sibling = inode.names
        inode.names = name


cdef void drop_name(Tables* tables, Name* name) noexcept nogil:
    cdef Parent* parent = name.parent
    lead_name(name, NULL)
    if name.older != NULL:
        name.older.younger = name.younger
    if name.younger != NULL:
        name.younger.older = name.older
    else:
        parent.names = name.older
    drop_childless(tables, parent)
    unhook(&tables.names, &name.link)
    free(name)


cdef bint has_room(Tables* tables, Table* table) noexcept nogil:
    if table.count >= tables.capacity:
        sweep(tables)
    if table.count >= tables.capacity:
        tables.refused += 1
        return False
    return True


cdef void sweep(Tables* tables) noexcept nogil:
    """Drop what is too old to answer with; at most once a second, since all of it is looked at."""
    cdef int64_t now = monotonic()
    cdef size_t at
    cdef Link* link
    cdef Link* next
    cdef Inode* inode
    if now - tables.swept < SECOND:
        return
    tables.swept = now
    for at in range(tables.names.mask + 1):
        link = tables.names.buckets[at]
        while link != NULL:
            next = link.next
            if (<Name*>link).until <= now:
                drop_name(tables, <Name*>link)
            link = next
    if not is_settled(tables):
        return  # a reply under way may give its lookup back to its inode
    for at in range(tables.inodes.mask + 1):
        link = tables.inodes.buckets[at]
        while link != NULL:
            next = link.next
            inode = <Inode*>link
            if (
                inode.until <= now
                and inode.open_until <= now
                and inode.lookups == 0
                and not inode.offered
                and (inode.plan == NULL or (inode.plan.opens == 0 and inode.plan.job == NULL))
            ):
                unhook_inode(tables, inode)
                free(inode)
            link = next


# --- files and blocks; `lock` is held ---


cdef File* add_file(Tables* tables, uint64_t handle) noexcept nogil:
    cdef File* made = <File*>calloc(1, sizeof(File))
    if made != NULL:
        made.link.number = handle
        made.tell = <uint64_t>-1
        hook(&tables.files, &made.link, mixed(handle))
    return made


cdef void hook_tail(Tables* tables, Tail* tail, uint64_t handle) noexcept nogil:
    tail.link.number = handle
    hook(&tables.tails, &tail.link, mixed(handle))
    tail.hooked = True


cdef void unhook_tail(Tables* tables, Tail* tail) noexcept nogil:
    if tail.hooked:
        unhook(&tables.tails, &tail.link)
        tail.hooked = False


cdef void give_plan(File* file, Plan* plan) noexcept nogil:
    """NULL: none. What was read before counts for nothing."""
    cdef int at
    if file.plan != NULL:
        leave_plan(file.plan)
    file.plan = plan
    for at in range(RECENT):
        file.ends[at] = <uint64_t>1 << 63
    file.begin = file.jump = <uint64_t>1 << 63


cdef bint put_block(Tables* tables, uint64_t number, Block* block) noexcept nogil:
    """False when it overlaps one that is there, or there is no memory."""
    cdef Content* content = <Content*>find(&tables.contents, number)
    cdef Block** blocks
    cdef size_t at
    if content == NULL:
        content = <Content*>calloc(1, sizeof(Content))
        if content == NULL:
            return False
        content.link.number = number
        hook(&tables.contents, &content.link, mixed(number))
    at = <size_t>(position(content, block.start) + 1)  # of the first block that starts later
    if (at > 0 and content.blocks[at - 1].start + content.blocks[at - 1].length > block.start) or (
        at < content.count and block.start + block.length > content.blocks[at].start
    ):
        return False
    if content.count == content.room:
        blocks = <Block**>realloc(content.blocks, (content.room * 2 + 4) * sizeof(Block*))
        if blocks == NULL:
            if content.count == 0:
                drop_content(tables, content)
            return False
        content.blocks = blocks
        content.room = content.room * 2 + 4
    memmove(&content.blocks[at + 1], &content.blocks[at], (content.count - at) * sizeof(Block*))
    content.blocks[at] = block
    content.count += 1
    tables.blocks += 1
    tables.block_bytes += block.length
    return True


cdef Block* take_block(Tables* tables, uint64_t number, uint64_t start) noexcept nogil:
    """Out of the table; it may be in use. NULL when there is none that begins at `start`."""
    cdef Content* content = <Content*>find(&tables.contents, number)
    cdef Block* block
    cdef Py_ssize_t at
    if content == NULL:
        return NULL
    at = position(content, start)
    if at < 0 or content.blocks[at].start != start:
        return NULL
    block = content.blocks[at]
    content.count -= 1
    memmove(&content.blocks[at], &content.blocks[at + 1], (content.count - at) * sizeof(Block*))
    tables.blocks -= 1
    tables.block_bytes -= block.length
    if content.count == 0:
        drop_content(tables, content)
    return block


cdef void drop_content(Tables* tables, Content* content) noexcept nogil:
    unhook(&tables.contents, &content.link)
    free(content.blocks)
    free(content)


cdef Py_ssize_t position(Content* content, uint64_t start) noexcept nogil:
    """Of the last block that starts at or before `start`; -1 without one."""
    cdef Py_ssize_t low = -1, high = <Py_ssize_t>content.count, middle
    while high - low > 1:
        middle = (low + high) // 2
        if content.blocks[middle].start <= start:
            low = middle
        else:
            high = middle
    return low


cdef void note(Tables* tables, uint64_t handle, uint64_t offset, uint64_t end) noexcept nogil:
    cdef Told* told
    if tables.ring_count == RING:
        tables.untold += 1
        return
    told = &tables.ring[(tables.ring_first + tables.ring_count) % RING]
    told.handle = handle
    told.offset = offset
    told.end = end
    tables.ring_count += 1
    pthread_cond_broadcast(&tables.noted)


cdef bint wait_for_notes(Tables* tables, double patience) noexcept nogil:
    """Takes `lock` and returns with it: whether there are notes."""
    cdef timespec end = moment_in(patience)
    pthread_mutex_lock(&tables.lock)
    while tables.ring_count == 0 and not tables.closed:
        if pthread_cond_timedwait(&tables.noted, &tables.lock, &end) != 0:
            break
    return tables.ring_count > 0


# --- replies under way ---


cdef unsigned int enter(Tables* tables) noexcept nogil:
    """A small reply is about to be written; `lock` is held."""
    ossfuse_add(&tables.active[tables.epoch & 1], 1)
    return tables.epoch


cdef void leave(Tables* tables, unsigned int epoch) noexcept nogil:
    """It was written."""
    ossfuse_add(&tables.active[epoch & 1], -1)


cdef bint is_settled(Tables* tables) noexcept nogil:
    """No small reply is under way."""
    return ossfuse_load(&tables.active[0]) == 0 and ossfuse_load(&tables.active[1]) == 0


cdef void settle(Tables* tables) noexcept nogil:
    """Wait for the small replies under way; without `lock`."""
    cdef unsigned int ending
    pthread_mutex_lock(&tables.turn)
    pthread_mutex_lock(&tables.lock)
    ending = tables.epoch
    tables.epoch += 1
    pthread_mutex_unlock(&tables.lock)
    wait_for(&tables.active[ending & 1])
    pthread_mutex_unlock(&tables.turn)


cdef void wait_for(int* uses) noexcept nogil:
    cdef timespec moment
    moment.tv_sec = 0
    moment.tv_nsec = PAUSE
    while ossfuse_load(uses) != 0:
        nanosleep(&moment, NULL)
