"""What a sidecar leaves to the one after it, kept where it outlives the sidecar.

A kernel session lives for as long as somebody has its descriptor open. The node plugin keeps one, and the journal in
which the sidecar noted what it promised: so the death of a sidecar is a pause for who uses the volume, and the next one
goes on with what programs have open. The price is that they wait meanwhile, and that of whoever the dead one had begun
to serve nobody can be killed. So it is given up `WAIT` after a death, and at once when one sidecar after the other dies
soon: what kills them may be a request, and a successor is asked everything again that was not answered.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from csi.volume.units import Seconds

WAIT: Final = Seconds(45.0)
"""kubelet starts a sidecar again 1, 12 and 29 s after it died for the first, second and third time."""
_SOON: Final = Seconds(0.5)
_MOST: Final = 10
"""Sidecars, one after the other, that died soon."""


@dataclass(frozen=True, slots=True)
class Bequest:
    """Descriptors of the kernel session and of the journal; they belong to who has this."""

    device: int
    journal: int

    def close(self) -> None:
        os.close(self.device)
        os.close(self.journal)


class Inheritance:
    """Of one volume; from any thread. `_lock` guards everything."""

    def __init__(self, wait: Seconds = WAIT, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._wait = wait
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: Bequest | None = None
        self._dead = False
        self._since = 0.0  # since when the sidecar serves; math.inf: not yet
        self._due = 0.0  # when it is given up; 0: a sidecar serves
        self._strikes = 0

    def keep(self, device: int, journal: int) -> None:
        """The sidecar serves: should it die, another one needs these descriptors, which are the caller's no more."""
        with self._lock:
            self._close()
            self._kept, self._since, self._due, self._dead = Bequest(device, journal), self._clock(), 0.0, False

    def died(self) -> bool:
        """The sidecar has ended, without having said so. True: who uses the volume waits for a successor."""
        with self._lock:
            if self._kept is None:
                return False
            if not self._dead:
                now = self._clock()
                self._strikes = self._strikes + 1 if now - self._since < _SOON else 0
                self._dead, self._due = True, self._due or now + self._wait
            if self._strikes >= _MOST:
                self._close()
            return self._kept is not None

    def take(self) -> Bequest | None:
        """Copies of what the dead one left, for its successor, who has `WAIT` for its start; None if there is nothing
        to go on with."""
        with self._lock:
            if self._kept is None or not self._dead:
                return None
            self._since, self._due, self._dead = math.inf, self._clock() + self._wait, False
            device = os.dup(self._kept.device)
            try:
                return Bequest(device, os.dup(self._kept.journal))
            except OSError:
                os.close(device)
                raise

    @property
    def left(self) -> Seconds | None:
        """How long it is still waited for a successor, 0 if that is over; None if it is not."""
        with self._lock:
            return Seconds(max(0.0, self._due - self._clock())) if self._kept is not None and self._due else None

    @property
    def is_over(self) -> bool:
        """No successor has come in time."""
        left = self.left
        return left is not None and left <= 0

    def drop(self) -> None:
        """Nobody goes on. Idempotent."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()
