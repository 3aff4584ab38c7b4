"""Reads that failed after a long wait fail at once when the kernel asks again.

When a read through the page cache fails, the kernel asks a second time for the one page the program waits for. With an
endpoint that has fallen silent that would double the time until the program is told, whatever the deadline is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from csi.volume.units import Seconds

SLOW = Seconds(1.0)
"""A failure that took longer is worth remembering."""

REMEMBERED = Seconds(1.0)
"""For how long; the kernel asks again within microseconds, a program that tries again later gets a new try."""


@dataclass(frozen=True, slots=True)
class _Failure:
    start: int
    end: int
    error: Exception
    until: float


class SlowErrors:
    """The last slow failure of each open file. Any thread: each step on the dictionary is atomic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[int, _Failure] = {}

    def now(self) -> float:
        return self._clock()

    def check(self, handle: int, offset: int) -> None:
        """Raise what a read of the same place has just failed with, if it has."""
        found = self._failures.get(handle)
        if found is None:
            return
        if self._clock() >= found.until:
            self._failures.pop(handle, None)
        elif found.start <= offset < found.end:
            raise found.error

    def remember(self, handle: int, offset: int, size: int, started: float, error: Exception) -> None:
        """A read that began at `started` (`now()` then) has failed."""
        now = self._clock()
        if now - started >= SLOW:
            self._failures[handle] = _Failure(offset, offset + size, error, now + REMEMBERED)

    def forget(self, handle: int) -> None:
        """The file is closed."""
        self._failures.pop(handle, None)
