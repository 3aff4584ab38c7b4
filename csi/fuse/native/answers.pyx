# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The tables as Python sees them: implements `csi.fs.published.Published`, where the promises are written down.

Nothing of Python happens while the tables' lock is held (a garbage collection could come back here), and who waits for
replies under way lets go of the interpreter's lock.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from csi.fuse.native.fetches cimport (
    ask_ahead, drop_unread, end_fetching, is_fetching, make_plan, plan, refuse_waiting, serve_line, stop_fetching, tidy,
    wait_for_want,
)
from csi.fuse.native.noted cimport count_down, end_notes, note_in, note_opened, put_back, slot_at
from csi.fuse.native.tables cimport (
    KINDS, RING, Block, Content, Fetching, File, Inode, Link, Name, Parent, Plan, Tables, Told, Waiter,
    add_file, add_inode, add_name, drop_children, drop_content, drop_name, find, find_name, free_tables, give_plan,
    is_settled, lead_name, leave_plan, make_tables, monotonic, name_hash, ossfuse_load, put_block, settle, take_block,
    take_plan, unhook, unhook_inode, wait_for, wait_for_notes,
)
from csi.fuse.native.wire cimport KEEP_CACHE, NOFLUSH, Shape
from csi.oss.getting cimport Line, Stamp
from csi.oss.posix cimport pthread_cond_broadcast, pthread_mutex_lock, pthread_mutex_unlock

from csi.fs.published import FetchingStatistics, PlanLeft, PublishedStatistics
from csi.fuse.protocol import replies

cdef uint32_t BLOCK_SIZE = replies.PREFERRED_IO
cdef double FOREVER = 1e9  # seconds
cdef uint64_t NANO = 1000000000


cdef class Answers:
    """`capacity` bounds names and inodes, each. Thread-safe."""

    def __cinit__(self, size_t capacity=1 << 22):
        self.tables = make_tables(capacity)
        if self.tables == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef Tables* tables = self.tables
        cdef size_t at, block
        cdef Link* link
        if tables == NULL:
            return
        for at in range(tables.contents.mask + 1):
            link = tables.contents.buckets[at]
            while link != NULL:
                for block in range((<Content*>link).count):
                    release((<Content*>link).blocks[block])
                link = link.next
        end_fetching(tables)
        end_notes(tables)
        free_tables(tables)

    # --- names and attributes ---

    def publish_inode(self, attributes, *, double believed, double told, uint64_t generation=0):
        cdef bytes packed = replies.attributes(attributes)
        cdef const char* source = packed
        cdef uint64_t number = attributes.inode
        cdef int64_t until = deadline(believed), kept = deadline(told)
        cdef Inode* inode
        if until == 0:
            self.retract_inode(number)
            return False
        pthread_mutex_lock(&self.tables.lock)
        inode = <Inode*>find(&self.tables.inodes, number)
        if inode == NULL:
            inode = add_inode(self.tables, number)
        if inode != NULL:
            inode.generation = generation
            inode.until = until
            inode.told = kept
            memcpy(&inode.shape, source, sizeof(Shape))
        pthread_mutex_unlock(&self.tables.lock)
        return inode != NULL

    def publish_name(self, uint64_t parent, bytes name, uint64_t inode, *, double believed, double told):
        return put_name(self, parent, name, inode, believed, told)

    def publish_absence(self, uint64_t parent, bytes name, *, double believed, double told):
        return put_name(self, parent, name, 0, believed, told)

    def retract_inode(self, uint64_t inode):
        cdef Inode* found
        pthread_mutex_lock(&self.tables.lock)
        found = <Inode*>find(&self.tables.inodes, inode)
        if found != NULL:
            outdate(found)
        pthread_mutex_unlock(&self.tables.lock)
        self.settle()  # even if somebody else has just taken it back: they may still be waiting

    def retract_name(self, uint64_t parent, bytes name):
        cdef const char* text = name
        cdef size_t length = len(name)
        cdef Name* found
        pthread_mutex_lock(&self.tables.lock)
        found = find_name(self.tables, parent, name_hash(parent, text, length), text, length)
        if found != NULL:
            drop_name(self.tables, found)
        pthread_mutex_unlock(&self.tables.lock)
        self.settle()  # even if somebody else has just taken it back: they may still be waiting

    def retract_names(self, uint64_t parent):
        pthread_mutex_lock(&self.tables.lock)
        drop_children(self.tables, parent)
        pthread_mutex_unlock(&self.tables.lock)
        self.settle()

    def retract_all(self):
        cdef Tables* tables = self.tables
        cdef size_t at
        cdef Link* link
        pthread_mutex_lock(&tables.lock)
        for at in range(tables.names.mask + 1):
            while tables.names.buckets[at] != NULL:
                drop_name(tables, <Name*>tables.names.buckets[at])
        for at in range(tables.inodes.mask + 1):
            link = tables.inodes.buckets[at]
            while link != NULL:
                outdate(<Inode*>link)
                link = link.next
        pthread_mutex_unlock(&tables.lock)
        self.settle()

    def withdraw_inode(self, uint64_t inode):
        cdef Inode* found
        cdef int64_t lookups
        pthread_mutex_lock(&self.tables.lock)
        found = <Inode*>find(&self.tables.inodes, inode)
        if found != NULL:
            unhook_inode(self.tables, found)
        pthread_mutex_unlock(&self.tables.lock)
        if found == NULL:
            return 0
        self.settle()  # a reply that fails gives its lookup back to what is counted here
        lookups = <int64_t>found.lookups
        pthread_mutex_lock(&self.tables.lock)
        self.tables.lookups -= found.lookups
        pthread_mutex_unlock(&self.tables.lock)
        if found.offered:  # counted by the filesystem already
            lookups -= 1
        free(found)
        return lookups

    def hits(self, uint64_t parent):
        cdef Parent* found
        cdef uint64_t hits = 0
        pthread_mutex_lock(&self.tables.lock)
        found = <Parent*>find(&self.tables.parents, parent)
        if found != NULL:
            hits = found.hits
        pthread_mutex_unlock(&self.tables.lock)
        return hits

    # --- small files ---

    @property
    def fetches(self):
        return self.couriers is not None

    def publish_files(self, uint64_t parent, bytes directory, files, shown):
        """See `Published`."""
        cdef Tables* tables = self.tables
        cdef int64_t named = deadline(shown.name_believed), name_told = deadline(shown.name_told)
        cdef int64_t until = deadline(shown.believed), told = deadline(shown.told), opens = deadline(shown.opens)
        cdef uint32_t mode = shown.mode, uid = shown.uid, gid = shown.gid
        cdef int keeps = shown.keeps
        cdef Shape shape
        cdef uint64_t number, size, modified
        cdef bytes name, key, tag
        cdef str etag
        cdef const char* text
        cdef const char* place
        cdef const char* letters
        cdef size_t length, placed, tagged
        cdef int done = 0
        cdef bint offered, opened, kept
        if named == 0 or until == 0:
            return 0
        memset(&shape, 0, sizeof(Shape))
        for name, number, size, modified, etag, offered, opened in files:
            key = directory + name
            tag = etag.encode()
            text = name
            length = len(name)
            place = key
            placed = len(key)
            letters = tag
            tagged = len(tag)
            shape.inode = number
            shape.size = size
            shape.blocks = (size + 511) // 512
            shape.accessed = shape.modified = shape.changed = modified // NANO
            shape.accessed_nanoseconds = shape.modified_nanoseconds = shape.changed_nanoseconds = modified % NANO
            shape.mode = mode
            shape.links = 1
            shape.uid = uid
            shape.gid = gid
            shape.block_size = BLOCK_SIZE
            pthread_mutex_lock(&tables.lock)
            kept = put_file(
                tables, parent, text, length, &shape, named, name_told, until, told, opens, keeps, letters, tagged,
                place, placed, offered, opened,
            )
            pthread_mutex_unlock(&tables.lock)
            if not kept:
                break
            done += 1
        return done

    def publish_plan(self, uint64_t inode, bytes key, str etag, size_t size, *, int keeps, bint opened, double believed):
        cdef bytes tag = etag.encode()
        cdef const char* text = key
        cdef const char* letters = tag
        cdef size_t length = len(key), tagged = len(tag)
        cdef int64_t until = deadline(believed)
        cdef Inode* found
        cdef bint planned
        pthread_mutex_lock(&self.tables.lock)
        found = <Inode*>find(&self.tables.inodes, inode)
        planned = found != NULL and plan(found, text, length, letters, tagged, size, until, keeps, opened)
        pthread_mutex_unlock(&self.tables.lock)
        return planned

    def open_planned(self, uint64_t inode):
        cdef Inode* found
        cdef bint opened
        pthread_mutex_lock(&self.tables.lock)
        found = <Inode*>find(&self.tables.inodes, inode)
        opened = found != NULL and found.plan != NULL and is_fetching(self.tables)
        opened = opened and note_opened(self.tables, inode, found.plan)
        if opened:
            found.plan.opens += 1
            found.plan.opened = True
            self.tables.opens += 1
        pthread_mutex_unlock(&self.tables.lock)
        return opened

    def withdraw_plan(self, uint64_t inode):
        cdef Inode* found
        cdef Plan* left = NULL
        cdef uint64_t opens
        cdef bint opened
        cdef Py_ssize_t slot
        pthread_mutex_lock(&self.tables.lock)
        found = <Inode*>find(&self.tables.inodes, inode)
        if found != NULL and found.plan != NULL:
            drop_unread(self.tables, found.plan)
            left = take_plan(found)
        pthread_mutex_unlock(&self.tables.lock)
        if left == NULL:
            return None
        self.settle()  # an answer that fails gives its open back to what is counted here, and a release to the slot
        pthread_mutex_lock(&self.tables.lock)
        opens, opened, slot = left.opens, left.opened, left.slot
        left.slot = -1
        self.tables.opens -= opens
        leave_plan(left)
        pthread_mutex_unlock(&self.tables.lock)
        return PlanLeft(opens, opened, slot)

    def forget_noted(self, Py_ssize_t slot, uint32_t opens):
        count_down(slot_at(self.tables, slot), opens)
        pthread_mutex_lock(&self.tables.lock)
        put_back(self.tables, <size_t>slot)
        pthread_mutex_unlock(&self.tables.lock)

    def note_opens(self, int descriptor, uint64_t offset, size_t size):
        cdef bint noted
        pthread_mutex_lock(&self.tables.lock)
        noted = self.tables.slots == NULL and note_in(self.tables, descriptor, offset, size)
        pthread_mutex_unlock(&self.tables.lock)
        return noted

    def count_opens(self, uint64_t inode):
        cdef Inode* found
        cdef uint64_t opens = 0
        pthread_mutex_lock(&self.tables.lock)
        found = <Inode*>find(&self.tables.inodes, inode)
        if found != NULL and found.plan != NULL:
            opens = found.plan.opens
        pthread_mutex_unlock(&self.tables.lock)
        return opens

    def reclaim_inode(self, uint64_t inode):
        cdef Inode* found
        cdef bint unused
        self.settle()  # before it is looked at: an answer that fails gives its lookup back
        pthread_mutex_lock(&self.tables.lock)
        found = <Inode*>find(&self.tables.inodes, inode)
        unused = found != NULL and found.offered and found.lookups == 0
        if unused:
            if found.plan != NULL:
                drop_unread(self.tables, found.plan)
            unhook_inode(self.tables, found)
            free(found)
        pthread_mutex_unlock(&self.tables.lock)
        return unused

    def fetch_ahead(self, uint64_t parent, names):
        cdef Name* found
        cdef const char* text
        cdef size_t length
        cdef int done = 0
        cdef int64_t now = monotonic()
        cdef bint more
        for name in names:
            text = name
            length = len(name)
            pthread_mutex_lock(&self.tables.lock)
            found = find_name(self.tables, parent, name_hash(parent, text, length), text, length)
            more = found == NULL or found.inode == NULL or ask_ahead(self.tables, found.inode, now)
            pthread_mutex_unlock(&self.tables.lock)
            if not more:
                break
            done += 1
        return done

    # --- couriers ---

    def start_fetching(self, int most, size_t reserve):
        pthread_mutex_lock(&self.tables.lock)
        self.tables.fetching.most = most
        self.tables.fetching.reserve = reserve
        pthread_mutex_unlock(&self.tables.lock)

    def wait_for_want(self, double patience):
        cdef int wanted
        with nogil:
            wanted = wait_for_want(self.tables, patience)
        return wanted

    def courier_comes(self):
        pthread_mutex_lock(&self.tables.lock)
        self.tables.fetching.couriers += 1
        self.tables.fetching.starting += 1
        pthread_mutex_unlock(&self.tables.lock)

    def courier_starts(self):
        pthread_mutex_lock(&self.tables.lock)
        self.tables.fetching.starting -= 1
        pthread_mutex_unlock(&self.tables.lock)

    def courier_goes(self):
        pthread_mutex_lock(&self.tables.lock)
        self.tables.fetching.couriers -= 1
        pthread_mutex_unlock(&self.tables.lock)

    def serve(self, int descriptor, Stamp stamp not None, double idle):
        cdef Line line
        cdef Waiter* failed
        cdef int reason
        line.descriptor = descriptor
        line.armed = -1.0
        line.ends = False
        with nogil:
            reason = serve_line(self.tables, &line, &stamp.recipe, idle, &failed)
        return reason, not line.ends, messages(failed)

    def refuse_waiting(self):
        cdef Waiter* failed
        with nogil:
            failed = refuse_waiting(self.tables)
        return messages(failed)

    def tidy(self, double older):
        with nogil:
            tidy(self.tables, <int64_t>(older * 1e9))

    def stop_fetching(self):
        with nogil:
            stop_fetching(self.tables)

    def fetching(self):
        cdef Fetching now
        pthread_mutex_lock(&self.tables.lock)
        now = self.tables.fetching
        pthread_mutex_unlock(&self.tables.lock)
        return FetchingStatistics(
            now.couriers, now.count, now.flying, now.here.count, now.buffers, now.gets, now.bytes, now.unread
        )

    # --- opens and bytes ---

    def publish_open(self, uint64_t inode, uint64_t handle, *, bint keep_cache, double believed):
        cdef int64_t until = deadline(believed)
        cdef Inode* found
        cdef File* file
        pthread_mutex_lock(&self.tables.lock)
        found = <Inode*>find(&self.tables.inodes, inode)
        file = <File*>find(&self.tables.files, handle)
        if found != NULL and file != NULL:
            found.open_handle = handle
            found.open_flags = NOFLUSH | (KEEP_CACHE if keep_cache else 0)
            found.open_until = until
        pthread_mutex_unlock(&self.tables.lock)
        return found != NULL and file != NULL

    def retract_open(self, uint64_t inode):
        cdef Inode* found
        pthread_mutex_lock(&self.tables.lock)
        found = <Inode*>find(&self.tables.inodes, inode)
        if found != NULL:
            found.open_until = 0
        pthread_mutex_unlock(&self.tables.lock)
        self.settle()  # even if somebody else has just taken it back: they may still be waiting

    def publish_file(self, uint64_t handle, uint64_t content, uint64_t size):
        cdef File* file
        pthread_mutex_lock(&self.tables.lock)
        file = <File*>find(&self.tables.files, handle)
        if file == NULL:
            file = add_file(self.tables, handle)
        if file != NULL:
            give_plan(file, NULL)
            file.content = content
            file.size = size
        pthread_mutex_unlock(&self.tables.lock)
        return file != NULL

    def publish_version(self, uint64_t handle, bytes key, str etag):
        cdef bytes tag = etag.encode()
        cdef const char* text = key
        cdef const char* letters = tag
        cdef size_t length = len(key), tagged = len(tag)
        cdef File* file
        cdef Plan* made = NULL
        pthread_mutex_lock(&self.tables.lock)
        file = <File*>find(&self.tables.files, handle)
        if file != NULL and self.tables.fetching.most > 0:
            made = make_plan(text, length, letters, tagged, file.size)
            if made != NULL:
                give_plan(file, made)
        pthread_mutex_unlock(&self.tables.lock)
        return made != NULL

    def retract_version(self, uint64_t handle):
        cdef File* file
        pthread_mutex_lock(&self.tables.lock)
        file = <File*>find(&self.tables.files, handle)
        if file != NULL:
            give_plan(file, NULL)
        pthread_mutex_unlock(&self.tables.lock)

    def withdraw_file(self, uint64_t handle):
        cdef File* file
        cdef uint64_t opens
        pthread_mutex_lock(&self.tables.lock)
        file = <File*>find(&self.tables.files, handle)
        if file != NULL:
            unhook(&self.tables.files, &file.link)
            give_plan(file, NULL)
        pthread_mutex_unlock(&self.tables.lock)
        if file == NULL:
            return 0
        self.settle()
        wait_until_unused(&file.uses)
        opens = file.opens
        pthread_mutex_lock(&self.tables.lock)
        self.tables.opens -= opens
        pthread_mutex_unlock(&self.tables.lock)
        free(file)
        return opens

    def publish_block(self, uint64_t content, uint64_t start, data):
        cdef Block* block = <Block*>calloc(1, sizeof(Block))
        cdef Py_buffer* view
        cdef bint kept
        if block == NULL:
            raise MemoryError
        view = <Py_buffer*>malloc(sizeof(Py_buffer))
        if view == NULL:
            free(block)
            raise MemoryError
        try:
            PyObject_GetBuffer(data, view, PyBUF_SIMPLE)
        except BaseException:
            free(view)
            free(block)
            raise
        block.view = view
        block.start = start
        block.length = <uint64_t>view.len
        block.data = <char*>view.buf
        pthread_mutex_lock(&self.tables.lock)
        kept = block.length > 0 and put_block(self.tables, content, block)
        if not kept:
            self.tables.refused += 1
        pthread_mutex_unlock(&self.tables.lock)
        if not kept:
            release(block)
        return kept

    def retract_block(self, uint64_t content, uint64_t start):
        cdef Block* block
        pthread_mutex_lock(&self.tables.lock)
        block = take_block(self.tables, content, start)
        pthread_mutex_unlock(&self.tables.lock)
        if block != NULL:
            wait_until_unused(&block.uses)
            release(block)

    def retract_content(self, uint64_t content):
        cdef Content* found
        cdef Block** blocks = NULL
        cdef size_t count = 0, at
        pthread_mutex_lock(&self.tables.lock)
        found = <Content*>find(&self.tables.contents, content)
        if found != NULL:
            blocks = found.blocks
            count = found.count
            found.blocks = NULL
            for at in range(count):
                self.tables.block_bytes -= blocks[at].length
            self.tables.blocks -= count
            drop_content(self.tables, found)
        pthread_mutex_unlock(&self.tables.lock)
        for at in range(count):
            wait_until_unused(&blocks[at].uses)
            release(blocks[at])
        free(blocks)

    def tell_at(self, uint64_t handle, uint64_t offset):
        cdef File* file
        pthread_mutex_lock(&self.tables.lock)
        file = <File*>find(&self.tables.files, handle)
        if file != NULL:
            file.tell = offset
        pthread_mutex_unlock(&self.tables.lock)

    def take_told(self, double patience):
        """(handle, offset, end) of the reads that `tell_at` asked for; waits for one, at most `patience` seconds. [] also
        after `close`."""
        cdef Told* taken = <Told*>malloc(RING * sizeof(Told))
        cdef Tables* tables = self.tables
        cdef size_t count = 0, at
        if taken == NULL:
            raise MemoryError
        with nogil:
            wait_for_notes(tables, patience)
            while tables.ring_count:
                taken[count] = tables.ring[tables.ring_first]
                tables.ring_first = (tables.ring_first + 1) % RING
                tables.ring_count -= 1
                count += 1
            pthread_mutex_unlock(&tables.lock)
        try:
            return [(taken[at].handle, taken[at].offset, taken[at].end) for at in range(count)]
        finally:
            free(taken)

    def deny_capabilities(self):
        self.tables.incapable = True

    def close(self):
        """Let `take_told` return, now and later."""
        pthread_mutex_lock(&self.tables.lock)
        self.tables.closed = True
        pthread_cond_broadcast(&self.tables.noted)
        pthread_mutex_unlock(&self.tables.lock)

    def statistics(self):
        cdef Tables* tables = self.tables
        cdef uint64_t answered[KINDS]
        cdef uint64_t lookups, opens, refused, untold, block_bytes
        cdef size_t inodes, names, files, blocks
        pthread_mutex_lock(&tables.lock)
        inodes, names, files, blocks = tables.inodes.count, tables.names.count, tables.files.count, tables.blocks
        block_bytes, lookups, opens = tables.block_bytes, tables.lookups, tables.opens
        refused, untold = tables.refused, tables.untold
        memcpy(answered, tables.answered, sizeof(answered))
        pthread_mutex_unlock(&tables.lock)
        kinds = ("lookup", "getattr", "open", "read", "release", "flush", "write", "getxattr")
        return PublishedStatistics(
            inodes, names, files, blocks, block_bytes, lookups, opens, refused, untold,
            {kind: answered[at] for at, kind in enumerate(kinds) if answered[at]},
        )

    # --- private ---

    cdef void settle(self) noexcept:
        if not is_settled(self.tables):
            with nogil:
                settle(self.tables)


cdef bint put_name(Answers answers, uint64_t parent, bytes name, uint64_t number, double believed, double told):
    """`number` 0: there is no such name."""
    cdef Tables* tables = answers.tables
    cdef const char* text = name
    cdef size_t length = len(name)
    cdef uint64_t hash = name_hash(parent, text, length)
    cdef int64_t until = deadline(believed), kept = deadline(told)
    cdef Name* found
    cdef Inode* inode = NULL
    cdef bint done = False
    if until == 0:
        answers.retract_name(parent, name)
        return False
    pthread_mutex_lock(&tables.lock)
    found = find_name(tables, parent, hash, text, length)
    if number:
        inode = <Inode*>find(&tables.inodes, number)
    if number and inode == NULL:
        if found != NULL:
            drop_name(tables, found)
    else:
        if found == NULL:
            found = add_name(tables, parent, hash, text, length)
            if found != NULL and number and <Inode*>find(&tables.inodes, number) != inode:
                drop_name(tables, found)  # making room took the inode
                found = NULL
        if found != NULL:
            lead_name(found, inode)
            found.until = until
            found.told = kept
            done = True
    pthread_mutex_unlock(&tables.lock)
    return done


cdef bint put_file(
    Tables* tables, uint64_t parent, const char* text, size_t length, Shape* shape, int64_t named, int64_t name_told,
    int64_t until, int64_t told, int64_t opens, int keeps, const char* etag, size_t etag_size, const char* key,
    size_t key_size, bint offered, bint opened
) noexcept nogil:
    """With `lock`. False when there is no room."""
    cdef uint64_t hash = name_hash(parent, text, length)
    cdef Name* found = find_name(tables, parent, hash, text, length)
    cdef Inode* inode = <Inode*>find(&tables.inodes, shape.inode)
    if inode == NULL:
        inode = add_inode(tables, shape.inode)
        if inode == NULL:
            return False
    inode.until = until  # not to be taken when there is no room for the name
    inode.offered = inode.offered or offered
    if found == NULL:
        found = add_name(tables, parent, hash, text, length)
        if found == NULL:
            if offered and inode.lookups == 0:
                unhook_inode(tables, inode)
                free(inode)
            return False
    lead_name(found, inode)
    found.until = named
    found.told = name_told
    inode.told = told
    inode.shape = shape[0]
    if opens:
        plan(inode, key, key_size, etag, etag_size, shape.size, opens, keeps, opened)
    return True


cdef void outdate(Inode* inode) noexcept nogil:
    """With `lock`: nothing is answered from it any more."""
    inode.until = 0
    inode.open_until = 0
    if inode.plan != NULL:
        inode.plan.until = 0


cdef list messages(Waiter* waiter):
    cdef Waiter* next
    cdef list found = []
    while waiter != NULL:
        next = waiter.next
        found.append(waiter.message[:sizeof(waiter.message)])
        free(waiter)
        waiter = next
    return found


cdef int64_t deadline(double seconds) noexcept nogil:
    """That many seconds from now; 0 when they are over."""
    if seconds <= 0:
        return 0
    return monotonic() + <int64_t>((seconds if seconds < FOREVER else FOREVER) * 1e9)


cdef void wait_until_unused(int* uses) noexcept:
    """Nobody writes from it any more; lets go of the interpreter's lock meanwhile."""
    if ossfuse_load(uses) != 0:
        with nogil:
            wait_for(uses)


cdef void release(Block* block) noexcept:
    PyBuffer_Release(<Py_buffer*>block.view)
    free(block.view)
    free(block)
