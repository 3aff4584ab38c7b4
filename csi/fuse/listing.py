"""An open directory read by pyfuse3: pages of `csi/fuse/pages.py`, filled on the event loop."""

from __future__ import annotations

import functools
import itertools
import stat
from collections.abc import Callable

import pyfuse3
import trio

from csi.fs.types import DirectoryEntry
from csi.fuse.encode import entry_attributes
from csi.fuse.pages import Dot, Found, Listing
from csi.fuse.served import ServedFilesystem
from csi.fuse.workers import Workers
from csi.volume.units import FileHandle, InodeNumber


class DirectoryStream:
    """A listing read on an event loop. `_lock`: one page of a handle at a time."""

    def __init__(self, filesystem: ServedFilesystem, inode: InodeNumber, handle: FileHandle, workers: Workers) -> None:
        self._listing = Listing(inode, functools.partial(filesystem.readdir, handle), filesystem.forget)
        self._workers = workers
        self._lock = trio.Lock()

    async def fill(self, cookie: int, reply: Callable[[bytes, pyfuse3.EntryAttributes, int], bool]) -> None:
        """Answer one READDIRPLUS: entries after `cookie` until the kernel's page is full or there are no more.

        `reply(name, attributes, cookie)` adds one to the page and is False when it has no room (readdir_reply).
        """

        def put(entries: list[Dot | Found], first: int) -> int:
            for count, found in enumerate(itertools.islice(entries, first, None)):
                if isinstance(found, DirectoryEntry):
                    added = reply(found.name, entry_attributes(found.entry), found.cookie)
                else:
                    assert isinstance(found, Dot)  # noqa: S101 - `readdir` tells of nothing by name alone
                    added = reply(found.name, _uncounted(found), found.cookie)
                if not added:
                    return count
            return len(entries) - first

        async with self._lock:
            self._listing.begin(cookie)
            while self._listing.fill(put):
                await self._workers.run(self._listing.take)

    def close(self) -> None:
        self._listing.close()


def _uncounted(found: Dot) -> pyfuse3.EntryAttributes:
    """The kernel takes number and type from it and nothing else."""
    attributes = pyfuse3.EntryAttributes()
    attributes.st_ino = pyfuse3.InodeT(found.inode)
    attributes.st_mode = pyfuse3.ModeT(stat.S_IFDIR)
    return attributes
