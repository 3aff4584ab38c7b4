"""Pages of listings, asked for a little before they are needed, by as many requests as without that.

When half of a page of a large directory has been read, the next one is on its way. The first page of a directory may
have been asked for when the walk of its parent came near (`csi/fs/walks.py`). Every page keeps the serial and the time
of its request: how old it may be is decided as for any other answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from csi.data.workers import Task, WorkerPool
from csi.errors import BadHandle, OssFuseError, ServerFailure
from csi.fs.names import encode, shown
from csi.oss.store import ListPage, ObjectStore

AHEAD = 1
"""Priority of what no program waits for yet."""


class AskedPage(NamedTuple):
    """A page, with the serial and the time at which it was asked for."""

    page: ListPage
    asked: int
    at: float


class Fetch:
    """A page under way. `_over` is set once `_page` or `_error` is."""

    __slots__ = ("_ask", "_error", "_over", "_page", "_task", "_workers")

    def __init__(self, workers: WorkerPool, ask: Callable[[], AskedPage]) -> None:
        self._workers = workers
        self._ask = ask
        self._over = threading.Event()
        self._page: AskedPage | None = None
        self._error: OssFuseError | None = None
        self._task: Task = workers.submit(self._run, priority=AHEAD, dropped=self._dropped)

    def result(self) -> AskedPage:
        """The page, once it is there: the request has a deadline, and is made here if no thread has come to it. Raises
        what the request raised."""
        if self._workers.cancel(self._task):
            return self._ask()
        self._over.wait()
        if self._page is None:
            raise (self._error or BadHandle("the volume is being unmounted")).with_traceback(None)
        return self._page

    def cancel(self) -> None:
        """Nobody wants it any more; a request under way ends by itself."""
        self._workers.cancel(self._task)

    def _run(self) -> bool:
        try:
            self._page = self._ask()
        except OssFuseError as error:
            self._error = error
        finally:
            self._over.set()
        return self._page is not None

    def _dropped(self) -> None:
        self._over.set()


class Pages:
    """Thread-safe: its parts are."""

    def __init__(
        self, store: ObjectStore, serial: Callable[[], int], clock: Callable[[], float], workers: WorkerPool
    ) -> None:
        """`workers` carry out `fetch`; the caller closes them."""
        self._store = store
        self._serial = serial
        self._clock = clock
        self._workers = workers

    def ask(self, prefix: str, token: str = "") -> AskedPage:
        """One page of the names directly below `prefix`, asked for now. Raises StoreError."""
        asked, at = self._serial(), self._clock()
        page = self._store.list_page(prefix, delimiter="/", token=token)
        if token and page.next_token == token:
            shortly = shown(encode(prefix))
            raise ServerFailure(
                f"ListObjects {shortly}: the server repeats a continuation token", operation="ListObjects"
            )
        return AskedPage(page, asked, at)

    def fetch(self, prefix: str, token: str = "") -> Fetch:
        """`ask`, on another thread."""
        return Fetch(self._workers, lambda: self.ask(prefix, token))

    def following(self, prefix: str, first: AskedPage) -> PageSequence:
        """`first` and the pages after it."""
        return PageSequence(self, prefix, first)


class PageSequence:
    """The pages of one directory, for one reader."""

    def __init__(self, pages: Pages, prefix: str, first: AskedPage) -> None:
        self._pages = pages
        self._prefix = prefix
        self._next: AskedPage | None = first
        self._token = ""
        self._ahead: Fetch | None = None

    def prepare(self) -> None:
        """The next page will be needed soon: not so much earlier that it is old by then."""
        if self._token and self._ahead is None:
            self._ahead = self._pages.fetch(self._prefix, self._token)

    def next(self) -> AskedPage | None:
        """The next page, None after the last one. Raises StoreError."""
        page, self._next = self._next, None
        if page is None and self._token:
            ahead, self._ahead = self._ahead, None
            page = ahead.result() if ahead is not None else self._pages.ask(self._prefix, self._token)
        self._token = page.page.next_token if page is not None else ""
        return page

    def close(self) -> None:
        """The reader has left."""
        if self._ahead is not None:
            self._ahead.cancel()
