"""One HTTP request and its answer, as values, and the protocol that carries them.

`csi/oss/transport.py` implements `Transport` on libcurl; tests put their own in its place. Nothing here knows OSS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from csi import __version__
from csi.errors import StoreError
from csi.oss.cancellation import Cancellation
from csi.oss.store import Buffer
from csi.volume.units import Crc64, Seconds

USER_AGENT = f"ossfuse-csi/{__version__}"
CHECK_NETWORK = "check the network to the endpoint"
"""Hint of what took too long."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """`url` and `headers` (`Name: value`) are encoded already; the buffers of `body` are sent one after another.

    The body of a 2xx answer goes to `target` if there is one. With `once`, a request that was sent down a connection
    which then died is reported as failed instead of being sent again by the transport itself: the caller has to know
    whether a first copy may have arrived. `cancellation` may end the exchange from another thread. `summed`: the
    checksum of the body is wanted, and costs less while the body is sent than before.
    """

    method: str
    url: str
    headers: Sequence[bytes]
    body: Sequence[Buffer] = ()
    target: memoryview | None = None
    once: bool = False
    cancellation: Cancellation | None = None
    summed: bool = False


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """`headers` have lower-case names. `received` counts the bytes in `target`, `body` holds what did not go there.

    `overflow`: the body is longer than `target`, and the exchange was ended. `failure`: it ended with this error after
    the first `received` bytes. `sent_crc64`: of the request's body, if it was to be summed and was while it was sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    received: int = 0
    overflow: bool = False
    failure: StoreError | None = None
    sent_crc64: Crc64 | None = None


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """Connections by what they do now, and exchanges that wait for one."""

    idle: int = 0
    busy: int = 0
    waiting: int = 0


class Transport(Protocol):
    """Carries exchanges; safe to call from any thread and after fork(2)."""

    def send(self, request: HttpRequest, *, timeout: Seconds, stall: Seconds, patience: Seconds) -> HttpAnswer:
        """Perform one exchange: no longer than `timeout`, and no longer than `stall` without a byte moving.

        Waiting for a free connection comes on top and is bounded by `patience`, as is the whole call. Raises
        DeadlineExceeded when a bound is hit, EndpointUnreachable when there is no complete answer; if a part of the
        body is in `target`, such an error is returned as the `failure` of the answer instead.
        """

    def send_plain(
        self,
        endpoint: str,
        head: bytes,
        target: memoryview,
        *,
        timeout: Seconds,
        stall: Seconds,
        cancellation: Cancellation | None = None,
    ) -> HttpAnswer | None:
        """The short way of a GET: `head` is the whole request, sent down a connection to `endpoint` that is idle.

        As `send`, but None when there is no such connection, or its answer is of a kind that `send` has to be asked
        for again.
        """

    def statistics(self) -> ConnectionStatistics: ...

    def close(self) -> None:
        """End exchanges under way with EndpointUnreachable, refuse new ones, close connections. Idempotent."""
