"""A kept listing that has grown old, renewed by pages where its names are looked up.

A program that works through a directory for longer than the timeouts last would otherwise pay one request a name. So
the request for one name asks for those that follow it as well, as many as `csi/fs/page_sizes.py` says.
Names that are in a page under way wait for it. Every answer keeps the time of the request that brought it: how old it
may be is decided as for any other.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from csi.errors import OssFuseError
from csi.fs.metadata import Facts
from csi.fs.names import LAST, decode, encode
from csi.fs.page_sizes import LARGEST, PageSizes
from csi.volume.units import Seconds

NEAR = 100
"""Places by which threads that work through a directory together drift apart; more back is another order."""

AT_ONCE = 8
"""Pages of one directory under way."""

_LAST = encode(LAST)


@dataclass(frozen=True, slots=True)
class Page:
    """Names that one request told, sent at serial `asked` and time `at`."""

    names: Mapping[bytes, Facts]
    asked: int
    at: float


class Flight:
    """A request for the `size` names after `after`.

    `page` or `error`, the time it took, and of which names it shows that they are not there (`reaches`), are set by who
    makes it, before `Renewal.land`.
    """

    __slots__ = ("_over", "after", "error", "page", "reaches", "seconds", "size")

    def __init__(self, size: int, after: bytes) -> None:
        self.size = size
        self.after = after
        self.page: Page | None = None
        self.error: OssFuseError | None = None
        self.seconds = Seconds(0.0)
        self.reaches: Callable[[bytes], bool] = lambda name: False
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
    """What was learned of the names of one listing since. Not locked: its user holds `InodeTable.lock`."""

    def __init__(self, names: Mapping[bytes, Facts]) -> None:
        """`names` of the listing, in any order."""
        self._names = names
        self._order: list[bytes] = []  # as keys are ordered: directories with their slash
        self._flights: dict[Flight, int] = {}  # and the place of its first name
        self._pages: dict[bytes, Page] = {}
        self._gone: set[bytes] = set()
        self.sizes = PageSizes()
        self._asked = 0  # the place of the name that the last page was asked for
        self._jumps = False

    def grown(self) -> None:
        """There are more names than before, all of them after the others."""
        self._order = []

    def page(self, name: bytes) -> Page | None:
        """The last page that told `name`."""
        return self._pages.get(name)

    def told(self, name: bytes, page: Page) -> None:
        """`name` was asked for by itself."""
        self._pages[name] = page
        self._gone.discard(name)

    def join(self, name: bytes) -> tuple[Flight, bool] | None:
        """The page that will tell `name`, and whether the caller has to ask for it; None if the listing has no such
        name, or a page has shown that it is gone. Whoever asks owes `land`."""
        facts = self._names.get(name)
        if facts is None or name in self._gone:
            return None
        if not self._order:
            self._order = sorted(place_of(each, told) for each, told in self._names.items())
        index = bisect_left(self._order, place_of(name, facts))
        for flight, first in self._flights.items():
            if first <= index < first + flight.size:
                return flight, False
        size = self.sizes.next()
        self._jumps = self._jumps or index + NEAR < self._asked
        self._asked = index
        # pages that do not overlap tell all names, in whatever order they are looked up, once
        first = index - index % size if self._jumps and size == LARGEST else index
        flight = Flight(size, self._place_before(first))
        self._flights[flight] = first
        return flight, True

    def others(self, is_fresh: Callable[[bytes], bool]) -> list[Flight]:
        """The next pages that are old, to be asked for at the same time as the last one was: where names are looked up
        all over the directory, the rest of it will be needed just as soon. Whoever asks owes `land` of each."""
        found: list[Flight] = []
        if not self._jumps or self.sizes.latest < LARGEST:
            return found
        count = -(-len(self._order) // LARGEST)
        before = self._asked // LARGEST
        for page in range(before + 1, before + count):
            first = page % count * LARGEST
            if len(self._flights) >= AT_ONCE:
                break
            if first not in self._flights.values() and not is_fresh(self._order[first].removesuffix(b"/")):
                flight = Flight(LARGEST, self._place_before(first))
                self._flights[flight] = first
                found.append(flight)
        return found

    def land(self, flight: Flight) -> None:
        """The request is over."""
        first = self._flights.pop(flight)
        if flight.page is not None:
            covered = (place.removesuffix(b"/") for place in self._order[first : first + flight.size])
            told = flight.page.names
            self._gone.difference_update(told)
            self._gone.update(name for name in covered if name not in told and flight.reaches(name))
            self.sizes.came(flight.size, flight.seconds)
            flight.page = page = self._shared(flight.page)
            self._pages.update(dict.fromkeys(page.names, page))
        flight.end()

    def _shared(self, page: Page) -> Page:
        """`page` without names that are new, so that memory is bounded, and with the listing's facts where they are
        the same."""
        known = ((name, facts, self._names.get(name)) for name, facts in page.names.items())
        names = {name: before if before == facts else facts for name, facts, before in known if before is not None}
        return Page(names, page.asked, page.at)

    def _place_before(self, index: int) -> bytes:
        """The place after which a page must begin to have the name `index` first."""
        if index == 0:  # there may be others before
            return just_before(self._order[0].removesuffix(b"/"))
        before = self._order[index - 1]
        return before + _LAST if before.endswith(b"/") else before


def place_of(name: bytes, facts: Facts) -> bytes:
    """Where a name comes in a listing: as its key is ordered."""
    return name + b"/" if facts.is_directory else name


def just_before(name: bytes) -> bytes:
    """A place that comes before `name`, and between the two at most names that are like it but for the last letter."""
    if b"!" <= name[-1:] <= b"~":
        return name[:-1] + bytes([name[-1] - 1]) + _LAST
    return encode(decode(name)[:-1])
