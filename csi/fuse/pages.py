"""An open directory as the kernel reads it: page by page, from any position it was ever given.

The listing under way is kept between two pages, so that reading a directory from end to end is one listing however
small the kernel's pages are. rewinddir and seekdir start another one at their cookie. Every entry that was taken from
the filesystem has been counted as told to the kernel; those that did not get there are given back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from csi.fs.types import DirectoryEntry, DirectoryName
from csi.fuse.protocol.replies import UNKNOWN_INODE
from csi.volume.units import InodeNumber

_BATCH = 128
"""Entries taken per hop to a thread: a page of the kernel holds 20 to 200 names of ordinary length."""

_DOT_COOKIES = (1, 2)
"""Of '.' and '..', with which every directory begins; the filesystem's own are hashes of names and larger."""


Found = DirectoryEntry | DirectoryName


@dataclass(frozen=True, slots=True)
class Dot:
    """'.' or '..': the kernel takes number and type from it and, for these two names, nothing else. Not counted."""

    name: bytes
    inode: int
    cookie: int


class Listing:
    """What is read of one open directory, without a lock and without waiting but in `take`."""

    def __init__(
        self, inode: InodeNumber, read: Callable[[int], Iterator[Found]], forget: Callable[[InodeNumber, int], None]
    ) -> None:
        """`read(cookie)` lists what comes after `cookie`, 0 from the start."""
        self._inode = inode
        self._read = read
        self._forget = forget
        self._entries: Iterator[Found] | None = None
        self._there: list[Dot | Found] = []
        self._next = 0  # of `_there`: what is before it is on a page
        self._position = 0
        self._ended = False
        self._failure: Exception | None = None
        self._filled = False

    def begin(self, cookie: int) -> None:
        """A page of entries after `cookie` is asked for."""
        # 0 is opendir or rewinddir: whoever rewinds wants to see what is there now
        if cookie == 0 or cookie != self._position:
            self._restart(cookie)
        self._filled = False

    def fill(self, put: Callable[[list[Dot | Found], int], int]) -> bool:
        """Put what is there on the page: `put(entries, first)` says how many of `entries` from `first` on had room.
        True: `take` more, then go on.

        What came before an error is shown; the error is raised by the page after it.
        """
        if self._next < len(self._there):
            count = put(self._there, self._next)
            if count:
                self._next += count
                self._position = self._there[self._next - 1].cookie
                self._filled = True
            if self._next < len(self._there):
                return False
        if self._failure is not None and not self._filled:
            failure, self._failure, self._entries = self._failure, None, None
            raise failure
        return self._failure is None and not self._ended

    def take(self) -> None:
        """Get more entries from the filesystem; may wait. An error is kept for `fill`."""
        self._there.clear()
        self._next = 0
        try:
            if self._entries is None:
                first = self._position <= _DOT_COOKIES[-1]
                self._entries = self._read(0 if first else self._position)
            # what came before an error has been counted: it is shown, or given back, like the rest
            self._there.extend(itertools.islice(self._entries, _BATCH))
        except Exception as error:
            self._failure = error
        self._ended = len(self._there) < _BATCH

    def close(self) -> None:
        """Give back what the kernel never got. The filesystem's handle is released by the caller."""
        for entry in self._there[self._next :]:
            if isinstance(entry, DirectoryEntry):
                self._forget(entry.entry.attributes.inode, 1)
        self._there.clear()
        self._next = 0
        self._entries = None

    def _restart(self, cookie: int) -> None:
        self.close()
        dots = (Dot(b".", self._inode, _DOT_COOKIES[0]), Dot(b"..", UNKNOWN_INODE, _DOT_COOKIES[1]))
        self._there = [dot for dot in dots if dot.cookie > cookie]
        self._position = cookie
        self._ended = False
        self._failure = None
