"""The pool of libcurl connections behind `Transport`.

Connections are reused most-recent first, at most `max_connections` at a time; they share TLS sessions and resolved
names. After fork(2) a child starts with an empty pool of its own and never touches its parent's sockets.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pycurl

from csi.errors import DeadlineExceeded, EndpointUnreachable
from csi.oss.cancellation import Cancellation
from csi.oss.connection import Connection
from csi.oss.exchange import ConnectionStatistics, HttpAnswer, HttpRequest
from csi.volume.units import Seconds

CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # RHEL, Alibaba Cloud Linux
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)

DEFAULT_CONNECT_TIMEOUT = Seconds(3.0)


class CurlTransport:
    """`Transport` over libcurl.

    `max_connections` bounds exchanges at one time, `connect_timeout` name resolution, TCP and TLS together. `proxy` is
    a URL or ''. `ca_bundle` '' takes the system's.
    """

    def __init__(
        self,
        *,
        max_connections: int = 100,
        connect_timeout: Seconds = DEFAULT_CONNECT_TIMEOUT,
        proxy: str = "",
        ca_bundle: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_connections = max_connections
        self._connect_timeout = connect_timeout
        self._proxy = proxy
        self._ca_bundle = ca_bundle or next((path for path in CA_BUNDLES if os.path.exists(path)), "")
        self._monotonic = monotonic
        # A pool is never removed: closing a parent's connection in a child would speak on the parent's socket.
        self._pools: dict[int, _Pool] = {}
        self._closed = False

    def send(self, request: HttpRequest, *, timeout: Seconds, stall: Seconds, patience: Seconds) -> HttpAnswer:
        pool = self._pool()
        started = self._monotonic()
        connection = pool.take(self._connect, patience)
        if connection is None:
            raise DeadlineExceeded(
                f"no connection became free within {patience:.1f} s: all {self._max_connections} are in use",
                hint="raise fs.oss.max.connections.per.host",
            )
        try:
            left = patience - (self._monotonic() - started)
            if request.cancellation is not None:
                request.cancellation.begin(connection)
            return connection.exchange(request, Seconds(max(0.001, min(timeout, left))), stall)
        finally:
            if request.cancellation is not None:
                request.cancellation.end()
                connection.mend()
            pool.give_back(connection)

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
        pool = self._pool()
        connection = pool.take_line(endpoint)
        if connection is None:
            return None
        try:
            if cancellation is None:
                return connection.exchange_plain(head, target, timeout, stall)
            cancellation.begin(connection)
            try:
                return connection.exchange_plain(head, target, timeout, stall)
            finally:
                cancellation.end()
                connection.mend()
        finally:
            pool.give_back(connection)

    def statistics(self) -> ConnectionStatistics:
        return self._pool().statistics()

    def close(self) -> None:
        self._closed = True
        self._pool().close()

    def _pool(self) -> _Pool:
        process = os.getpid()
        pool = self._pools.get(process)
        if pool is None:
            pool = self._pools.setdefault(process, _Pool(self._max_connections))
            if self._closed:
                pool.close()
        return pool

    def _connect(self, share: pycurl.CurlShare) -> Connection:
        return Connection(share, connect_timeout=self._connect_timeout, ca_bundle=self._ca_bundle, proxy=self._proxy)


class _Pool:
    """The connections of one process, at most `size` of them busy.

    `_lock` guards `_idle`, `_busy`, `_waiting` and `_closed`; it is never held during an exchange.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._waiting = 0
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._closed = False
        self._share = pycurl.CurlShare()
        self._share.setopt(pycurl.SH_SHARE, pycurl.LOCK_DATA_DNS)
        self._share.setopt(pycurl.SH_SHARE, pycurl.LOCK_DATA_SSL_SESSION)

    def take(self, connect: Callable[[pycurl.CurlShare], Connection], patience: Seconds) -> Connection | None:
        """A connection, made by `connect` if all are busy and there may be more; None when none came free in time."""
        with self._lock:
            if len(self._busy) >= self._size and not self._closed:
                self._waiting += 1
                self._freed.wait_for(lambda: len(self._busy) < self._size or self._closed, max(0.0, patience))
                self._waiting -= 1
            if self._closed:
                raise EndpointUnreachable("the client was closed")
            if len(self._busy) >= self._size:
                return None
            connection = self._idle.pop() if self._idle else connect(self._share)
            self._busy.add(connection)
            return connection

    def take_line(self, endpoint: str) -> Connection | None:
        """The connection used last, if a plain request can be sent to `endpoint` on it now."""
        with self._lock:
            if not self._idle or self._closed or len(self._busy) >= self._size:
                return None
            if not self._idle[-1].leads_to(endpoint):
                return None
            connection = self._idle.pop()
            self._busy.add(connection)
            return connection

    def give_back(self, connection: Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
            if self._waiting:
                self._freed.notify()
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def statistics(self) -> ConnectionStatistics:
        with self._lock:
            return ConnectionStatistics(len(self._idle), len(self._busy), self._waiting)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for connection in self._busy:
                connection.interrupt()
            self._freed.notify_all()
        for connection in idle:
            connection.close()
