"""The filesystem as a kernel session sees it: what is called for which request, and what must not block.

`csi/fs/filesystem.py` is the one implementation of the product; tests script their own. Everything is synchronous and
thread-safe; names, link targets and attribute names are bytes as the kernel has them. Any `csi.errors.OssFuseError`
may be raised; `csi/fuse/errno_map.py` decides what the caller gets.

The kernel counts how often it was told an inode (`lookup`, `create`, `mkdir`, `symlink` and every entry that `readdir`
yields); the filesystem counts the same and is told by `forget` when the kernel lets go. An entry
that was yielded but never reached the kernel is given back with `forget(inode, 1)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from csi.fs.types import (
    AttributeChange,
    Backing,
    Caller,
    DirectoryEntry,
    DirectoryName,
    Entry,
    FilesystemStatistics,
    KnownName,
    OpenFile,
)
from csi.oss.store import Buffer
from csi.volume.units import FileHandle, InodeNumber, Seconds


class ServedFilesystem(Protocol):
    # --- never block: called on the event loop; None means that the answer needs the network ---

    def lookup_cached(self, parent: InodeNumber, name: bytes) -> Entry | None:
        """`lookup` from what is known; raises NoSuchEntry when it is known that there is nothing. Counts like it."""

    def getattr_cached(self, inode: InodeNumber) -> Entry | None: ...

    def open_cached(self, inode: InodeNumber, flags: int) -> OpenFile | None:
        """`open` for reading; `release` of what was opened for reading does not block either."""

    def read_ready(self, handle: FileHandle, offset: int, size: int) -> Buffer | None: ...

    def forget(self, inode: InodeNumber, count: int) -> None: ...

    def opendir(self, inode: InodeNumber) -> FileHandle: ...

    def releasedir(self, handle: FileHandle) -> None: ...

    def statfs(self) -> FilesystemStatistics: ...

    # --- may block ---

    def lookup(self, parent: InodeNumber, name: bytes, caller: Caller) -> Entry: ...

    def getattr(self, inode: InodeNumber) -> Entry: ...

    def setattr(
        self, inode: InodeNumber, change: AttributeChange, handle: FileHandle | None, caller: Caller
    ) -> Entry: ...

    def readlink(self, inode: InodeNumber) -> bytes: ...

    def symlink(self, parent: InodeNumber, name: bytes, target: bytes, caller: Caller) -> Entry: ...

    def mkdir(self, parent: InodeNumber, name: bytes, mode: int, caller: Caller) -> Entry: ...

    def rmdir(self, parent: InodeNumber, name: bytes) -> None: ...

    def unlink(self, parent: InodeNumber, name: bytes) -> None: ...

    def rename(
        self, parent: InodeNumber, name: bytes, new_parent: InodeNumber, new_name: bytes, flags: int = 0
    ) -> None:
        """`flags` are renameat2(2)'s."""

    def open(self, inode: InodeNumber, flags: int, caller: Caller) -> OpenFile: ...

    def create(
        self, parent: InodeNumber, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Entry, OpenFile]: ...

    def read(self, handle: FileHandle, offset: int, size: int, for_pages: bool = True) -> Buffer:
        """Exactly `size` bytes, fewer only at end of file: the kernel takes a short answer for the end. `for_pages`:
        the kernel may make pages of them, other than for read(2) of a file opened with FOPEN_DIRECT_IO."""

    def write(self, handle: FileHandle, offset: int, data: Buffer) -> int: ...

    def flush(self, handle: FileHandle) -> None: ...

    def fsync(self, handle: FileHandle) -> None: ...

    def release(self, handle: FileHandle) -> None: ...

    def readdir(self, handle: FileHandle, cookie: int) -> Iterator[DirectoryEntry]:
        """Entries after the one whose cookie is `cookie` (0: from the start, as it is now); any cookie ever given may
        come back. Cookies are above 2; '.' and '..' are the session's business."""

    def getxattr(self, inode: InodeNumber, name: bytes) -> bytes: ...

    def listxattr(self, inode: InodeNumber) -> Sequence[bytes]: ...

    def setxattr(self, inode: InodeNumber, name: bytes, value: bytes, flags: int = 0) -> None:
        """`flags` are setxattr(2)'s."""

    def removexattr(self, inode: InodeNumber, name: bytes) -> None: ...


# --- what a filesystem may have besides ---


@runtime_checkable
class Overflowing(Protocol):
    """A filesystem that remembers what the kernel knows, for which there is not always the memory."""

    def surplus(self, within: Seconds) -> Sequence[KnownName]:
        """Names that the kernel shall forget, if nothing uses them; none after `within` seconds without any. For one
        thread of the session."""


# --- what only our own session asks for ---


@runtime_checkable
class Scanning(Protocol):
    def scan(self, handle: FileHandle, cookie: int, *, plus: bool) -> Iterator[DirectoryEntry | DirectoryName]:
        """`readdir` that may tell of a name without its inode, which counts for nothing; of nothing else unless
        `plus`."""


@runtime_checkable
class Copying(Protocol):
    def copy_range(
        self, source: FileHandle, offset: int, destination: FileHandle, destination_offset: int, size: int
    ) -> int:
        """copy_file_range(2): how many bytes were copied. Raises OperationNotSupported: the program copies them."""


@runtime_checkable
class Allocating(Protocol):
    def allocate(self, handle: FileHandle, offset: int, size: int, mode: int) -> None:
        """fallocate(2). Raises OperationNotSupported."""


@runtime_checkable
class Backed(Protocol):
    def backing(self, handle: FileHandle) -> Backing | None:
        """The local file of what `handle`, just opened for reading, reads; None when it is not wholly there. Never
        waits for the network. Reads of `handle` may come all the same."""
