"""A FolderFilesystem that publishes what it knows, so that a session answers from its tables while all of it changes.

Names, absences, attributes, opens and whole files are published as soon as they are known, for much longer than they
stay true, and taken back before they change: whoever is told something old was told it by the tables.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections import defaultdict

from csi.errors import MountError
from csi.fs.published import Published
from csi.fs.types import AttributeChange, Caller, Entry, OpenFile
from csi.oss.store import Buffer
from csi.volume.units import Bytes, FileHandle, InodeNumber, Seconds
from tests.support.folder_filesystem import FolderFilesystem

_BELIEVED = Seconds(600.0)
_BLOCK = 4096 * 3
"""Small and odd: reads go across blocks."""


class PublishingFolder(FolderFilesystem):
    """`lock` is held by whoever changes or publishes. `_readers`: the handles of an inode that are published, and the
    content their blocks belong to; `_inode_of` the inode of every open file."""

    def __init__(self, folder: str, published: Published, *, timeout: float) -> None:
        super().__init__(folder, timeout=timeout)
        self._published = published
        self._contents = itertools.count(1)
        self._content_of: dict[int, int] = {}
        self._readers: defaultdict[int, set[int]] = defaultdict(set)
        self._inode_of: dict[int, int] = {}

    # --- what is known is published ---

    def lookup(self, parent: InodeNumber, name: bytes, caller: Caller) -> Entry:
        with self.lock:
            try:
                found = super().lookup(parent, name, caller)
            except MountError:
                if not os.path.lexists(os.path.join(os.fsencode(self._by_descriptor(parent)), name)):
                    self._published.publish_absence(parent, name, believed=_BELIEVED, told=Seconds(0.0))
                raise
            self._publish_name(parent, name, found)
            return found

    def getattr(self, inode: InodeNumber) -> Entry:
        with self.lock:
            found = super().getattr(inode)
            self._publish_inode(found)
            return found

    def open(self, inode: InodeNumber, flags: int, caller: Caller) -> OpenFile:
        with self.lock:
            if flags & os.O_TRUNC:
                self._changes(inode)
            opened = super().open(inode, flags, caller)
            self._inode_of[opened.handle] = inode
            if flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_TRUNC:
                self._publish_file(inode, opened.handle)
            return opened

    # --- what changes is taken back before ---

    def setattr(self, inode: InodeNumber, change: AttributeChange, handle: FileHandle | None, caller: Caller) -> Entry:
        with self.lock:
            self._changes(inode)
            return super().setattr(inode, change, handle, caller)

    def write(self, handle: FileHandle, offset: int, data: Buffer) -> int:
        with self.lock:
            self._changes(self._inode_of[handle])
            return super().write(handle, offset, data)

    def copy_range(
        self, source: FileHandle, offset: int, destination: FileHandle, destination_offset: int, size: int
    ) -> int:
        with self.lock:
            self._changes(self._inode_of[destination])
            return super().copy_range(source, offset, destination, destination_offset, size)

    def allocate(self, handle: FileHandle, offset: int, size: int, mode: int) -> None:
        with self.lock:
            self._changes(self._inode_of[handle])
            super().allocate(handle, offset, size, mode)

    def create(self, parent: InodeNumber, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Entry, OpenFile]:
        with self.lock:
            self._name_changes(parent, name)
            entry, opened = super().create(parent, name, mode, flags, caller)
            self._inode_of[opened.handle] = entry.attributes.inode
            self._changes(entry.attributes.inode)  # it may have been there
            return entry, opened

    def symlink(self, parent: InodeNumber, name: bytes, target: bytes, caller: Caller) -> Entry:
        with self.lock:
            self._name_changes(parent, name)
            return super().symlink(parent, name, target, caller)

    def mkdir(self, parent: InodeNumber, name: bytes, mode: int, caller: Caller) -> Entry:
        with self.lock:
            self._name_changes(parent, name)
            return super().mkdir(parent, name, mode, caller)

    def rmdir(self, parent: InodeNumber, name: bytes) -> None:
        with self.lock:
            self._name_changes(parent, name)
            super().rmdir(parent, name)

    def unlink(self, parent: InodeNumber, name: bytes) -> None:
        with self.lock:
            self._name_changes(parent, name)
            super().unlink(parent, name)

    def rename(
        self, parent: InodeNumber, name: bytes, new_parent: InodeNumber, new_name: bytes, flags: int = 0
    ) -> None:
        with self.lock:
            self._name_changes(parent, name)
            self._name_changes(new_parent, new_name)
            super().rename(parent, name, new_parent, new_name, flags)

    def setxattr(self, inode: InodeNumber, name: bytes, value: bytes, flags: int = 0) -> None:
        with self.lock:
            self._published.retract_inode(inode)
            super().setxattr(inode, name, value, flags)

    def removexattr(self, inode: InodeNumber, name: bytes) -> None:
        with self.lock:
            self._published.retract_inode(inode)
            super().removexattr(inode, name)

    def release(self, handle: FileHandle) -> None:
        with self.lock:
            inode = self._inode_of.pop(handle, 0)
            self._withdraw(inode, handle)
            super().release(handle)

    # --- private, with `lock` ---

    def _may_go(self, inode: int) -> bool:
        self._lookups[inode] += self._published.withdraw_inode(InodeNumber(inode))
        return self._lookups[inode] == 0

    def _publish_inode(self, entry: Entry) -> None:
        self._published.publish_inode(entry.attributes, believed=_BELIEVED, told=entry.attr_timeout)

    def _publish_name(self, parent: InodeNumber, name: bytes, entry: Entry) -> None:
        self._publish_inode(entry)
        inode = entry.attributes.inode
        self._published.publish_name(parent, name, inode, believed=_BELIEVED, told=entry.entry_timeout)

    def _publish_file(self, inode: int, handle: int) -> None:
        content = self._content_of.get(inode)
        size = os.fstat(self._handles[handle]).st_size
        if content is None:
            content = self._content_of[inode] = next(self._contents)
            for start in range(0, size, _BLOCK):
                self._published.publish_block(content, start, os.pread(self._handles[handle], _BLOCK, start))
        if self._published.publish_file(FileHandle(handle), content, Bytes(size)):
            self._readers[inode].add(handle)

    def _changes(self, inode: int) -> None:
        """Attributes or bytes of it will not be what they were."""
        self._published.retract_inode(InodeNumber(inode))
        for handle in list(self._readers.pop(inode, ())):
            self._published.withdraw_file(FileHandle(handle))
        content = self._content_of.pop(inode, None)
        if content is not None:
            self._published.retract_content(content)

    def _withdraw(self, inode: int, handle: int) -> None:
        if handle in self._readers.get(inode, ()):
            self._readers[inode].discard(handle)
            self._published.withdraw_file(FileHandle(handle))

    def _name_changes(self, parent: InodeNumber, name: bytes) -> None:
        self._published.retract_name(parent, name)
        self._published.retract_inode(parent)
        try:
            found = os.lstat(os.path.join(os.fsencode(self._by_descriptor(parent)), name))
        except OSError:
            return
        if stat.S_ISREG(found.st_mode):
            self._published.retract_inode(InodeNumber(found.st_ino))
