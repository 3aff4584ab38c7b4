"""Complete listings of directories, kept for as long as the timeouts of the mount allow.

With one of these a name that the kernel asks for again, or that is not there, costs no request. What is kept is bounded
by names, not by directories; a change of our own in a directory drops its listing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from csi.fs.metadata import Facts
from csi.fs.nodes import Node
from csi.fs.renewal import Renewal

MOST_NAMES = 200_000
"""Names kept in all listings together: about 30 MB, because the facts are shared with the inodes."""

LARGEST = 50_000
"""A directory with more names than this is not kept."""


@dataclass(frozen=True, slots=True)
class Listing:
    """`asked` is the serial of the first request of the listing, `at` its time. `renewal`: what was learned since."""

    names: Mapping[bytes, Facts]
    asked: int
    at: float
    renewal: Renewal = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "renewal", Renewal(self.names))


class ListingCache:
    """Not locked: its user holds `InodeTable.lock`."""

    def __init__(self, most_names: int = MOST_NAMES) -> None:
        self._most = most_names
        self._listings: OrderedDict[Node, Listing] = OrderedDict()
        self.names = 0

    def __len__(self) -> int:
        return len(self._listings)

    def get(self, directory: Node) -> Listing | None:
        return self._listings.get(directory)

    def put(self, directory: Node, listing: Listing) -> None:
        """Keep `listing`, and as many of the last others as fit."""
        self.drop(directory)
        self._listings[directory] = listing
        self.names += len(listing.names)
        while self.names > self._most and len(self._listings) > 1:
            _, oldest = self._listings.popitem(last=False)
            self.names -= len(oldest.names)

    def give_up(self, names: int) -> int:
        """Drop the oldest listings, with `names` names together if there are as many; returns how many they had."""
        before = self.names
        while self._listings and before - self.names < names:
            self.drop(next(iter(self._listings)))
        return before - self.names

    def drop(self, directory: Node) -> None:
        dropped = self._listings.pop(directory, None)
        if dropped is not None:
            self.names -= len(dropped.names)
