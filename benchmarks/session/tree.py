"""The tree of tree.h as a filesystem that a kernel session serves: everything is in memory and nothing ever waits.

Every open has a handle of its own, but for those that a session answers by itself: theirs is the inode of the file. No
lock: the only state is what is open and what writers made, and one step of a dictionary is a single step for others.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from csi import errors
from csi.data.streams import Tail
from csi.fs.published import NothingPublished, Published
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

PAGE = 4096
SPAN = 128 << 20
SPAN_PAGES = SPAN // PAGE
BIG_SIZE = 4 << 30
SMALL_COUNT = 10_000
SMALL_SIZE = 100 << 10
SMALL_PAGES = SMALL_SIZE // PAGE

ROOT, BIG, SMALL, FIRST_SMALL, FIRST_WRITTEN = 1, 2, 3, 100, 1_000_000
_FIRST_HANDLE = 1 << 40  # below are the inodes, as handles that sessions share
_RING = 8 << 20
_LARGEST_WRITE = 1 << 20
_LENT = 4 << 20
_FIRST_COOKIE = 3  # cookies up to 2 are the session's own, for "." and ".."
_MTIME_NS = 1_700_000_000 * 10**9
_DIRECTORY_TIMEOUT = Seconds(300.0)
_FILE_TIMEOUT = Seconds(0.0)
_FOREVER = Seconds(86400.0)


class MemoryTree:
    """`span` is what all files show; `written` maps the inode of a writer's file to its size."""

    def __init__(
        self,
        copying: Path | None = None,
        published: Published | None = None,
        tails: Callable[[], Tail] | None = None,
    ) -> None:
        """`copying` is copying.c as a library; without it writes go nowhere at all. `published`: tables of a session
        that answers from them; all files that are read are put there. `tails`: where it puts writes by itself; room is
        lent as by `csi/data/writer.py`."""
        self._published = published or NothingPublished()
        self._handles = itertools.count(_FIRST_HANDLE)
        self._opened: dict[int, int] = {}
        # in huge pages, as the C program has it: how scattered small ones happen to lie makes a third of the speed
        self.span = mmap.mmap(-1, SPAN, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.span.madvise(mmap.MADV_HUGEPAGE)
        for page in range(SPAN_PAGES):
            begin = page * PAGE
            self.span[begin : begin + PAGE] = bytes([page % 251]) * PAGE
            self.span[begin : begin + 8] = page.to_bytes(8, "little")
        self._view = memoryview(self.span).toreadonly()
        self._ring = mmap.mmap(-1, _RING + _LARGEST_WRITE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._ring_address = ctypes.addressof(ctypes.c_char.from_buffer(self._ring))
        self._copy = ctypes.PyDLL(str(copying)).copy_from if copying is not None else None
        if self._copy is not None:
            self._copy.argtypes = (ctypes.c_void_p, ctypes.py_object)
        self._ring_memory = memoryview(self._ring)
        self._make_tail = tails
        self._tails: dict[int, Tail] = {}
        self._names: dict[bytes, int] = {b"big": BIG, b"small": SMALL}
        self._inodes = itertools.count(FIRST_WRITTEN)
        self.written: dict[int, int] = {}
        self._small = [
            DirectoryEntry(b"f%05d" % number, entry_of(FIRST_SMALL + number, SMALL_SIZE), number + _FIRST_COOKIE)
            for number in range(SMALL_COUNT)
        ]
        self._small_names = [
            DirectoryName(entry.name, entry.entry.attributes.inode, FileKind.FILE, entry.cookie)
            for entry in self._small
        ]
        self._small_by_name = {entry.name: entry.entry for entry in self._small}
        self._publish()

    def _publish(self) -> None:
        """As a filesystem does with what it holds: names, attributes, one shared handle a file, blocks in memory."""
        for name, inode in self._names.items():
            self._publish_entry(ROOT, name, self.entry(inode))
        for found in self._small:
            self._publish_entry(SMALL, found.name, found.entry)
            self._publish_bytes(found.entry.attributes.inode, SMALL_SIZE, SMALL_SIZE)
        self._publish_bytes(InodeNumber(BIG), BIG_SIZE, SPAN)

    def _publish_entry(self, parent: int, name: bytes, entry: Entry) -> None:
        published, inode = self._published, entry.attributes.inode
        published.publish_inode(entry.attributes, believed=_FOREVER, told=entry.attr_timeout)
        published.publish_name(InodeNumber(parent), name, inode, believed=_FOREVER, told=entry.entry_timeout)

    def _publish_bytes(self, inode: InodeNumber, size: int, block: int) -> None:
        for start in range(0, size, block):
            self._published.publish_block(inode, start, memoryview(self.piece(inode, start, block)))
        self._published.publish_file(FileHandle(inode), inode, Bytes(size))
        self._published.publish_open(inode, FileHandle(inode), keep_cache=False, believed=_FOREVER)

    def entry(self, inode: int) -> Entry:
        if FIRST_SMALL <= inode < FIRST_SMALL + SMALL_COUNT:
            return self._small[inode - FIRST_SMALL].entry
        if inode in (ROOT, SMALL):
            return entry_of(inode, PAGE)
        if inode != BIG and inode not in self.written:
            raise errors.StaleFile(f"inode {inode} is unknown")
        return entry_of(inode, BIG_SIZE if inode == BIG else self._size_written(inode))

    def piece(self, inode: int, offset: int, size: int) -> Buffer:
        """What a read gets; the span's end is the only place that costs a copy."""
        if inode == BIG:
            size, start = max(0, min(size, BIG_SIZE - offset)), offset % SPAN
        elif FIRST_SMALL <= inode < FIRST_SMALL + SMALL_COUNT:
            size, start = max(0, min(size, SMALL_SIZE - offset)), small_start(inode - FIRST_SMALL) + offset
        else:
            return b""
        if start + size <= SPAN:
            return self._view[start : start + size]
        return self._view[start:].tobytes() + self._view[: start + size - SPAN].tobytes()

    # --- csi.fuse.served.ServedFilesystem: never block ---

    def lookup_cached(self, parent: InodeNumber, name: bytes) -> Entry | None:
        if parent == SMALL:
            found = self._small_by_name.get(name)
            if found is not None:
                return found
        elif parent == ROOT and name in self._names:
            return self.entry(self._names[name])
        raise errors.NoSuchEntry(f"{name!r} does not exist")

    def getattr_cached(self, inode: InodeNumber) -> Entry | None:
        return self.entry(inode)

    def open_cached(self, inode: InodeNumber, flags: int) -> OpenFile | None:
        return self._open(inode)

    def read_ready(self, handle: FileHandle, offset: int, size: int) -> Buffer | None:
        return self.piece(self._opened.get(handle, handle), offset, size)

    def forget(self, inode: InodeNumber, count: int) -> None:
        return

    def opendir(self, inode: InodeNumber) -> FileHandle:
        return self._open(inode).handle

    def releasedir(self, handle: FileHandle) -> None:
        del self._opened[handle]

    def statfs(self) -> FilesystemStatistics:
        return FilesystemStatistics(PAGE, 1 << 40, 1 << 39, 1 << 30, 1 << 29)

    # --- may block ---

    def lookup(self, parent: InodeNumber, name: bytes, caller: Caller) -> Entry:
        found = self.lookup_cached(parent, name)
        assert found is not None
        return found

    def getattr(self, inode: InodeNumber) -> Entry:
        return self.entry(inode)

    def setattr(self, inode: InodeNumber, change: AttributeChange, handle: FileHandle | None, caller: Caller) -> Entry:
        if inode in self.written and change.size is not None:
            self.written[inode] = change.size
            self._end_tail(inode)
        return self.entry(inode)

    def open(self, inode: InodeNumber, flags: int, caller: Caller) -> OpenFile:
        return self._open(inode)

    def create(self, parent: InodeNumber, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Entry, OpenFile]:
        inode = next(self._inodes)
        self.written[inode] = 0
        self._names[name] = inode
        return self.entry(inode), self._open(inode)

    def read(self, handle: FileHandle, offset: int, size: int, for_pages: bool = True) -> Buffer:
        return self.piece(self._opened.get(handle, handle), offset, size)

    def write(self, handle: FileHandle, offset: int, data: Buffer) -> int:
        if self._copy is not None:
            self._copy(self._ring_address + offset % _RING, data)
        size = len(data)
        inode = self._opened[handle]
        self._lend(handle, inode, offset + size)
        if offset + size > self.written[inode]:
            self.written[inode] = offset + size
        return size

    def _lend(self, handle: FileHandle, inode: int, position: int) -> None:
        if self._make_tail is None:
            return
        tail = self._tails.get(inode)
        if tail is None:
            tail = self._tails[inode] = self._make_tail()
            tail.show(handle)
        self.written[inode] = self._size_written(inode)
        begin = position % _RING
        room = [self._ring_memory[begin : min(begin + _LENT, _RING)]]
        if len(room[0]) < _LENT:
            room.append(self._ring_memory[: _LENT - len(room[0])])
        tail.lend(position, room)

    def _size_written(self, inode: int) -> int:
        tail = self._tails.get(inode)
        return self.written[inode] if tail is None else max(self.written[inode], tail.position)

    def flush(self, handle: FileHandle) -> None:
        return

    def fsync(self, handle: FileHandle) -> None:
        return

    def release(self, handle: FileHandle) -> None:
        self._published.withdraw_file(handle)
        inode = self._opened.pop(handle, None)
        if inode in self.written:
            self.written[inode] = self._size_written(inode)
            self._end_tail(inode)

    def _end_tail(self, inode: int) -> None:
        tail = self._tails.pop(inode, None)
        if tail is not None:
            tail.recall()
            tail.hide()

    def scan(self, handle: FileHandle, cookie: int, *, plus: bool) -> Iterator[DirectoryEntry | DirectoryName]:
        """csi.fuse.served.Scanning: names alone unless `plus`, as csi/fs does."""
        if plus or self._opened[handle] != SMALL:
            return self.readdir(handle, cookie)
        return iter(self._small_names[max(0, cookie - _FIRST_COOKIE + 1) :])

    def readdir(self, handle: FileHandle, cookie: int) -> Iterator[DirectoryEntry]:
        if self._opened[handle] == SMALL:
            return iter(self._small[max(0, cookie - _FIRST_COOKIE + 1) :])
        entries = [
            DirectoryEntry(name, self.entry(inode), position)
            for position, (name, inode) in enumerate(list(self._names.items()), _FIRST_COOKIE)
        ]
        return iter([entry for entry in entries if entry.cookie > cookie])

    def _open(self, inode: int) -> OpenFile:
        handle = FileHandle(next(self._handles))
        self._opened[handle] = inode
        if inode == BIG or FIRST_SMALL <= inode < FIRST_SMALL + SMALL_COUNT:
            self._published.publish_file(handle, inode, Bytes(self.entry(inode).attributes.size))
        return OpenFile(handle, keep_cache=False, direct_io=False)

    def readlink(self, inode: InodeNumber) -> bytes:
        raise errors.InvalidOperation("no links here")

    def symlink(self, parent: InodeNumber, name: bytes, target: bytes, caller: Caller) -> Entry:
        raise errors.OperationNotPermitted("no links here")

    def mkdir(self, parent: InodeNumber, name: bytes, mode: int, caller: Caller) -> Entry:
        raise errors.OperationNotPermitted("the tree is what it is")

    def rmdir(self, parent: InodeNumber, name: bytes) -> None:
        raise errors.OperationNotPermitted("the tree is what it is")

    def unlink(self, parent: InodeNumber, name: bytes) -> None:
        raise errors.OperationNotPermitted("the tree is what it is")

    def rename(
        self, parent: InodeNumber, name: bytes, new_parent: InodeNumber, new_name: bytes, flags: int = 0
    ) -> None:
        raise errors.OperationNotPermitted("the tree is what it is")

    def getxattr(self, inode: InodeNumber, name: bytes) -> bytes:
        raise errors.NoAttribute(f"no {name!r}")

    def listxattr(self, inode: InodeNumber) -> Sequence[bytes]:
        return []

    def setxattr(self, inode: InodeNumber, name: bytes, value: bytes) -> None:
        raise errors.OperationNotPermitted("the tree is what it is")

    def removexattr(self, inode: InodeNumber, name: bytes) -> None:
        raise errors.NoAttribute(f"no {name!r}")


def small_start(number: int) -> int:
    """Where in the span the small file `number` begins."""
    return number * SMALL_PAGES % (SPAN_PAGES - SMALL_PAGES) * PAGE


def entry_of(inode: int, size: int) -> Entry:
    directory = inode in (ROOT, SMALL)
    kind = FileKind.DIRECTORY if directory else FileKind.FILE
    mode = stat.S_IFDIR | 0o755 if directory else stat.S_IFREG | 0o644
    attributes = Attributes(InodeNumber(inode), kind, mode, 1, 0, 0, size, _MTIME_NS, _MTIME_NS, _MTIME_NS)
    timeout = _DIRECTORY_TIMEOUT if directory else _FILE_TIMEOUT
    return Entry(attributes, timeout, timeout)
