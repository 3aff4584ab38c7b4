"""Blocks: the ranges of objects that are in memory or on their way, shared between the readers of one version.

A block belongs to exactly one version of one object, is fetched by one request however many readers want it, and is
immutable once it is there. Blocks on the grid (multiples of 128 KiB) are found by offset by every reader of the
version; others are known only to who asked for them. A block is *ahead* while a reader still means to read it and
*spent* afterwards; spent blocks are kept up to a limit, least recently used first out, and any block nobody waits for
is given up when memory is needed. A failure is told to all who wait for that block and is not remembered.

Must not know why a block is wanted: windows and patterns are the business of `reader` and `window`.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from csi.data.buffers import BufferPool, charged_size
from csi.data.workers import URGENT, Task, WorkerPool
from csi.errors import BadHandle, DeadlineExceeded, OssFuseError, PreconditionFailed, ServerFailure
from csi.oss.store import ObjectStore, ObjectVersion
from csi.volume.units import KIB, ObjectKey, Seconds

log = logging.getLogger(__name__)

UNIT = 128 * KIB
"""The grid: what the kernel asks for at a time unless its read-ahead was raised."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Blocks and bytes (as charged) by state; requests made, joined and failed, bytes asked for and blocks given up
    so far."""

    blocks: int
    ahead_bytes: int
    spent_bytes: int
    in_flight: int
    requests: int
    requested_bytes: int
    joined: int
    failed: int
    evicted: int


class Block:
    """The bytes `start`..`end` of one version.

    `view` is None until they are there and again once they were given up: whoever reads it takes one reference and
    looks at that. The other fields are guarded by the cache's lock.
    """

    __slots__ = (
        "charge",
        "detached",
        "end",
        "error",
        "gates",
        "on_grid",
        "pins",
        "shelf",
        "start",
        "target",
        "task",
        "users",
        "view",
    )

    def __init__(self, shelf: Shelf, start: int, end: int, *, on_grid: bool) -> None:
        self.shelf = shelf
        self.start = start
        self.end = end
        self.on_grid = on_grid
        self.charge = charged_size(end - start)
        self.view: memoryview | None = None
        self.target: memoryview | None = None  # memory for a request that is still to be made, by who created it
        self.error: OssFuseError | None = None
        self.users = 0  # windows this block is part of
        self.pins = 0  # reads that must not lose it
        self.gates: list[threading.Lock] | None = []  # closed semaphores of waiting threads; None: the request ended
        self.task: Task | None = None
        self.detached = False  # not to be found or kept any more


class Shelf:
    """The blocks of one version. `grid` may be read without a lock; `readers` is guarded by the cache's."""

    __slots__ = ("grid", "readers", "shared", "version")

    def __init__(self, version: ObjectVersion) -> None:
        self.version = version
        self.grid: dict[int, Block] = {}
        self.readers = 0
        self.shared = bool(version.etag)  # without an ETag no two readers know that they mean the same bytes


class BlockCache:
    """`_lock` guards blocks, shelves and lists. It is taken after a reader's lock and before those of the pool and the
    workers, and never held across a request."""

    def __init__(
        self, store: ObjectStore, pool: BufferPool, workers: WorkerPool, *, retained: int, patience: Seconds
    ) -> None:
        self.pool = pool
        self._store = store
        self._workers = workers
        self._retained = retained
        self._patience = patience
        self._lock = threading.Lock()
        self._shelves: dict[ObjectVersion, Shelf] = {}
        self._ahead: OrderedDict[Block, None] = OrderedDict()
        self._spent: OrderedDict[Block, None] = OrderedDict()
        self._ahead_bytes = 0
        self._spent_bytes = 0
        self._in_flight = 0
        self._requests = 0
        self._requested_bytes = 0
        self._joined = 0
        self._failed = 0
        self._evicted = 0
        self._undo_pressure = pool.ledger.on_pressure(self._shrink)

    # --- versions ---

    def open(self, version: ObjectVersion) -> Shelf:
        with self._lock:
            shelf = self._shelves.get(version) if version.etag else None
            if shelf is None:
                shelf = Shelf(version)
                if shelf.shared:
                    self._shelves[version] = shelf
            shelf.readers += 1
            return shelf

    def close(self, shelf: Shelf) -> None:
        with self._lock:
            shelf.readers -= 1
            if shelf.readers == 0 and not shelf.shared:
                self._clear(shelf)
            self._tidy(shelf)

    def forget(self, key: ObjectKey) -> None:
        """Nobody finds the blocks of this key any more; reads under way still get theirs."""
        with self._lock:
            for shelf in [shelf for version, shelf in self._shelves.items() if version.key == key]:
                self._clear(shelf)
                self._tidy(shelf)

    # --- blocks ---

    def fetch(
        self,
        shelf: Shelf,
        start: int,
        end: int,
        *,
        priority: int,
        on_grid: bool,
        join: bool = False,
        pin: bool = False,
        launch: bool = True,
    ) -> Block | None:
        """The block that begins at `start`, asked for now if need be; it may end before `end` where another begins.

        On the grid `start` is a multiple of UNIT. None when there is no memory to be had without waiting: urgent
        blocks may push out any block nobody waits for, others only spent ones. `join`: the block becomes part of a
        window, the caller owes `leave`; `pin`: it is not given up until the caller says `unpin`. Without `launch`
        the caller owes `launch` if the block has a `target`: nobody else will make the request.
        """
        with self._lock:
            found = shelf.grid.get(start // UNIT) if on_grid else None
            if found is not None:
                self._hold(found, join=join, pin=pin)
                if found.task is not None:
                    self._joined += 1
                    self._workers.hasten(found.task, priority)
                return found
            end = self._clip(shelf, start, end) if on_grid else end
            target = self._memory(end - start, everything=priority == URGENT)
            if target is None:
                return None
            block = self._shelve(shelf, start, end, on_grid=on_grid)
            self._hold(block, join=join, pin=pin)
            block.target = target
        if launch:
            self._submit(block, priority)
        return block

    def launch(self, blocks: Iterable[Block]) -> None:
        """Make the requests of blocks fetched without `launch`; the last on this thread, which will wait anyway."""
        pending = [block for block in blocks if block.target is not None]
        for block in pending[:-1]:
            self._submit(block, URGENT)
        if pending and not self._workers.run_here(partial(self._fetch_pending, pending[-1])):
            self._submit(pending[-1], URGENT)

    def pin(self, block: Block) -> bool:
        """Keep `block` until `unpin`; False when it is gone already."""
        with self._lock:
            if block.gates is None and block.view is None:
                return False
            block.pins += 1
            return True

    def result(self, block: Block) -> memoryview:
        """The bytes of a pinned block, once they are there. Raises what the request raised."""
        with self._lock:
            gate = None
            if block.gates is not None:
                gate = threading.Lock()
                gate.acquire()
                block.gates.append(gate)
        if gate is not None:
            seen = self._workers.succeeded
            while not gate.acquire(timeout=self._patience):
                if seen == self._workers.succeeded:
                    raise _late(block, self._patience)
                seen = self._workers.succeeded
        if block.error is not None:
            raise block.error.with_traceback(None)
        view = block.view
        if view is None:  # pinned blocks stay, except when everything ends
            raise BadHandle(f"{block.shelf.version.key}: the volume is being unmounted")
        return view

    def unpin(self, block: Block) -> None:
        """The read is done. A block that no window wants becomes the most recently used of the spent ones."""
        with self._lock:
            block.pins -= 1
            self._settle(block)
            forgotten = block.target is not None
        if forgotten:  # the read gave up before making the request, but a window wants it
            self._submit(block, URGENT)

    def leave(self, block: Block) -> None:
        """A window no longer wants `block`. When none does, a request not yet begun is not made."""
        with self._lock:
            block.users -= 1
            self._settle(block)

    def demote(self, blocks: Iterable[Block]) -> None:
        """Windows these blocks belong to are not being read: they may go as if they were spent."""
        with self._lock:
            for block in blocks:
                if block in self._ahead:
                    self._unlist(block)
                    self._spent[block] = None
                    self._spent_bytes += block.charge
                    self._settle(block)

    def touch(self, block: Block) -> None:
        """A spent block was read again."""
        with self._lock:
            if block in self._spent:
                self._spent.move_to_end(block)

    def discard(self, block: Block) -> None:
        """Nobody will read `block` again (it is not on the grid): give it up now rather than later."""
        with self._lock:
            block.detached = True
            self._settle(block)

    def shut(self) -> None:
        """Give up every block; what is being fetched is given up when it comes."""
        self._undo_pressure()
        with self._lock:
            for shelf in list(self._shelves.values()):
                self._clear(shelf)
            for block in [*self._ahead, *self._spent]:
                block.detached = True
                if block.pins == 0:
                    self._drop(block)
            self._shelves.clear()

    def statistics(self) -> CacheStatistics:
        with self._lock:
            return CacheStatistics(
                len(self._ahead) + len(self._spent) + self._in_flight,
                self._ahead_bytes,
                self._spent_bytes,
                self._in_flight,
                self._requests,
                self._requested_bytes,
                self._joined,
                self._failed,
                self._evicted,
            )

    # --- requests, on the threads of `workers` ---

    def _submit(self, block: Block, priority: int) -> None:
        target = self._claim(block)
        if target is None:
            return
        task = self._workers.submit(
            partial(self._fetch, block, target), priority=priority, dropped=partial(self._refuse, block)
        )
        with self._lock:
            if block.gates is not None:
                block.task = task

    def _fetch_pending(self, block: Block) -> bool:
        target = self._claim(block)
        return target is None or self._fetch(block, target)

    def _claim(self, block: Block) -> memoryview | None:
        """The memory of a request still to be made, for the one caller who makes it."""
        with self._lock:
            target, block.target = block.target, None
            return target

    def _fetch(self, block: Block, target: memoryview) -> bool:
        version = block.shelf.version
        etag = version.etag or None
        try:
            if block.start == 0 and block.end == version.size:
                _check_size(version, self._store.read_whole(version.key, target, if_match=etag)[1])
            else:
                self._store.read_into(version.key, block.start, target, if_match=etag)
        except OssFuseError as error:
            self._finish(block, None, error)
            return False
        except BaseException as error:
            failure = ServerFailure(f"{version.key}: {type(error).__name__} while reading", key=version.key)
            self._finish(block, None, failure)
            raise
        self._finish(block, target, None)
        return True

    def _refuse(self, block: Block) -> None:
        self._finish(block, None, BadHandle(f"{block.shelf.version.key}: the volume is being unmounted"))

    def _finish(self, block: Block, view: memoryview | None, error: OssFuseError | None) -> None:
        with self._lock:
            self._in_flight -= 1
            self._failed += error is not None
            gates = self._end(block, view=view, error=error)
        for gate in gates:
            gate.release()
        self.pool.ledger.turns.poke()  # what nobody waits for can be given up now

    # --- with the lock held ---

    def _shelve(self, shelf: Shelf, start: int, end: int, *, on_grid: bool) -> Block:
        block = Block(shelf, start, end, on_grid=on_grid)
        if on_grid:
            for index in range(start // UNIT, (end + UNIT - 1) // UNIT):
                shelf.grid[index] = block
        self._in_flight += 1
        self._requests += 1
        self._requested_bytes += end - start
        return block

    def _hold(self, block: Block, *, join: bool, pin: bool) -> None:
        block.pins += pin
        if join:
            block.users += 1
            if block in self._spent:
                self._unlist(block)
                self._list(block)

    def _clip(self, shelf: Shelf, start: int, end: int) -> int:
        for index in range(start // UNIT + 1, (end + UNIT - 1) // UNIT):
            if index in shelf.grid:
                return index * UNIT
        return end

    def _memory(self, size: int, *, everything: bool) -> memoryview | None:
        got = self.pool.try_take(size)
        if got is None and self._evict(charged_size(size), everything=everything):
            got = self.pool.try_take(size)
        return got

    def _end(self, block: Block, *, view: memoryview | None, error: OssFuseError | None) -> list[threading.Lock]:
        gates, block.gates = block.gates or [], None
        block.task = None
        block.error = error
        if view is None:
            self._unshelve(block)
        else:
            block.view = view
            self._list(block)
            self._settle(block)
        return gates

    def _settle(self, block: Block) -> None:
        """Put a block where it belongs after something changed about it."""
        wanted = block.users or block.pins
        if block.gates is not None:
            if not wanted and self._call_off(block):
                self._in_flight -= 1
                self._end(block, view=None, error=None)
            return
        if block.view is None:
            return
        if block.detached and not wanted:
            self._drop(block)
        elif not block.users and block in self._ahead:
            self._unlist(block)
            self._list(block)
        while self._spent_bytes > self._retained:
            oldest = next((spent for spent in self._spent if spent.pins == 0), None)
            if oldest is None:
                break
            self._drop(oldest)
        if self.pool.ledger.contended:
            self.pool.ledger.turns.poke()

    def _call_off(self, block: Block) -> bool:
        """True: the request of `block` had not begun and never will be made."""
        if block.target is not None:
            block.target = None
            return True
        return block.task is not None and self._workers.cancel(block.task)

    def _list(self, block: Block) -> None:
        if block.users:
            self._ahead[block] = None
            self._ahead_bytes += block.charge
        else:
            self._spent[block] = None
            self._spent_bytes += block.charge

    def _unlist(self, block: Block) -> None:
        if block in self._ahead:
            del self._ahead[block]
            self._ahead_bytes -= block.charge
        elif block in self._spent:
            del self._spent[block]
            self._spent_bytes -= block.charge

    def _drop(self, block: Block) -> None:
        self._unlist(block)
        self._unshelve(block)
        block.view = None

    def _unshelve(self, block: Block) -> None:
        if block.on_grid:
            grid = block.shelf.grid
            for index in range(block.start // UNIT, (block.end + UNIT - 1) // UNIT):
                if grid.get(index) is block:
                    del grid[index]
            self._tidy(block.shelf)

    def _clear(self, shelf: Shelf) -> None:
        for block in dict.fromkeys(shelf.grid.values()):
            block.detached = True
            if block.view is None or block.pins:
                self._unshelve(block)
            else:
                self._drop(block)

    def _tidy(self, shelf: Shelf) -> None:
        if shelf.readers == 0 and not shelf.grid and self._shelves.get(shelf.version) is shelf:
            del self._shelves[shelf.version]

    def _evict(self, size: int, *, everything: bool) -> int:
        given = 0
        for blocks in (self._spent, self._ahead) if everything else (self._spent,):
            victims = []
            for block in blocks:
                if given >= size:
                    break
                if block.pins == 0:
                    given += block.charge
                    victims.append(block)
            for block in victims:
                self._drop(block)
            self._evicted += len(victims)
        return given

    def _shrink(self, size: int) -> int:
        with self._lock:
            return self._evict(size, everything=True)


def _check_size(version: ObjectVersion, size: int) -> None:
    if size != version.size:
        raise PreconditionFailed(
            f"{version.key}: {size} bytes where {version.size} were listed",
            status=412,
            operation="GetObject",
            key=version.key,
            hint="the object was replaced; open the file again",
        )


def _late(block: Block, patience: Seconds) -> DeadlineExceeded:
    key = block.shelf.version.key
    return DeadlineExceeded(
        f"{key}: bytes {block.start}-{block.end - 1} did not arrive within {patience:g} s",
        operation="GetObject",
        key=key,
        hint="the endpoint does not answer; the log has the requests that failed",
    )
