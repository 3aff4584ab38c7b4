"""Memory for writers: who may open, and how much each may fill ahead of the network.

A writer owns one buffer from open to close; that is the only moment it may wait for memory, and it holds nothing then.
Everything beyond comes from `take`, which never waits. So a writer inside write(2) waits for nothing but its own
uploads, and any number of writers make progress. All writers together have at most a limit (half of the budget), so
that readers always have the rest. When somebody waits to open, the others are asked to send what they have filled.
Who can do without has what writers leave, and gives it up when one wants it. Must not know what parts are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from csi.data.buffers import BufferPool, floor_power
from csi.data.ledger import Turns
from csi.errors import OutOfMemoryBudget
from csi.volume.units import KIB, MIB, Bytes, Seconds

_SMALLEST_BUFFER = 128 * KIB  # a part of one buffer is a part OSS accepts
_LARGEST_BUFFER = 1 * MIB

_WRITES_AT_ONCE = 2048
_SMALLEST_WRITE = 64 * KIB
_LARGEST_WRITE = Bytes(4 * MIB)  # more than the kernel sends at once unless it was told to
_ENOUGH_FOR_WRITES = 1024 * MIB


def largest_write(memory_limit: Bytes) -> Bytes:
    """How much a program's write(2) may bring at once, a power of two: what waits for uploads is here, and charged to
    nobody. With less than the usual 1Gi hundreds of writers would be as much as there is."""
    if memory_limit >= _ENOUGH_FOR_WRITES:
        return _LARGEST_WRITE
    return Bytes(floor_power(max(memory_limit // _WRITES_AT_ONCE, _SMALLEST_WRITE)))


@dataclass(frozen=True, slots=True)
class StagingStatistics:
    """Writers open, bytes they hold, the most they may hold together, and how many wait to open."""

    writers: int
    held: int
    limit: int
    waiting: int


class StagingMemory:
    """`_lock` guards `_held`, `_allotments` and `_offers`; nothing is called while it is held."""

    def __init__(self, pool: BufferPool, *, limit: int) -> None:
        self.pool = pool
        self.limit = limit
        self.buffer = max(_SMALLEST_BUFFER, min(_LARGEST_BUFFER, floor_power(max(limit // 64, 1))))
        self._lock = threading.Lock()
        self._turns = Turns()
        self._held = 0
        self._allotments: dict[Allotment, None] = {}
        self._offers: dict[Callable[[], None], None] = {}  # of who can do without some

    def admit(self, send: Callable[[], None], within: Seconds) -> Allotment:
        """Memory for one more writer.

        `send` is called, from any thread, when others wait: it should begin to upload what can be uploaded, and must
        not wait. Raises OutOfMemoryBudget when `within` seconds have passed.
        """

        def attempt() -> bool | None:
            if self._charge(self.buffer):
                return True
            for other in tuple(self._allotments):
                other.send()
            return True if self._charge_spare() else None

        if self._turns.wait_for(attempt, within):
            own = self.pool.take(self.buffer, within)
            if own is not None:
                allotment = Allotment(self, own, send)
                with self._lock:
                    self._allotments[allotment] = None
                return allotment
            self.credit(self.buffer)
        raise OutOfMemoryBudget(
            f"{len(self._allotments)} files are open for writing and share {self.limit} bytes of memory; "
            f"none of it came free within {within:g} s",
            hint="close some, or raise fs.jindo.fuse.pod.mem.limit",
        )

    def admit_spare(self, give_up: Callable[[], None]) -> Allotment | None:
        """Memory that no writer uses now, if there is some. `give_up` is called, from any thread, when a writer wants
        it: everything should be given back at once."""
        own = self._grow() if self._charge(self.buffer) else None
        if own is None:
            return None
        allotment = Allotment(self, own, _nothing, spare=True)
        allotment.offer(give_up)
        return allotment

    def offer(self, before: Callable[[], None] | None, give_up: Callable[[], None] | None) -> None:
        """`give_up` is called, in the place of `before`, when a writer wants memory; it must not wait."""
        with self._lock:
            if before is not None:
                self._offers.pop(before, None)
            if give_up is not None:
                self._offers[give_up] = None

    def share(self) -> int:
        """What each open writer may hold, in bytes."""
        return self.limit // max(1, len(self._allotments))

    @property
    def reserved(self) -> int:
        """Bytes that are not for readers now."""
        with self._lock:
            return self.limit if self._allotments else self._held

    def grow(self, *, spare: bool) -> memoryview | None:
        """One more buffer if it is to be had without waiting. `spare`: and without anybody giving it up."""
        if self._charge(self.buffer) or (not spare and self._charge_spare()):
            return self._grow()
        return None

    def credit(self, size: int) -> None:
        with self._lock:
            self._held -= size
        self._turns.poke()

    def forget(self, allotment: Allotment) -> None:
        with self._lock:
            self._allotments.pop(allotment, None)

    def statistics(self) -> StagingStatistics:
        with self._lock:
            return StagingStatistics(len(self._allotments), self._held, self.limit, len(self._turns))

    def __len__(self) -> int:
        return len(self._allotments)

    def _charge_spare(self) -> bool:
        """`_charge`, if need be of what others can do without."""
        for give_up in tuple(self._offers):
            if self._charge(self.buffer):
                return True
            give_up()
        return self._charge(self.buffer)

    def _grow(self) -> memoryview | None:
        got = self.pool.try_take(self.buffer)
        if got is None and self.pool.ledger.relieve(self.buffer):
            got = self.pool.try_take(self.buffer)
        if got is None:
            self.credit(self.buffer)
        return got

    def _charge(self, size: int) -> bool:
        with self._lock:
            if self._held + size > self.limit:
                return False
            self._held += size
            return True


def _nothing() -> None:
    pass


class Allotment:
    """The buffers of one writer, each of `buffer` bytes; `most` is how many bytes it wants to hold at a time,
    with `keeps` as many as it may.

    `_lock` guards `_own`, `_own_free`, `_closed` and `held`. `take` and `give` may be called from different threads.
    """

    def __init__(
        self, memory: StagingMemory, own: memoryview, send: Callable[[], None], *, spare: bool = False
    ) -> None:
        self._memory = memory
        self._spare = spare
        self._offer: Callable[[], None] | None = None
        self._own: memoryview | None = own
        self._own_free = True
        self._closed = False
        self._lock = threading.Lock()
        self.send = send
        self.buffer = memory.buffer
        self.most = memory.limit
        self.keeps = False
        self.held = memory.buffer

    @property
    def share(self) -> int:
        """What the memory allows this writer to hold now, in bytes; at least one buffer."""
        return max(self.buffer, self._memory.share())

    def offer(self, give_up: Callable[[], None] | None) -> None:
        """What to call when another wants memory, for buffers that this one can do without; None: no more. It must
        not wait."""
        self._memory.offer(self._offer, give_up)
        self._offer = give_up

    def pieces(self, buffers: Sequence[memoryview], begin: int, size: int) -> list[memoryview]:
        """Where `size` bytes from `begin` on are in `buffers`, or as many of them as there are."""
        first, begin = divmod(begin, self.buffer)
        found = []
        for buffer in buffers[first : first - (-(begin + size) // self.buffer)]:
            found.append(buffer[begin : begin + size])
            size -= len(found[-1])
            begin = 0
        return [memory for memory in found if memory]

    def take(self) -> memoryview | None:
        """A buffer to fill, or None when one of this writer's must come back first."""
        own = self.take_own()
        if own is not None:
            return own
        with self._lock:
            if self.held + self.buffer > (self.share if self.keeps else min(self.share, self.most)):
                return None
            self.held += self.buffer
        got = self._memory.grow(spare=self._spare)
        if got is None:
            with self._lock:
                self.held -= self.buffer
        return got

    def take_own(self) -> memoryview | None:
        """The buffer this writer was opened with, if it is not in use."""
        with self._lock:
            if not self._own_free or self._own is None:
                return None
            self._own_free = False
            return self._own

    def give(self, buffers: Iterable[memoryview]) -> None:
        """These buffers are no longer needed. The first buffer stays this writer's own until `close`."""
        freed = 0
        with self._lock:
            for buffer in buffers:
                if buffer is self._own:
                    self._own_free = True
                else:
                    freed += self.buffer
            self.held -= freed
        self._memory.credit(freed)  # also when it is 0: who waits may now be given what `send` could not give before
        self._release()

    def close(self) -> None:
        """The own buffer may go as well, as soon as it is given; idempotent."""
        self._closed = True
        self._release()

    def _release(self) -> None:
        with self._lock:
            if not self._closed or not self._own_free or self._own is None:
                return
            self._own = None
            self.held -= self.buffer
        self.offer(None)
        self._memory.forget(self)
        self._memory.credit(self.buffer)
        self.send = _nothing  # a writer that is done is freed at once, not when garbage is collected
