"""The memory ledger: one budget that every block and every part of a sidecar is charged to.

It promises that what is charged never exceeds the budget, that whoever waits is served in turn, and that nobody waits
for ever. The argument why no mix of handles can deadlock on it: **no thread waits for memory while it holds memory
that others may be waiting for.** A read that must wait holds nothing (what it read before is cache, and cache is given
up when somebody waits); a block being fetched has its memory already and ends within the deadline of its request; a
writer waits once, at open, and lives from then on with what it was given plus what can be had without waiting. So
every open reader has its first block sooner or later, 500 of them as well as 5: the guarantee per reader is a turn,
not a slice that would have to be multiplied by the number of readers. Read-ahead and caches take only what nobody
waits for, and are asked to shrink (`on_pressure`) before anybody has to wait.

It must not know what the memory is used for.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeVar

from csi.errors import OutOfMemoryBudget
from csi.volume.units import MIB, Bytes, Seconds

T = TypeVar("T")

_FIXED = 112 * MIB
_LARGEST_SHARE_OF_OTHERS = 512 * MIB
_SMALLEST_BUDGET = 16 * MIB


def budget_for(memory_limit: Bytes) -> Bytes:
    """What blocks and parts may use of a sidecar's memory limit (bytes), the rest being for everything else.

    112 MiB fixed: 45-60 MiB for the interpreter with pyfuse3, trio and pycurl as measured after READY; the rest for the
    touched part of some 50 thread stacks (about 100 KiB each), libcurl's buffers and TLS state per connection (about
    150 KiB each), and replies and written data that libfuse holds (up to 1 MiB per request being answered). 32 readers
    and 4 writers of large files at once were seen to need 105 MiB of it. An eighth of the limit, at most 512 MiB:
    inodes and listings, which grow with the files looked at, and the kernel's socket buffers, which cgroup v2 charges
    to the sidecar. So 128Mi leaves 16 MiB, 256Mi 112 MiB, 1Gi 784 MiB.
    """
    return Bytes(max(memory_limit - _FIXED - metadata_allowance(memory_limit), _SMALLEST_BUDGET))


def metadata_allowance(memory_limit: Bytes) -> Bytes:
    """What of a sidecar's memory limit is set aside for inodes and listings; `budget_for` leaves it out."""
    return Bytes(min(memory_limit // 8, _LARGEST_SHARE_OF_OTHERS))


@dataclass(frozen=True, slots=True)
class LedgerStatistics:
    """Bytes charged now and at most so far, threads waiting now, requests refused without waiting so far."""

    budget: int
    charged: int
    peak: int
    waiting: int
    refused: int


class Reservation:
    """Bytes of the budget that are its holder's until `release` (idempotent) or the end of a `with` block."""

    __slots__ = ("_ledger", "size")

    def __init__(self, ledger: MemoryLedger, size: int) -> None:
        self._ledger: MemoryLedger | None = ledger
        self.size = size

    def release(self) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.credit(self.size)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Turns:
    """A queue of threads that wait for something to come free, served first come, first served.

    It has no lock: the queue is a deque used with atomic operations only, so that `poke` may be called from anywhere.
    The first in the queue listens to `bell`, which others may use as well to bring what came free: `bell.put` can be a
    weak reference's callback by itself. No Python runs there then, which a Ctrl-C could end and be lost in.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._queue: deque[threading.Lock] = deque()
        self._heard: deque[object] = deque()
        self.bell: SimpleQueue[object] = SimpleQueue()

    def __len__(self) -> int:
        return len(self._queue)

    def wait_for(self, attempt: Callable[[], T | None], within: Seconds) -> T | None:
        """The first result of `attempt` that is not None, tried in turn each time something may have come free.

        None when `within` seconds have passed. `attempt` is called without a lock held.
        """
        end = self._clock() + within
        gate = threading.Lock()  # a binary semaphore, opened by who was before
        gate.acquire()
        self._queue.append(gate)
        try:
            while True:
                is_first = self._queue[0] is gate
                if is_first:
                    self._drain()
                    got = attempt()
                    if got is not None:
                        return got
                remaining = end - self._clock()
                if remaining <= 0 or not (self._listen(remaining) if is_first else gate.acquire(timeout=remaining)):
                    return None
        finally:
            self._queue.remove(gate)
            with contextlib.suppress(IndexError, RuntimeError):  # nobody waits, or the first has been told already
                self._queue[0].release()

    def poke(self) -> None:
        """Something may have come free: let the first of the waiting try again. Takes no lock and never waits."""
        if self._queue:
            self.bell.put(None)

    def heard(self) -> Iterator[object]:
        """What was put into `bell` and not told yet. While somebody waits the bell is only for the first of those."""
        if not self._queue and self._drain():
            self.poke()  # who began to wait meanwhile
        while self._heard:
            yield self._heard.popleft()

    def _listen(self, within: float) -> bool:
        """Wait for the bell; False after `within` seconds."""
        try:
            self._hear(self.bell.get(timeout=within))
        except Empty:
            return False
        return True

    def _drain(self) -> bool:
        """Hear all there is to hear now; whether it was anything."""
        rang = False
        with contextlib.suppress(Empty):  # another was quicker
            while not self.bell.empty():
                self._hear(self.bell.get_nowait())
                rang = True
        return rang

    def _hear(self, brought: object) -> None:
        if brought is not None:
            self._heard.append(brought)


class MemoryLedger:
    """Counts bytes against `budget`; `turns` is where threads wait for them.

    `_lock` guards `_charged`, `_peak` and `_refused`; it is innermost: nothing is called while it is held.
    """

    def __init__(self, budget: Bytes, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self._lock = threading.Lock()
        self._charged = 0
        self._peak = 0
        self._refused = 0
        self.turns = Turns(clock)
        self._pressure: list[Callable[[int], int]] = []

    def try_reserve(self, size: int) -> Reservation | None:
        """`size` bytes if they are free and nobody is waiting, else None."""
        return Reservation(self, size) if not self.contended and self.debit(size) else None

    def reserve(self, size: int, within: Seconds) -> Reservation:
        """`size` bytes, waiting for its turn. Raises OutOfMemoryBudget after `within` seconds, or when `size` is more
        than there will ever be. The caller must hold nothing that others may be waiting for."""

        def attempt() -> Reservation | None:
            if self.debit(size) or (self.relieve(size) and self.debit(size)):
                return Reservation(self, size)
            return None

        got = self.turns.wait_for(attempt, within) if size <= self.budget else None
        if got is None:
            raise OutOfMemoryBudget(
                f"{size} bytes of memory were not free within {within:g} s of a budget of {self.budget}",
                hint="raise fs.jindo.fuse.pod.mem.limit or open fewer files at a time",
            )
        return got

    def on_pressure(self, shrink: Callable[[int], int]) -> Callable[[], None]:
        """Register something that can give memory up: called with a number of bytes, returns how many it gave (they
        may come back a little later). Must not wait. Returns what undoes the registration."""
        self._pressure.append(shrink)

        def undo() -> None:
            if shrink in self._pressure:
                self._pressure.remove(shrink)

        return undo

    def relieve(self, size: int) -> bool:
        """Ask everything that is registered, in order, until `size` bytes were given; says whether any were."""
        given = 0
        for shrink in tuple(self._pressure):
            given += shrink(size - given)
            if given >= size:
                break
        return given > 0

    @property
    def contended(self) -> bool:
        """Somebody is waiting: what can be given up should be."""
        return len(self.turns) > 0

    def debit(self, size: int) -> bool:
        """Charge `size` bytes if they are free, without regard to those who wait. Whoever calls this owes `credit`."""
        with self._lock:
            if self._charged + size > self.budget:
                self._refused += 1
                return False
            self._charged += size
            self._peak = max(self._peak, self._charged)
            return True

    def credit(self, size: int) -> None:
        """Give back `size` charged bytes."""
        with self._lock:
            self._charged -= size
        self.turns.poke()

    def statistics(self) -> LedgerStatistics:
        with self._lock:
            return LedgerStatistics(self.budget, self._charged, self._peak, len(self.turns), self._refused)
