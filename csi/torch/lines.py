"""The shortest way to a small object whose version is known: one call of C, from the signature to the checksum, without
the interpreter (`csi/oss/getting.pyx`).

For plain HTTP, where it was built. Whatever is not exactly what was expected is left to the ordinary way, which knows
what to say of it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import threading
import time
from collections.abc import Callable

from csi.errors import OssFuseError
from csi.oss.client import OssClient
from csi.oss.lines import Lines
from csi.oss.store import ObjectVersion
from csi.torch.logs import Audit
from csi.volume.units import Bytes

_THERE = 0
_ENDED = 1
"""The connection was closed while it was idle: another one may do."""


class Line:
    """One thread's connection to one bucket."""

    def __init__(self, lines: Lines, name: str, audit: Audit, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lines = lines
        self._name = name
        self._audit = audit
        self._monotonic = monotonic
        self._connection: socket.socket | None = None

    def get(self, version: ObjectVersion, target: bytearray) -> bool:
        """Whether `target`, as long as the object, holds it now, checked; when not, it has to be fetched otherwise."""
        started = self._monotonic()
        is_there = self._get(version, target)
        seconds = self._monotonic() - started
        if seconds >= self._audit.slow:
            self._audit.tell(f"GET {self._name}{version.key}", seconds, status=200 if is_there else 0, size=len(target))
        return is_there

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _get(self, version: ObjectVersion, target: bytearray) -> bool:
        key = version.key.encode("utf-8", "surrogateescape")
        for _ in range(2):
            try:
                stamp = self._lines.stamp()
                if self._connection is None:
                    self._connection = self._lines.connect()
                outcome, usable = stamp.get(self._connection, key, version.etag, memoryview(target))
            except (OssFuseError, OSError, ValueError):
                self.close()
                return False
            if not usable:
                self.close()
            if outcome != _ENDED:
                return outcome == _THERE
        return False


class LinesOfThread(threading.local):
    """The lines of each thread, by bucket; closed with the thread."""

    def __init__(self) -> None:
        self.lines: dict[OssClient, Line | None] = {}

    def to(self, store: OssClient, audit: Audit, largest: Bytes) -> Line | None:
        """This thread's line to the bucket of `store`; None where there is none."""
        try:
            return self.lines[store]
        except KeyError:
            line = self.lines[store] = _line_to(store, audit, largest)
            return line

    def close(self) -> None:
        """Those of this thread."""
        lines, self.lines = self.lines, {}
        for line in lines.values():
            if line is not None:
                with contextlib.suppress(OSError):
                    line.close()


def _line_to(store: OssClient, audit: Audit, largest: Bytes) -> Line | None:
    location = store.session.location
    if not location.endpoint.startswith("http://") or importlib.util.find_spec("csi.oss.getting") is None:
        return None
    return Line(store.session.lines(largest), f"oss://{location.bucket}/", audit)
