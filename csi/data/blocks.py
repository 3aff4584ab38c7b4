"""Blocks on their way: one request per block however many readers want it, one lock for all that is known of blocks.

Promises: concurrent readers of one block wait for one request; every request carries If-Match, so two versions are
never mixed; a failure is told to all who wait for that block and is not remembered; a pinned block is not given up, and
any other is when memory is needed. Must not know why a block is wanted: windows and patterns are the business of
`reader` and `window`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from csi.data.buffers import BufferPool, charged_size
from csi.data.flights import Flight, Flights, FlightStatistics
from csi.data.kept import KeptBlocks
from csi.data.pace import Pace
from csi.data.shelves import UNIT, Block, Shelf, Shelves
from csi.data.streams import BlockTable
from csi.data.workers import URGENT, WorkerPool
from csi.errors import BadHandle, DeadlineExceeded, OssFuseError, ServerFailure
from csi.oss.cancellation import Cancellation
from csi.oss.store import ObjectStore, ObjectVersion
from csi.volume.units import ObjectKey, Seconds


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Blocks and bytes (as charged) by state; requests made, joined and failed, bytes asked for and blocks given up so
    far; `flights` are the requests themselves."""

    blocks: int
    ahead_bytes: int
    spent_bytes: int
    in_flight: int
    requests: int
    requested_bytes: int
    joined: int
    failed: int
    evicted: int
    flights: FlightStatistics


class BlockCache:
    """`_lock` guards blocks, shelves and counters. It is taken after a reader's lock and before those of the pool and
    the workers, and never held across a request."""

    def __init__(
        self,
        store: ObjectStore,
        pool: BufferPool,
        workers: WorkerPool,
        *,
        retained: int,
        patience: Seconds,
        clock: Callable[[], float],
        published: BlockTable | None = None,
        kept: KeptBlocks | None = None,
    ) -> None:
        """`retained`: how many bytes of spent blocks are kept; `patience`: how long `result` waits while no request at
        all succeeds; `kept`: what is asked before the store, and told what the store answered."""
        self.pool = pool
        self.pace = Pace()
        self._flights = Flights(self.pace, self._fetch_again, clock=clock)
        self._store = store
        self._kept = kept
        self._workers = workers
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._shelves = Shelves(retained=retained, published=published)
        self._in_flight = 0
        self._requests = 0
        self._requested_bytes = 0
        self._joined = 0
        self._failed = 0
        self._undo_pressure = pool.ledger.on_pressure(self._shrink)

    # --- versions ---

    def open(self, version: ObjectVersion) -> Shelf:
        with self._lock:
            return self._shelves.open(version)

    def close(self, shelf: Shelf) -> None:
        with self._lock:
            self._shelves.close(shelf)

    def show(self, shelf: Shelf) -> int | None:
        """Publish the blocks of this version until `conceal`: by which number; None if there is nothing to publish
        to."""
        with self._lock:
            return self._shelves.show(shelf)

    def conceal(self, shelf: Shelf) -> None:
        with self._lock:
            self._shelves.conceal(shelf)

    def file(self, shelf: Shelf) -> tuple[int, int] | None:
        """A descriptor of a local file that is this version, and the version's number."""
        descriptor = self._kept.whole(shelf.version) if self._kept is not None else None
        return None if descriptor is None else (descriptor, shelf.content)

    def forget(self, key: ObjectKey) -> None:
        """Nobody finds the blocks of this key any more; reads under way still get theirs."""
        with self._lock:
            self._shelves.forget(key)

    # --- whole objects ---

    def keep(self, version: ObjectVersion, pieces: Sequence[memoryview]) -> None:
        """`pieces` are all of an object no larger than a block, which was made just now. Blocks of what had its key
        are not found any more. Nothing is kept while memory is short."""
        with self._lock:
            self._shelves.forget(version.key)
        view = self.pool.try_take(version.size) if version.size else None
        if view is None:
            return
        end = 0
        for piece in pieces:
            view[end : end + len(piece)] = piece
            end += len(piece)
        with self._lock:
            shelf = self._shelves.open(version)
            if not shelf.grid:
                block = Block(shelf, 0, end, on_grid=True)
                self._shelves.place(block)
                self._end(block, view=view, error=None)
            self._shelves.close(shelf)

    def copy(self, version: ObjectVersion, target: memoryview) -> bool:
        """Put all of a small object into `target`, which has its size; False: it is not here."""
        with self._lock:
            shelf = self._shelves.open(version)
            block = shelf.grid.get(0)
            view = block.view if block is not None else None
            self._shelves.close(shelf)
        if view is None or len(view) != len(target):
            return False
        target[:] = view
        return True

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
            end = self._shelves.clip(shelf, start, end) if on_grid else end
            target = self._memory(end - start, ahead=priority == URGENT)
            if target is None:
                return None
            block = Block(shelf, start, end, on_grid=on_grid)
            block.target = target
            self._hold(block, join=join, pin=pin)
            self._shelves.place(block)
            self._in_flight += 1
            self._requests += 1
            self._requested_bytes += end - start
        if launch:
            self._submit(block, priority)
        return block

    def launch(self, blocks: Iterable[Block]) -> None:
        """Make the requests of blocks fetched without `launch`; the last on this thread, which will wait anyway."""
        pending = [block for block in blocks if block.target is not None]
        for block in pending[:-1]:
            self._submit(block, URGENT)
        if not pending:
            return
        target = self._claim(pending[-1])
        if target is not None:
            self._fetch_here(pending[-1], target)

    def prefetch(self, version: ObjectVersion, *, priority: int) -> bool:
        """Fetch all of a small object that somebody will probably read; False when there is no free memory."""
        with self._lock:
            shelf = self._shelves.open(version)
        block = self.fetch(shelf, 0, version.size, priority=priority, on_grid=True)
        with self._lock:
            self._shelves.close(shelf)
        return block is not None

    def whole(self, shelf: Shelf) -> memoryview | None:
        """All of an object no larger than a block: there already, waited for, or fetched on this thread; None when
        there is no memory to be had without waiting. Raises what the request raised."""
        size = shelf.version.size
        with self._lock:
            block = shelf.grid.get(0)
            if block is None:
                target = self._memory(size, ahead=True)
                if target is None:
                    return None
                block = Block(shelf, 0, size, on_grid=True)
                block.pins = 1
                self._shelves.place(block)
                self._in_flight += 1
                self._requests += 1
                self._requested_bytes += size
            elif block.view is not None:
                self._shelves.touch(block)
                return block.view
            else:
                target = None
                block.pins += 1
                self._joined += 1
                if block.task is not None:
                    self._workers.hasten(block.task, URGENT)
        try:
            if target is not None:
                self._fetch_here(block, target)
            return self.result(block)
        finally:
            self.unpin(block)

    def pin(self, block: Block) -> bool:
        """Keep `block` until `unpin`; False when it is gone already."""
        with self._lock:
            if block.gates is None and block.view is None:
                return False
            block.pins += 1
            return True

    def result(self, block: Block) -> memoryview:
        """The bytes of a pinned block, once they are there; a request not yet begun is made on this thread, which would
        wait anyway. Raises what the request raised."""
        if block.target is not None:
            target = self._claim(block)
            if target is not None:
                self._fetch_here(block, target)
        gate = None
        if block.gates is not None:
            with self._lock:
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
            forgotten = block.target is not None and block.task is None
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
                self._shelves.demote(block)

    def touch(self, block: Block) -> None:
        """A spent block was read again."""
        with self._lock:
            self._shelves.touch(block)

    def discard(self, block: Block) -> None:
        """Nobody will read `block` again (it is not on the grid): give it up now rather than later."""
        with self._lock:
            block.detached = True
            self._settle(block)

    def shut(self) -> None:
        """Give up every block; what is being fetched is given up when it comes."""
        self._undo_pressure()
        self._flights.close()
        with self._lock:
            self._shelves.clear()

    def statistics(self) -> CacheStatistics:
        with self._lock:
            shelves = self._shelves
            return CacheStatistics(
                len(shelves) + self._in_flight,
                shelves.ahead_bytes,
                shelves.spent_bytes,
                self._in_flight,
                self._requests,
                self._requested_bytes,
                self._joined,
                self._failed,
                shelves.evicted,
                self._flights.statistics(),
            )

    # --- requests, on the threads of `workers` ---

    def _submit(self, block: Block, priority: int) -> None:
        task = self._workers.submit(
            partial(self._fetch_claimed, block), priority=priority, dropped=partial(self._refuse, block)
        )
        with self._lock:
            if block.gates is not None:
                block.task = task

    def _fetch_claimed(self, block: Block) -> bool:
        target = self._claim(block)
        return target is None or self._fetch(block, target)

    def _fetch_here(self, block: Block, target: memoryview) -> None:
        if not self._workers.begin_here():
            self._refuse(block)
            return
        succeeded = False
        try:
            succeeded = self._fetch(block, target)
        finally:
            self._workers.end_here(succeeded=succeeded)

    def _claim(self, block: Block) -> memoryview | None:
        """The memory of a request still to be made, for the one caller who makes it."""
        with self._lock:
            target, block.target = block.target, None
            if target is not None and block.task is not None:
                self._workers.cancel(block.task)
                block.task = None
            return target

    def _fetch(self, block: Block, target: memoryview) -> bool:
        """Make the request of `block`; True if it has its bytes, these or those of a second request."""
        version = block.shelf.version
        have = self._kept.fill(version, block.start, target) if self._kept is not None else 0
        if have == len(target):
            self._finish(block, target, None)
            return True
        flight = self._flights.begin(block)
        try:
            self._store.fill(version, block.start + have, target[have:], cancellation=flight)
        except OssFuseError as error:
            return not self._finish(block, None, error.without_frames(), flight)
        except BaseException as error:
            failure = ServerFailure(f"{version.key}: {type(error).__name__} while reading", key=version.key)
            self._finish(block, None, failure, flight)
            raise
        self.pace.note(len(target) - have, self._clock() - flight.began)
        self._finish(block, target, None, flight)
        return True

    def _fetch_again(self, flight: Flight, second: Cancellation) -> None:
        """Make the request of a block a second time, and end the first if this is quicker."""
        block = flight.block
        if block.gates is None or not block.shelf.version.etag:
            return
        target = self.pool.try_take(flight.size)
        if target is None:
            return
        try:
            self._store.fill(block.shelf.version, block.start, target, cancellation=second)
        except OssFuseError:
            return  # it is the first one's to tell what is wrong
        if self._finish(block, target, None, flight):
            flight.request()

    def _refuse(self, block: Block) -> None:
        self._finish(block, None, BadHandle(f"{block.shelf.version.key}: the volume is being unmounted"))

    def _finish(
        self, block: Block, view: memoryview | None, error: OssFuseError | None, flight: Flight | None = None
    ) -> bool:
        """The request of `block` has ended; False if it had before, by another one for the same bytes."""
        if flight is not None:
            self._flights.end(flight)
        with self._lock:
            if block.gates is None:
                return False
            self._in_flight -= 1
            self._failed += error is not None
            gates = self._end(block, view=view, error=error)
        if flight is not None and flight.second is not None:
            flight.second.request()
        for gate in gates:
            gate.release()
        self.pool.ledger.turns.poke()  # what nobody waits for can be given up now
        if self._kept is not None and flight is not None and view is not None:
            self._kept.offer(block.shelf.version, block.start, view)
        return True

    # --- with the lock held ---

    def _hold(self, block: Block, *, join: bool, pin: bool) -> None:
        block.pins += pin
        block.users += join
        if block.view is not None:
            self._shelves.arrange(block)

    def _memory(self, size: int, *, ahead: bool) -> memoryview | None:
        got = self.pool.try_take(size)
        if got is None and self._shelves.evict(charged_size(size), ahead=ahead):
            got = self.pool.try_take(size)
        return got

    def _end(self, block: Block, *, view: memoryview | None, error: OssFuseError | None) -> list[threading.Lock]:
        gates, block.task = block.gates or [], None
        block.error, block.view = error, view
        block.gates = None  # the last of these: whoever finds it so looks at the others without the lock
        if view is None:
            self._shelves.remove(block)
        else:
            self._shelves.publish(block)
            self._shelves.arrange(block)
        return gates

    def _settle(self, block: Block) -> None:
        """Fewer want this block than before."""
        if block.view is not None:
            self._shelves.arrange(block)
            if self.pool.ledger.contended:
                self.pool.ledger.turns.poke()
        elif block.gates is not None and not block.users and not block.pins and self._call_off(block):
            self._in_flight -= 1
            self._end(block, view=None, error=None)

    def _call_off(self, block: Block) -> bool:
        """True: the request of `block` had not begun and never will be made."""
        if block.target is None:
            return False
        block.target = None
        if block.task is not None:
            self._workers.cancel(block.task)
            block.task = None
        return True

    def _shrink(self, size: int) -> int:
        with self._lock:
            return self._shelves.evict(size, ahead=True)


def _late(block: Block, patience: Seconds) -> DeadlineExceeded:
    key = block.shelf.version.key
    return DeadlineExceeded(
        f"{key}: bytes {block.start}-{block.end - 1} did not arrive within {patience:g} s",
        operation="GetObject",
        key=key,
        hint="the endpoint does not answer; the log has the requests that failed",
    )
