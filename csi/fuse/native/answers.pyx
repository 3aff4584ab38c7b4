# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The tables as Python sees them: implements `csi.fs.published.Published`, where the promises are written down.

Nothing of Python happens while the tables' lock is held (a garbage collection could come back here), and who waits for
replies under way lets go of the interpreter's lock.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from csi.fuse.native.tables cimport (
    ATTRIBUTES, KINDS, RING, Block, Content, File, Inode, Link, Name, Tables, Told, add_file, add_inode, add_name,
    drop_children, drop_content, drop_name, find, find_name, free_tables, is_settled, lead_name, make_tables, monotonic, name_hash,
    ossfuse_load, pthread_cond_broadcast, pthread_mutex_lock, pthread_mutex_unlock, put_block, settle, take_block,
    unhook, unhook_inode, wait_for, wait_for_notes,
)

from csi.fs.published import PublishedStatistics
from csi.fuse.protocol import replies

cdef enum:
    KEEP_CACHE = 1 << 1
    NOFLUSH = 1 << 5

cdef double FOREVER = 1e9  # seconds


cdef class Answers:
    """`capacity` bounds names and inodes, each. Thread-safe."""

    def __cinit__(self, size_t capacity=1 << 18):
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
            memcpy(inode.attributes, source, ATTRIBUTES)
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
            found.until = 0
            found.open_until = 0
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
                (<Inode*>link).until = 0
                (<Inode*>link).open_until = 0
                link = link.next
        pthread_mutex_unlock(&tables.lock)
        self.settle()

    def withdraw_inode(self, uint64_t inode):
        cdef Inode* found
        cdef uint64_t lookups
        pthread_mutex_lock(&self.tables.lock)
        found = <Inode*>find(&self.tables.inodes, inode)
        if found != NULL:
            unhook_inode(self.tables, found)
        pthread_mutex_unlock(&self.tables.lock)
        if found == NULL:
            return 0
        self.settle()  # a reply that fails gives its lookup back to what is counted here
        lookups = found.lookups
        pthread_mutex_lock(&self.tables.lock)
        self.tables.lookups -= lookups
        pthread_mutex_unlock(&self.tables.lock)
        free(found)
        return lookups

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
            file.content = content
            file.size = size
        pthread_mutex_unlock(&self.tables.lock)
        return file != NULL

    def withdraw_file(self, uint64_t handle):
        cdef File* file
        cdef uint64_t opens
        pthread_mutex_lock(&self.tables.lock)
        file = <File*>find(&self.tables.files, handle)
        if file != NULL:
            unhook(&self.tables.files, &file.link)
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
        kinds = ("lookup", "getattr", "open", "read", "release", "flush")
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
