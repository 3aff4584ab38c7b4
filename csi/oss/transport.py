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
from csi.oss.connection import Connection
from csi.oss.exchange import HttpAnswer, HttpRequest
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
        if not pool.slots.acquire(timeout=max(0.0, patience)):
            raise DeadlineExceeded(
                f"no connection became free within {patience:.1f} s: all {self._max_connections} are in use",
                hint="raise fs.oss.max.connections.per.host",
            )
        try:
            left = patience - (self._monotonic() - started)
            connection = pool.take(self._connect)
            try:
                return connection.exchange(request, Seconds(max(0.001, min(timeout, left))), stall)
            finally:
                pool.give_back(connection)
        finally:
            pool.slots.release()

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
    """The connections of one process. `_lock` guards `_idle`, `_busy` and `_closed`; never held during an exchange."""

    def __init__(self, size: int) -> None:
        self.slots = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._closed = False
        self._share = pycurl.CurlShare()
        self._share.setopt(pycurl.SH_SHARE, pycurl.LOCK_DATA_DNS)
        self._share.setopt(pycurl.SH_SHARE, pycurl.LOCK_DATA_SSL_SESSION)

    def take(self, connect: Callable[[pycurl.CurlShare], Connection]) -> Connection:
        with self._lock:
            if self._closed:
                raise EndpointUnreachable("the client was closed")
            connection = self._idle.pop() if self._idle else connect(self._share)
            self._busy.add(connection)
            return connection

    def give_back(self, connection: Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for connection in self._busy:
                connection.interrupt()
        for connection in idle:
            connection.close()
