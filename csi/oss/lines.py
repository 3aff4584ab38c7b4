"""What is needed to fetch small objects without Python: connections of their own, and what signs their requests.

For plain HTTP only: TLS is libcurl's business (`csi/oss/transport.py`). Who uses a line is `csi/data/couriers.py`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from csi.oss.credentials import CredentialsProvider
from csi.oss.heads import GetHeads
from csi.oss.retry import RetryPolicy
from csi.oss.signing import Signer
from csi.volume.units import Bytes, Seconds

if TYPE_CHECKING:
    from csi.oss.getting import Stamp

LASTS = Seconds(5.0)
"""How long a signature's time, and the credentials it is made with, serve: OSS accepts one for 15 minutes."""
STALL = Seconds(2.0)
"""After this long without a byte the ordinary way is tried, which has the patience that was asked for."""


class LinesUsed(NamedTuple):
    """Requests answered on the lines so far, and bytes received; connections that wait and that are used now."""

    requests: int = 0
    bytes_in: int = 0
    idle: int = 0
    busy: int = 0


class Lines:
    """The way to one bucket. Thread-safe: `_stamp` is replaced as a whole."""

    def __init__(
        self,
        heads: GetHeads,
        signer: Signer,
        credentials: CredentialsProvider,
        policy: RetryPolicy,
        *,
        most: int,
        connect_timeout: Seconds,
        crc: bool,
        largest: Bytes,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """`most` connections at a time; `crc`: bodies are checked; `largest`: of the objects that will be asked for."""
        address = urlsplit(heads.endpoint)
        self.most = most
        self.largest = largest
        self._host, self._port = address.hostname or "", address.port or 80
        self._heads = heads
        self._signer = signer
        self._credentials = credentials
        self._timeout = min(Seconds(policy.timeout + policy.allowance(largest)), Seconds(3 * STALL))
        self._stall = min(policy.timeout, STALL)
        self._connect_timeout = connect_timeout
        self._crc = crc
        self._clock = clock
        self._monotonic = monotonic
        self._stamp: tuple[float, Stamp] | None = None
        self.counted: Callable[[], LinesUsed] = LinesUsed
        """Set by who uses the lines."""

    def connect(self) -> socket.socket:
        """Raises OSError."""
        connection = socket.create_connection((self._host, self._port), self._connect_timeout)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.settimeout(None)
            # of a connection that blocks: a server that reads nothing ends a send as well
            seconds = struct.pack("ll", int(self._stall), max(1, int(self._stall % 1 * 1e6)))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        except BaseException:
            connection.close()
            raise
        return connection

    def stamp(self) -> Stamp:
        """What signs the requests of the next seconds. Raises CredentialsMissing."""
        now = self._monotonic()
        known = self._stamp
        if known is not None and now - known[0] < LASTS / 2:
            return known[1]
        made = self._make()
        self._stamp = (now, made)
        return made

    def _make(self) -> Stamp:
        from csi.oss.getting import Stamp  # noqa: PLC0415 - may not be built

        credentials = self._credentials.current()
        path, fixed, resource = self._heads.parts()
        if credentials is None:
            kind, before, after, text, lines, key = 0, b"", b"", b"", b"", b""
        else:
            kind, before, after, text, lines, key = self._signer.recipe_of_gets(credentials, self._clock())
        return Stamp(
            kind=kind,
            path=path,
            fixed=fixed,
            resource=resource,
            before=before,
            after=after,
            text=text,
            lines=lines,
            key=key,
            crc=self._crc,
            timeout=self._timeout,
            stall=self._stall,
            lasts=LASTS,
        )
