"""The direct way: a GET or a PUT spoken on the connection that libcurl keeps, past libcurl.

libcurl hands a body over in pieces of 16 KiB and a head line by line, and for each the thread has to get hold of the
interpreter lock; with many threads that costs more than the transfer. Spoken directly, a request is one send, one
receive for the head and one for the body, straight into the caller's memory; the body of a PUT goes to the kernel from
where it lies, where libcurl would have it copied twice. libcurl still makes and closes the connections, and does
everything that is not a plain GET or PUT without encryption or that is not answered in the plainest way: then the
connection is shut down, which libcurl notices, and libcurl makes the request again, as one may with these two.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from dataclasses import replace

from csi.errors import DeadlineExceeded, EndpointUnreachable
from csi.oss import speaking
from csi.oss.checksum import EMPTY, update
from csi.oss.chunks import ChunkedBody
from csi.oss.exchange import HttpAnswer, HttpRequest
from csi.oss.speaking import Outcome, Patience, Speak, Spoken, is_quiet, receive_all
from csi.volume.units import KIB, MIB, Seconds

try:
    from csi.oss.wire import speak as _fastest
except ImportError:  # not built
    _fastest = speaking.speak

_LONGEST_HEAD = 16 * KIB
_LONGEST_REFUSAL = 1 * MIB
_LONGEST_ASKED_FOR = 16 * MIB
"""Of a body without a target. A page of a listing has at most 4: a thousand keys of a kilobyte, encoded for a URL."""
_PIECE = 256 * KIB
"""Bytes of a body sent at a time: while one is copied to the kernel, the server reads the one before; and what was just
summed is at hand to be copied."""
_NOTHING = memoryview(bytearray())


class DirectLine:
    """A connection that libcurl has made, used by one thread at a time.

    It holds a duplicate of the descriptor, so that it never closes what became another connection. Between `exchange`
    and `release` the descriptor blocks; libcurl wants it back as it was.
    """

    def __init__(self, descriptor: int, endpoint: str, agent: str, *, speak: Speak = _fastest) -> None:
        """`endpoint` is the http://host[:port] that `descriptor` is connected to, no exchange being under way."""
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._endpoint = endpoint
        self._begin = endpoint + "/"
        host = endpoint.partition("://")[2]
        self._fixed = f" HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n".encode()
        self._speak = speak
        self._head = bytearray(_LONGEST_HEAD)
        self._blocking = False
        self._armed = -1.0
        self._began = -math.inf
        self._usable = True
        self.understood = True
        """False after an answer that only libcurl understands: it will not be the last."""

    def leads_to(self, url: str) -> bool:
        return self._usable and url.startswith(self._begin)

    def exchange(self, request: HttpRequest, timeout: Seconds, stall: Seconds) -> HttpAnswer | None:
        """The answer to a GET, as of `Transport.send`; None if libcurl has to make the request."""
        if request.target is None:
            return self._ask(self._head_of(request), timeout, stall)
        return self.say(self._head_of(request), request.target, timeout, stall)

    def say(self, head: bytes, target: memoryview, timeout: Seconds, stall: Seconds) -> HttpAnswer | None:
        """The same for a request whose head is made already."""
        spoken = self._say(head, target, timeout, stall)
        if spoken.status >= 300:
            return self._whole(spoken, _LONGEST_REFUSAL, timeout, stall)
        if spoken.outcome == Outcome.DONE:
            return self._answered(spoken)
        if spoken.outcome == Outcome.OVERFLOW:
            self._end()
            return HttpAnswer(spoken.status, spoken.fields, overflow=True)
        return self._not_whole(spoken, timeout, stall)

    def upload(self, request: HttpRequest, timeout: Seconds, stall: Seconds) -> HttpAnswer | None:
        """The answer to a PUT with a body, which may arrive twice; None if libcurl has to make the request."""
        if not is_quiet(self._socket):
            self._end()
            return None
        started = time.monotonic()
        crc = EMPTY
        body = [memoryview(part).cast("B") for part in request.body if len(part)]
        length = b"Content-Length: %d\r\n" % sum(len(part) for part in body)
        head = self._head_of(request, b"PUT ", length)
        self._socket.settimeout(min(timeout, stall))
        self._blocking = False
        try:
            self._send(memoryview(head), started + timeout)
            for part in body:
                for begin in range(0, len(part), _PIECE):
                    piece = part[begin : begin + _PIECE]
                    if request.summed:
                        crc = update(crc, piece)
                    self._send(piece, started + timeout)
        except TimeoutError:
            self._end()
            raise self._late(timeout, stall) from None
        except OSError:  # the connection had been closed, or the server does not want the rest
            self._end()
            return None
        left = Seconds(max(0.001, timeout - (time.monotonic() - started)))
        answer = self._ask(b"", left, stall)
        if answer is None or not request.summed:
            return answer
        return replace(answer, sent_crc64=crc)

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

    def _send(self, data: memoryview, deadline: float) -> None:
        """Raises TimeoutError, also when the deadline has passed."""
        sent = 0
        while sent < len(data):
            sent += self._socket.send(data[sent:])
            if time.monotonic() > deadline:
                raise TimeoutError

    def _end(self) -> None:
        self._usable = False
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _head_of(self, request: HttpRequest, method: bytes = b"GET ", more: bytes = b"") -> bytes:
        path = request.url[len(self._endpoint) :].encode()
        lines = [_line(header) for header in request.headers]
        return b"".join((method, path, self._fixed, *lines, more, b"\r\n"))

    def _say(self, head: bytes, target: memoryview, timeout: Seconds, stall: Seconds) -> Spoken:
        if not self._blocking:
            self._socket.settimeout(None)
            self._blocking = True
        self._began = time.monotonic()
        spoken = Spoken(*self._speak(self._socket, head, target, self._head, timeout, stall, self._armed))
        self._armed = spoken.armed
        return spoken

    def _ask(self, head: bytes, timeout: Seconds, stall: Seconds) -> HttpAnswer | None:
        """`say` of a request whose answer has no target."""
        spoken = self._say(head, _NOTHING, timeout, stall)
        return self._whole(spoken, _LONGEST_ASKED_FOR if spoken.status < 300 else _LONGEST_REFUSAL, timeout, stall)

    def _answered(self, spoken: Spoken, body: bytes = b"") -> HttpAnswer:
        """All of the answer came."""
        if spoken.fields.get("connection", "").lower() == "close":
            self._end()
        return HttpAnswer(spoken.status, spoken.fields, body, spoken.received)

    def _whole(self, spoken: Spoken, longest: int, timeout: Seconds, stall: Seconds) -> HttpAnswer | None:
        """The answer with a body that has no target."""
        if spoken.outcome == Outcome.DONE:
            return self._answered(spoken)
        if spoken.outcome in (Outcome.REFUSED, Outcome.OVERFLOW) and spoken.size <= longest:
            return self._answered(spoken, self._rest(spoken, timeout, stall))
        if spoken.outcome == Outcome.CHUNKED:
            body = self._chunks(spoken, longest, timeout, stall)
            if body is not None:
                return self._answered(spoken, body)
        return self._not_whole(spoken, timeout, stall)

    def _not_whole(self, spoken: Spoken, timeout: Seconds, stall: Seconds) -> HttpAnswer | None:
        self._end()
        if spoken.outcome == Outcome.GONE:
            return None
        if spoken.outcome not in (Outcome.BROKEN, Outcome.LATE):
            self.understood = False
            return None
        if not spoken.received:
            raise self._cut_short(spoken, timeout, stall)
        failure = self._cut_short(spoken, timeout, stall)
        return HttpAnswer(spoken.status, spoken.fields, b"", spoken.received, failure=failure)

    def _rest(self, spoken: Spoken, timeout: Seconds, stall: Seconds) -> bytes:
        """A body that has no target: what is there of it, and what is still to come."""
        begun = self._head[spoken.end + 4 : spoken.filled]
        if len(begun) == spoken.size:
            return bytes(begun)
        body = memoryview(bytearray(spoken.size))
        body[: len(begun)] = begun
        patience = self._patience(timeout, stall)
        received, error = receive_all(patience, body[len(begun) :])
        self._armed = patience.armed
        if len(begun) + received < spoken.size:
            self._end()
            raise self._late(timeout, stall) if patience.late else self._broken(error)
        return bytes(body)

    def _chunks(self, spoken: Spoken, longest: int, timeout: Seconds, stall: Seconds) -> bytes | None:
        """A body that comes in chunks; None of one that only libcurl understands."""
        chunked = ChunkedBody(longest)
        patience = self._patience(timeout, stall)
        begun = bytes(self._head[spoken.end + 4 : spoken.filled])
        room = memoryview(self._head)
        try:
            chunked.take(begun)
            while not chunked.is_whole:
                count = patience.receive(room, 0)
                if count == 0 or patience.late:
                    self._end()
                    raise self._late(timeout, stall) if patience.late else self._broken(0)
                chunked.take(bytes(room[:count]))
        except ValueError:
            return None
        except OSError as error:
            self._end()
            raise self._broken(error.errno or 0) from None
        finally:
            self._armed = patience.armed
        return bytes(chunked.body)

    def _patience(self, timeout: Seconds, stall: Seconds) -> Patience:
        """What is left of it for the exchange that has begun."""
        spent = time.monotonic() - self._began
        return Patience(self._socket, timeout, stall, self._armed, time.monotonic, spent=spent)

    def _cut_short(self, spoken: Spoken, timeout: Seconds, stall: Seconds) -> DeadlineExceeded | EndpointUnreachable:
        return self._late(timeout, stall) if spoken.outcome == Outcome.LATE else self._broken(spoken.error)

    def _late(self, timeout: Seconds, stall: Seconds) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{self._endpoint}: an exchange did not come to its end (allowed: {timeout:.1f} s, "
            f"{stall:.1f} s without a byte)"
        )

    def _broken(self, error: int) -> EndpointUnreachable:
        how = os.strerror(error) if error else "it was closed"
        return EndpointUnreachable(f"{self._endpoint}: the connection broke in the middle of an answer: {how}")


def _line(header: bytes) -> bytes:
    """A header as libcurl takes it (`name;` has no value) as it is sent."""
    return header[:-1] + b":\r\n" if header.endswith(b";") and b":" not in header else header + b"\r\n"


def endpoint_of(url: str) -> str:
    """http://host[:port] of a URL, '' when it is not plain HTTP."""
    return "/".join(url.split("/", 3)[:3]) if url.startswith("http://") else ""
