"""Pages of listings, asked for a little before they are needed.

While one page of a large directory is being read, the next one is on its way: there is one request a page either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from csi.oss.store import ListPage, ObjectStore


class AskedPage(NamedTuple):
    """A page, with the serial and the time at which it was asked for."""

    page: ListPage
    asked: int
    at: float


class Pages:
    def __init__(self, store: ObjectStore, serial: Callable[[], int], clock: Callable[[], float]) -> None:
        self._store = store
        self._serial = serial
        self._clock = clock

    def of(self, prefix: str) -> Iterator[AskedPage]:
        pages = self._store.list_all(prefix, delimiter="/")
        while True:
            asked, at = self._serial(), self._clock()
            page = next(pages, None)
            if page is None:
                return
            yield AskedPage(page, asked, at)
