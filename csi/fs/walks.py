"""Programs that walk a tree, directory after directory in the order of the listing (find, os.walk), are met half way.

Once a second directory follows the first one, the listings of those that come next in their parent are asked for ahead:
one, two, four, up to `MOST` at a time. What is fetched serves only the directory it was fetched for, and only for as
long as its names may be believed, so that the requests of a walk are those of the directories it visits, and at most
`MOST` more for each parent it leaves. Where names are asked for each time (all timeouts 0) nothing is fetched ahead.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from csi.fs.knowledge import Knowledge
from csi.fs.nodes import Node
from csi.fs.pages import AskedPage, Fetch, Pages, PageSequence

MOST = 16
"""Listings fetched ahead in one directory."""

_WALKS = 8
"""Directories whose subdirectories are being walked at the same time: the depth of a tree, or several programs."""


@dataclass(frozen=True, slots=True)
class WalkStatistics:
    """Listings `fetched` ahead so far, how many of them were `used`, and those that wait for their reader now."""

    fetched: int
    used: int
    waiting: int


@dataclass(slots=True)
class _Walk:
    """The subdirectories of one directory in listing order; `last` was visited last, `run` of them in a row."""

    order: list[bytes]
    index: dict[bytes, int]
    last: int = -1
    run: int = 0
    ahead: dict[bytes, tuple[str, Fetch]] = field(default_factory=dict)


class Walks:
    """`_lock` guards everything here; it is held over no request, and comes before `InodeTable.lock`."""

    def __init__(self, knowledge: Knowledge, pages: Pages) -> None:
        self._knowledge = knowledge
        self._pages = pages
        self._lock = threading.Lock()
        self._walks: OrderedDict[Node, _Walk] = OrderedDict()
        self._fetched = 0
        self._used = 0

    def pages(self, directory: Node, prefix: str) -> PageSequence:
        """The listing of `directory`, whose keys begin with `prefix`. Raises StoreError."""
        fetch = self._visit(directory, prefix) if self._knowledge.fresh.keeps_names else None
        first = fetch.result() if fetch is not None else None
        if first is None or not self._is_good(prefix, first):
            first = self._pages.ask(prefix)
        elif fetch is not None:
            with self._lock:
                self._used += 1
        return self._pages.following(prefix, first)

    def statistics(self) -> WalkStatistics:
        with self._lock:
            return WalkStatistics(self._fetched, self._used, sum(len(walk.ahead) for walk in self._walks.values()))

    def close(self) -> None:
        with self._lock:
            for walk in self._walks.values():
                _leave(walk)
            self._walks.clear()

    # --- private ---

    def _is_good(self, prefix: str, page: AskedPage) -> bool:
        """Whether a listing that was asked for earlier may still be shown: neither too old, nor from before a change
        of our own."""
        with self._knowledge.table.lock:
            changed = self._knowledge.recent.last(prefix)
        return page.asked > changed and self._knowledge.fresh.of_name(page.at)

    def _visit(self, directory: Node, prefix: str) -> Fetch | None:
        """`directory` is being read: what was fetched for it, if anything."""
        parent = directory.parent
        if parent is None:
            return None
        with self._lock:
            walk = self._walks.get(parent) or self._begin(parent)
            place = walk.index.get(directory.name) if walk is not None else None
            if walk is None or place is None:
                return None
            self._walks.move_to_end(parent)
            if place == walk.last:
                return None
            known, fetch = walk.ahead.pop(directory.name, ("", None))
            if place == walk.last + 1:
                walk.run += 1
            else:
                _leave(walk)
            walk.last = place
            if walk.run > 1:
                base = prefix[: -len(directory.name.decode("utf-8", "surrogateescape")) - 1]
                self._fetch(walk, base, min(1 << (walk.run - 2), MOST))
            if place + 1 == len(walk.order):
                del self._walks[parent]  # the end
            return fetch if known == prefix else None

    def _begin(self, parent: Node) -> _Walk | None:
        with self._knowledge.table.lock:
            listing = self._knowledge.listings.get(parent)
            names = listing.names if listing is not None and listing.complete else {}
            order = [name for name, facts in names.items() if facts.is_directory]
        if len(order) < 3:
            return None
        walk = self._walks[parent] = _Walk(order, {name: place for place, name in enumerate(order)})
        if len(self._walks) > _WALKS:
            _leave(self._walks.popitem(last=False)[1])
        return walk

    def _fetch(self, walk: _Walk, base: str, count: int) -> None:
        for name in walk.order[walk.last + 1 : walk.last + 1 + count]:
            if name not in walk.ahead:
                prefix = f"{base}{name.decode('utf-8', 'surrogateescape')}/"
                walk.ahead[name] = (prefix, self._pages.fetch(prefix))
                self._fetched += 1


def _leave(walk: _Walk) -> None:
    """The walk goes on elsewhere, or has ended."""
    walk.run = 0
    for _, fetch in walk.ahead.values():
        fetch.cancel()
    walk.ahead.clear()
