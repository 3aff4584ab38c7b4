"""Names that are looked up in order, in directories of which no listing is kept.

A program that goes through a sorted list of files, or through a directory of which there is no room for the listing,
would pay one request a name. So once a few names of a directory were asked for in the order of a listing, the request
for the next one asks for those that follow as well, and the page is kept, with the one before for threads that lag
behind. Who goes through a directory in another order gets a page now and then, until it is clear that its names are not
used. A name that is not there ends a run: files that are made in order are asked for one by one.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from csi.fs.nodes import Node
from csi.fs.page_sizes import LEAST, PageSizes
from csi.fs.renewal import Flight, Page, just_before

_BEGINS = 2
_BEGINS_AGAIN = 64
"""Names in order, one after the other, before a page is asked for, and again where pages were of no use."""

_DIRECTORIES = 64


@dataclass(slots=True)
class _Run:
    """The last name that was asked for and is there, how many before it were in order, the page that came last and the
    one under way."""

    sizes: PageSizes = field(default_factory=PageSizes)
    last: bytes | None = None
    streak: int = 0
    page: Page | None = None
    flight: Flight | None = None


class Runs:
    """`InodeTable.lock` guards everything here. Directories are told apart by their node, not by its number, which can
    be given again."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Node, _Run] = OrderedDict()

    def join(self, directory: Node, name: bytes, hits: int) -> tuple[Flight, PageSizes, bool] | None:
        """The page that may tell `name`, its size among those before, and whether the caller has to ask for it; None
        if the name is to be asked for by itself. `hits`: see `PageSizes.credit`. Whoever asks owes `land`."""
        run = self._runs.get(directory)
        if run is None:
            return None
        if run.flight is not None:
            return (run.flight, run.sizes, False) if run.flight.after < name else None
        if run.last is None or name <= run.last:
            run.streak = 0
            return None
        run.streak += 1
        if run.streak < _BEGINS:
            return None
        run.sizes.credit(hits)
        size = run.sizes.next()
        if size == LEAST and run.streak < _BEGINS_AGAIN:
            return None
        if size == LEAST:
            run.sizes, run.streak = PageSizes(), 0
            size = run.sizes.next()
        run.flight = Flight(size, just_before(name))
        return run.flight, run.sizes, True

    def land(self, directory: Node, flight: Flight, name: bytes) -> list[Page]:
        """The request of `flight`, which was for `name`, is over: the pages to be kept."""
        flight.end()
        run, page = self._runs.get(directory), flight.page
        if run is None or run.flight is not flight:
            return []
        run.flight, before, run.page = None, run.page, page
        if page is None:
            return []
        run.sizes.came(max(1, len(page.names)), flight.seconds)
        self.asked(directory, name, is_there=name in page.names)
        if before is not None and before.names and max(before.names) < min(page.names, default=b""):
            return [before, page]
        return [page]

    def outdate(self, directory: Node) -> None:
        """This mount has changed a name in it: what the last page told may be wrong."""
        run = self._runs.get(directory)
        if run is not None:
            run.page = None

    def asked(self, directory: Node, name: bytes, *, is_there: bool) -> None:
        """`name` was asked for."""
        run = self._runs.get(directory)
        if run is None and not is_there:
            return
        if run is None:
            run = self._runs[directory] = _Run()
            if len(self._runs) > _DIRECTORIES:
                self._runs.popitem(last=False)
        self._runs.move_to_end(directory)
        run.last = name if is_there else None
