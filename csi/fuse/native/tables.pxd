"""Hash tables of what may be answered without the interpreter, and their one lock; see tables.pyx."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from csi.fuse.native.wire cimport Shape
from csi.oss.posix cimport iovec, pthread_cond_t, pthread_mutex_t, timespec

cdef extern from * nogil:
    """
    #define ossfuse_add(where, number) __atomic_add_fetch((where), (number), __ATOMIC_ACQ_REL)
    #define ossfuse_load(where) __atomic_load_n((where), __ATOMIC_ACQUIRE)
    #define ossfuse_store(where, number) __atomic_store_n((where), (number), __ATOMIC_RELEASE)
    """
    int ossfuse_add(int* where, int number)
    int ossfuse_load(int* where)
    void ossfuse_store(int* where, int number)

cdef enum:
    RING = 1024
    CLASSES = 7  # of buffers: 16 KiB to 1 MiB
    RECENT = 32
    SPANS = 40

cdef enum:  # kinds of answers, as they are counted
    A_LOOKUP
    A_GETATTR
    A_OPEN
    A_READ
    A_RELEASE
    A_FLUSH
    A_WRITE
    A_GETXATTR
    KINDS

# a handle that was given out here: this bit, and the number of the inode
cdef uint64_t LIGHT


cdef struct Link:
    # first member of everything that is kept in a table
    Link* next
    uint64_t hash
    uint64_t number  # of an inode, handle or content; of a name: the inode of its parent


cdef struct Table:
    Link** buckets
    size_t mask
    size_t count


cdef struct Inode:
    Link link
    Name* names
    uint64_t generation
    uint64_t lookups  # told to the kernel by this layer and not forgotten yet
    int64_t until
    int64_t told
    uint64_t open_handle
    int64_t open_until
    uint32_t open_flags
    bint offered  # the filesystem counts one lookup for this layer, and gets it back with the last FORGET
    Plan* plan
    Shape shape


cdef struct Plan:
    # which version of which object a file is: a small one that is opened and read here, or one read at random places
    int holders  # an inode or a file, and jobs
    int64_t until  # opens are answered
    uint64_t opens  # answered and not released
    int keeps  # pages from open to open: 0 never, 1 those of the version that was opened before, 2 always
    bint opened  # this version was opened before
    Job* job
    Py_ssize_t slot  # where its opens are noted (`noted.pyx`), -1: nowhere
    size_t size
    size_t key_size
    size_t etag_size
    char* key
    char* etag


cdef struct Waiter:
    # a READ that waits for a job
    Waiter* next
    int64_t interrupted
    char message[80]


cdef struct Job:
    # one GET of one object, or of a range, and then its bytes
    Job* next  # in its queue, or among those that are here
    Job* last
    Job* older  # of all jobs
    Job* younger
    Plan* plan
    uint64_t begin
    size_t size
    bint found  # by its plan: it is of the whole object
    int state
    bint urgent
    bint early  # nobody has come for it yet
    int tries
    int uses
    int64_t since
    size_t served
    Waiter* waiters
    char* body
    int room  # the class of the buffer


cdef struct Jobs:
    # a queue
    Job* first
    Job* last
    size_t count


cdef struct Idler:
    # a courier that waits for a job
    pthread_cond_t woken
    Idler* next
    Job* job
    bint taken


cdef struct Fetching:
    int descriptor
    int sending
    bint stopped
    int most  # couriers
    int couriers
    int starting  # of them
    size_t reserve
    size_t buffers  # bytes of them
    void* spare[7]
    Jobs urgent
    Jobs ahead
    Jobs here
    Job* all
    size_t count  # jobs
    size_t early  # of them
    int flying
    int interrupted
    Idler* idlers
    pthread_cond_t wanted
    int64_t quickest
    int64_t paused
    int misses
    uint64_t gets
    uint64_t bytes
    uint64_t unread  # fetched ahead and given up


cdef struct Parent:
    Link link
    Name* names
    uint64_t hits  # names that were looked up


cdef struct Name:
    Link link
    Parent* parent
    Name* older  # of the same parent
    Name* younger
    Name* sibling  # of the same inode
    Inode* inode  # NULL: there is no such name
    int64_t until
    int64_t told
    uint32_t length
    char* text


cdef struct File:
    Link link
    uint64_t content
    uint64_t size
    uint64_t tell
    uint64_t opens  # answered by this layer and not released yet
    int uses
    Plan* plan  # NULL: what is not in a block comes to the filesystem
    uint64_t ends[RECENT]  # of the latest reads that were not in a block
    int latest  # of them
    uint64_t begin  # of the latest
    uint64_t jump  # by which it came there


cdef struct Tail:
    # of a file that is written: where its next bytes belong
    Link link  # by the handle that writes
    bint hooked
    uint64_t position
    size_t room
    iovec spans[SPANS]
    int span  # the first with room
    int64_t written  # wall clock, nanoseconds: when bytes were last put here
    int uses


cdef struct Block:
    uint64_t start
    uint64_t length
    char* data
    void* view  # a Py_buffer
    int uses


cdef struct Content:
    Link link
    size_t count
    size_t room
    Block** blocks  # by `start`


cdef struct Told:
    uint64_t handle
    uint64_t offset
    uint64_t end


cdef struct Tables:
    pthread_mutex_t lock
    pthread_mutex_t turn
    pthread_cond_t noted
    Table names
    Table parents
    Table inodes
    Table files
    Table contents
    Table tails
    size_t capacity
    size_t blocks
    uint64_t block_bytes
    uint64_t lookups
    uint64_t opens
    uint64_t refused
    uint64_t untold
    uint64_t answered[KINDS]
    int64_t swept
    int active[2]
    unsigned int epoch
    Told ring[RING]
    size_t ring_first
    size_t ring_count
    bint closed
    bint incapable  # no file has capabilities
    void* slots  # NULL: opens are noted nowhere
    size_t slots_size
    size_t* unused  # of them
    size_t unused_count
    Fetching fetching


cdef Tables* make_tables(size_t capacity) noexcept nogil
cdef void free_tables(Tables* tables) noexcept nogil

cdef int64_t monotonic() noexcept nogil
cdef int64_t wall_clock() noexcept nogil
cdef uint64_t name_hash(uint64_t parent, const char* text, size_t length) noexcept nogil

# with `lock`

cdef Link* find(Table* table, uint64_t number) noexcept nogil
cdef Name* find_name(Tables* tables, uint64_t parent, uint64_t hash, const char* text, size_t length) noexcept nogil
cdef Inode* add_inode(Tables* tables, uint64_t number) noexcept nogil
cdef void unhook_inode(Tables* tables, Inode* inode) noexcept nogil
cdef Name* add_name(Tables* tables, uint64_t parent, uint64_t hash, const char* text, size_t length) noexcept nogil
cdef void lead_name(Name* name, Inode* inode) noexcept nogil
cdef Plan* take_plan(Inode* inode) noexcept nogil
cdef void leave_plan(Plan* plan) noexcept nogil
cdef void drop_children(Tables* tables, uint64_t number) noexcept nogil
cdef void drop_name(Tables* tables, Name* name) noexcept nogil
cdef File* add_file(Tables* tables, uint64_t handle) noexcept nogil
cdef void hook_tail(Tables* tables, Tail* tail, uint64_t handle) noexcept nogil
cdef void unhook_tail(Tables* tables, Tail* tail) noexcept nogil
cdef void give_plan(File* file, Plan* plan) noexcept nogil
cdef void unhook(Table* table, Link* link) noexcept nogil
cdef bint put_block(Tables* tables, uint64_t content, Block* block) noexcept nogil
cdef Block* take_block(Tables* tables, uint64_t content, uint64_t start) noexcept nogil
cdef void drop_content(Tables* tables, Content* content) noexcept nogil
cdef Py_ssize_t position(Content* content, uint64_t start) noexcept nogil
cdef void note(Tables* tables, uint64_t handle, uint64_t offset, uint64_t end) noexcept nogil
cdef unsigned int enter(Tables* tables) noexcept nogil

# without `lock`

cdef void leave(Tables* tables, unsigned int epoch) noexcept nogil
cdef bint is_settled(Tables* tables) noexcept nogil
cdef void settle(Tables* tables) noexcept nogil
cdef void wait_for(int* uses) noexcept nogil
cdef bint wait_for_notes(Tables* tables, double patience) noexcept nogil
