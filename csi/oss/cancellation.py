"""A way for one thread to end the request of another, for good: it is not made again.

Whoever may want to hands a `Cancellation` along with the request; the transport says through `begin` and `end` while it
is on which connection. Knows nothing of either.
"""

from __future__ import annotations

import threading
from typing import Protocol

from csi.errors import EndpointUnreachable


class Breakable(Protocol):
    def cut(self) -> None:
        """Let the exchange under way end with an error. Does not wait."""


class Cancellation:
    """`_lock` guards both fields, so that a connection is never cut that carries somebody else's request already."""

    __slots__ = ("_connection", "_lock", "_requested")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Breakable | None = None
        self._requested = False

    def request(self) -> None:
        """End the exchange under way, and let none begin. Idempotent."""
        with self._lock:
            self._requested = True
            if self._connection is not None:
                self._connection.cut()

    @property
    def requested(self) -> bool:
        return self._requested

    def begin(self, connection: Breakable) -> None:
        """An exchange begins on `connection`; `end` is owed. Raises EndpointUnreachable after `request`."""
        with self._lock:
            if self._requested:
                error = EndpointUnreachable("the request was given up: another one for the same bytes was quicker")
                error.permanent = True
                raise error
            self._connection = connection

    def end(self) -> None:
        with self._lock:
            self._connection = None
