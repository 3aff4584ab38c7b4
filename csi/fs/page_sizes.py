"""How many names the request for one of them asks for.

Twice as many each time as long as enough of what came is looked up in turn, half as many when it is not, so that single
names here and there do not pay for pages for long. What is enough depends on what a request costs: far from the store
one that is saved is worth a page.
"""

from __future__ import annotations

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


class PageSizes:
    """Not locked: its user holds `InodeTable.lock`. `used` counts names that were answered by a page another name had
    asked for."""

    __slots__ = ("_brought", "_hits", "_size", "_unused", "_worth", "used")

    def __init__(self) -> None:
        self._size = FIRST
        self._worth = float(WORTH)
        self._brought = 0
        self._unused = 0  # brought, and not known to have been used
        self._hits = 0
        self.used = 0

    @property
    def latest(self) -> int:
        """What `next` returned last."""
        return self._size

    def next(self) -> int:
        if self._brought:
            pays = (self.used + ON_TRUST) * self._worth >= self._brought
            self._size = min(self._size * 2, LARGEST) if pays else max(self._size // 2, LEAST)
        if self._brought > 4 * LARGEST + 2 * ON_TRUST * self._worth:  # what was long ago counts less
            self._brought //= 2
            self.used //= 2
        return self._size

    def credit(self, hits: int) -> None:
        """So many names were looked up so far without anybody coming here: since the last time, of those brought."""
        credited = min(max(0, hits - self._hits), self._unused)
        self._hits = hits
        self.used += credited
        self._unused -= credited

    def came(self, names: int, seconds: Seconds) -> None:
        """A page of so many names came, by a request of `seconds`."""
        self._brought += names - 1
        self._unused += names - 1
        request = max(0.0, seconds - names * NAME)
        self._worth += (min(max(request / NAME, WORTH), MOST_WORTH) - self._worth) / RECENT
