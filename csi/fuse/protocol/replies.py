"""Answers and notifications as bytes. The header is apart from what follows it, so that data is sent as it lies."""

from __future__ import annotations

import stat
import struct
from collections.abc import Sequence

from csi.fs.types import Attributes, DirectoryEntry, Entry, FilesystemStatistics
from csi.fuse.protocol.constants import Notification
from csi.volume.units import Seconds

HEADER = struct.Struct("<IiQ")
_ENTRY = struct.Struct("<QQQQII")
_ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
_ATTRIBUTES_FOR = struct.Struct("<QIxxxx")
_OPENED = struct.Struct("<QIi")
_BACKING_MAP = struct.Struct("<iIQ")
_STATFS = struct.Struct("<QQQQQIII28x")
_STATX = struct.Struct("<QII16xIIQIIIHxxQQQQqIxxxxqIxxxxqIxxxxqIxxxxIIII112x")
_NAMED = struct.Struct("<QQII")
_SIZE = struct.Struct("<Ixxxx")
_U64 = struct.Struct("<Q")
_PRUNED = struct.Struct("<I12x")
_NAME_GONE = struct.Struct("<QIxxxx")
assert HEADER.size == 16  # noqa: S101 - layouts that are wrong must not be used at all
assert (_ENTRY.size, _ATTRIBUTES.size, _STATFS.size, _STATX.size) == (40, 88, 80, 288)  # noqa: S101

_BLOCK = 512  # st_blocks counts these, stat(2)
PREFERRED_IO = 128 * 1024
"""st_blksize: what cp and buffered readers take as a hint; large because under direct_io each read is a request."""

UNKNOWN_INODE = 0xFFFFFFFF
"""What libfuse shows where a filesystem has no number to show."""

_LONGEST = 1 << 40  # seconds: the kernel multiplies them
_STATX_BASIC = 0x7FF


def header(unique: int, length: int, error: int = 0) -> bytes:
    """struct fuse_out_header of an answer with `length` bytes after it; `error` is 0 or an errno."""
    return HEADER.pack(HEADER.size + length, -error, unique)


def blocks_of(size: int) -> int:
    return (size + _BLOCK - 1) // _BLOCK


def attributes(found: Attributes) -> bytes:
    """struct fuse_attr."""
    atime, atime_ns = divmod(found.atime_ns, 1_000_000_000)
    mtime, mtime_ns = divmod(found.mtime_ns, 1_000_000_000)
    ctime, ctime_ns = divmod(found.ctime_ns, 1_000_000_000)
    return _ATTRIBUTES.pack(
        found.inode,
        found.size,
        blocks_of(found.size),
        atime & _MASK,
        mtime & _MASK,
        ctime & _MASK,
        atime_ns,
        mtime_ns,
        ctime_ns,
        found.mode,
        found.nlink,
        found.uid,
        found.gid,
        0,
        PREFERRED_IO,
        0,
    )


def entry(found: Entry) -> bytes:
    """struct fuse_entry_out: the answer to LOOKUP, MKNOD, MKDIR, SYMLINK."""
    valid, valid_ns = _split(found.entry_timeout)
    attributes_valid, attributes_valid_ns = _split(found.attr_timeout)
    inode = found.attributes.inode
    return _ENTRY.pack(inode, found.generation, valid, attributes_valid, valid_ns, attributes_valid_ns) + attributes(
        found.attributes
    )


def negative_entry(timeout: Seconds) -> bytes:
    """'There is no such name, and you may believe it for `timeout`': node 0."""
    valid, valid_ns = _split(timeout)
    return _ENTRY.pack(0, 0, valid, 0, valid_ns, 0) + bytes(_ATTRIBUTES.size)


def attributes_for(found: Entry) -> bytes:
    """struct fuse_attr_out: the answer to GETATTR and SETATTR."""
    return _ATTRIBUTES_FOR.pack(*_split(found.attr_timeout)) + attributes(found.attributes)


def opened(handle: int, flags: int, backing: int = 0) -> bytes:
    """struct fuse_open_out: the answer to OPEN and OPENDIR, and the second half of that to CREATE. `backing`: the file
    it is passed through to, as the kernel has numbered it."""
    return _OPENED.pack(handle, flags, backing)


def backing_map(descriptor: int) -> bytes:
    """struct fuse_backing_map, of FUSE_DEV_IOC_BACKING_OPEN."""
    return _BACKING_MAP.pack(descriptor, 0, 0)


def size(count: int) -> bytes:
    """struct fuse_write_out, also of COPY_FILE_RANGE; struct fuse_getxattr_out where only the size was asked for."""
    return _SIZE.pack(count)


def position(offset: int) -> bytes:
    """struct fuse_lseek_out; struct fuse_copy_file_range_out of COPY_FILE_RANGE_64."""
    return _U64.pack(offset)


def xattr_names(names: Sequence[bytes]) -> bytes:
    return b"".join(name + b"\0" for name in names)


def statfs(statistics: FilesystemStatistics) -> bytes:
    return _STATFS.pack(
        statistics.blocks,
        statistics.blocks_free,
        statistics.blocks_free,
        statistics.files,
        statistics.files_free,
        statistics.block_size,
        statistics.name_max,
        statistics.block_size,
    )


def statx(found: Entry) -> bytes:
    """struct fuse_statx_out with everything stat(2) has; no birth time is known."""
    shown = found.attributes
    seconds, nanoseconds = _split(found.attr_timeout)
    atime, mtime, ctime = (divmod(time, 1_000_000_000) for time in (shown.atime_ns, shown.mtime_ns, shown.ctime_ns))
    return _STATX.pack(
        *(seconds, nanoseconds, 0),
        *(_STATX_BASIC, PREFERRED_IO, 0, shown.nlink, shown.uid, shown.gid, shown.mode),
        *(shown.inode, shown.size, blocks_of(shown.size), 0),
        *(*atime, 0, 0, *ctime, *mtime),
        *(0, 0, 0, 0),
    )


# --- directories: one record each, padded to eight bytes ---


def directory_record(name: bytes, inode: int, mode: int, cookie: int) -> bytes:
    """struct fuse_dirent, of READDIR."""
    padding = -len(name) % 8
    return _NAMED.pack(inode, cookie, len(name), stat.S_IFMT(mode) >> 12) + name + bytes(padding)


def directory_record_plus(found: DirectoryEntry) -> bytes:
    """struct fuse_direntplus, of READDIRPLUS: it counts as a lookup."""
    shown = found.entry.attributes
    return entry(found.entry) + directory_record(found.name, shown.inode, shown.mode, found.cookie)


def directory_record_uncounted(name: bytes, inode: int, mode: int, cookie: int) -> bytes:
    """struct fuse_direntplus of a name whose inode is not told: '.' and '..'."""
    return _NO_ENTRY + directory_record(name, inode, mode, cookie)


# --- notifications ---


def notification(code: Notification, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return HEADER.pack(HEADER.size + len(body), code, 0) + body


def resend() -> bytes:
    """Asks for everything that was read and not answered (kernel 6.9); EINVAL where the kernel cannot."""
    return notification(Notification.RESEND)


def prune(inodes: Sequence[int]) -> bytes:
    """Asks to forget what nothing on the node uses of these inodes (kernel 6.18); EINVAL where the kernel cannot."""
    return notification(Notification.PRUNE, _PRUNED.pack(len(inodes)), struct.pack(f"<{len(inodes)}Q", *inodes))


def invalidate_entry(parent: int, name: bytes) -> bytes:
    """Asks to forget a name; ENOENT when it was forgotten already."""
    return notification(Notification.INVAL_ENTRY, _NAME_GONE.pack(parent, len(name)), name, b"\0")


# --- private ---

_MASK = (1 << 64) - 1
_NO_ENTRY = bytes(_ENTRY.size + _ATTRIBUTES.size)


def _split(timeout: Seconds) -> tuple[int, int]:
    """Seconds and nanoseconds."""
    if timeout <= 0:
        return 0, 0
    if timeout >= _LONGEST:
        return _LONGEST, 0
    seconds = int(timeout)
    return seconds, int((timeout - seconds) * 1_000_000_000)
