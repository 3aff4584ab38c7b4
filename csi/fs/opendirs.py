"""The table of open directories."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

from csi.errors import BadHandle
from csi.fs.directories import OpenDirectory
from csi.fs.memory import MetadataMemory
from csi.fs.namespace import Namespace
from csi.fs.nodes import Node
from csi.fs.types import DirectoryEntry, DirectoryName
from csi.fs.walks import Walks
from csi.volume.units import FileHandle, Seconds

_FIRST = 1 << 62  # apart from files, so that a mix-up is an error and not another file


class OpenDirectories:
    """`_lock` guards the table."""

    def __init__(self, namespace: Namespace, walks: Walks, memory: MetadataMemory, *, symlinks: bool) -> None:
        """`memory` bounds the inodes that the kernel is told of before anybody asks for them."""
        self._namespace = namespace
        self._table = namespace.table
        self._walks = walks
        self._memory = memory
        self._symlinks = symlinks
        self._lock = threading.Lock()
        self._opened: dict[int, OpenDirectory] = {}
        self._succession = self._table.succession
        self._numbers = itertools.count(_FIRST + 1 + (self._succession.first if self._succession is not None else 0))

    def __len__(self) -> int:
        return len(self._opened)

    def open(self, node: Node) -> FileHandle:
        number = FileHandle(next(self._numbers))
        self.restore(number, node)
        return number

    def restore(self, number: FileHandle, node: Node) -> None:
        """`node` is open as `number`, perhaps since before this process: any position in it may be asked for."""
        opened = OpenDirectory(node, self._namespace, self._walks, self._memory.weigh, symlinks=self._symlinks)
        with self._table.lock:
            self._table.local(node).handles += 1
            if self._succession is not None:
                self._succession.opened(number, node)
        with self._lock:
            self._opened[number] = opened

    def read(self, handle: FileHandle, cookie: int) -> Iterator[DirectoryEntry]:
        """See `Filesystem.readdir`."""
        return self._get(handle).read(cookie)

    def scan(self, handle: FileHandle, cookie: int, *, plus: bool) -> Iterator[DirectoryEntry | DirectoryName]:
        """See `Filesystem.scan`."""
        opened = self._get(handle)
        return opened.scan(cookie, self._has_room) if plus else opened.names(cookie)

    def age(self, handle: FileHandle) -> Seconds:
        """See `Filesystem.listing_age`."""
        at = self._get(handle).asked_at
        return Seconds(0.0 if at is None else max(0.0, self._namespace.clock() - at))

    def close(self, handle: FileHandle) -> None:
        opened = self._get(handle)
        with self._lock:
            self._opened.pop(handle, None)
        with self._table.lock:
            self._table.local(opened.node).handles -= 1
            if self._succession is not None:
                self._succession.closed(handle, opened.node)
            self._table.drop_unused(opened.node)
        self._memory.weigh()

    def _get(self, handle: FileHandle) -> OpenDirectory:
        with self._lock:
            opened = self._opened.get(handle)
        if opened is None:
            raise BadHandle(f"directory handle {handle} is not open")
        return opened

    def _has_room(self) -> bool:
        """Whether the kernel may be told of an inode that nobody has asked for."""
        return len(self._table) < self._memory.allowed_inodes
