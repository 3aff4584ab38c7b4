# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Pages of a directory as READDIR and READDIRPLUS have them: many records at a time, as `csi/fuse/protocol/replies.py`
has one. A listing of a hundred thousand names is mostly this."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from csi.fs.types import DirectoryEntry, DirectoryName, FileKind
from csi.fuse.protocol.replies import PREFERRED_IO

cdef struct Record:
    uint64_t inode
    uint64_t cookie
    uint32_t length
    uint32_t kind

cdef struct EntryOut:
    uint64_t node
    uint64_t generation
    uint64_t entry_seconds
    uint64_t attributes_seconds
    uint32_t entry_nanoseconds
    uint32_t attributes_nanoseconds
    uint64_t inode
    uint64_t size
    uint64_t blocks
    int64_t atime
    int64_t mtime
    int64_t ctime
    uint32_t atime_nanoseconds
    uint32_t mtime_nanoseconds
    uint32_t ctime_nanoseconds
    uint32_t mode
    uint32_t nlink
    uint32_t uid
    uint32_t gid
    uint32_t device
    uint32_t block_size
    uint32_t flags

cdef enum:
    DIRECTORY = 4  # DT_DIR and the others, dirent.h
    FILE = 8
    SYMLINK = 10

cdef int64_t SECOND = 1000000000
cdef double LONGEST = 1e12

cdef object entry_type = DirectoryEntry
cdef object name_type = DirectoryName
cdef object file_kind = FileKind.FILE
cdef object directory_kind = FileKind.DIRECTORY
cdef uint32_t preferred_io = PREFERRED_IO


def fill(list found, Py_ssize_t first, Py_ssize_t room, bint plus):
    """(page, how many): the records of `found` from `first` on that fit into `room` bytes. With `plus` a
    DirectoryEntry is told with its attributes, everything else by its name and number alone."""
    cdef bytes page = PyBytes_FromStringAndSize(NULL, room)
    cdef char* start = PyBytes_AS_STRING(page)
    cdef char* at = start
    cdef Py_ssize_t index = first, length, needed
    cdef Record* record
    cdef object one
    cdef bytes name
    while index < len(found):
        one = found[index]
        name = one.name
        length = PyBytes_GET_SIZE(name)
        needed = sizeof(Record) + ((length + 7) & ~7) + (sizeof(EntryOut) if plus else 0)
        if needed > room:
            break
        room -= needed
        if plus:
            memset(at, 0, sizeof(EntryOut))
            if type(one) is entry_type:
                put_entry(<EntryOut*>at, one.entry)
            at += sizeof(EntryOut)
        record = <Record*>at
        record.cookie = one.cookie
        record.length = <uint32_t>length
        if type(one) is entry_type:
            attributes = one.entry.attributes
            record.inode = attributes.inode
            record.kind = <uint32_t>attributes.mode >> 12
        else:
            record.inode = one.inode
            record.kind = kind_of(one.kind) if type(one) is name_type else DIRECTORY
        at += sizeof(Record)
        memcpy(at, PyBytes_AS_STRING(name), length)
        memset(at + length, 0, -length & 7)
        at += (length + 7) & ~7
        index += 1
    return page[: at - start], index - first


cdef uint32_t kind_of(object kind):
    if kind is file_kind:
        return FILE
    return DIRECTORY if kind is directory_kind else SYMLINK


cdef int put_entry(EntryOut* out, object entry) except -1:
    cdef object shown = entry.attributes
    cdef int64_t time
    out.node = out.inode = shown.inode
    out.generation = entry.generation
    put_timeout(entry.entry_timeout, &out.entry_seconds, &out.entry_nanoseconds)
    put_timeout(entry.attr_timeout, &out.attributes_seconds, &out.attributes_nanoseconds)
    out.size = shown.size
    out.blocks = (out.size + 511) // 512
    put_time(shown.atime_ns, &out.atime, &out.atime_nanoseconds)
    put_time(shown.mtime_ns, &out.mtime, &out.mtime_nanoseconds)
    put_time(shown.ctime_ns, &out.ctime, &out.ctime_nanoseconds)
    out.mode = shown.mode
    out.nlink = shown.nlink
    out.uid = shown.uid
    out.gid = shown.gid
    out.block_size = preferred_io
    return 0


cdef void put_time(int64_t nanoseconds, int64_t* seconds, uint32_t* rest) noexcept:
    """Rounded down, also before 1970."""
    seconds[0] = nanoseconds // SECOND
    if nanoseconds % SECOND < 0:
        seconds[0] -= 1
    rest[0] = <uint32_t>(nanoseconds - seconds[0] * SECOND)


cdef void put_timeout(double timeout, uint64_t* seconds, uint32_t* nanoseconds) noexcept:
    if timeout <= 0:
        seconds[0] = 0
        nanoseconds[0] = 0
    elif timeout >= LONGEST:
        seconds[0] = <uint64_t>LONGEST
        nanoseconds[0] = 0
    else:
        seconds[0] = <uint64_t>timeout
        nanoseconds[0] = <uint32_t>((timeout - <double>seconds[0]) * 1e9)
