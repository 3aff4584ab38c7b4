"""A kept listing that has grown old, renewed by pages where its names are looked up.

A program that works through a directory for longer than the timeouts last would otherwise pay one request a name. So
the request for one name asks for those that follow it as well. How many: twice as many each time as long as enough of
what came is looked up in turn, half as many when it is not, so that single names here and there do not pay for pages
for long. What is enough depends on what a request costs: far from the store one that is saved is worth a page.
Names that are in a page under way wait for it. Every answer keeps the time of the request that brought it: how old it
may be is decided as for any other.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from csi.errors import OssFuseError
from csi.fs.metadata import Facts
from csi.volume.units import Seconds

FIRST = 16
"""Names of the first page: little more than what the request for one name brings."""

LEAST = 2
"""Names of a page when names are looked up here and there; with a single one nothing would tell when that changes."""

LARGEST = 999
"""Names of a page; together with the one that shows that the last name is no directory, all OSS gives at once."""

NAME = Seconds(8e-6)
"""What a name in a page costs: sent, parsed and kept."""

WORTH = 64
MOST_WORTH = 2560
"""A name used is a request saved, and pays for as many names brought as cost the same time; never fewer nor more than
these, which are what a request of half a millisecond and one of 20 ms pay for."""

ON_TRUST = 4
"""Requests to be saved by what was brought before the first of it has to have been used: in random order neighbours
come late."""

RECENT = 4
"""Requests over which their time is averaged."""

NEAR = 100
"""Places by which threads that work through a directory together drift apart; more back is another order."""

_AFTER_DIRECTORY = b"/\xf4\x8f\xbf\xbf"  # U+10FFFF: past everything in a directory


@dataclass(frozen=True, slots=True)
class Page:
    """Names that one request told, sent at serial `asked` and time `at`."""

    names: Mapping[bytes, Facts]
    asked: int
    at: float


class Flight:
    """A request for `size` names of the listing from number `first` on, which are those after `after`.

    `page` or `error`, and the time it took, are set by who makes it, before `Renewal.land`.
    """

    __slots__ = ("_over", "after", "error", "first", "page", "seconds", "size")

    def __init__(self, first: int, size: int, after: bytes) -> None:
        self.first = first
        self.size = size
        self.after = after
        self.page: Page | None = None
        self.error: OssFuseError | None = None
        self.seconds = Seconds(0.0)
        self._over = threading.Event()

    def result(self) -> Page | None:
        """What came, once it is there: the request has a deadline. Raises what the request raised."""
        self._over.wait()
        if self.error is not None:
            raise self.error.with_traceback(None)
        return self.page

    def end(self) -> None:
        self._over.set()


class Renewal:
    """What was learned of the names of one listing since. Not locked: its user holds `InodeTable.lock`.

    `used` counts names that were answered by a page another name had asked for.
    """

    def __init__(self, names: Mapping[bytes, Facts]) -> None:
        """`names` of the listing, in any order."""
        self._names = names
        self._order: list[bytes] = []  # as keys are ordered: directories with their slash
        self._flights: list[Flight] = []
        self._pages: dict[bytes, Page] = {}
        self._size = FIRST
        self._worth = float(WORTH)
        self._brought = 0
        self._asked = 0  # the place of the name that the last page was asked for
        self._jumps = False
        self._last = 0  # brought by the last page and not used yet
        self._hits = 0
        self.used = 0

    def grown(self) -> None:
        """There are more names than before, all of them after the others."""
        self._order = []

    def page(self, name: bytes) -> Page | None:
        """The last page that told `name`."""
        return self._pages.get(name)

    def told(self, name: bytes, page: Page) -> None:
        """`name` was asked for by itself."""
        self._pages[name] = page

    def join(self, name: bytes) -> tuple[Flight, bool] | None:
        """The page that will tell `name`, and whether the caller has to ask for it; None if the listing has no such
        name. Whoever asks owes `land`."""
        facts = self._names.get(name)
        if facts is None:
            return None
        if not self._order:
            self._order = sorted(place_of(each, told) for each, told in self._names.items())
        index = bisect_left(self._order, place_of(name, facts))
        for flight in self._flights:
            if flight.first <= index < flight.first + flight.size:
                return flight, False
        size = self._next_size()
        self._jumps = self._jumps or index + NEAR < self._asked
        self._asked = index
        # pages that do not overlap tell all names, in whatever order they are looked up, once
        first = index - index % size if self._jumps and size == LARGEST else index
        flight = Flight(first, size, self._place_before(first))
        self._flights.append(flight)
        return flight, True

    def credit(self, hits: int) -> None:
        """So many names were looked up so far without anybody coming here: since the last page, of those it brought."""
        credited = min(max(0, hits - self._hits), self._last)
        self._hits = hits
        self.used += credited
        self._last -= credited

    def land(self, flight: Flight) -> None:
        """The request is over."""
        self._flights.remove(flight)
        if flight.page is not None:
            self._brought += flight.size - 1
            self._last = flight.size - 1
            request = max(0.0, flight.seconds - flight.size * NAME)
            self._worth += (min(max(request / NAME, WORTH), MOST_WORTH) - self._worth) / RECENT
            flight.page = page = self._shared(flight.page)
            self._pages.update(dict.fromkeys(page.names, page))
        flight.end()

    def _shared(self, page: Page) -> Page:
        """`page` without names that are new, so that memory is bounded, and with the listing's facts where they are
        the same."""
        known = ((name, facts, self._names.get(name)) for name, facts in page.names.items())
        names = {name: before if before == facts else facts for name, facts, before in known if before is not None}
        return Page(names, page.asked, page.at)

    def _next_size(self) -> int:
        if self._brought:
            pays = (self.used + ON_TRUST) * self._worth >= self._brought
            self._size = min(self._size * 2, LARGEST) if pays else max(self._size // 2, LEAST)
        if self._brought > 4 * LARGEST + 2 * ON_TRUST * self._worth:  # what was long ago counts less
            self._brought //= 2
            self.used //= 2
        return self._size

    def _place_before(self, index: int) -> bytes:
        """The place after which a page must begin to have the name `index` first."""
        if index == 0:
            return b""
        before = self._order[index - 1]
        return before[:-1] + _AFTER_DIRECTORY if before.endswith(b"/") else before


def place_of(name: bytes, facts: Facts) -> bytes:
    """Where a name comes in a listing: as its key is ordered."""
    return name + b"/" if facts.is_directory else name
