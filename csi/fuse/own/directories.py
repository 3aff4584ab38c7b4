"""Handlers of open directories: pages of `csi/fuse/pages.py` as READDIR and READDIRPLUS have them."""

from __future__ import annotations

import errno
import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

from csi.fuse.native.records import fill
from csi.fuse.own.work import NOTHING, Done, Lanes, Later, Outcome, Refused, call
from csi.fuse.pages import Dot, Found, Listing
from csi.fuse.protocol import replies
from csi.fuse.protocol.bodies import Header, Open, Read, Release
from csi.fuse.protocol.constants import OpenFlag
from csi.fuse.served import Scanning, ServedFilesystem
from csi.volume.units import FileHandle, InodeNumber, Seconds

_REMEMBERED = 4096


@runtime_checkable
class Aging(Protocol):
    """A filesystem that may show listings it has asked for before."""

    def listing_age(self, handle: FileHandle) -> Seconds:
        """How long ago what `handle` shows was asked for, from the beginning of the directory on."""


class DirectoryHandlers:
    """`_open` is changed by single steps, which are atomic."""

    def __init__(
        self,
        filesystem: ServedFilesystem,
        lanes: Lanes,
        kept: Seconds,
        clock: Callable[[], float] = time.monotonic,
        *,
        resumed: bool = False,
    ) -> None:
        """`kept`: for how long the kernel may show a listing again. `resumed`: there may be directories that were
        opened before; the filesystem knows them."""
        self._filesystem = filesystem
        self._lanes = lanes
        self._kept = KeptListings(kept, clock)
        self._resumed = resumed
        self._open: dict[int, OpenDirectory] = {}

    def opendir(self, header: Header, _body: Open) -> Outcome:
        inode = InodeNumber(header.node)
        handle = self._filesystem.opendir(inode)
        self._open[handle] = OpenDirectory(self._filesystem, inode, handle)

        def dropped() -> None:
            self._close(handle)

        return Done((replies.opened(handle, self._kept.flags(inode)),), dropped)

    def readdir(self, header: Header, body: Read) -> Outcome:
        return self._page(header, body, plus=False)

    def readdirplus(self, header: Header, body: Read) -> Outcome:
        return self._page(header, body, plus=True)

    def _page(self, header: Header, body: Read, *, plus: bool) -> Outcome:
        directory = self._open.get(body.handle)
        if directory is None:
            if not self._resumed:
                raise Refused(errno.EBADF)
            opened = OpenDirectory(self._filesystem, InodeNumber(header.node), FileHandle(body.handle))
            directory = self._open.setdefault(body.handle, opened)
        work = call(self._read, directory, body.offset, body.size, plus)
        return Later(self._lanes.names, work, self._filled, interruptible=True)

    def _read(self, directory: OpenDirectory, cookie: int, room: int, plus: bool) -> Page:
        page = directory.page(cookie, room, plus)
        if cookie == 0:
            self._kept.read(directory.inode, directory.age())
        return page

    def _filled(self, page: Page) -> Done:
        return Done(page.records, functools.partial(page.give_back, self._filesystem.forget))

    def releasedir(self, _header: Header, body: Release) -> Outcome:
        self._close(FileHandle(body.handle))
        return NOTHING

    def fsyncdir(self, _header: Header, _body: object) -> Outcome:
        """Every change of a directory is in the bucket before it is answered."""
        return NOTHING

    def _close(self, handle: FileHandle) -> None:
        directory = self._open.pop(handle, None)
        if directory is not None:
            directory.close()
        self._filesystem.releasedir(handle)


class Page:
    """Records for the kernel, at most `room` bytes of them; `told` are the inodes it counts when it gets them."""

    def __init__(self, room: int, *, plus: bool) -> None:
        self.records: list[bytes] = []
        self.told: list[InodeNumber] = []
        self._room = room
        self._plus = plus

    def put(self, found: list[Dot | Found], first: int) -> int:
        records, count = fill(found, first, self._room, self._plus, self.told)
        self.records.append(records)
        self._room -= len(records)
        return count

    def give_back(self, forget: Callable[[InodeNumber, int], None]) -> None:
        for inode in self.told:
            forget(inode, 1)


class OpenDirectory:
    """The kernel decides page by page whether it wants attributes; each kind of page has a listing of its own.

    `_lock`: one page at a time; it guards the listings."""

    def __init__(self, filesystem: ServedFilesystem, inode: InodeNumber, handle: FileHandle) -> None:
        self.inode = inode
        self._filesystem = filesystem
        self._handle = handle
        self._lock = threading.Lock()
        self._plus = True
        self._listing = self._start(plus=True)

    def page(self, cookie: int, room: int, plus: bool) -> Page:
        with self._lock:
            if plus != self._plus:
                self._listing.close()
                self._listing, self._plus = self._start(plus=plus), plus
            page = Page(room, plus=plus)
            self._listing.begin(cookie)
            while self._listing.fill(page.put):
                self._listing.take()
        if not plus:
            page.give_back(self._filesystem.forget)  # a page without attributes counts nothing
            page.told = []
        return page

    def age(self) -> Seconds:
        """How old what it shows is: the filesystem may have listed the directory before."""
        return self._filesystem.listing_age(self._handle) if isinstance(self._filesystem, Aging) else Seconds(0.0)

    def close(self) -> None:
        with self._lock:
            self._listing.close()

    def _start(self, *, plus: bool) -> Listing:
        def read(cookie: int) -> Iterator[Found]:
            if isinstance(self._filesystem, Scanning):
                return self._filesystem.scan(self._handle, cookie, plus=plus)
            return self._filesystem.readdir(self._handle, cookie)

        return Listing(self.inode, read, self._filesystem.forget)


class KeptListings:
    """For how long the kernel may show again what it has read of a directory: as long as it may believe names.

    `_lock` guards `_read`: when what was last read of a directory was true."""

    def __init__(self, timeout: Seconds, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._read: OrderedDict[InodeNumber, float] = OrderedDict()

    def flags(self, inode: InodeNumber) -> int:
        if self._timeout <= 0:
            return 0
        now = self._clock()
        with self._lock:
            since = self._read.get(inode)
        if since is not None and now - since < self._timeout:
            return OpenFlag.CACHE_DIR | OpenFlag.KEEP_CACHE
        return OpenFlag.CACHE_DIR

    def read(self, inode: InodeNumber, age: Seconds) -> None:
        """The kernel is shown the directory from its beginning, as it was `age` ago."""
        if self._timeout <= 0:
            return
        with self._lock:
            self._read[inode] = self._clock() - age
            self._read.move_to_end(inode)
            while len(self._read) > _REMEMBERED:
                self._read.popitem(last=False)
