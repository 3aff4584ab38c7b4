"""What a program does through a kernel, spoken straight to a Filesystem: paths are walked name by name, every open file
gets its FLUSH before its RELEASE, everything the filesystem counted is given back.

Errors arrive as the exceptions the filesystem raises.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from csi.errors import NoSuchEntry
from csi.fs.filesystem import Filesystem
from csi.fs.types import ROOT_INODE, AttributeChange, Attributes, Caller, Entry, OpenFile
from csi.volume.units import FileHandle, InodeNumber
from tests.support.hand_tails import HandTails

WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class OpenedFile:
    def __init__(
        self,
        filesystem: Filesystem,
        inode: InodeNumber,
        opened: OpenFile,
        position: int = 0,
        tails: HandTails | None = None,
    ) -> None:
        self.inode = inode
        self.opened = opened
        self.position = position
        self._filesystem = filesystem
        self._tails = tails

    @property
    def handle(self) -> FileHandle:
        return self.opened.handle

    def write(self, data: bytes) -> None:
        assert self.pwrite(data, self.position) == len(data)
        self.position += len(data)

    def pwrite(self, data: bytes, offset: int) -> int:
        if self._tails is not None and self._tails.put(self.handle, offset, data):
            return len(data)
        return self._filesystem.write(self.handle, offset, data)

    def pread(self, size: int = 1 << 20, offset: int = 0) -> bytes:
        ready = self._filesystem.read_ready(self.handle, offset, size)
        for_pages = not (self.opened.direct_io or self.opened.uncached_writes)
        return bytes(self._filesystem.read(self.handle, offset, size, for_pages) if ready is None else ready)

    def fsync(self) -> None:
        self._filesystem.fsync(self.handle)

    def flush(self) -> None:
        """close(2) of a duplicate of the descriptor."""
        self._filesystem.flush(self.handle)

    def truncate(self, size: int) -> None:
        self._filesystem.setattr(self.inode, AttributeChange(size=size), self.handle)

    def size(self) -> int:
        return self._filesystem.getattr(self.inode).attributes.size

    def close(self) -> None:
        try:
            self._filesystem.flush(self.handle)
        finally:
            self.release()

    def release(self) -> None:
        """The kernel lets go of it: at the end of `close`, or, called by itself, without a close(2)."""
        self._filesystem.release(self.handle)
        self._filesystem.forget(self.inode, 1)


class Program:
    """`tails`: where its session puts writes by itself."""

    def __init__(self, filesystem: Filesystem, pid: int = 1, tails: HandTails | None = None) -> None:
        self.filesystem = filesystem
        self.tails = tails
        self.caller = Caller(pid=pid)

    # --- paths ---

    @contextmanager
    def walk(self, path: str | bytes) -> Iterator[InodeNumber]:
        """The inode of a path, counted while the block runs."""
        told: list[InodeNumber] = []
        inode = ROOT_INODE
        try:
            for name in _names(path):
                entry = self._lookup(inode, name)
                inode = entry.attributes.inode
                told.append(inode)
            yield inode
        finally:
            for each in reversed(told):
                self.filesystem.forget(each, 1)

    @contextmanager
    def parent(self, path: str | bytes, *, look_up: bool = True) -> Iterator[tuple[InodeNumber, bytes]]:
        """Directory and last name of a path; the last name is looked up as the kernel does before it changes it."""
        names = _names(path)
        with self.walk(b"/".join(names[:-1])) as inode:
            entry = self._try_lookup(inode, names[-1]) if look_up else None
            try:
                yield inode, names[-1]
            finally:
                if entry is not None:
                    self.filesystem.forget(entry.attributes.inode, 1)

    def stat(self, path: str | bytes) -> Attributes:
        with self.walk(path) as inode:
            return (self.filesystem.getattr_cached(inode) or self.filesystem.getattr(inode)).attributes

    def exists(self, path: str | bytes) -> bool:
        try:
            self.stat(path)
        except NoSuchEntry:
            return False
        return True

    def list(self, path: str | bytes = b"") -> list[str]:
        return sorted(name.decode("utf-8", "surrogateescape") for name, _ in self.entries(path))

    def entries(self, path: str | bytes = b"") -> list[tuple[bytes, Entry]]:
        with self.walk(path) as inode:
            handle = self.filesystem.opendir(inode)
            found = []
            try:
                for entry in self.filesystem.readdir(handle, 0):
                    found.append((entry.name, entry.entry))
                    self.filesystem.forget(entry.entry.attributes.inode, 1)
            finally:
                self.filesystem.releasedir(handle)
            return found

    # --- files ---

    def open(self, path: str | bytes, flags: int = os.O_RDONLY) -> OpenedFile:
        with self.parent(path, look_up=False) as (parent, name):
            entry = self._try_lookup(parent, name) if not flags & os.O_CREAT or not flags & os.O_EXCL else None
            if entry is None and flags & os.O_CREAT:
                entry, opened = self.filesystem.create(parent, name, 0o644, flags, self.caller)
            else:
                entry = entry or self._lookup(parent, name)  # raises, but where it has appeared meanwhile
                try:
                    inode, how = entry.attributes.inode, flags & ~os.O_CREAT
                    opened = self.filesystem.open_cached(inode, how)
                    opened = opened or self.filesystem.open(inode, how, self.caller)
                except BaseException:
                    self.filesystem.forget(entry.attributes.inode, 1)
                    raise
        position = entry.attributes.size if flags & os.O_APPEND else 0
        return OpenedFile(self.filesystem, entry.attributes.inode, opened, position, self.tails)

    def write(self, path: str | bytes, data: bytes, flags: int = WRITE) -> None:
        file = self.open(path, flags)
        try:
            if data:
                file.write(data)
        finally:
            file.close()

    def append(self, path: str | bytes, data: bytes) -> None:
        self.write(path, data, APPEND)

    def read(self, path: str | bytes) -> bytes:
        file = self.open(path)
        try:
            return file.pread()
        finally:
            file.close()

    def truncate(self, path: str | bytes, size: int) -> None:
        with self.walk(path) as inode:
            self.filesystem.setattr(inode, AttributeChange(size=size), None)

    # --- names ---

    def mkdir(self, path: str | bytes) -> None:
        with self.parent(path) as (parent, name):
            self.filesystem.forget(self.filesystem.mkdir(parent, name, 0o755).attributes.inode, 1)

    def rmdir(self, path: str | bytes) -> None:
        with self.parent(path) as (parent, name):
            self.filesystem.rmdir(parent, name)

    def unlink(self, path: str | bytes) -> None:
        with self.parent(path) as (parent, name):
            self.filesystem.unlink(parent, name)

    def rename(self, old: str | bytes, new: str | bytes, flags: int = 0) -> None:
        with self.parent(old) as (parent, name), self.parent(new) as (new_parent, new_name):
            self.filesystem.rename(parent, name, new_parent, new_name, flags)

    def symlink(self, target: str, path: str | bytes) -> None:
        with self.parent(path) as (parent, name):
            self.filesystem.forget(self.filesystem.symlink(parent, name, target.encode()).attributes.inode, 1)

    def readlink(self, path: str | bytes) -> str:
        with self.walk(path) as inode:
            return self.filesystem.readlink(inode).decode()

    # --- private ---

    def _lookup(self, parent: InodeNumber, name: bytes) -> Entry:
        return self.filesystem.lookup_cached(parent, name) or self.filesystem.lookup(parent, name)

    def _try_lookup(self, parent: InodeNumber, name: bytes) -> Entry | None:
        try:
            return self._lookup(parent, name)
        except NoSuchEntry:
            return None


def _names(path: str | bytes) -> list[bytes]:
    raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    return [name for name in raw.split(b"/") if name]
