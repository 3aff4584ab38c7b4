"""An open directory as the kernel reads it: page by page, from any position it was ever given.

The listing under way is kept between two pages, so that reading a directory from end to end is one listing however
small the kernel's pages are. rewinddir and seekdir start another one at their cookie. Every entry that was taken from
the filesystem has been counted as told to the kernel; those that did not get there are given back.
"""

from __future__ import annotations

import itertools
import stat
from collections import deque
from collections.abc import Callable, Iterator

import pyfuse3
import trio

from csi.fs.types import DirectoryEntry
from csi.fuse.encode import entry_attributes
from csi.fuse.served import ServedFilesystem
from csi.fuse.workers import Workers
from csi.volume.units import FileHandle, InodeNumber

_BATCH = 128
"""Entries taken per hop to a thread: a page of the kernel holds 20 to 200 names of ordinary length."""

_DOTS = ((b".", 1), (b"..", 2))
"""Names every directory begins with, and their cookies; the filesystem's own cookies are hashes of names and larger."""

_UNKNOWN_INODE = 0xFFFFFFFF  # what libfuse shows where a filesystem has no number to show


class DirectoryStream:
    """`_lock`: one page of a handle at a time; it guards everything else here. Event loop only."""

    def __init__(self, filesystem: ServedFilesystem, inode: InodeNumber, handle: FileHandle, workers: Workers) -> None:
        self._filesystem = filesystem
        self._inode = inode
        self._handle = handle
        self._workers = workers
        self._lock = trio.Lock()
        self._entries: Iterator[DirectoryEntry] | None = None
        self._dots: deque[tuple[bytes, int]] = deque()
        self._pending: deque[DirectoryEntry] = deque()
        self._position = 0
        self._ended = False
        self._failure: Exception | None = None

    async def fill(self, cookie: int, reply: Callable[[bytes, pyfuse3.EntryAttributes, int], bool]) -> None:
        """Answer one READDIRPLUS: entries after `cookie` until the kernel's page is full or there are no more.

        `reply(name, attributes, cookie)` adds one to the page and is False when it has no room (readdir_reply).
        What came before an error is shown; the error is raised by the page after it.
        """
        async with self._lock:
            # 0 is opendir or rewinddir: whoever rewinds wants to see what is there now
            if cookie == 0 or cookie != self._position:
                self._restart(cookie)
            filled = False
            while self._dots:
                name, position = self._dots[0]
                if not reply(name, self._dot(name), position):
                    return
                self._dots.popleft()
                self._position = position
                filled = True
            while True:
                while self._pending:
                    entry = self._pending[0]
                    if not reply(entry.name, entry_attributes(entry.entry), entry.cookie):
                        return
                    self._pending.popleft()
                    self._position = entry.cookie
                    filled = True
                if self._failure is not None and not filled:
                    failure, self._failure, self._entries = self._failure, None, None
                    raise failure
                if self._failure is not None or self._ended:
                    return
                await self._take()

    def close(self) -> None:
        """Give back what the kernel never got. The filesystem's handle is released by the caller."""
        for entry in self._pending:
            self._filesystem.forget(entry.entry.attributes.inode, 1)
        self._pending.clear()
        self._entries = None

    def _restart(self, cookie: int) -> None:
        self.close()
        self._dots = deque(dot for dot in _DOTS if dot[1] > cookie)
        self._position = cookie
        self._ended = False
        self._failure = None

    async def _take(self) -> None:
        taken: list[DirectoryEntry] = []
        try:
            await self._workers.run(self._advance, taken)
        except Exception as error:
            self._failure = error
        # what came before an error has been counted: it is shown, or given back, like the rest
        self._pending.extend(taken)
        self._ended = len(taken) < _BATCH

    def _advance(self, taken: list[DirectoryEntry]) -> None:
        """On a thread, while `fill` waits for it under the lock."""
        if self._entries is None:
            first = self._position <= _DOTS[-1][1]
            self._entries = self._filesystem.readdir(self._handle, 0 if first else self._position)
        for entry in itertools.islice(self._entries, _BATCH):
            taken.append(entry)

    def _dot(self, name: bytes) -> pyfuse3.EntryAttributes:
        """The kernel takes number and type from it and, for these two names, nothing else: it is not counted."""
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = pyfuse3.InodeT(self._inode if name == b"." else _UNKNOWN_INODE)
        attributes.st_mode = pyfuse3.ModeT(stat.S_IFDIR)
        return attributes
