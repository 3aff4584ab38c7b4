"""A filesystem that answers whatever it is asked and keeps nothing: for sessions that are asked nonsense.

What grows beneath it is the session's. Inodes are 1 to 12 and handles those of the recording
(tests/support/record_fuse.py), so that messages made from recorded ones meet something.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator, Sequence

from csi import errors
from csi.fs.published import Published
from csi.fs.types import (
    AttributeChange,
    Attributes,
    Caller,
    DirectoryEntry,
    DirectoryName,
    Entry,
    FileKind,
    FilesystemStatistics,
    OpenFile,
)
from csi.oss.store import Buffer
from csi.volume.units import Bytes, FileHandle, InodeNumber, Seconds

INODES = range(1, 13)
HANDLES = range(0x1001, 0x100D)
SIZE = 20_000
_BLOCK = 4096
_MOST = 1 << 20
_TRUSTED = Seconds(600.0)


class AnsweringFilesystem:
    """Published are half of the inodes, two names and an absence, and half of the handles with all their bytes."""

    def __init__(self, published: Published) -> None:
        self._handles = itertools.cycle(HANDLES)
        for inode in INODES[::2]:
            published.publish_inode(entry_of(inode).attributes, believed=_TRUSTED, told=_TRUSTED)
        published.publish_name(InodeNumber(1), b"file", InodeNumber(3), believed=_TRUSTED, told=_TRUSTED)
        published.publish_absence(InodeNumber(1), b"missing", believed=_TRUSTED, told=Seconds(0.0))
        for start in range(0, SIZE, _BLOCK):
            published.publish_block(1, start, bytes(min(_BLOCK, SIZE - start)))
        for handle in HANDLES[::2]:
            published.publish_file(FileHandle(handle), 1, Bytes(SIZE))
        published.publish_open(InodeNumber(3), FileHandle(HANDLES[0]), keep_cache=True, believed=_TRUSTED)

    def lookup_cached(self, parent: InodeNumber, name: bytes) -> Entry | None:
        return self.lookup(parent, name, Caller()) if len(name) % 2 else None

    def getattr_cached(self, inode: InodeNumber) -> Entry | None:
        return self.getattr(inode) if inode % 2 else None

    def open_cached(self, inode: InodeNumber, flags: int) -> OpenFile | None:
        return self.open(inode, flags, Caller()) if inode % 2 else None

    def read_ready(self, handle: FileHandle, offset: int, size: int) -> Buffer | None:
        return self.read(handle, offset, size) if offset % 2 else None

    def forget(self, inode: InodeNumber, count: int) -> None:
        return

    def opendir(self, inode: InodeNumber) -> FileHandle:
        return FileHandle(next(self._handles))

    def releasedir(self, handle: FileHandle) -> None:
        return

    def statfs(self) -> FilesystemStatistics:
        return FilesystemStatistics(4096, 1, 1, 1, 1)

    def lookup(self, parent: InodeNumber, name: bytes, caller: Caller) -> Entry:
        if name.startswith(b"m"):
            raise errors.NoSuchEntry(f"{name!r} does not exist")
        return entry_of(1 + len(name) % len(INODES))

    def getattr(self, inode: InodeNumber) -> Entry:
        if inode not in INODES:
            raise errors.StaleFile(f"inode {inode} is unknown")
        return entry_of(inode)

    def setattr(self, inode: InodeNumber, change: AttributeChange, handle: FileHandle | None, caller: Caller) -> Entry:
        return self.getattr(inode)

    def readlink(self, inode: InodeNumber) -> bytes:
        return b"the/target"

    def symlink(self, parent: InodeNumber, name: bytes, target: bytes, caller: Caller) -> Entry:
        return entry_of(7)

    def mkdir(self, parent: InodeNumber, name: bytes, mode: int, caller: Caller) -> Entry:
        return entry_of(4)

    def rmdir(self, parent: InodeNumber, name: bytes) -> None:
        raise errors.DirectoryNotEmpty("never empty")

    def unlink(self, parent: InodeNumber, name: bytes) -> None:
        return

    def rename(
        self, parent: InodeNumber, name: bytes, new_parent: InodeNumber, new_name: bytes, flags: int = 0
    ) -> None:
        return

    def open(self, inode: InodeNumber, flags: int, caller: Caller) -> OpenFile:
        return OpenFile(FileHandle(next(self._handles)), keep_cache=bool(flags & 1), direct_io=bool(flags & 2))

    def create(self, parent: InodeNumber, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Entry, OpenFile]:
        return entry_of(2), self.open(InodeNumber(2), flags, caller)

    def read(self, handle: FileHandle, offset: int, size: int, for_pages: bool = True) -> Buffer:
        return bytes(min(size, _MOST))

    def write(self, handle: FileHandle, offset: int, data: Buffer) -> int:
        return len(data)

    def flush(self, handle: FileHandle) -> None:
        raise RuntimeError("a bug in the filesystem")

    def fsync(self, handle: FileHandle) -> None:
        return

    def release(self, handle: FileHandle) -> None:
        return

    def readdir(self, handle: FileHandle, cookie: int) -> Iterator[DirectoryEntry]:
        for position in range(max(3, min(cookie, 300) + 1), 300):
            yield DirectoryEntry(b"name-%d" % position, entry_of(2), position)

    def scan(self, handle: FileHandle, cookie: int, *, plus: bool) -> Iterator[DirectoryEntry | DirectoryName]:
        for entry in self.readdir(handle, cookie):
            yield entry if plus else DirectoryName(entry.name, InodeNumber(2), FileKind.FILE, entry.cookie)

    def copy_range(
        self, source: FileHandle, offset: int, destination: FileHandle, destination_offset: int, size: int
    ) -> int:
        return min(size, _MOST)

    def allocate(self, handle: FileHandle, offset: int, size: int, mode: int) -> None:
        raise errors.OperationNotSupported("no")

    def getxattr(self, inode: InodeNumber, name: bytes) -> bytes:
        return b"value"

    def listxattr(self, inode: InodeNumber) -> Sequence[bytes]:
        return [b"user.color", b"user.shape"]

    def setxattr(self, inode: InodeNumber, name: bytes, value: bytes, flags: int = 0) -> None:
        return

    def removexattr(self, inode: InodeNumber, name: bytes) -> None:
        raise errors.NoAttribute("none")


def entry_of(inode: int) -> Entry:
    directory = inode in (1, 4)
    kind = FileKind.DIRECTORY if directory else FileKind.FILE
    mode = stat.S_IFDIR | 0o755 if directory else stat.S_IFREG | 0o644
    attributes = Attributes(InodeNumber(inode), kind, mode, 1, 0, 0, SIZE, 1, 2, 3)
    return Entry(attributes, Seconds(1.0), Seconds(1.0))
