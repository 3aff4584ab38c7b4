"""Inodes that the kernel is asked to forget, because there is no memory for all it was told of.

The kernel keeps every name it was told for as long as the node has memory, and the inode of each has to stay here. A
walk through millions of files would need more than the sidecar has. So those that nothing here needs are named, in the
order in which the kernel was told of them, and it forgets those that no program uses. Who looks one up again pays a
LOOKUP, which the kernel would send after the timeouts of the mount in any case; pages of a file are dropped with it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from csi.fs.inodes import InodeTable
from csi.fs.memory import INODE, MetadataMemory
from csi.fs.types import KnownName
from csi.volume.units import Seconds

_MOST = 2048
"""Names at a time: about a millisecond with the lock of the table held."""

_STEP = 1024
"""Inodes by which the table grows until it is looked at again."""

_REST = Seconds(0.05)
_LONGEST_REST = Seconds(5.0)
"""Between two rounds, where the kernel forgets little of what it is asked to: programs use it."""


class Surplus:
    """`take` is for one thread; everything else is guarded by `InodeTable.lock`."""

    def __init__(self, table: InodeTable, memory: MetadataMemory) -> None:
        self._table = table
        self._memory = memory
        self._bell = threading.Event()
        self._rest = _REST
        self._asked = 0
        self._before = 0
        table.watch_growth(memory.allowed_inodes, self._bell.set)
        memory.on_want(self._bell.set)

    def take(self, within: Seconds) -> Sequence[KnownName]:
        """See `csi.fuse.served.Overflowing.surplus`."""
        if not self._bell.wait(min(self._rest, within) if self._asked else within) and not self._asked:
            return ()
        self._bell.clear()
        owed = self._memory.owed()
        with self._table.lock:
            dropped, growth = self._table.dropped, len(self._table) + _STEP
            self._table.watch_growth(max(growth, self._memory.allowed_inodes), self._bell.set)
        if not owed:
            self._asked, self._rest = 0, _REST
            return ()
        if self._asked:
            well = dropped - self._before >= self._asked // 4
            self._rest = _REST if well else Seconds(min(2 * self._rest, _LONGEST_REST))
        found = self._table.least_needed(min(-(-owed // INODE), _MOST))
        self._asked, self._before = len(found), dropped
        return found
