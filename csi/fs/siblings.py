"""Small files read ahead of who reads a directory in the order it was listed.

With one thread and 20 ms to the store nothing else helps: each file is a request, and the next one is known. Promises
to cost nobody else anything: what is fetched ahead is never more than half of what was read in order and nothing that
was opened before nor than will be read in a moment, it takes only memory and threads that nobody waits for, and stops
when the order does. Nothing is fetched ahead while the store answers so soon that it would only be work. Several
readers may go through parts of one directory at the same time.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from csi.data.streams import StreamSource
from csi.fs.inodes import InodeTable
from csi.fs.listings import Listing, ListingCache
from csi.fs.names import decode
from csi.fs.nodes import Node
from csi.fs.types import FileKind
from csi.oss.store import ObjectVersion
from csi.volume.units import MIB, Bytes, ObjectKey, Seconds

LARGEST = 1 * MIB
"""Objects up to this size are read ahead: each is one request."""

MOST_AHEAD = 32
_BYTES_AHEAD = 8 * MIB
_ENOUGH = 12  # files in order before anything is read ahead
_REACH = 48  # several threads that share an order drift apart by so many files
_REMEMBERED = 64  # files by which it is judged whether they are read in order
_STREAMS = 8
_DIRECTORIES = 64
_SMALLEST = 12  # children: there is nothing to gain in a smaller directory
_SOON = Seconds(1.0)
"""In which files that are fetched ahead will be read: what is known of names is forgotten after a few seconds, and with
it what was fetched."""
_A_FEW = 2  # ahead of the slowest reader
_PACE_OF = 8  # files by which it is judged how fast they are read


@dataclass(frozen=True, slots=True)
class SiblingStatistics:
    """Directories whose files are being read, as far as it is remembered, and files asked for ahead so far."""

    directories: int = 0
    asked: int = 0


class _Stream:
    """A run through a part of a directory. Ranks are places in the sorted names, `pace` seconds from file to file."""

    __slots__ = ("asked", "begin", "count", "head", "pace", "when")

    def __init__(self, rank: int, now: float) -> None:
        self.when = now
        self.pace = 0.0
        self.begin = rank
        self.head = rank  # the furthest file read
        self.asked = rank  # the furthest one read ahead
        self.count = 1

    def takes(self, rank: int, reach: int) -> bool:
        return abs(rank - self.head) <= reach

    def read(self, rank: int, now: float) -> int:
        """One more was read; returns how many may be read ahead of the head."""
        took = max(0.0, now - self.when)  # a clock may be put back
        self.pace += (took - self.pace) / min(self.count, _PACE_OF)
        self.when = now
        self.head = max(self.head, rank)
        self.count += 1
        if self.count >= _REMEMBERED:
            self.count //= 2
            self.begin = self.head - (self.head - self.begin) // 2
        if self.count < _ENOUGH or self.count * 3 < (self.head - self.begin + 1) * 2:
            return 0
        soon = MOST_AHEAD if self.pace * MOST_AHEAD <= _SOON else _A_FEW + int(_SOON / self.pace)
        return min(self.count // 2, soon, MOST_AHEAD)


class _Order:
    """One directory: its names in the order of a listing, and the runs through it, the latest last."""

    __slots__ = ("listing", "names", "patience", "streams")

    def __init__(self) -> None:
        self.listing: Listing | None = None  # what `names` are of, if not of the inodes
        self.names: list[bytes] = []
        self.patience = 0  # reads until the names are looked at again
        self.streams: list[_Stream] = []


class Siblings:
    """`_lock` guards everything here; `InodeTable.lock` is taken while it is held, nothing else is."""

    def __init__(
        self, table: InodeTable, listings: ListingCache, engine: StreamSource, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._table = table
        self._listings = listings
        self._engine = engine
        self._lock = threading.Lock()
        self._orders: OrderedDict[int, _Order] = OrderedDict()
        self._asked = 0

    def read(self, node: Node) -> None:
        """The first bytes of a small file were asked for. Makes no request on this thread and does not wait for one."""
        parent = node.parent
        if parent is None or node.detached or node.facts is None:
            return
        if not self._engine.gains_ahead(Bytes(node.facts.size)):
            return
        with self._lock:
            versions = self._next(parent, node.name)
        for version in versions:
            if not self._engine.prefetch(version):
                return

    def read_beside(self, inode: int) -> None:
        """The first bytes of a small file were asked for, which the kernel session fetches by itself, and which take
        long. Others are fetched there too."""
        node = self._table.find(inode)
        parent = node.parent if node is not None else None
        if node is None or parent is None or node.detached:
            return
        with self._lock:
            run = self._run(parent, node.name)
            if run is not None:
                stream, names = run
                done = self._table.published.fetch_ahead(parent.inode, names)
                stream.asked -= len(names) - done
                self._asked += done

    def statistics(self) -> SiblingStatistics:
        with self._lock:
            return SiblingStatistics(len(self._orders), self._asked)

    # --- private; the lock is held ---

    def _next(self, parent: Node, name: bytes) -> list[ObjectVersion]:
        run = self._run(parent, name)
        if run is None:
            return []
        versions = self._versions(parent, run[1])
        self._asked += len(versions)
        return versions

    def _run(self, parent: Node, name: bytes) -> tuple[_Stream, list[bytes]] | None:
        """`name` was read: the run it belongs to, and the names that are to be fetched now."""
        order, now = self._order(parent), self._clock()
        rank = bisect_left(order.names, name)
        if rank == len(order.names) or order.names[rank] != name:
            return None
        reach = min(_REACH, len(order.names) // 16)  # in a small directory any two files are near each other
        stream = next((stream for stream in reversed(order.streams) if stream.takes(rank, reach)), None)
        if stream is None:
            order.streams = [*order.streams[1 - _STREAMS :], _Stream(rank, now)]
            return None
        if stream is not order.streams[-1]:
            order.streams.remove(stream)
            order.streams.append(stream)
        running = sum(other.count >= _ENOUGH for other in order.streams)
        ahead = stream.read(rank, now) // max(1, running)
        if not ahead:
            return None
        first = max(stream.asked, stream.head) + 1
        names = order.names[first : stream.head + ahead + 1]
        stream.asked = max(stream.asked, stream.head + ahead)
        return stream, names

    def _order(self, parent: Node) -> _Order:
        order = self._orders.get(parent.inode)
        if order is None:
            with self._table.lock:
                self._orders = self._listings.of_kept(self._orders)
            order = self._orders[parent.inode] = _Order()
            if len(self._orders) > _DIRECTORIES:
                self._orders.popitem(last=False)
        else:
            self._orders.move_to_end(parent.inode)
        order.patience -= 1
        if order.patience < 0:
            with self._table.lock:
                listing = self._listings.get(parent)
                known = listing.names if listing is not None else parent.children or {}
                if listing is not order.listing or len(known) != len(order.names):
                    order.listing = listing
                    names = sorted(known) if len(known) >= _SMALLEST else []
                    if names != order.names:
                        order.names = names
                        order.streams.clear()
            order.patience = max(64, len(order.names) // 4)  # looking costs less than reading, however many there are
        return order

    def _versions(self, parent: Node, names: list[bytes]) -> list[ObjectVersion]:
        found: list[ObjectVersion] = []
        total = 0
        with self._table.lock:
            listing = self._listings.get(parent)
            listed = listing.names if listing is not None else {}
            children = parent.children or {}
            directory = self._table.key(parent)
            for name in islice(names, MOST_AHEAD):
                node = children.get(name)
                facts = listed.get(name) if node is None else node.facts if node.draft is None else None
                opened = node.local.opened if node is not None and node.local is not None else None
                if facts is None or facts.kind is not FileKind.FILE or opened == facts.etag:
                    continue
                if not facts.etag or not 0 < facts.size <= LARGEST:
                    continue
                total += facts.size
                if total > _BYTES_AHEAD:
                    break
                found.append(facts.version(ObjectKey(directory + decode(name))))
        return found
