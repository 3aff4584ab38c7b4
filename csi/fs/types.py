"""The values `csi/fs` speaks in: plain data that a kernel session turns into FUSE replies.

Those that there is one of for each name of a listing are tuples, which are made in a third of the time.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from csi.volume.units import FileHandle, InodeNumber, Seconds

ROOT_INODE = InodeNumber(1)


class FileKind(enum.Enum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


class Attributes(NamedTuple):
    """struct stat of one inode. Times are nanoseconds since the epoch; `mode` includes the file type bits."""

    inode: InodeNumber
    kind: FileKind
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    atime_ns: int


class Entry(NamedTuple):
    """The answer to a lookup: attributes, and how long the kernel may trust name and attributes (seconds)."""

    attributes: Attributes
    entry_timeout: Seconds
    attr_timeout: Seconds
    generation: int = 0


class DirectoryEntry(NamedTuple):
    """One name of a directory. `cookie` is what the kernel passes back to continue after this entry (stable across
    processes: a 63-bit hash of the name)."""

    name: bytes
    entry: Entry
    cookie: int


class DirectoryName(NamedTuple):
    """One name of a directory of which the kernel is told nothing but that it is there: it counts as told to nobody."""

    name: bytes
    inode: InodeNumber
    kind: FileKind
    cookie: int


class KnownName(NamedTuple):
    """A name that the kernel was told of: `inode` is at `name` in `parent`."""

    parent: int
    name: bytes
    inode: int
    is_directory: bool


class OpenFile(NamedTuple):
    """`keep_cache`: pages the kernel has of the file are those of this version. `direct_io`: neither reads nor writes
    use pages. `uncached_writes`: nobody could read from its pages what is written, so writes need not make any."""

    handle: FileHandle
    keep_cache: bool
    direct_io: bool
    uncached_writes: bool = False


class Backing(NamedTuple):
    """A local file that is one version of an object from its first byte to its last, and will not change: a program may
    read it in place of the mount. `descriptor` is open for reading and belongs to who gets it. `content` is the same
    number for every handle of that version, and no other's."""

    descriptor: int
    content: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: from the FUSE request."""

    uid: int = 0
    gid: int = 0
    pid: int = 0
    umask: int = 0o022


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """setattr(2) family: None means leave alone."""

    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class FilesystemStatistics:
    """statvfs(3) numbers shown for the mount; an object store has no end, so free is always large."""

    block_size: int
    blocks: int
    blocks_free: int
    files: int
    files_free: int
    name_max: int = 255
