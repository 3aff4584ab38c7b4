"""How long requests take: what decides how far ahead is enough, and when one is overdue.

Kept by size, in powers of two, of the latest requests only. Measures nothing by itself and knows no blocks.
"""

from __future__ import annotations

import math
from collections import deque

from csi.volume.units import KIB, Seconds

_REMEMBERED = 128
_ENOUGH = 16  # requests of a size to be known before one is called overdue
_SHORTEST = Seconds(0.3)
_SMALLEST = 256 * KIB  # bytes of a request from which it is concluded what a larger one takes


class Pace:
    """Called from any thread without a lock: each operation on a deque is whole, and a figure that is one request old
    is as good as any."""

    def __init__(self) -> None:
        self._taken: dict[int, deque[float]] = {}
        self._overdue: dict[int, tuple[int, Seconds]] = {}
        self._serial = 0

    def note(self, size: int, seconds: float) -> None:
        """A request for `size` bytes was answered in `seconds`."""
        taken = self._taken.get(size.bit_length())
        if taken is None:
            taken = self._taken.setdefault(size.bit_length(), deque(maxlen=_REMEMBERED))
        taken.append(seconds)
        self._serial += 1

    def quickest(self, size: int) -> Seconds:
        """The least such a request took lately, which is what it takes when nothing is in its way; 0 if unknown."""
        taken = self._taken.get(size.bit_length())
        return Seconds(min(tuple(taken), default=0.0)) if taken is not None else Seconds(0.0)

    def expected(self, size: int) -> Seconds:
        """The least such a request would take: as `quickest`, or on the line through the next two smaller ones there
        are; in proportion to the size if there is only one, infinite if there is none."""
        known: list[tuple[int, float]] = []
        smaller = size
        while smaller >= _SMALLEST and len(known) < 2:
            if quickest := self.quickest(smaller):
                known.append((smaller, quickest))
            smaller //= 2
        if not known:
            return Seconds(math.inf)
        nearest, seconds = known[0]
        a_byte = max(0.0, seconds - known[1][1]) / (nearest - known[1][0]) if len(known) > 1 else seconds / nearest
        return Seconds(seconds + a_byte * (size - nearest))

    def overdue(self, size: int) -> Seconds | None:
        """After how long such a request has met with an accident: twice what 99 of 100 take. None: not known yet."""
        kind = size.bit_length()
        known = self._overdue.get(kind)
        if known is None or known[0] + _ENOUGH <= self._serial:
            taken = sorted(self._taken.get(kind, ()))
            if len(taken) < _ENOUGH:
                return None
            known = self._serial, Seconds(max(_SHORTEST, 2 * taken[len(taken) * 99 // 100 - (len(taken) % 100 == 0)]))
            self._overdue[kind] = known
        return known[1]
