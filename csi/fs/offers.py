"""Names of a listing, published before anybody has asked for them.

When a program looks up one name of a directory that was listed, it will probably look up those that follow. So that not
each of them has to come here, the inodes of the next ones are made and published together: few at first, twice as many
each time as long as it goes on in that order, or goes through the directory so fast that in any order enough of them
are looked up before they are old. Who asks for a name now and then does not wait for others to be published. The same
happens when a listing has grown old and a page of it was asked for anew.

What is published so is as true as if each name had been asked for by itself: the same facts, no older than they may be,
and nothing of a file that this mount has changed or has open. A name that nobody comes for is taken back when its time
is over, or when there are too many.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from csi.fs.knowledge import Knowledge
from csi.fs.listings import Listing
from csi.fs.metadata import Facts
from csi.fs.nodes import Node
from csi.fs.published import ListedFile
from csi.fs.types import FileKind
from csi.volume.units import Bytes, Seconds

FIRST = 16
LEAST = 4
MOST = 256
"""Names published at a time: a millisecond or more."""

WORTH = 24
"""A LOOKUP and an OPEN that do not come here pay for so many names published."""

_NEAR = 16  # places between the end of what was published and what is looked up next, by who goes on
_ENDS = 16  # readers that go through a directory at the same time
_WHILE = Seconds(1.0)  # in which LOOKUPs are counted
_MOMENT = Seconds(0.001)
_DIRECTORIES = 64


@dataclass(slots=True)
class _Order:
    """The names of one listing in order, how many are published at a time now, and where the last ones ended. LOOKUPs
    of the directory: `count` since `since`, not all of which came here (`hits` did not)."""

    listing: Listing
    names: list[bytes]
    hits: int
    since: float
    size: int = 0
    count: float = 0.0
    ends: deque[int] = field(default_factory=lambda: deque(maxlen=_ENDS))

    def next_size(self, first: int, hits: int, now: float, believed: Seconds) -> int:
        """How many names from place `first` on are published; `believed`: how long one that is learned now is."""
        self.count += 1 + max(0, hits - self.hits)
        self.hits = hits
        seconds = max(now - self.since, _MOMENT)
        # of the names published, those looked up in time in any order
        expected = believed * self.count / seconds / max(1, len(self.names))
        if seconds >= _WHILE:  # what was long ago counts less
            self.count *= _WHILE / 2 / seconds
            self.since = now - _WHILE / 2
        if not self.size:
            self.size = FIRST
        elif expected * WORTH >= 1 or any(abs(first - end) <= _NEAR for end in self.ends):
            self.size = min(self.size * 2, MOST)
        else:
            self.size = max(self.size // 2, LEAST)
        return self.size


@dataclass(frozen=True, slots=True)
class OfferStatistics:
    """Inodes made for names that nobody has asked for, as far as they were not taken back; names published so far."""

    inodes: int = 0
    published: int = 0


class Offers:
    """`InodeTable.lock` guards everything here."""

    def __init__(self, knowledge: Knowledge, most_inodes: int) -> None:
        self._knowledge = knowledge
        self._table = knowledge.table
        self._most_inodes = most_inodes
        self._orders: OrderedDict[int, _Order] = OrderedDict()
        self._offered: deque[Node] = deque()
        self._published = 0

    def looked_up(self, parent: Node, name: bytes) -> None:
        """A LOOKUP of the file `name` had to be answered here."""
        knowledge = self._knowledge
        if not knowledge.publishes:
            return
        with self._table.lock:
            listing = knowledge.listings.get(parent)
            if listing is None or parent.detached or not knowledge.fresh.keeps_names:
                return
            hits, now = self._table.published.hits(parent.inode), knowledge.clock()
            order = self._order(parent, listing, hits, now)
            first = bisect_left(order.names, name) + 1
            size = order.next_size(first, hits, now, knowledge.fresh.name_left(now))
            names = order.names[first : first + size]
            order.ends.append(first + size)
            if len(self._table) >= self._most_inodes:
                self.take_back()
            self._publish(parent, listing, names)
            self.take_back()  # what is old and was not told again just now, perhaps fetched ahead already

    def take_back(self, *, everything: bool = False) -> None:
        """Inodes that were offered long ago and that nobody came for."""
        with self._table.lock:
            spare = MOST if len(self._table) >= self._most_inodes else 0
            while self._offered:
                node = self._offered[0]
                if not (everything or spare > 0) and self._knowledge.fresh.of_name(node.checked_at):
                    return
                spare -= 1
                self._offered.popleft()
                self._table.reclaim(node)

    def statistics(self) -> OfferStatistics:
        with self._table.lock:
            self.take_back()
            return OfferStatistics(len(self._offered), self._published)

    # --- private; the lock is held ---

    def _order(self, parent: Node, listing: Listing, hits: int, now: float) -> _Order:
        order = self._orders.get(parent.inode)
        if order is None or order.listing is not listing or len(order.names) != len(listing.names):
            self._orders = self._knowledge.listings.of_kept(self._orders)
            order = self._orders[parent.inode] = _Order(listing, sorted(listing.names), hits, now)
            if len(self._orders) > _DIRECTORIES:
                self._orders.popitem(last=False)
        self._orders.move_to_end(parent.inode)
        return order

    def _publish(self, parent: Node, listing: Listing, names: Sequence[bytes]) -> None:
        place = self._table.place(parent)
        groups: dict[float, list[tuple[Node, ListedFile]]] = {}
        for name in names:
            facts, asked, at = listing.latest(name)
            if facts is None or facts.kind is not FileKind.FILE or facts.is_unfollowed:
                continue
            if not self._knowledge.fresh.of_name(at):
                continue
            found = self._node(parent, place, name, facts, asked, at)
            if found is not None:
                groups.setdefault(found[0].checked_at, []).append(found)
        for at, files in groups.items():
            self._give(parent, place, at, files)

    def _node(
        self, parent: Node, place: bytes, name: bytes, facts: Facts, asked: int, at: float
    ) -> tuple[Node, ListedFile] | None:
        """The node of a name, if it is to be published: a new one, or one of which nothing else is known."""
        knowledge = self._knowledge
        node = parent.children.get(name) if parent.children else None
        offered = opened = False
        if node is None:
            if len(self._table) >= self._most_inodes or knowledge.was_absent_since(parent, name, asked):
                return None
            node = self._table.offer(parent, name, facts, asked, at, place)
            offered = True
            self._offered.append(node)
        else:
            if node.kind is not facts.kind or node.facts != facts or not knowledge.is_plain(node):
                return None
            if node.asked <= asked and node.checked_at < at:
                self._table.renew(node, asked, at)
            elif node.published:
                return None
            opened = node.local is not None and node.local.opened == facts.etag
        size, mtime = Bytes(facts.size), facts.mtime_ns
        return node, ListedFile(name, node.inode, size, mtime, facts.etag, offered, opened)

    def _give(self, parent: Node, place: bytes, at: float, files: list[tuple[Node, ListedFile]]) -> None:
        knowledge = self._knowledge
        shown = knowledge.files_shown(at)
        planned = shown.opens > 0
        small: list[tuple[Node, ListedFile]] = []
        others: list[tuple[Node, ListedFile]] = []
        for each in files:
            (small if planned and knowledge.can_plan(each[0]) else others).append(each)
        for group, part in ((shown, small), (shown._replace(opens=Seconds(0.0)), others)):
            if not part:
                continue
            done = self._table.published.publish_files(parent.inode, place, [file for _, file in part], group)
            self._published += done
            for node, _ in part[:done]:
                self._table.note_published(node, planned=part is small)
            for node, file in part[done:]:  # no room
                if file.offered:
                    self._table.forget(node.inode, 1)
