"""The direct way for bodies: a GET spoken on the connection that libcurl keeps, past libcurl.

libcurl hands a body over in pieces of 16 KiB and a head line by line, and for each the thread has to get hold of the
interpreter lock; with many threads that costs more than the transfer. Spoken directly, a request is one send, one
receive for the head and one for the body, straight into the caller's memory. libcurl still makes and closes the
connections, and does everything that is not a plain GET without encryption or that is not answered in the plainest way:
then the connection is shut down, which libcurl notices, and libcurl makes the request again, as one may with a GET.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping

from csi.errors import DeadlineExceeded, EndpointUnreachable, StoreError
from csi.oss.exchange import HttpAnswer, HttpRequest
from csi.volume.units import KIB, MIB, Seconds

_LONGEST_HEAD = 16 * KIB
_LONGEST_REFUSAL = 1 * MIB
_LOOKS = 4
"""How many times within the time that nothing may move it is looked whether something did."""


class DirectLine:
    """A connection that libcurl has made, used by one thread at a time.

    It holds a duplicate of the descriptor, so that it never closes what became another connection. Between `exchange`
    and `release` the descriptor blocks; libcurl wants it back as it was.
    """

    def __init__(
        self, descriptor: int, endpoint: str, agent: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`endpoint` is the http://host[:port] that `descriptor` is connected to, no exchange being under way."""
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._endpoint = endpoint
        host = endpoint.partition("://")[2]
        self._fixed = f" HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n".encode()
        self._monotonic = monotonic
        self._head = bytearray(_LONGEST_HEAD)
        self._blocking = False
        self._wait = -1.0
        self._usable = True
        self.understood = True
        """False after an answer that only libcurl understands: it will not be the last."""

    def leads_to(self, url: str) -> bool:
        return self._usable and url.startswith(self._endpoint) and url[len(self._endpoint) :].startswith("/")

    def exchange(self, request: HttpRequest, timeout: Seconds, stall: Seconds) -> HttpAnswer | None:
        """The answer to a GET with a target, as of `Transport.send`; None if libcurl has to make the request."""
        if not self._blocking:
            self._socket.settimeout(None)
            self._blocking = True
        answer: HttpAnswer | None = None
        try:
            self._socket.sendall(self._head_of(request))
            answer = self._answer(request, _Patience(self._monotonic, timeout, stall))
        except OSError:
            pass  # the connection had been closed while it was idle, or broke before anything came
        finally:
            if answer is None or answer.failure is not None or answer.overflow:
                self._end()
        return answer

    def release(self) -> None:
        """libcurl is going to use the connection."""
        if self._blocking:
            with contextlib.suppress(OSError):
                self._socket.settimeout(0)
            self._blocking = False

    def close(self) -> None:
        """libcurl has closed the connection."""
        self._usable = False
        self._socket.close()

    # --- private ---

    def _end(self) -> None:
        self._usable = False
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _head_of(self, request: HttpRequest) -> bytes:
        path = request.url[len(self._endpoint) :].encode()
        lines = b"".join(_line(header) for header in request.headers)
        return b"".join((b"GET ", path, self._fixed, lines, b"\r\n"))

    def _answer(self, request: HttpRequest, patience: _Patience) -> HttpAnswer | None:
        buffer, filled, end = self._head, 0, -1
        while end < 0:
            count = self._receive(memoryview(buffer)[filled:], patience, whole=False)
            if count == 0:
                return None
            filled += count
            end = buffer.find(b"\r\n\r\n", max(0, filled - count - 3), filled)
            if end < 0 and filled == len(buffer):
                self.understood = False
                return None
        status, fields = _parsed(bytes(buffer[:end]))
        size = _body_size(status, fields)
        begun = filled - end - 4
        refused = not 200 <= status < 300
        if size is None or begun > size or (refused and size > _LONGEST_REFUSAL):
            self.understood = False
            return None
        target = memoryview(bytearray(size)) if refused or request.target is None else request.target
        if size > len(target):
            return HttpAnswer(status, fields, overflow=True)
        target[:begun] = buffer[end + 4 : filled]
        received, failure = self._body(target[begun:size], patience)
        received += begun
        if failure is not None and (refused or not received):
            raise failure
        if fields.get("connection", "").lower() == "close":
            self._end()
        body = bytes(target) if refused else b""
        return HttpAnswer(status, fields, body, 0 if refused else received, failure=failure)

    def _body(self, target: memoryview, patience: _Patience) -> tuple[int, StoreError | None]:
        """Fill `target`: how much of it was filled, and why not all of it."""
        received = 0
        while received < len(target):
            try:
                count = self._receive(target[received:], patience, whole=True)
            except (OSError, DeadlineExceeded) as error:
                if isinstance(error, DeadlineExceeded):
                    return received, error
                return received, self._broken(str(error.strerror))
            if count == 0:
                return received, self._broken("it was closed")
            received += count
        return received, None

    def _receive(self, target: memoryview, patience: _Patience, *, whole: bool) -> int:
        """Receive something, or (`whole`) all that comes in a while; 0 is the end.

        Raises OSError, DeadlineExceeded.
        """
        while True:
            wait = patience.wait
            if wait != self._wait:
                microseconds = max(1, math.ceil(wait * 1e6))
                packed = struct.pack("ll", *divmod(microseconds, 1_000_000))
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, packed)
                self._wait = wait
            try:
                count = self._socket.recv_into(target, len(target), socket.MSG_WAITALL if whole else 0)
            except BlockingIOError:
                count = -1
            if count == len(target) or (count > 0 and not whole):
                return count
            if not patience.goes_on(moved=count > 0):
                raise DeadlineExceeded(
                    f"{self._endpoint}: the rest of an answer did not come (allowed: {patience.timeout:.1f} s, "
                    f"{patience.stall:.1f} s without a byte)",
                    hint="check the network to the endpoint, or raise fs.oss.timeout.millisecond",
                )
            if count >= 0:
                return count

    def _broken(self, how: str) -> EndpointUnreachable:
        return EndpointUnreachable(f"{self._endpoint}: the connection broke in the middle of an answer: {how}")


class _Patience:
    """How long one exchange may still take."""

    def __init__(self, monotonic: Callable[[], float], timeout: Seconds, stall: Seconds) -> None:
        self.timeout = timeout
        self.stall = stall
        self.wait = min(stall / _LOOKS, timeout)
        self._monotonic = monotonic
        self._started = self._moved = monotonic()

    def goes_on(self, *, moved: bool) -> bool:
        """After a wait: whether there may be another; `moved`: something came."""
        now = self._monotonic()
        if moved:
            self._moved = now
        left = min(self._started + self.timeout, self._moved + self.stall) - now
        self.wait = min(self.stall / _LOOKS, left)
        return left > 0


def _line(header: bytes) -> bytes:
    """A header as libcurl takes it (`name;` has no value) as it is sent."""
    return header[:-1] + b":\r\n" if header.endswith(b";") and b":" not in header else header + b"\r\n"


def _parsed(head: bytes) -> tuple[int, Mapping[str, str]]:
    """Status and fields; status 0 if this is not HTTP/1.1."""
    first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    version, _, rest = first.partition(" ")
    status = int(rest[:3]) if version == "HTTP/1.1" and rest[:3].isdigit() else 0
    fields = (line.partition(":") for line in lines)
    return status, {name.lower(): value.strip() for name, colon, value in fields if colon}


def _body_size(status: int, fields: Mapping[str, str]) -> int | None:
    """The length of the body; None when only libcurl can tell."""
    if status < 200 or status in (204, 304) or "transfer-encoding" in fields:
        return None
    size = fields.get("content-length", "")
    return int(size) if size.isascii() and size.isdigit() else None


def endpoint_of(url: str) -> str:
    """http://host[:port] of a URL, '' when it is not plain HTTP."""
    return "/".join(url.split("/", 3)[:3]) if url.startswith("http://") else ""
