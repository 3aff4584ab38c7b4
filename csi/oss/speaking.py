"""One plain HTTP/1.1 exchange on a connected socket: a request sent, the answer's body received into given memory.

`wire` has the same in C, where the interpreter lock is waited for once instead of at every system call; this is used
where it was not built, and says what both promise: no wait is unbounded, and nothing but a 2xx body touches the target.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import NamedTuple, Protocol

from csi.oss.store import Buffer

_FIRST = 4096
_LOOKS = 4
"""How many times within the time that nothing may move it is looked whether something did."""


class Outcome(IntEnum):
    """How an exchange ended."""

    DONE = 0  # all of the body of a 2xx answer is in the target
    REFUSED = 1  # another status: the body, `size` bytes, is still to be received but for what `scratch` holds of it
    OVERFLOW = 2  # the body is longer than the target and was not received
    FOREIGN = 3  # an answer that only libcurl understands
    GONE = 4  # the connection ended before a whole head was there, or was out of step
    BROKEN = 5  # it ended in the body
    LATE = 6  # there was no more time
    CHUNKED = 7  # the body comes in chunks, of which nothing was received but what `scratch` holds


class Spoken(NamedTuple):
    """What came of an exchange. `received` bytes are in the target; `scratch` holds the head up to `end` (−1: it is
    not complete), four bytes that end it, and the body's first bytes up to `filled`. `armed` is for the next call."""

    outcome: int
    status: int = 0
    fields: Mapping[str, str] = {}
    received: int = 0
    size: int = 0
    end: int = -1
    filled: int = 0
    error: int = 0
    armed: float = -1.0


class Speak(Protocol):
    def __call__(
        self,
        connection: socket.socket,
        head: bytes,
        target: Buffer,
        scratch: bytearray,
        timeout: float,
        stall: float,
        armed: float,
        /,
    ) -> Spoken:
        """Send `head`, a whole request, and receive its answer on a blocking socket. With an empty head the request was
        sent before. A connection on which something comes before it was asked for is GONE.

        `timeout` bounds everything, `stall` the time without a byte. `armed` is the receive timeout the socket has,
        from the last answer.
        """


class Patience:
    """How long one exchange, which began `spent` seconds ago, may still take. Arms the receive timeout of `connection`,
    which is `armed` already."""

    def __init__(
        self,
        connection: socket.socket,
        timeout: float,
        stall: float,
        armed: float,
        monotonic: Callable[[], float],
        *,
        spent: float = 0.0,
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._stall = stall
        self.armed = armed
        self._wait = min(stall / _LOOKS, max(timeout - spent, 1e-6))
        self._monotonic = monotonic
        self._moved = monotonic()
        self._started = self._moved - spent
        self.late = False

    def receive(self, target: memoryview, flags: int) -> int:
        """Receive something, or with MSG_WAITALL all that comes in a while; 0 is the end, or the end of the time
        (`late`). Raises OSError."""
        while True:
            if self._wait != self.armed:
                seconds = divmod(max(1, math.ceil(self._wait * 1e6)), 1_000_000)
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", *seconds))
                self.armed = self._wait
            try:
                count = self._connection.recv_into(target, len(target), flags)
            except BlockingIOError:
                count = -1
            if count == 0 or (count == len(target) and flags):
                return count
            now = self._monotonic()
            if count > 0:
                self._moved = now
            left = min(self._started + self._timeout, self._moved + self._stall) - now
            self.late = left <= 0
            self._wait = min(self._stall / _LOOKS, left)
            if count > 0 or self.late:
                return max(count, 0)


def is_quiet(connection: socket.socket) -> bool:
    """Whether nothing lies there that nobody asked for, and the other end has not closed."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def speak(
    connection: socket.socket,
    head: bytes,
    target: Buffer,
    scratch: bytearray,
    timeout: float,
    stall: float,
    armed: float,
    /,
    *,
    monotonic: Callable[[], float] = time.monotonic,
) -> Spoken:
    """See `Speak`."""
    if head and not is_quiet(connection):
        return Spoken(Outcome.GONE, armed=armed)
    patience = Patience(connection, timeout, stall, armed, monotonic)
    filled, end = 0, -1
    try:
        connection.sendall(head)
        while end < 0:
            if filled == len(scratch):
                return Spoken(Outcome.FOREIGN, armed=patience.armed)
            count = patience.receive(memoryview(scratch)[filled : filled + _FIRST], 0)
            if patience.late:
                return Spoken(Outcome.LATE, armed=patience.armed)
            if count == 0:
                return Spoken(Outcome.GONE, armed=patience.armed)
            begin = max(0, filled - 3)
            filled += count
            end = scratch.find(b"\r\n\r\n", begin, filled)
    except OSError:  # the connection had been closed while it was idle, or broke before a whole head came
        return Spoken(Outcome.GONE, armed=patience.armed)
    status, fields = _parsed(bytes(scratch[:end]))
    if _is_chunked(status, fields):
        return Spoken(Outcome.CHUNKED, status, fields, 0, 0, end, filled, 0, patience.armed)
    size = _body_size(status, fields)
    begun = filled - end - 4
    if size is None or begun > size:
        return Spoken(Outcome.FOREIGN, armed=patience.armed)
    if status >= 300:
        return Spoken(Outcome.REFUSED, status, fields, 0, size, end, filled, 0, patience.armed)
    view = memoryview(target)
    if size > len(view):
        return Spoken(Outcome.OVERFLOW, status, fields, 0, size, end, filled, 0, patience.armed)
    view[:begun] = scratch[end + 4 : filled]
    received, error = receive_all(patience, view[begun:size])
    received += begun
    outcome = Outcome.DONE if received == size else Outcome.LATE if patience.late else Outcome.BROKEN
    return Spoken(outcome, status, fields, received, size, end, filled, error, patience.armed)


def receive_all(patience: Patience, target: memoryview) -> tuple[int, int]:
    """Fill `target`: how much of it was filled, and the error number if that was why not all of it."""
    received = 0
    while received < len(target) and not patience.late:
        try:
            count = patience.receive(target[received:], socket.MSG_WAITALL)
        except OSError as error:
            return received, error.errno or 0
        if count == 0:
            break
        received += count
    return received, 0


def _parsed(head: bytes) -> tuple[int, Mapping[str, str]]:
    """Status and fields; status 0 if this is not HTTP/1.1."""
    first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    version, _, rest = first.partition(" ")
    status = int(rest[:3]) if version == "HTTP/1.1" and rest[:3].isdigit() else 0
    fields = (line.partition(":") for line in lines)
    return status, {name.lower(): value.strip() for name, colon, value in fields if colon}


def _is_chunked(status: int, fields: Mapping[str, str]) -> bool:
    coding = fields.get("transfer-encoding", "").lower()
    return coding == "chunked" and "content-length" not in fields and status >= 200 and status not in (204, 304)


def _body_size(status: int, fields: Mapping[str, str]) -> int | None:
    """The length of the body; None when only libcurl can tell."""
    if status < 200 or status in (204, 304) or "transfer-encoding" in fields:
        return None
    size = fields.get("content-length", "")
    return int(size) if size.isascii() and size.isdigit() else None
