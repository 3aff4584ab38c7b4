# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Requests answered from the tables, without the interpreter: LOOKUP, GETATTR, OPEN, READ and WRITE, the FORGET, FLUSH
and RELEASE that belong to them, and that a file has no capabilities.

What is told to the kernel is counted before it is told, under the lock, so that who withdraws an inode or a file gets
every lookup and open there was. A reply that the kernel does not take (its caller was killed) is not counted.
"""

from libc.errno cimport ENODATA, ENOENT
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memset

from csi.fuse.native.fetches cimport end_open, interrupt_read, may_open, read_planned
from csi.fuse.native.noted cimport Slot, count_down, leave_slot, note_opened
from csi.fuse.native.scattered cimport read_range
from csi.fuse.native.sending cimport send, send_parts
from csi.fuse.native.tables cimport (
    A_FLUSH, A_GETATTR, A_GETXATTR, A_LOOKUP, A_OPEN, A_READ, A_RELEASE, LIGHT, Block, Content, File, Inode, Name, Plan,
    Tables, enter, find, find_name, leave, monotonic, name_hash, note, ossfuse_add, position,
)
from csi.fuse.native.tails cimport append
from csi.fuse.native.wire cimport KEEP_CACHE, NOFLUSH, EntryOut, InHeader, ReadIn, Shape
from csi.oss.posix cimport iovec, pthread_mutex_lock, pthread_mutex_unlock

cdef extern from "<fcntl.h>" nogil:
    """
    #ifndef O_DIRECT
    #define O_DIRECT __O_DIRECT
    #endif
    """
    int O_ACCMODE, O_RDONLY, O_TRUNC, O_DIRECT

cdef const char* CAPABILITY = "security.capability"

cdef enum:
    CAPABILITY_SIZE = 20  # with the zero at its end

cdef int64_t SECOND = 1000000000

# --- the wire, as csi/fuse/protocol has it ---

cdef struct AttributesOut:
    uint64_t seconds
    uint32_t nanoseconds
    uint32_t padding
    Shape shape

cdef struct OpenIn:
    uint32_t flags
    uint32_t open_flags

cdef struct OpenOut:
    uint64_t handle
    uint32_t flags
    uint32_t padding

cdef struct GetXattrIn:
    uint32_t size
    uint32_t padding

cdef struct ForgetOne:
    uint64_t node
    uint64_t count

cdef struct BatchForget:
    uint32_t count
    uint32_t padding

cdef enum:
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    WRITE = 16
    RELEASE = 18
    GETXATTR = 22
    FLUSH = 25
    INTERRUPT = 36
    BATCH_FORGET = 42

cdef enum:
    PIECES = 32  # blocks in one answer

cdef bint answer(Tables* tables, int descriptor, char* request, size_t length) noexcept nogil:
    """Answer a request of which `length` bytes were read, if it can be. Of a FORGET, what was counted here is taken
    off in place; True when nothing is left for the filesystem."""
    cdef InHeader* header = <InHeader*>request
    cdef uint32_t opcode
    if length < sizeof(InHeader) or header.length != length or header.extensions:
        return False
    opcode = header.opcode
    if opcode == READ:
        return length == sizeof(InHeader) + sizeof(ReadIn) and answer_read(tables, descriptor, header)
    if opcode == WRITE:
        return append(tables, descriptor, header, length)
    if opcode == LOOKUP:
        return answer_lookup(tables, descriptor, header, length)
    if opcode == GETATTR:
        return answer_getattr(tables, descriptor, header)
    if opcode == OPEN:
        return length == sizeof(InHeader) + sizeof(OpenIn) and answer_open(tables, descriptor, header)
    if opcode == RELEASE or opcode == FLUSH:
        return length >= sizeof(InHeader) + 8 and answer_end(tables, descriptor, header)
    if opcode == GETXATTR:
        return answer_getxattr(tables, descriptor, header, length)
    if opcode == FORGET:
        return length == sizeof(InHeader) + 8 and answer_forget(tables, header)
    if opcode == INTERRUPT:
        return length == sizeof(InHeader) + 8 and interrupt_read(tables, (<uint64_t*>(request + sizeof(InHeader)))[0])
    if opcode == BATCH_FORGET:
        return answer_forget_batch(tables, header, length)
    return False


cdef size_t asked_for(const char* request, size_t length) noexcept nogil:
    """The bytes that a READ asks for; 0 of any other request."""
    cdef const InHeader* header = <const InHeader*>request
    if length != sizeof(InHeader) + sizeof(ReadIn) or header.opcode != READ:
        return 0
    return (<const ReadIn*>(request + sizeof(InHeader))).size


cdef bint is_for_attributes(const char* request) noexcept nogil:
    """Whether an answered request is one for a name or for attributes."""
    cdef uint32_t opcode = (<const InHeader*>request).opcode
    return opcode == LOOKUP or opcode == GETATTR


cdef bint answer_lookup(Tables* tables, int descriptor, InHeader* header, size_t length) noexcept nogil:
    cdef const char* text = <char*>header + sizeof(InHeader)
    cdef size_t size = length - sizeof(InHeader)
    cdef EntryOut out
    cdef Name* name
    cdef Inode* inode
    cdef int64_t now
    cdef uint64_t hash
    cdef unsigned int epoch
    cdef bint absent
    if size < 2 or text[size - 1] != 0 or memchr(text, 0, size - 1) != NULL:
        return False
    size -= 1
    hash = name_hash(header.node, text, size)
    now = monotonic()
    pthread_mutex_lock(&tables.lock)
    name = find_name(tables, header.node, hash, text, size)
    if name == NULL or name.until <= now or (name.inode != NULL and name.inode.until <= now):
        pthread_mutex_unlock(&tables.lock)
        return False
    inode = name.inode
    absent = inode == NULL
    name.parent.hits += 1
    left(name.told, now, &out.entry_seconds, &out.entry_nanoseconds)
    if absent:
        out.node = out.generation = out.attributes_seconds = 0
        out.attributes_nanoseconds = 0
        memset(&out.shape, 0, sizeof(Shape))
    else:
        out.node = inode.link.number
        out.generation = inode.generation
        left(inode.told, now, &out.attributes_seconds, &out.attributes_nanoseconds)
        out.shape = inode.shape
        inode.lookups += 1
        tables.lookups += 1
    tables.answered[A_LOOKUP] += 1
    epoch = enter(tables)
    pthread_mutex_unlock(&tables.lock)
    if absent:
        if out.entry_seconds == 0 and out.entry_nanoseconds == 0:
            send(descriptor, header.unique, ENOENT, NULL, 0)
        else:
            send(descriptor, header.unique, 0, &out, sizeof(EntryOut))
    elif not send(descriptor, header.unique, 0, &out, sizeof(EntryOut)):
        pthread_mutex_lock(&tables.lock)
        if inode.lookups:  # a FORGET cannot have come for what was not told
            inode.lookups -= 1
            tables.lookups -= 1
        pthread_mutex_unlock(&tables.lock)
    leave(tables, epoch)
    return True


cdef bint answer_getattr(Tables* tables, int descriptor, InHeader* header) noexcept nogil:
    cdef AttributesOut out
    cdef Inode* inode
    cdef int64_t now = monotonic()
    cdef unsigned int epoch
    pthread_mutex_lock(&tables.lock)
    inode = <Inode*>find(&tables.inodes, header.node)
    if inode == NULL or inode.until <= now:
        pthread_mutex_unlock(&tables.lock)
        return False
    left(inode.told, now, &out.seconds, &out.nanoseconds)
    out.padding = 0
    out.shape = inode.shape
    tables.answered[A_GETATTR] += 1
    epoch = enter(tables)
    pthread_mutex_unlock(&tables.lock)
    send(descriptor, header.unique, 0, &out, sizeof(AttributesOut))
    leave(tables, epoch)
    return True


cdef bint answer_getxattr(Tables* tables, int descriptor, InHeader* header, size_t length) noexcept nogil:
    """That a file has no capabilities."""
    cdef const char* name = <char*>header + sizeof(InHeader) + sizeof(GetXattrIn)
    if not tables.incapable or length != sizeof(InHeader) + sizeof(GetXattrIn) + CAPABILITY_SIZE:
        return False
    if memcmp(name, CAPABILITY, CAPABILITY_SIZE) != 0:
        return False
    pthread_mutex_lock(&tables.lock)
    tables.answered[A_GETXATTR] += 1
    pthread_mutex_unlock(&tables.lock)
    send(descriptor, header.unique, ENODATA, NULL, 0)
    return True


cdef bint answer_open(Tables* tables, int descriptor, InHeader* header) noexcept nogil:
    cdef OpenIn* asked = <OpenIn*>(<char*>header + sizeof(InHeader))
    cdef OpenOut out
    cdef Inode* inode
    cdef File* file = NULL
    cdef Plan* plan
    cdef Slot* slot
    cdef int64_t now
    cdef unsigned int epoch
    if asked.flags & <uint32_t>O_ACCMODE != <uint32_t>O_RDONLY or asked.flags & <uint32_t>(O_TRUNC | O_DIRECT):
        return False
    now = monotonic()
    pthread_mutex_lock(&tables.lock)
    inode = <Inode*>find(&tables.inodes, header.node)
    if inode != NULL and inode.open_until > now:
        file = <File*>find(&tables.files, inode.open_handle)
    plan = inode.plan if inode != NULL and file == NULL else NULL
    out.padding = 0
    if file != NULL:
        file.opens += 1
        out.handle = file.link.number
        out.flags = inode.open_flags
    elif plan != NULL and may_open(tables, plan, now) and note_opened(tables, header.node, plan):
        plan.opens += 1
        out.handle = LIGHT | header.node
        out.flags = NOFLUSH | (KEEP_CACHE if plan.keeps == 2 or (plan.keeps == 1 and plan.opened) else 0)
        plan.opened = True
    else:
        pthread_mutex_unlock(&tables.lock)
        return False
    tables.opens += 1
    tables.answered[A_OPEN] += 1
    epoch = enter(tables)
    pthread_mutex_unlock(&tables.lock)
    if not send(descriptor, header.unique, 0, &out, sizeof(OpenOut)):
        pthread_mutex_lock(&tables.lock)
        if file != NULL and file.opens:
            file.opens -= 1
            tables.opens -= 1
        elif file == NULL and plan.opens:
            end_open(tables, plan)
            slot = leave_slot(tables, plan)
            if slot != NULL:
                count_down(slot, 1)
        pthread_mutex_unlock(&tables.lock)
    leave(tables, epoch)
    return True


cdef bint answer_end(Tables* tables, int descriptor, InHeader* header) noexcept nogil:
    """RELEASE of an open that was answered here; FLUSH of a file that is read."""
    cdef uint64_t handle = (<uint64_t*>(<char*>header + sizeof(InHeader)))[0]
    cdef bint released = header.opcode == RELEASE, known
    cdef File* file = NULL
    cdef Inode* inode
    cdef Plan* plan = NULL
    cdef Slot* slot = NULL
    cdef unsigned int epoch = 0
    pthread_mutex_lock(&tables.lock)
    if handle & LIGHT:
        inode = <Inode*>find(&tables.inodes, header.node)
        plan = inode.plan if inode != NULL and handle == (LIGHT | header.node) else NULL
        known = plan != NULL and plan.opens > 0
    else:
        file = <File*>find(&tables.files, handle)
        known = file != NULL and (file.opens > 0 or not released)
    if not known:
        pthread_mutex_unlock(&tables.lock)
        return False
    if released and plan != NULL:
        end_open(tables, plan)
        slot = leave_slot(tables, plan)
        epoch = enter(tables)  # what is counted down late is waited for before it is counted elsewhere
    elif released:
        file.opens -= 1
        tables.opens -= 1
    tables.answered[A_RELEASE if released else A_FLUSH] += 1
    pthread_mutex_unlock(&tables.lock)
    send(descriptor, header.unique, 0, NULL, 0)
    if slot != NULL:
        count_down(slot, 1)  # only now: a release that nobody heard of comes again
    if released and plan != NULL:
        leave(tables, epoch)
    return True


cdef bint answer_read(Tables* tables, int descriptor, InHeader* header) noexcept nogil:
    cdef ReadIn* asked = <ReadIn*>(<char*>header + sizeof(InHeader))
    cdef iovec parts[PIECES + 1]
    cdef Block* used[PIECES]
    cdef int count = 0, at
    cdef bint fetched
    cdef Py_ssize_t which
    cdef File* file
    cdef Content* content
    cdef Block* block
    cdef uint64_t offset = asked.offset, end = asked.offset + asked.size, size
    if asked.handle & LIGHT:
        return read_planned(tables, descriptor, header)
    pthread_mutex_lock(&tables.lock)
    file = <File*>find(&tables.files, asked.handle)
    if file == NULL or end < offset:
        pthread_mutex_unlock(&tables.lock)
        return False
    if end > file.size:
        end = file.size
    if offset < end:
        content = <Content*>find(&tables.contents, file.content)
        which = position(content, offset) if content != NULL else -1
        while offset < end:
            if which < 0 or count == PIECES or <size_t>which >= content.count:
                break
            block = content.blocks[which]
            if block.start > offset or block.start + block.length <= offset:
                break
            size = block.start + block.length - offset
            if size > end - offset:
                size = end - offset
            parts[count + 1].iov_base = block.data + (offset - block.start)
            parts[count + 1].iov_len = size
            used[count] = block
            count += 1
            which += 1
            offset += size
        if offset < end:  # never short before the end of the file
            fetched = file.plan != NULL and read_range(tables, descriptor, file, header, asked.offset, end)
            pthread_mutex_unlock(&tables.lock)
            return fetched
    for at in range(count):
        ossfuse_add(&used[at].uses, 1)
    ossfuse_add(&file.uses, 1)
    tables.answered[A_READ] += 1
    if end > file.tell:
        note(tables, file.link.number, asked.offset, end)
        file.tell = <uint64_t>-1
    pthread_mutex_unlock(&tables.lock)
    send_parts(descriptor, header.unique, 0, parts, count + 1)
    for at in range(count):
        ossfuse_add(&used[at].uses, -1)
    ossfuse_add(&file.uses, -1)
    return True


cdef bint answer_forget(Tables* tables, InHeader* header) noexcept nogil:
    cdef uint64_t* count = <uint64_t*>(<char*>header + sizeof(InHeader))
    pthread_mutex_lock(&tables.lock)
    count[0] = absorb(tables, header.node, count[0])
    pthread_mutex_unlock(&tables.lock)
    return count[0] == 0


cdef bint answer_forget_batch(Tables* tables, InHeader* header, size_t length) noexcept nogil:
    cdef BatchForget* batch = <BatchForget*>(<char*>header + sizeof(InHeader))
    cdef ForgetOne* one = <ForgetOne*>(<char*>batch + sizeof(BatchForget))
    cdef uint32_t at, kept = 0
    cdef uint64_t rest
    if length < sizeof(InHeader) + sizeof(BatchForget):
        return False
    if batch.count > (length - sizeof(InHeader) - sizeof(BatchForget)) // sizeof(ForgetOne):
        return False
    pthread_mutex_lock(&tables.lock)
    for at in range(batch.count):
        rest = absorb(tables, one[at].node, one[at].count)
        if rest:
            one[kept].node = one[at].node
            one[kept].count = rest
            kept += 1
    pthread_mutex_unlock(&tables.lock)
    batch.count = kept
    return kept == 0


cdef uint64_t absorb(Tables* tables, uint64_t node, uint64_t count) noexcept nogil:
    """What is left of a FORGET of `count` once the lookups counted here are taken off."""
    cdef Inode* inode = <Inode*>find(&tables.inodes, node)
    cdef uint64_t taken
    if inode == NULL:
        return count
    taken = count if count < inode.lookups else inode.lookups
    inode.lookups -= taken
    tables.lookups -= taken
    if taken and inode.offered and inode.lookups == 0:  # the one that the filesystem counts for this layer
        inode.offered = False
        return count - taken + 1
    return count - taken


cdef inline void left(int64_t until, int64_t now, uint64_t* seconds, uint32_t* nanoseconds) noexcept nogil:
    cdef int64_t rest = until - now
    if rest <= 0:
        seconds[0] = 0
        nanoseconds[0] = 0
    else:
        seconds[0] = <uint64_t>(rest // SECOND)
        nanoseconds[0] = <uint32_t>(rest % SECOND)
