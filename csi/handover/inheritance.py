"""What a sidecar leaves to the one after it, kept where it outlives the sidecar.

A kernel session lives for as long as somebody has its descriptor open. The node plugin keeps one, and the journal in
which the sidecar noted what it promised: so the death of a sidecar is a pause for who uses the volume, and the next one
goes on with what programs have open. The price is that they wait meanwhile, and that of whoever the dead one had begun
to serve nobody can be killed. So it is given up where no other sidecar serves in time, and where one after the other
dies soon: what kills them may be a request, and a successor is asked everything again that was not answered.
"""

from __future__ import annotations

import fcntl
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from csi.handover.registrar import is_fuse_device
from csi.volume.units import Seconds

WAIT: Final = Seconds(45.0)
"""For each of them. kubelet starts a sidecar again 1, 12 and 29 s after it died for the first to the third time."""
_LONGEST: Final = Seconds(300.0)
"""In which none of them serves for `_CALM`."""
_CALM: Final = Seconds(10.0)
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

    def is_one(self) -> bool:
        """Whether these are what they should be."""
        try:
            fcntl.fcntl(self.journal, fcntl.F_GET_SEALS)  # memory alone has seals (memfd_create(2))
            return is_fuse_device(self.device)
        except OSError:
            return False


class Inheritance:
    """Of one volume; from any thread. `_lock` guards everything, and nothing is closed under it: that may wait."""

    def __init__(self, wait: Seconds = WAIT, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._wait = wait
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: Bequest | None = None
        self._dead = False
        self._since = 0.0  # since when the sidecar serves; math.inf: not yet
        self._due = 0.0  # when it is given up; 0: a sidecar serves
        self._unrest = 0.0  # the first death since one served for long
        self._strikes = 0

    def keep(self, left: Bequest) -> None:
        """The sidecar serves: should it die, another one needs these descriptors, which are the caller's no more."""
        with self._lock:
            before, self._kept = self._kept, left
            self._serves()
        if before is not None:
            before.close()

    def serves(self) -> None:
        """A successor does, with what is kept."""
        with self._lock:
            if self._due and not self._dead:
                self._serves()

    def died(self) -> bool:
        """The sidecar has ended, without having said so. True: who uses the volume waits for a successor."""
        with self._lock:
            if self._kept is not None and not self._dead:
                now = self._clock()
                lasted = now - self._since
                if lasted >= _CALM:
                    self._unrest = now
                self._strikes = self._strikes + 1 if lasted < _SOON else 0
                self._dead, self._due = True, self._due or self._in_time(now)
            over = self._take_kept() if self._strikes >= _MOST else None
            waits = self._kept is not None
        if over is not None:
            over.close()
        return waits

    def take(self) -> Bequest | None:
        """Copies of what the dead one left, for its successor, who has `WAIT` for its start; None if there is nothing
        to go on with. Raises OSError."""
        with self._lock:
            if self._kept is None or not self._dead:
                return None
            device = os.dup(self._kept.device)
            try:
                copies = Bequest(device, os.dup(self._kept.journal))
            except OSError:
                os.close(device)
                raise
            self._since, self._due, self._dead = math.inf, self._in_time(self._clock()), False
            return copies

    def give_back(self) -> None:
        """What was taken did not come to the successor, who may come again."""
        with self._lock:
            self._dead = self._due > 0

    @property
    def left(self) -> Seconds | None:
        """How long it is still waited for a successor; None if it is not."""
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
            kept = self._take_kept()
        if kept is not None:
            kept.close()

    # --- private; the lock is held ---

    def _serves(self) -> None:
        self._since, self._due, self._dead = self._clock(), 0.0, False
        self._unrest = self._unrest or self._since

    def _in_time(self, now: float) -> float:
        return min(now + self._wait, self._unrest + _LONGEST)

    def _take_kept(self) -> Bequest | None:
        kept, self._kept = self._kept, None
        return kept
