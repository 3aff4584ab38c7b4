"""Listings of directories, kept for as long as the timeouts of the mount allow, and while they are being read.

With one of these a name that the kernel asks for again, or that is not there, costs no request; `ls -l` asks for each
name while it is still reading the directory. What is kept is bounded by names: a directory with more than there is room
for is kept as a window that moves on with its reader. A change of our own in a directory drops its listing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping
from itertools import islice
from typing import Protocol, TypeVar

from csi.fs.metadata import Facts
from csi.fs.nodes import Node
from csi.fs.page_sizes import PageSizes
from csi.fs.renewal import Page, Renewal, place_of

MOST_NAMES = 200_000
"""Names kept in all listings together: about 30 MB, because the facts are shared with the inodes."""


class Listing:
    """`asked` is the serial of the first request of the listing, `at` its time. `renewal`: what was learned since.

    `complete`: a name that is not among `names` is not in the directory. `sizes`: it is a single page, of that size,
    that was asked for because of one name.
    """

    __slots__ = ("_ends", "_times", "_whole", "asked", "at", "complete", "names", "renewal", "sizes")

    def __init__(
        self, names: dict[bytes, Facts], asked: int, at: float, *, complete: bool = True, sizes: PageSizes | None = None
    ) -> None:
        self.names = names
        self.sizes = sizes
        self.asked = asked
        self.at = at
        self.complete = complete
        self.renewal = Renewal(names)
        self._ends: list[bytes] = []  # where the pages end, but for the last one
        self._times = [(asked, at)]
        self._whole = True

    def turn(self, end: bytes, asked: int, at: float) -> None:
        """The names from here on are of a page that was asked for at serial `asked` and time `at`; `end` is the place
        of the last one before."""
        self._ends.append(end)
        self._times.append((asked, at))
        self.renewal.grown()

    def end(self) -> None:
        """The directory has been listed to its end."""
        self.complete = self._whole

    def told(self, name: bytes, facts: Facts) -> tuple[int, float]:
        """The serial and time of the request that told `name`."""
        if not self._ends:
            return self.asked, self.at
        return self._times[bisect_left(self._ends, place_of(name, facts))]

    def latest(self, name: bytes) -> tuple[Facts | None, int, float]:
        """What is known of `name`, and the serial and time of the request that told it; (None, 0, 0.0): nothing."""
        page = self.renewal.page(name)
        if page is not None:
            return page.names.get(name), page.asked, page.at
        facts = self.names.get(name)
        return (None, 0, 0.0) if facts is None else (facts, *self.told(name, facts))

    def used(self, name: bytes) -> None:
        """`name`, which is known, was looked up."""
        if self.sizes is not None:
            self.sizes.used += 1
        elif self.renewal.page(name) is not None:
            self.renewal.sizes.used += 1

    def agrees(self, name: bytes, facts: Facts, asked: int, at: float) -> bool:
        """Take in what was told of `name` since. False: it is new, or is another kind of file; the listing is of no use
        any more."""
        known, before, _ = self.latest(name)
        if known is None:
            return not self.complete
        if before > asked or known == facts:
            return True
        if known.kind is not facts.kind:
            return False
        self.names[name] = facts
        self.renewal.told(name, Page({name: facts}, asked, at))
        return True

    def move_on(self) -> None:
        """Forget the first half of the names: there is no room for all of them, and the reader is past those."""
        self.complete = self._whole = False
        for name in list(islice(self.names, len(self.names) // 2)):
            del self.names[name]
        self.renewal = Renewal(self.names)


class _OfListing(Protocol):
    @property
    def listing(self) -> Listing | None: ...


Order = TypeVar("Order", bound=_OfListing)


class ListingCache:
    """Not locked: its user holds `InodeTable.lock`."""

    def __init__(self, most_names: int = MOST_NAMES) -> None:
        self._most = most_names
        self._listings: OrderedDict[Node, tuple[Listing, int]] = OrderedDict()  # and how many of its names are counted
        self.names = 0

    def __len__(self) -> int:
        return len(self._listings)

    def all(self) -> set[Listing]:
        return {listing for listing, _ in self._listings.values()}

    def of_kept(self, orders: Mapping[int, Order]) -> OrderedDict[int, Order]:
        """Those of `orders`, in their order, that hold no listing which was given up."""
        kept = self.all()
        return OrderedDict(each for each in orders.items() if each[1].listing is None or each[1].listing in kept)

    def get(self, directory: Node) -> Listing | None:
        found = self._listings.get(directory)
        if found is None:
            return None
        self._listings.move_to_end(directory)  # a walk of what is below it must not push it out
        return found[0]

    def put(self, directory: Node, listing: Listing) -> None:
        """Keep `listing`, and as many of the last others as fit. To be called again when it has grown."""
        self.drop(directory)
        self._listings[directory] = (listing, len(listing.names))
        self.names += len(listing.names)
        while self.names > self._most and len(self._listings) > 1:
            self.drop(next(iter(self._listings)))

    def has_room(self, listing: Listing) -> bool:
        """Whether one listing may go on growing, to nearly all of the room: names that are not kept are asked for one
        by one."""
        return len(listing.names) < self._most * 7 // 8

    def give_up(self, names: int) -> int:
        """Drop the listings not used for longest, `names` names of them if there are as many; returns how many."""
        before = self.names
        while self._listings and before - self.names < names:
            self.drop(next(iter(self._listings)))
        return before - self.names

    def drop(self, directory: Node) -> None:
        dropped = self._listings.pop(directory, None)
        if dropped is not None:
            self.names -= dropped[1]
