"""A TreeFilesystem whose files lie in a local directory: some of them wholly in a cache, as a disk cache has them.

`origin/NAME` is the file as the bucket has it; each new file there is a new version. `cache/NAME` is there while the
version that it is a link to is on the disk.
"""

from __future__ import annotations

import os
from pathlib import Path

from csi.fs.types import Backing, Entry, FileKind, OpenFile
from csi.oss.store import Buffer
from csi.volume.units import FileHandle
from tests.support.tree_filesystem import Node, TreeFilesystem


class BackedTree(TreeFilesystem):
    """Implements csi.fuse.served.Backed. `versions` are the local files that handles are bound to."""

    def __init__(self, directory: Path, *, inline: bool = True) -> None:
        super().__init__(inline=inline, timeout=0.0)
        self._origin, self._cache = directory / "origin", directory / "cache"
        self._names: dict[int, str] = {}
        self.versions: dict[int, int] = {}
        for path in sorted(self._origin.iterdir()):
            self._names[self.add(path.name, b"").inode] = path.name

    def backing(self, handle: FileHandle) -> Backing | None:
        try:
            descriptor = os.open(self._cache / self._names[self.handles[handle]], os.O_RDONLY)
        except FileNotFoundError:
            return None
        content = os.fstat(self.versions[handle]).st_ino
        if os.fstat(descriptor).st_ino == content:
            return Backing(descriptor, content)
        os.close(descriptor)
        return None

    def read(self, handle: FileHandle, offset: int, size: int, for_pages: bool = True) -> Buffer:
        self.calls["read"] += 1
        return os.pread(self.versions[handle], size, offset)

    def release(self, handle: FileHandle) -> None:
        os.close(self.versions.pop(handle))
        super().release(handle)

    def _open(self, node: Node) -> OpenFile:
        opened = super()._open(node)
        if node.kind is FileKind.FILE:
            self.versions[opened.handle] = os.open(self._origin / self._names[node.inode], os.O_RDONLY)
        return opened

    def _entry(self, node: Node) -> Entry:
        entry = super()._entry(node)
        if node.kind is not FileKind.FILE:
            return entry
        size = (self._origin / self._names[node.inode]).stat().st_size
        return entry._replace(attributes=entry.attributes._replace(size=size))
