# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Pages of a directory as READDIR and READDIRPLUS have them: many records at a time, as `csi/fuse/protocol/replies.py`
has one. A listing of a hundred thousand names is mostly this."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from csi.fuse.native.wire cimport EntryOut

from csi.fs.types import Attributes, DirectoryEntry, DirectoryName, Entry, FileKind
from csi.fuse.protocol.replies import PREFERRED_IO

cdef struct Record:
    uint64_t inode
    uint64_t cookie
    uint32_t length
    uint32_t kind

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

# where the fields of the tuples are: by name, each costs a call
cdef Py_ssize_t NAME = DirectoryEntry._fields.index("name")
cdef Py_ssize_t ENTRY = DirectoryEntry._fields.index("entry")
cdef Py_ssize_t COOKIE = DirectoryEntry._fields.index("cookie")
cdef Py_ssize_t BARE_NAME = DirectoryName._fields.index("name")
cdef Py_ssize_t BARE_INODE = DirectoryName._fields.index("inode")
cdef Py_ssize_t BARE_KIND = DirectoryName._fields.index("kind")
cdef Py_ssize_t BARE_COOKIE = DirectoryName._fields.index("cookie")
cdef Py_ssize_t ATTRIBUTES = Entry._fields.index("attributes")
cdef Py_ssize_t ENTRY_TIMEOUT = Entry._fields.index("entry_timeout")
cdef Py_ssize_t ATTR_TIMEOUT = Entry._fields.index("attr_timeout")
cdef Py_ssize_t GENERATION = Entry._fields.index("generation")
cdef Py_ssize_t INODE = Attributes._fields.index("inode")
cdef Py_ssize_t MODE = Attributes._fields.index("mode")
cdef Py_ssize_t NLINK = Attributes._fields.index("nlink")
cdef Py_ssize_t UID = Attributes._fields.index("uid")
cdef Py_ssize_t GID = Attributes._fields.index("gid")
cdef Py_ssize_t SIZE = Attributes._fields.index("size")
cdef Py_ssize_t ATIME = Attributes._fields.index("atime_ns")
cdef Py_ssize_t MTIME = Attributes._fields.index("mtime_ns")
cdef Py_ssize_t CTIME = Attributes._fields.index("ctime_ns")


def fill(list found, Py_ssize_t first, Py_ssize_t room, bint plus, list told):
    """(page, how many): the records of `found` from `first` on that fit into `room` bytes. With `plus` a
    DirectoryEntry is told with its attributes, everything else by its name and number alone. The inode of each
    DirectoryEntry, told or not, is added to `told`."""
    cdef Py_ssize_t index, end = first, length, needed, size = 0
    cdef Py_ssize_t extra = sizeof(Record) + (sizeof(EntryOut) if plus else 0)
    cdef bytes page, name
    cdef char* at
    cdef Record* record
    cdef object one, attributes
    cdef type kind
    while end < len(found):
        needed = extra + padded(PyBytes_GET_SIZE(name_of(found[end])))
        if size + needed > room:
            break
        size += needed
        end += 1
    page = PyBytes_FromStringAndSize(NULL, size)
    at = PyBytes_AS_STRING(page)
    for index in range(first, end):
        one = found[index]
        kind = type(one)
        name = name_of(one)
        length = PyBytes_GET_SIZE(name)
        if plus:
            if kind is entry_type:
                put_entry(<EntryOut*>at, field(one, ENTRY))
            else:
                memset(at, 0, sizeof(EntryOut))
            at += sizeof(EntryOut)
        record = <Record*>at
        record.length = <uint32_t>length
        if kind is entry_type:
            attributes = field(field(one, ENTRY), ATTRIBUTES)
            record.inode = field(attributes, INODE)
            record.kind = <uint32_t>field(attributes, MODE) >> 12
            record.cookie = field(one, COOKIE)
            told.append(field(attributes, INODE))
        elif kind is name_type:
            record.inode = field(one, BARE_INODE)
            record.kind = kind_of(field(one, BARE_KIND))
            record.cookie = field(one, BARE_COOKIE)
        else:
            record.inode = one.inode
            record.kind = DIRECTORY
            record.cookie = one.cookie
        at += sizeof(Record)
        memcpy(at, PyBytes_AS_STRING(name), length)
        memset(at + length, 0, padded(length) - length)
        at += padded(length)
    return page, end - first


cdef inline Py_ssize_t padded(Py_ssize_t length) noexcept:
    return (length + 7) & ~7


cdef inline object field(object one, Py_ssize_t at):
    return <object>PyTuple_GET_ITEM(one, at)


cdef inline bytes name_of(object one):
    if type(one) is entry_type:
        return <bytes>field(one, NAME)
    if type(one) is name_type:
        return <bytes>field(one, BARE_NAME)
    return one.name


cdef uint32_t kind_of(object kind):
    if kind is file_kind:
        return FILE
    return DIRECTORY if kind is directory_kind else SYMLINK


cdef int put_entry(EntryOut* out, object entry) except -1:
    cdef object shown = field(entry, ATTRIBUTES)
    out.node = out.shape.inode = field(shown, INODE)
    out.generation = field(entry, GENERATION)
    put_timeout(field(entry, ENTRY_TIMEOUT), &out.entry_seconds, &out.entry_nanoseconds)
    put_timeout(field(entry, ATTR_TIMEOUT), &out.attributes_seconds, &out.attributes_nanoseconds)
    out.shape.size = field(shown, SIZE)
    out.shape.blocks = (out.shape.size + 511) // 512
    put_time(field(shown, ATIME), &out.shape.accessed, &out.shape.accessed_nanoseconds)
    put_time(field(shown, MTIME), &out.shape.modified, &out.shape.modified_nanoseconds)
    put_time(field(shown, CTIME), &out.shape.changed, &out.shape.changed_nanoseconds)
    out.shape.mode = field(shown, MODE)
    out.shape.links = field(shown, NLINK)
    out.shape.uid = field(shown, UID)
    out.shape.gid = field(shown, GID)
    out.shape.device = 0
    out.shape.block_size = preferred_io
    out.shape.flags = 0
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
