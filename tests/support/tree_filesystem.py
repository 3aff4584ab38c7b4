"""A small filesystem in memory that a kernel session can serve: the session layer is tested without OSS below it.

Nodes are dictionaries of names or byte strings. `slow` names block in lookup, `broken` ones raise what no filesystem
should raise, and counters tell which calls arrived. Extended attributes are plain.
"""

from __future__ import annotations

import itertools
import logging
import os
import stat
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from csi import errors
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

_log = logging.getLogger(__name__)

_TYPE_BITS = {FileKind.FILE: stat.S_IFREG, FileKind.DIRECTORY: stat.S_IFDIR, FileKind.SYMLINK: stat.S_IFLNK}


@dataclass
class Node:
    inode: int
    kind: FileKind
    mode: int
    data: bytearray = field(default_factory=bytearray)
    children: dict[bytes, int] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    mtime_ns: int = 1_700_000_000_123_456_789


class TreeFilesystem:
    """`lock` guards everything. `inline` answers reads and lookups on the event loop, else they go to threads."""

    def __init__(self, *, inline: bool = True, timeout: float = 1.0, keep_cache: bool = True) -> None:
        self.lock = threading.RLock()
        self.inline = inline
        self.timeout = Seconds(timeout)
        self.keep_cache = keep_cache
        self.direct_io = False
        self.uncached_writes = False
        self.nodes: dict[int, Node] = {1: Node(1, FileKind.DIRECTORY, 0o755)}
        self.handles: dict[int, int] = {}
        self.lookups: Counter[int] = Counter()
        self.calls: Counter[str] = Counter()
        self.flush_error: BaseException | None = None
        self.unblock = threading.Event()
        self._inodes = itertools.count(2)
        self._handles = itertools.count(1)

    # --- seen by tests ---

    def add(self, path: str, data: bytes | None = None) -> Node:
        """A file with `data`, or a directory; parents are made."""
        with self.lock:
            *parents, name = path.encode().split(b"/")
            node = self.nodes[1]
            for part in parents:
                child = node.children.get(part)
                node = self.nodes[child] if child else self._make(node, part, FileKind.DIRECTORY, 0o755)
            kind = FileKind.DIRECTORY if data is None else FileKind.FILE
            made = self._make(node, name, kind, 0o755 if data is None else 0o644)
            made.data[:] = data or b""
            return made

    # --- never block ---

    def lookup_cached(self, parent: InodeNumber, name: bytes) -> Entry | None:
        if not self.inline or name.startswith((b"slow", b"broken")):
            return None
        return self._look_up(parent, name)

    def getattr_cached(self, inode: InodeNumber) -> Entry | None:
        return self.getattr(inode) if self.inline else None

    def open_cached(self, inode: InodeNumber, flags: int) -> OpenFile | None:
        return self.open(inode, flags, Caller()) if self.inline and not flags & os.O_ACCMODE else None

    def read_ready(self, handle: FileHandle, offset: int, size: int) -> Buffer | None:
        return self.read(handle, offset, size) if self.inline else None

    def forget(self, inode: InodeNumber, count: int) -> None:
        with self.lock:
            self.lookups[inode] -= count

    def statfs(self) -> FilesystemStatistics:
        return FilesystemStatistics(4096, 1 << 40, 1 << 39, 1 << 30, 1 << 29)

    # --- may block ---

    def lookup(self, parent: InodeNumber, name: bytes, caller: Caller) -> Entry:
        if name == b"slow":
            _log.info("slow is asked for")
            self.unblock.wait(30)
        if name == b"broken":
            raise RuntimeError("a bug in the filesystem")
        return self._look_up(parent, name)

    def getattr(self, inode: InodeNumber) -> Entry:
        with self.lock:
            return self._entry(self._node(inode))

    def setattr(self, inode: InodeNumber, change: AttributeChange, handle: FileHandle | None, caller: Caller) -> Entry:
        with self.lock:
            node = self._node(inode)
            self.calls["setattr"] += 1
            if change.size is not None:
                node.data[change.size :] = bytes(max(0, change.size - len(node.data)))
            if change.mode is not None:
                node.mode = stat.S_IMODE(change.mode)
            if change.mtime_ns is not None:
                node.mtime_ns = change.mtime_ns
            return self._entry(node)

    def readlink(self, inode: InodeNumber) -> bytes:
        return bytes(self._node(inode).data)

    def symlink(self, parent: InodeNumber, name: bytes, target: bytes, caller: Caller) -> Entry:
        with self.lock:
            node = self._make(self._node(parent), name, FileKind.SYMLINK, 0o777)
            node.data[:] = target
            return self._counted(node)

    def mkdir(self, parent: InodeNumber, name: bytes, mode: int, caller: Caller) -> Entry:
        with self.lock:
            return self._counted(self._make(self._node(parent), name, FileKind.DIRECTORY, stat.S_IMODE(mode)))

    def rmdir(self, parent: InodeNumber, name: bytes) -> None:
        with self.lock:
            if self._child(parent, name).children:
                raise errors.DirectoryNotEmpty(f"{name!r} is not empty")
            del self._node(parent).children[name]

    def unlink(self, parent: InodeNumber, name: bytes) -> None:
        with self.lock:
            self._child(parent, name)
            del self._node(parent).children[name]

    def rename(
        self, parent: InodeNumber, name: bytes, new_parent: InodeNumber, new_name: bytes, flags: int = 0
    ) -> None:
        with self.lock:
            node = self._child(parent, name)
            if flags & ~1:
                raise errors.InvalidOperation("no such rename")
            if flags & 1 and new_name in self._node(new_parent).children:
                raise errors.EntryExists(f"{new_name!r} exists")
            del self._node(parent).children[name]
            self._node(new_parent).children[new_name] = node.inode

    def open(self, inode: InodeNumber, flags: int, caller: Caller) -> OpenFile:
        with self.lock:
            node = self._node(inode)
            if flags & os.O_TRUNC:
                node.data.clear()
            return self._open(node)

    def create(self, parent: InodeNumber, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Entry, OpenFile]:
        with self.lock:
            node = self._make(self._node(parent), name, FileKind.FILE, stat.S_IMODE(mode))
            return self._counted(node), self._open(node)

    def read(self, handle: FileHandle, offset: int, size: int, for_pages: bool = True) -> Buffer:
        with self.lock:
            self.calls["read"] += 1
            self.calls["read for pages"] += for_pages
            return bytes(self._opened(handle).data[offset : offset + size])

    def write(self, handle: FileHandle, offset: int, data: Buffer) -> int:
        with self.lock:
            node = self._opened(handle)
            if offset > len(node.data):
                node.data.extend(bytes(offset - len(node.data)))
            node.data[offset : offset + len(data)] = data
            return len(data)

    def flush(self, handle: FileHandle) -> None:
        with self.lock:
            self.calls["flush"] += 1
            self._opened(handle)
            if self.flush_error is not None:
                raise self.flush_error

    def fsync(self, handle: FileHandle) -> None:
        with self.lock:
            self.calls["fsync"] += 1
            self._opened(handle)

    def release(self, handle: FileHandle) -> None:
        with self.lock:
            self.calls["release"] += 1
            del self.handles[handle]

    def opendir(self, inode: InodeNumber) -> FileHandle:
        with self.lock:
            return self._open(self._node(inode)).handle

    def readdir(self, handle: FileHandle, cookie: int) -> Iterator[DirectoryEntry]:
        with self.lock:
            self.calls["readdir"] += 1
            names = list(self._opened(handle).children.items())
        for position, (name, inode) in enumerate(names, 3):
            if position > cookie:
                if name == b"unlistable":
                    raise errors.ServerFailure("the listing broke off", status=503)
                with self.lock:
                    entry = self._counted(self._node(inode))
                yield DirectoryEntry(name, entry, position)

    def releasedir(self, handle: FileHandle) -> None:
        with self.lock:
            del self.handles[handle]

    def getxattr(self, inode: InodeNumber, name: bytes) -> bytes:
        self.calls["getxattr"] += 1
        found = self._node(inode).xattrs.get(name)
        if found is None:
            raise errors.NoAttribute(f"no {name!r}")
        return found

    def listxattr(self, inode: InodeNumber) -> Sequence[bytes]:
        return list(self._node(inode).xattrs)

    def setxattr(self, inode: InodeNumber, name: bytes, value: bytes, flags: int = 0) -> None:
        self._node(inode).xattrs[name] = value
        self.calls[f"setxattr {flags}"] += 1

    def removexattr(self, inode: InodeNumber, name: bytes) -> None:
        self.getxattr(inode, name)
        del self._node(inode).xattrs[name]

    # --- private ---

    def _look_up(self, parent: InodeNumber, name: bytes) -> Entry:
        with self.lock:
            self.calls["lookup"] += 1
            return self._counted(self._child(parent, name))

    def _node(self, inode: int) -> Node:
        found = self.nodes.get(inode)
        if found is None:
            raise errors.StaleFile(f"inode {inode} is unknown")
        return found

    def _child(self, parent: int, name: bytes) -> Node:
        inode = self._node(parent).children.get(name)
        if inode is None:
            raise errors.NoSuchEntry(f"{name!r} does not exist")
        return self._node(inode)

    def _make(self, parent: Node, name: bytes, kind: FileKind, mode: int) -> Node:
        if name in parent.children:
            raise errors.EntryExists(f"{name!r} exists")
        node = Node(next(self._inodes), kind, mode)
        self.nodes[node.inode] = node
        parent.children[name] = node.inode
        return node

    def _open(self, node: Node) -> OpenFile:
        handle = next(self._handles)
        self.handles[handle] = node.inode
        return OpenFile(FileHandle(handle), self.keep_cache, self.direct_io, self.uncached_writes)

    def _opened(self, handle: int) -> Node:
        if handle not in self.handles:
            raise errors.BadHandle(f"handle {handle} is not open")
        return self._node(self.handles[handle])

    def _counted(self, node: Node) -> Entry:
        self.lookups[node.inode] += 1
        return self._entry(node)

    def _entry(self, node: Node) -> Entry:
        times = (node.mtime_ns, node.mtime_ns, node.mtime_ns)
        size = len(node.data)
        attributes = Attributes(
            InodeNumber(node.inode), node.kind, node.mode | _TYPE_BITS[node.kind], 1, 0, 0, size, *times
        )
        return Entry(attributes, self.timeout, self.timeout)
