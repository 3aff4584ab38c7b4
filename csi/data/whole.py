"""One small file being read: an object no larger than a block, fetched by one request whatever is read of it.

Most files of a training set are read once, from start to end: so this is as little as can be. Whoever reads first makes
the request on its own thread, others wait for that one. Promises what `reader` does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from csi.data.blocks import BlockCache
from csi.data.reader import read_directly
from csi.data.shelves import Shelf
from csi.errors import BadHandle
from csi.oss.store import Buffer, ObjectStore, ObjectVersion
from csi.volume.units import Seconds


class WholeReader:
    """A `Reader` (csi/data/streams.py). `_lock` guards that it is closed once."""

    __slots__ = (
        "_cache",
        "_lock",
        "_on_close",
        "_open",
        "_patience",
        "_shelf",
        "_shown",
        "_size",
        "_store",
        "notice",
        "scattered",
        "version",
    )

    def __init__(
        self,
        version: ObjectVersion,
        store: ObjectStore,
        cache: BlockCache,
        *,
        patience: Seconds,
        closed: Callable[[WholeReader], None],
    ) -> None:
        self.version = version
        self._size = int(version.size)
        self._store = store
        self._cache = cache
        self._patience = patience
        self._on_close = closed
        self._shelf: Shelf = cache.open(version)
        self._lock = threading.Lock()
        self._open = True
        self._shown = False
        self.notice = 0
        self.scattered = False

    def try_read(self, offset: int, size: int) -> Buffer | None:
        end = min(offset + size, self._size)
        if offset >= end:
            return b""
        view = self._present()
        return None if view is None else view[offset:end]

    def read(self, offset: int, size: int) -> Buffer:
        end = min(offset + size, self._size)
        if offset >= end:
            return b""
        view = self._present()
        if view is None:
            view = self._cache.whole(self._shelf)
            if view is None:
                return read_directly(self.version, self._store, self._cache, offset, end, self._patience)
        self.notice = self._size if end < self._size else 0
        return view[offset:end]

    def publish(self) -> int | None:
        with self._lock:
            if self._open and not self._shown:
                self._shown = self._cache.show(self._shelf) is not None
            return self._shelf.content if self._shown else None

    def file(self) -> tuple[int, int] | None:
        """Small objects are not kept as files of their own bytes alone."""
        return None

    def reached(self, offset: int, end: int) -> int:
        return 0

    def close(self) -> None:
        with self._lock:
            if not self._open:
                return
            self._open = False
            if self._shown:
                self._cache.conceal(self._shelf)
        self._cache.close(self._shelf)
        self._on_close(self)

    def _present(self) -> memoryview | None:
        if not self._open:
            raise BadHandle(f"{self.version.key}: read after close")
        block = self._shelf.grid.get(0)
        view = block.view if block is not None else None
        if block is not None and view is not None:
            self._cache.touch(block)
        return view
