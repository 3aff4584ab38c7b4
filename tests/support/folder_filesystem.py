"""A local folder as a filesystem that a kernel session serves: what comes out wrong is the session's doing.

Every inode the kernel knows is held by an O_PATH descriptor, every open file by a descriptor of its own, so that names
may come and go meanwhile. The local kernel decides everything; its errno is the answer's. `inline` answers at once what
the session asks on its own thread; else such questions go to threads.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from csi.errors import MountError
from csi.fs.types import (
    AttributeChange,
    Attributes,
    Caller,
    DirectoryEntry,
    Entry,
    FileKind,
    FilesystemStatistics,
    OpenFile,
)
from csi.oss.store import Buffer
from csi.volume.units import FileHandle, InodeNumber, Seconds

P = ParamSpec("P")
R = TypeVar("R")
_ROOT = 1
_FIRST_COOKIE = 3
_KINDS = {stat.S_IFREG: FileKind.FILE, stat.S_IFDIR: FileKind.DIRECTORY, stat.S_IFLNK: FileKind.SYMLINK}
_UNSEEN_FLAGS = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND
"""The kernel has done what they say; of O_APPEND it is the offsets."""


def _locally(
    function: Callable[Concatenate[FolderFilesystem, P], R],
) -> Callable[Concatenate[FolderFilesystem, P], R]:
    """What the local kernel refuses is refused with its errno: MountError is the error that carries one."""

    @wraps(function)
    def call(self: FolderFilesystem, /, *arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            return function(self, *arguments, **keywords)
        except OSError as error:
            raise MountError(str(error), errno=error.errno or 0) from error

    return call


class FolderFilesystem:
    """`lock` guards the tables; calls of the local kernel are made with it, since each of them is quick."""

    def __init__(self, folder: str, *, inline: bool = True, timeout: float = 1.0) -> None:
        self.lock = threading.RLock()
        self.inline = inline
        self.timeout = Seconds(timeout)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._paths: dict[int, int] = {_ROOT: os.open(folder, os.O_PATH | os.O_DIRECTORY)}
        self._root = os.fstat(self._paths[_ROOT]).st_ino
        self._lookups: Counter[int] = Counter()
        self._handles: dict[int, int] = {}
        self._next = 1
        os.umask(0)

    # --- csi.fuse.served.ServedFilesystem: never block ---

    def lookup_cached(self, parent: InodeNumber, name: bytes) -> Entry | None:
        return self.lookup(parent, name, Caller()) if self.inline else None

    def getattr_cached(self, inode: InodeNumber) -> Entry | None:
        return self.getattr(inode) if self.inline else None

    def open_cached(self, inode: InodeNumber, flags: int) -> OpenFile | None:
        return self.open(inode, flags, Caller()) if self.inline and not flags & os.O_ACCMODE else None

    def read_ready(self, handle: FileHandle, offset: int, size: int) -> Buffer | None:
        return self.read(handle, offset, size) if self.inline else None

    def forget(self, inode: InodeNumber, count: int) -> None:
        with self.lock:
            self._lookups[inode] -= count
            if self._lookups[inode] < 0:
                raise AssertionError(f"inode {inode} was forgotten more often than told")
            if self._lookups[inode] == 0 and inode != _ROOT and self._may_go(inode):
                os.close(self._paths.pop(inode))
                del self._lookups[inode]

    @_locally
    def opendir(self, inode: InodeNumber) -> FileHandle:
        with self.lock:
            return self._keep(os.open(self._by_descriptor(inode), os.O_RDONLY | os.O_DIRECTORY)).handle

    def releasedir(self, handle: FileHandle) -> None:
        self.release(handle)

    def statfs(self) -> FilesystemStatistics:
        return FilesystemStatistics(4096, 1 << 20, 1 << 19, 1 << 20, 1 << 19)

    # --- may block ---

    @_locally
    def lookup(self, parent: InodeNumber, name: bytes, caller: Caller) -> Entry:
        with self.lock:
            return self._told(parent, name)

    @_locally
    def getattr(self, inode: InodeNumber) -> Entry:
        with self.lock:
            return self._entry(os.fstat(self._paths[inode]))

    @_locally
    def setattr(self, inode: InodeNumber, change: AttributeChange, handle: FileHandle | None, caller: Caller) -> Entry:
        with self.lock:
            path = self._by_descriptor(inode)
            if change.size is not None:
                os.truncate(path if handle is None else self._handles.get(handle, path), change.size)
            if change.mode is not None:
                os.chmod(path, stat.S_IMODE(change.mode))
            if change.uid is not None or change.gid is not None:
                os.chown(path, -1 if change.uid is None else change.uid, -1 if change.gid is None else change.gid)
            if change.mtime_ns is not None or change.atime_ns is not None:
                known = os.fstat(self._paths[inode])
                access = known.st_atime_ns if change.atime_ns is None else change.atime_ns
                modification = known.st_mtime_ns if change.mtime_ns is None else change.mtime_ns
                os.utime(path, ns=(access, modification))
            return self._entry(os.fstat(self._paths[inode]))

    @_locally
    def readlink(self, inode: InodeNumber) -> bytes:
        return os.readlink(b"", dir_fd=self._paths[inode])

    @_locally
    def symlink(self, parent: InodeNumber, name: bytes, target: bytes, caller: Caller) -> Entry:
        with self.lock:
            os.symlink(target, name, dir_fd=self._paths[parent])
            return self._told(parent, name)

    @_locally
    def mkdir(self, parent: InodeNumber, name: bytes, mode: int, caller: Caller) -> Entry:
        with self.lock:
            os.mkdir(name, stat.S_IMODE(mode), dir_fd=self._paths[parent])
            return self._told(parent, name)

    @_locally
    def rmdir(self, parent: InodeNumber, name: bytes) -> None:
        os.rmdir(name, dir_fd=self._paths[parent])

    @_locally
    def unlink(self, parent: InodeNumber, name: bytes) -> None:
        os.unlink(name, dir_fd=self._paths[parent])

    @_locally
    def rename(
        self, parent: InodeNumber, name: bytes, new_parent: InodeNumber, new_name: bytes, flags: int = 0
    ) -> None:
        if self._libc.renameat2(self._paths[parent], name, self._paths[new_parent], new_name, flags):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    @_locally
    def open(self, inode: InodeNumber, flags: int, caller: Caller) -> OpenFile:
        with self.lock:
            return self._keep(os.open(self._by_descriptor(inode), flags & ~_UNSEEN_FLAGS))

    @_locally
    def create(self, parent: InodeNumber, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Entry, OpenFile]:
        with self.lock:
            wanted = (flags & ~_UNSEEN_FLAGS) | (flags & os.O_EXCL) | os.O_CREAT
            opened = self._keep(os.open(name, wanted, stat.S_IMODE(mode), dir_fd=self._paths[parent]))
            return self._told(parent, name), opened

    @_locally
    def read(self, handle: FileHandle, offset: int, size: int, for_pages: bool = True) -> Buffer:
        return os.pread(self._handles[handle], size, offset)

    @_locally
    def write(self, handle: FileHandle, offset: int, data: Buffer) -> int:
        return os.pwrite(self._handles[handle], data, offset)

    def flush(self, handle: FileHandle) -> None:
        return

    @_locally
    def fsync(self, handle: FileHandle) -> None:
        os.fsync(self._handles[handle])

    def release(self, handle: FileHandle) -> None:
        with self.lock:
            os.close(self._handles.pop(handle))

    def readdir(self, handle: FileHandle, cookie: int) -> Iterator[DirectoryEntry]:
        names = sorted(os.listdir(self._handles[handle]))
        for position, name in enumerate(names, _FIRST_COOKIE):
            if position > cookie:
                with suppress(FileNotFoundError), self.lock:  # removed since it was listed
                    entry = self._told_at(self._handles[handle], os.fsencode(name))
                    yield DirectoryEntry(os.fsencode(name), entry, position)

    @_locally
    def getxattr(self, inode: InodeNumber, name: bytes) -> bytes:
        return os.getxattr(self._by_descriptor(inode), name)

    @_locally
    def listxattr(self, inode: InodeNumber) -> Sequence[bytes]:
        return [os.fsencode(name) for name in os.listxattr(self._by_descriptor(inode))]

    @_locally
    def setxattr(self, inode: InodeNumber, name: bytes, value: bytes, flags: int = 0) -> None:
        os.setxattr(self._by_descriptor(inode), name, value, flags)

    @_locally
    def removexattr(self, inode: InodeNumber, name: bytes) -> None:
        os.removexattr(self._by_descriptor(inode), name)

    @_locally
    def copy_range(
        self, source: FileHandle, offset: int, destination: FileHandle, destination_offset: int, size: int
    ) -> int:
        return os.copy_file_range(self._handles[source], self._handles[destination], size, offset, destination_offset)

    @_locally
    def allocate(self, handle: FileHandle, offset: int, size: int, mode: int) -> None:
        if mode:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        os.posix_fallocate(self._handles[handle], offset, size)

    # --- seen by tests ---

    def held(self) -> tuple[int, int]:
        """Inodes and handles that are held: the root alone when the kernel has let go of everything."""
        with self.lock:
            return len(self._paths), len(self._handles)

    # --- private, with `lock` ---

    def _may_go(self, inode: int) -> bool:
        """Whether nobody else told the kernel of it."""
        return True

    def _by_descriptor(self, inode: int) -> str:
        return f"/proc/self/fd/{self._paths[inode]}"

    def _told(self, parent: int, name: bytes) -> Entry:
        return self._told_at(self._paths[parent], name)

    def _told_at(self, directory: int, name: bytes) -> Entry:
        """The entry of a name that the kernel is about to be told, counted."""
        path = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
        found = self._entry(os.fstat(path))
        inode = found.attributes.inode
        if inode in self._paths:
            os.close(path)
        else:
            self._paths[inode] = path
        self._lookups[inode] += 1
        return found

    def _entry(self, found: os.stat_result) -> Entry:
        inode = _ROOT if found.st_ino == self._root else found.st_ino
        attributes = Attributes(
            InodeNumber(inode),
            _KINDS.get(stat.S_IFMT(found.st_mode), FileKind.FILE),
            found.st_mode,
            found.st_nlink,
            found.st_uid,
            found.st_gid,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_atime_ns,
        )
        return Entry(attributes, self.timeout, self.timeout)

    def _keep(self, descriptor: int) -> OpenFile:
        handle = self._next
        self._next += 1
        self._handles[handle] = descriptor
        return OpenFile(FileHandle(handle), keep_cache=False, direct_io=False)
