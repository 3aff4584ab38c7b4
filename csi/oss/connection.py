"""One libcurl easy handle and the connection it keeps alive.

Promises that bodies move without copies beyond libcurl's own, that no wait is unbounded, and that another thread can
end an exchange under way. Bodies without encryption take the short way past libcurl where they can (`direct`).
libcurl's options that read the environment (proxies, netrc) are switched off; what may be configured is passed in.

A forked child never ends a handle of its parent, not even as garbage: libcurl would wait there for its thread that
resolves names, which only the parent has (a segmentation fault, or a wait for ever), and would take leave of the server
on a connection that the parent goes on using.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence

import pycurl

from csi.errors import DeadlineExceeded, EndpointUnreachable, StoreError
from csi.oss.direct import DirectLine, endpoint_of
from csi.oss.exchange import CHECK_NETWORK, USER_AGENT, HttpAnswer, HttpRequest
from csi.oss.sockets import Sockets
from csi.oss.store import Buffer
from csi.volume.units import KIB, MIB, Seconds

_ERROR_BODY_LIMIT = 1 * MIB
_DISCARDED = b"Expect:", b"Accept:"  # headers libcurl would add on its own

# libcurl's failures that trying again cannot cure
_PERMANENT = frozenset(
    {
        pycurl.E_UNSUPPORTED_PROTOCOL,
        pycurl.E_URL_MALFORMAT,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CACERT_BADFILE,
    }
)
_HINTS = {
    pycurl.E_COULDNT_RESOLVE_HOST: "check the endpoint's name and the node's DNS",
    pycurl.E_COULDNT_RESOLVE_PROXY: "check the proxy's name",
    pycurl.E_COULDNT_CONNECT: "check the endpoint, the security groups and that an internal endpoint is used only "
    "inside its region",
    pycurl.E_PEER_FAILED_VERIFICATION: "the certificate does not match the endpoint or its issuer is not trusted",
    pycurl.E_SSL_CACERT_BADFILE: "install ca-certificates",
    pycurl.E_SSL_CONNECT_ERROR: "if the endpoint speaks plain HTTP, write http:// before it; "
    "without a scheme it is HTTPS",
    pycurl.E_UNSUPPORTED_PROTOCOL: "if the endpoint speaks TLS, write https:// before it",
}


class Connection:
    """An easy handle, used by one thread at a time."""

    def __init__(self, share: pycurl.CurlShare, *, connect_timeout: Seconds, ca_bundle: str, proxy: str) -> None:
        self._sockets = sockets = Sockets()
        self._connect_timeout = connect_timeout
        self._takes_lines = not proxy
        self._curl = curl = pycurl.Curl()
        weakref.finalize(self, _leave, os.getpid(), curl)
        curl.setopt(pycurl.SHARE, share)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.TCP_NODELAY, 1)
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.PATH_AS_IS, 1)  # keys with '.' and '..' segments are keys, not paths
        curl.setopt(pycurl.MAXCONNECTS, 1)
        curl.setopt(pycurl.BUFFERSIZE, 128 * KIB)
        curl.setopt(pycurl.UPLOAD_BUFFERSIZE, 256 * KIB)
        curl.setopt(pycurl.USERAGENT, USER_AGENT)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, round(connect_timeout * 1000)))
        curl.setopt(pycurl.LOW_SPEED_LIMIT, 1)
        curl.setopt(pycurl.PROXY, proxy)  # '' also switches off the proxies of the environment
        if not proxy:
            curl.setopt(pycurl.NOPROXY, "*")
        if ca_bundle:
            curl.setopt(pycurl.CAINFO, ca_bundle)
        curl.setopt(pycurl.SOCKOPTFUNCTION, sockets.opened)
        curl.setopt(pycurl.CLOSESOCKETFUNCTION, sockets.closed)

    def exchange(self, request: HttpRequest, timeout: Seconds, stall: Seconds) -> HttpAnswer:
        """See `Transport.send`."""
        line = self._sockets.line
        if line is not None:
            speak = _way(line, request)
            if speak is not None:
                started = time.monotonic()
                answer = speak(request, timeout, stall)
                if answer is not None:
                    return answer
                self._takes_lines = line.understood
                timeout = Seconds(max(0.001, timeout - (time.monotonic() - started)))
            line.release()
        answer = self._exchange(request, timeout, stall)
        self._take_line(request.url)
        return answer

    def leads_to(self, endpoint: str) -> bool:
        """Whether `exchange_plain` may be asked for."""
        line = self._sockets.line
        return line is not None and line.leads_to(endpoint + "/")

    def exchange_plain(self, head: bytes, target: memoryview, timeout: Seconds, stall: Seconds) -> HttpAnswer | None:
        """See `Transport.send_plain`."""
        line = self._sockets.line
        if line is None:
            return None
        answer = line.say(head, target, timeout, stall)
        self._takes_lines = line.understood
        return answer

    def _exchange(self, request: HttpRequest, timeout: Seconds, stall: Seconds) -> HttpAnswer:
        curl = self._curl
        head: list[bytes] = []
        sink = _Sink(request.target, head)
        source = _Source(request.body, rewindable=not request.once)
        self._prepare(request.method, source.size)
        curl.setopt(pycurl.URL, request.url)
        curl.setopt(pycurl.HTTPHEADER, [*request.headers, *_DISCARDED])
        curl.setopt(pycurl.FRESH_CONNECT, int(request.once and not source.size))
        curl.setopt(pycurl.TIMEOUT_MS, max(1, round(timeout * 1000)))
        curl.setopt(pycurl.LOW_SPEED_TIME, max(1, math.ceil(stall)))
        curl.setopt(pycurl.HEADERFUNCTION, head.append)
        curl.setopt(pycurl.WRITEFUNCTION, sink.write)
        curl.setopt(pycurl.READFUNCTION, source.read)
        curl.setopt(pycurl.SEEKFUNCTION, source.seek)
        failure: StoreError | None = None
        try:
            curl.perform()
        except pycurl.error as error:
            if not sink.overflow and not sink.received:  # raised where nothing here leads to it, in a circle
                raise self._explain(error, request, timeout) from None
            failure = None if sink.overflow else self._explain(error, request, timeout)
        finally:
            # the handle must not keep the caller's memory alive until its next exchange
            sink.release()
            source.release()
        return HttpAnswer(sink.status, _fields(head), bytes(sink.extra), sink.received, sink.overflow, failure)

    def interrupt(self) -> None:
        """End the exchange under way, if any, from another thread; later ones fail. Idempotent."""
        self._sockets.interrupt()

    def cut(self) -> None:
        """End the exchange that is under way or about to begin, from another thread, until `mend`."""
        self._sockets.cut()

    def mend(self) -> None:
        """The exchange that was to be cut has ended; the next one has a connection of its own."""
        self._sockets.is_cut = False

    def close(self) -> None:
        """Close the connection; not while an exchange is under way."""
        self._curl.close()

    def _take_line(self, url: str) -> None:
        """After an exchange by libcurl: the connection it keeps, if there is one to use directly."""
        endpoint = endpoint_of(url)
        if self._takes_lines and endpoint:
            self._sockets.take_line(endpoint)

    def _prepare(self, method: str, size: int) -> None:
        curl = self._curl
        if method == "GET":
            curl.setopt(pycurl.HTTPGET, 1)
            curl.unsetopt(pycurl.CUSTOMREQUEST)
        elif method == "HEAD":
            curl.setopt(pycurl.HTTPGET, 1)
            curl.setopt(pycurl.NOBODY, 1)
            curl.unsetopt(pycurl.CUSTOMREQUEST)
        elif method in ("PUT", "POST"):
            curl.setopt(pycurl.HTTPGET, 1)
            curl.setopt(pycurl.UPLOAD, 1)  # for POST too: CURLOPT_POST would add a Content-Type
            curl.setopt(pycurl.INFILESIZE_LARGE, size)
            curl.setopt(pycurl.CUSTOMREQUEST, method)
        else:
            curl.setopt(pycurl.HTTPGET, 1)
            curl.setopt(pycurl.CUSTOMREQUEST, method)

    def _explain(self, error: pycurl.error, request: HttpRequest, timeout: Seconds) -> StoreError:
        number, text = error.args
        where = request.url.split("?")[0].split("/", 3)[:3]
        endpoint = "/".join(where)
        if self._sockets.is_interrupted:
            return EndpointUnreachable(f"{endpoint}: the client was closed")
        if number == pycurl.E_OPERATION_TIMEDOUT:
            connecting = not self._curl.getinfo(pycurl.REQUEST_SIZE)  # nothing of the request was sent
            if connecting and self._connect_timeout < timeout:
                return DeadlineExceeded(
                    f"{endpoint}: {text} (allowed: {self._connect_timeout:.1f} s to connect)",
                    hint=f"{CHECK_NETWORK}, or raise fs.oss.connection.timeout.millisecond",
                )
            return DeadlineExceeded(f"{endpoint}: {text} (allowed: {timeout:.1f} s)")
        failure = EndpointUnreachable(f"{endpoint}: {text} (libcurl error {number})", hint=_HINTS.get(number, ""))
        failure.permanent = number in _PERMANENT
        return failure


def _way(line: DirectLine, request: HttpRequest) -> Callable[[HttpRequest, Seconds, Seconds], HttpAnswer | None] | None:
    """How a request is spoken directly; None of one that is libcurl's."""
    if request.once or not line.leads_to(request.url):
        return None
    if request.method == "PUT":
        return line.upload if request.body else None
    return line.exchange if request.method == "GET" and not request.body else None


def _leave(process: int, curl: pycurl.Curl) -> None:
    """Of a handle that nobody holds any more, or at the end of the process: in a child of the one that made it, it
    lives for ever."""
    if os.getpid() != process:
        import ctypes  # noqa: PLC0415 - of no other use here

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(curl))


class _Sink:
    """Where the body of an answer goes: into the caller's memory, or aside if it is not a 2xx."""

    __slots__ = ("_head", "_status", "_target", "extra", "overflow", "received")

    def __init__(self, target: memoryview | None, head: Sequence[bytes]) -> None:
        self._target = target
        self._head = head
        self._status = 0
        self.extra = bytearray()
        self.received = 0
        self.overflow = False

    def write(self, data: bytes) -> int | None:
        """Called by libcurl for every 16 KiB, so it does as little as it can."""
        target = self._target
        if target is None or (self._status or self.status) >= 300:
            self._put_aside(data)
            return None
        received = self.received
        end = received + len(data)
        if end > len(target):
            self.overflow = True
            return -1
        target[received:end] = data
        self.received = end
        return None

    def _put_aside(self, data: bytes) -> None:
        if len(self.extra) < _ERROR_BODY_LIMIT or self.status < 300:
            self.extra += data

    @property
    def status(self) -> int:
        if self._status:
            return self._status
        for line in reversed(self._head):
            if line.startswith(b"HTTP/"):
                with contextlib.suppress(IndexError, ValueError):
                    self._status = int(line.split(None, 2)[1])
                break
        return self._status

    def release(self) -> None:
        self._target = None


class _Source:
    """The body of a request, handed to libcurl piece by piece."""

    __slots__ = ("_index", "_offset", "_rewindable", "_views", "size")

    def __init__(self, body: Sequence[Buffer], *, rewindable: bool) -> None:
        self._views = [memoryview(part).cast("B") for part in body if len(part)]
        self._index = 0
        self._offset = 0
        self._rewindable = rewindable
        self.size = sum(len(view) for view in self._views)

    def read(self, limit: int) -> bytes:
        if self._index >= len(self._views):
            return b""
        view = self._views[self._index]
        piece = bytes(view[self._offset : self._offset + limit])
        self._offset += len(piece)
        if self._offset == len(view):
            self._index += 1
            self._offset = 0
        return piece

    def seek(self, offset: int, origin: int) -> int:
        if not self._rewindable or offset or origin:
            return int(pycurl.SEEKFUNC_FAIL)
        self._index = self._offset = 0
        return int(pycurl.SEEKFUNC_OK)

    def release(self) -> None:
        self._views = []


def _fields(head: Sequence[bytes]) -> Mapping[str, str]:
    text = b"".join(head).decode("utf-8", "surrogateescape")
    # only the last block counts, after 100 Continue or a proxy's answer
    lines = text[text.rfind("\r\n\r\nHTTP/") + 1 :].lstrip("\r\n").split("\n")[1:]
    fields = (line.partition(":") for line in lines)
    return {name.lower(): value.strip() for name, colon, value in fields if colon}
