"""Requests that were brought to Python and are not answered yet: each is answered exactly once, whoever does it.

A request is answered by who takes it out of the table first: its handler, an interrupt, or the end of the session. What
comes later is dropped, and what it told or opened for a caller that will never know is given back.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from csi.fuse.requests import SessionStatistics
from csi.oss.store import Buffer
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

Answer = Sequence[Buffer]
"""The bytes after the header of an answer, in pieces that are sent where they lie."""


class Replies(Protocol):
    """Where answers go: `csi.fuse.native.device.Device`."""

    def reply(self, unique: int, error: int = 0, *parts: Buffer) -> int: ...

    def reply_soon(self, unique: int, error: int = 0, *parts: Buffer) -> int: ...


@dataclass(slots=True, eq=False)
class Exchange:
    """One request. `interruptible`: it changes nothing, so that its caller may be told to try again."""

    unique: int
    operation: str
    since: float
    interruptible: bool = False
    interrupted_at: float = 0.0


class Exchanges:
    """`_open` and `_known` are changed by single steps, which are atomic; `_lock` guards the counters. From any thread.
    `_known` are those whose answer is not yet with the kernel, `_open` those that nobody has taken to answer it."""

    def __init__(self, device: Replies, clock: Callable[[], float] = time.monotonic) -> None:
        self._device = device
        self._clock = clock
        self._open: dict[int, Exchange] = {}
        self._known: set[int] = set()
        self._lock = threading.Lock()
        self._answered: Counter[str] = Counter()

    def begin(self, unique: int, operation: str) -> Exchange:
        exchange = Exchange(unique, operation, self._clock())
        self._known.add(unique)
        self._open[unique] = exchange
        return exchange

    def answer(self, exchange: Exchange, parts: Answer, *, certain: bool = True) -> bool:
        """Whether the caller got it: False when it was answered before, or is gone. Unless `certain`, it may turn out
        later that it is gone."""
        if not self._take(exchange):
            return False
        reply = self._device.reply if certain else self._device.reply_soon
        try:
            failure = reply(exchange.unique, 0, *parts)
            if failure not in _GONE:  # refused for what it says: its caller still waits
                _log.error("the kernel refused the answer to %s: %s", exchange.operation, errno.errorcode.get(failure))
                self._device.reply(exchange.unique, errno.EIO)
        finally:
            self._known.discard(exchange.unique)
        return failure == 0

    def refuse(self, exchange: Exchange, number: int) -> None:
        """Answer with an errno."""
        if self._take(exchange):
            try:
                self._device.reply_soon(exchange.unique, number)
            finally:
                self._known.discard(exchange.unique)

    def are_over(self) -> bool:
        """Whether none waits for its answer, and every answer that was given is with the kernel."""
        return not self._known

    def find(self, unique: int) -> Exchange | None:
        return self._open.get(unique)

    def waiting(self, operations: frozenset[str]) -> int:
        """How many requests of these kinds are being answered."""
        return sum(exchange.operation in operations for exchange in list(self._open.values()))

    def all(self) -> list[Exchange]:
        return list(self._open.values())

    def statistics(self) -> SessionStatistics:
        waiting = [(exchange.since, exchange.operation) for exchange in list(self._open.values())]
        since, oldest = min(waiting, default=(0.0, ""))
        age = self._clock() - since if waiting else 0.0
        with self._lock:
            answered = dict(self._answered)
        return SessionStatistics(answered, len(waiting), oldest, Seconds(age))

    def _take(self, exchange: Exchange) -> bool:
        """Whether it is for the caller to answer it: nobody has yet."""
        if self._open.pop(exchange.unique, None) is None:
            return False
        with self._lock:
            self._answered[exchange.operation] += 1
        return True


_GONE = frozenset(
    {0, errno.ENOENT, errno.ENODEV, errno.ECONNABORTED, errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF}
)
"""Given, or: interrupted, unmounted, aborted."""
