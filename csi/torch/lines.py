"""The shortest way to small objects whose version is known: threads that fetch them without the interpreter, from the
signature to the checksum, and without waking it for each (`csi/oss/parcels.pyx`).

For plain HTTP, where it was built. Whatever is not exactly what was expected is left to the ordinary way, which knows
what to say of it.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from csi.errors import OssFuseError
from csi.oss.client import OssClient
from csi.oss.lines import Lines
from csi.oss.store import ObjectVersion
from csi.torch.logs import Audit
from csi.torch.processors import confine
from csi.volume.units import Bytes

if TYPE_CHECKING:
    from csi.oss.parcels import Parcel, Parcels

_ENDED: Final = 0
_LOST: Final = 3
_SLOW: Final = 4
_SHORT: Final = 5

Ordinary = Callable[[Any], None]
"""Fetches what was left with a parcel; never raises."""


class Post:
    """Couriers to one bucket. `_lock` guards `_threads`. They end with `close`, once what was begun is done.

    In a child that was forked there is none of them, and maybe one of their locks that nobody lets go of.
    """

    def __init__(self, parcels: Parcels, lines: Lines, audit: Audit, name: str, *, most: int, processors: int) -> None:
        self.parcels = parcels
        self._process = os.getpid()
        self._lines = lines
        self._audit = audit
        self._name = name
        self._most = most
        self._processors = processors
        self._threads = 0
        self._lock = threading.Lock()

    def send(self, version: ObjectVersion, slot: object, ordinary: Ordinary) -> Parcel:
        """Have an object fetched, or `slot` given to `ordinary`. Does not wait."""
        key, etag = version.key.encode("utf-8", "surrogateescape"), version.etag.encode()
        parcel, needed = self.parcels.put(key, etag, version.size, slot)
        self._hire(needed, ordinary)
        return parcel

    def forget(self, parcel: Parcel) -> None:
        """Nobody will wait for it. Does nothing in a child, where a sample of the parent may be left."""
        if os.getpid() == self._process:
            self.parcels.forget(parcel)

    def _hire(self, needed: int, ordinary: Ordinary) -> None:
        """Have `needed` couriers at least, as far as so many are allowed."""
        while self._threads < needed:
            with self._lock:
                if self._threads >= self._most:
                    return
                self._threads += 1
                self.parcels.hired = self._threads
            name = f"ossfuse-fetch-line-{self._threads}"
            threading.Thread(target=self._run, args=(ordinary,), name=name, daemon=True).start()

    def _run(self, ordinary: Ordinary) -> None:
        confine(self._processors)
        connection: socket.socket | None = None
        is_needed = True
        while is_needed:
            try:
                stamp = self._lines.stamp()
                connection = connection or self._lines.connect()
            except (OssFuseError, OSError, ValueError):
                is_needed = self._without_connection(ordinary)
                continue
            why, is_usable, of = self.parcels.serve(connection.fileno(), stamp, self._audit.slow)
            if not is_usable or why == _ENDED:
                connection.close()
                connection = None
            if why == _LOST and of is not None:
                ordinary(of)
            elif why == _SLOW:
                self._tell(of)
            elif why == _SHORT:
                self._hire(self.parcels.needed, ordinary)
            is_needed = why != _ENDED
        if connection is not None:
            connection.close()
        with self._lock:
            self._threads -= 1
            self.parcels.hired = self._threads
        if self.parcels.waiting:  # came while this one was on its way out
            self._hire(1, ordinary)

    def _without_connection(self, ordinary: Ordinary) -> bool:
        """Whether there was something to do for who has none: one object in the ordinary way."""
        slot = self.parcels.take()
        if slot is not None:
            ordinary(slot)
        return slot is not None or self.parcels.waiting > 0

    def _tell(self, of: Any) -> None:
        key, size, seconds = of
        request = f"GET {self._name}{key.decode('utf-8', 'surrogateescape')}"
        self._audit.tell(request, seconds, status=200, size=size)


def post_to(store: OssClient, audit: Audit, largest: Bytes, *, most: int, processors: int) -> Post | None:
    """The post to the bucket of `store`; None where there is none."""
    location = store.session.location
    if not location.endpoint.startswith("http://") or importlib.util.find_spec("csi.oss.parcels") is None:
        return None
    from csi.oss.parcels import Parcels  # noqa: PLC0415 - may not be built

    lines = store.session.lines(largest)
    return Post(Parcels(most), lines, audit, f"oss://{location.bucket}/", most=most, processors=processors)
