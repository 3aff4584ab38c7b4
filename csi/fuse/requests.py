"""Which requests are being answered right now: how many, which kind, and how old the oldest is.

A request that is never answered leaves its caller stuck with nothing in any log; the age of the oldest one is how such
a thing is seen from outside (health reports, `statistics()`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from csi.volume.units import Seconds


@dataclass(frozen=True, slots=True)
class PassthroughStatistics:
    """`passed` opens since the start, `direct` ones that found another version passed through; `inodes` open now."""

    passed: int
    direct: int
    inodes: int


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """`answered` counts requests by kind since the start; `oldest` names the request that waits longest, '' if none.
    `passthrough`: of files that the kernel reads itself, if it has agreed to that."""

    answered: dict[str, int]
    in_flight: int
    oldest: str
    oldest_age: Seconds
    passthrough: PassthroughStatistics | None = None


class RequestTable:
    """Written by the session's thread only; the others may be called from any thread.

    No lock: `dict` and `list` copies are single steps for other threads, and a figure that is one request late is fine.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[int, tuple[float, str]] = {}
        self._answered: Counter[str] = Counter()
        self._serial = 0

    def begin(self, operation: str) -> int:
        self._serial += 1
        self._open[self._serial] = (self._clock(), operation)
        return self._serial

    def end(self, ticket: int) -> None:
        self._answered[self._open.pop(ticket)[1]] += 1

    def waiting(self, operations: frozenset[str]) -> int:
        """How many requests of these kinds are being answered."""
        return sum(operation in operations for _, operation in list(self._open.values()))

    def statistics(self) -> SessionStatistics:
        waiting = list(self._open.values())
        since, oldest = min(waiting, default=(0.0, ""))
        age = self._clock() - since if waiting else 0.0
        return SessionStatistics(dict(self._answered), len(waiting), oldest, Seconds(age))
