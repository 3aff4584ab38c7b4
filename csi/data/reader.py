"""One open file being read: finds the pattern of its reads and keeps the right blocks coming.

Promises: a read is never short before the end of the object, never mixes two versions, returns a slice of a block
without copying when the range lies in one, and always makes progress however little memory there is. What it fetches:

- an object no larger than a megabyte: all of it, by one request, whatever was asked;
- at the start of a larger one: `first` bytes, so that the first byte is early; then, read on, a window that doubles
  with every byte read (`window.py`), in requests of up to the read-ahead size;
- anywhere else: what was asked for, rounded to 16 KiB (not at all with `exact`), until reads follow one another;
- when there is no memory for blocks: exactly what was asked for, into memory it waits for in turn, holding nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from csi.data.blocks import BlockCache
from csi.data.buffers import charged_size, floor_power
from csi.data.shelves import UNIT, Block
from csi.data.window import Cursor, Streams
from csi.data.workers import URGENT
from csi.errors import BadHandle, DeadlineExceeded
from csi.oss.store import Buffer, ObjectStore, ObjectVersion
from csi.volume.units import KIB, MIB, Seconds

WHOLE = 1 * MIB
"""Objects up to this size are fetched by one request."""

_ALIGNMENT = 16 * KIB
_MOST_CURSORS = 32
_LARGEST_PIECE = 1 * MIB


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Sizes in bytes, all powers of two: `first` request, largest request (`chunk`), `reach` a window begins with and
    `largest` it may grow to (these two need not be powers of two)."""

    first: int
    chunk: int
    reach: int
    largest: int


class BlockReader:
    """A `Reader` (csi/data/streams.py).

    `_lock` guards the cursors; it comes before the cache's lock and is never held across a request or a wait.
    """

    def __init__(
        self,
        version: ObjectVersion,
        store: ObjectStore,
        cache: BlockCache,
        streams: Streams,
        plan: ReadPlan,
        *,
        exact: bool,
        patience: Seconds,
        clock: Callable[[], float],
        closed: Callable[[BlockReader], None],
    ) -> None:
        self._version = version
        self._size = int(version.size)
        self._store = store
        self._cache = cache
        self._streams = streams
        self._plan = plan
        self._exact = exact
        self._patience = patience
        self._clock = clock
        self._on_close = closed
        self._shelf = cache.open(version)
        self._grid = self._shelf.grid
        self._lock = threading.Lock()
        self._cursors: list[Cursor] = []  # most recently used last
        self._open = True

    @property
    def version(self) -> ObjectVersion:
        return self._version

    def try_read(self, offset: int, size: int) -> Buffer | None:
        end = min(offset + size, self._size)
        if offset >= end:
            return b""
        found = self._present(offset, end)
        if found is None:
            with self._lock:
                self._begin(offset, min(end, offset + _LARGEST_PIECE), None)
        return found

    def read(self, offset: int, size: int) -> Buffer:
        end = min(offset + size, self._size)
        if offset >= end:
            return b""
        found = self._present(offset, end)
        if found is not None:
            return found
        if end - offset > _LARGEST_PIECE:
            return self._read_large(offset, end)
        blocks: list[Block] = []
        try:
            with self._lock:
                covered = self._begin(offset, end, blocks)
            if covered:
                self._cache.launch(blocks)
                return self._collect(blocks, offset, end)
        finally:
            for block in blocks:
                self._cache.unpin(block)
        return self._read_directly(offset, end)

    def close(self) -> None:
        with self._lock:
            if not self._open:
                return
            self._open = False
            for cursor in self._cursors:
                self._retire(cursor)
            self._cursors.clear()
        self._cache.close(self._shelf)
        self._on_close(self)

    # --- what is there already ---

    def _present(self, offset: int, end: int) -> Buffer | None:
        if not self._open:
            raise BadHandle(f"{self._version.key}: read after close")
        block = self._grid.get(offset // UNIT)
        if block is None:
            return self._present_off_grid(offset, end)
        view = block.view
        if view is None:
            return None
        found: Buffer
        if end <= block.end:
            found = view[offset - block.start : end - block.start]
        else:
            pieces = [view[offset - block.start :]]
            position = block.end
            while position < end:
                following = self._grid.get(position // UNIT)
                if following is None or (view := following.view) is None:
                    return None
                pieces.append(view[: end - position])
                position = following.end
            found = b"".join(pieces)
        self._note(offset, end, block)
        return found

    def _present_off_grid(self, offset: int, end: int) -> Buffer | None:
        for cursor in reversed(self._cursors):
            block = cursor.private
            if block is not None and block.start <= offset and end <= block.end:
                view = block.view
                if view is None:
                    return None
                found = view[offset - block.start : end - block.start]
                self._note(offset, end, block)
                return found
        return None

    def _note(self, offset: int, end: int, block: Block | None) -> None:
        """Bytes were read (from `block`, if they were in one): move the window along."""
        if self._size > WHOLE:
            with self._lock:
                if self._open:
                    self._follow(offset, end)
        if block is not None and not block.users:
            self._cache.touch(block)

    def _follow(self, offset: int, end: int) -> None:
        cursor = self._cursor(offset, end)
        cursor.advance(offset, end, self._clock())
        while cursor.blocks and cursor.blocks[0].end <= cursor.position:
            self._cache.leave(cursor.blocks.popleft())
        if cursor.sequential:
            self._extend(cursor)

    # --- what is not: with the lock held ---

    def _begin(self, offset: int, end: int, pinned: list[Block] | None) -> bool:
        """Ask for whatever of the range is missing; False when there is no memory for it now.

        With `pinned`, the blocks that cover the range are pinned and added to it, and the requests are not made yet.
        """
        if not self._open:
            raise BadHandle(f"{self._version.key}: read after close")
        cursor = self._cursor(offset, end)
        cursor.stalled(self._plan.largest)
        position = offset
        while position < end:
            block = self._begin_block(cursor, position, end, pin=pinned is not None)
            if block is None:
                return False
            if pinned is not None:
                pinned.append(block)
            position = block.end
        if cursor.sequential:
            self._extend(cursor)
        return True

    def _begin_block(self, cursor: Cursor, position: int, end: int, *, pin: bool) -> Block | None:
        found = self._grid.get(position // UNIT)
        if found is None:
            private = cursor.private
            if private is not None and private.start <= position < private.end:
                if not pin or self._cache.pin(private):
                    return private
                cursor.private = None
            if not self._on_grid(cursor, position):
                return self._begin_private(cursor, position, end, pin=pin)
            self._restart(cursor, position)
            start, stop = self._demand(cursor, position, end)
        else:
            start, stop = found.start, found.end
        join = self._size > WHOLE and not self._exact and found not in cursor.blocks
        block = self._cache.fetch(
            self._shelf, start, stop, priority=URGENT, on_grid=True, join=join, pin=pin, launch=not pin
        )
        if block is not None and join:
            if cursor.blocks and block.start < cursor.blocks[-1].start:
                cursor.blocks.appendleft(block)
            else:
                cursor.blocks.append(block)
            cursor.frontier = max(cursor.frontier, block.end)
        return block

    def _on_grid(self, cursor: Cursor, position: int) -> bool:
        if self._exact:
            return False
        return self._size <= WHOLE or position < UNIT or cursor.sequential

    def _demand(self, cursor: Cursor, position: int, end: int) -> tuple[int, int]:
        """The range on the grid to ask for when somebody waits for `position`..`end`."""
        if self._size <= WHOLE:
            return 0, self._size
        start = position - position % UNIT
        first = self._plan.first
        size = first if start == 0 else min(first, floor_power(max(cursor.run, UNIT)))
        size = max(size, min(self._plan.chunk, floor_power(end - start)))
        return start, min(start + size, self._size)

    def _begin_private(self, cursor: Cursor, position: int, end: int, *, pin: bool) -> Block | None:
        start, stop = position, end
        if not self._exact:
            start -= start % _ALIGNMENT
            stop = min(stop + -stop % _ALIGNMENT, self._size)
            if charged_size(stop - start) > charged_size(end - position):
                start, stop = position, end
        block = self._cache.fetch(self._shelf, start, stop, priority=URGENT, on_grid=False, pin=pin, launch=not pin)
        if block is not None:
            if cursor.private is not None:
                self._cache.discard(cursor.private)
            cursor.private = block
        return block

    def _restart(self, cursor: Cursor, position: int) -> None:
        """The window has a hole here (it was given up for others, or never reached this far): build it anew."""
        if cursor.position <= position < cursor.frontier:
            self._leave_all(cursor)
            cursor.frontier = position

    def _extend(self, cursor: Cursor) -> None:
        """Ask for more ahead of a sequential cursor, as far as its run, its reach and the memory allow."""
        plan = self._plan
        if self._exact or cursor.frontier >= self._size:
            return
        floor = plan.first if cursor.position <= WHOLE else UNIT
        want = min(cursor.reach, max(cursor.run, floor))
        if cursor.frontier >= cursor.position + want:
            if want == cursor.reach and cursor.blocks and cursor.blocks[-1].view is not None:
                cursor.ran_full = True
            return
        share, idle = self._streams.share(cursor, self._clock())
        for other in idle:
            self._cache.demote(list(other.blocks))
        want = min(want, share)
        chunk = min(plan.chunk, floor_power(max(want // 2, min(want, plan.first), 1)))
        if chunk < UNIT:
            return
        target = min(cursor.position + want, self._size)
        cursor.frontier = max(cursor.frontier, cursor.position)
        while cursor.frontier < target:
            start = cursor.frontier - cursor.frontier % UNIT
            distance = 1 + (start - cursor.position) // UNIT
            stop = min(start + chunk, self._size)
            block = self._cache.fetch(
                self._shelf, start, stop, priority=max(distance, 1), on_grid=True, join=True, pin=False
            )
            if block is None:
                return
            cursor.blocks.append(block)
            cursor.frontier = block.end

    def _cursor(self, offset: int, end: int) -> Cursor:
        """The stream a read belongs to; a new one when it belongs to none."""
        cursors = self._cursors
        for cursor in reversed(cursors):
            private = cursor.private
            if (
                private is not None and private.start <= offset and end <= private.end
                if self._exact
                else cursor.follows(offset)
            ):
                if cursor is not cursors[-1]:
                    cursors.remove(cursor)
                    cursors.append(cursor)
                return cursor
        if len(cursors) >= _MOST_CURSORS:
            self._retire(cursors.pop(0))
        cursor = Cursor(offset, self._plan.reach, self._clock())
        cursors.append(cursor)
        return cursor

    def _retire(self, cursor: Cursor) -> None:
        self._streams.remove(cursor)
        self._leave_all(cursor)
        if cursor.private is not None:
            self._cache.discard(cursor.private)

    def _leave_all(self, cursor: Cursor) -> None:
        while cursor.blocks:
            self._cache.leave(cursor.blocks.pop())

    # --- waiting, without the lock ---

    def _collect(self, blocks: list[Block], offset: int, end: int) -> Buffer:
        pieces = []
        position = offset
        for block in blocks:
            view = self._cache.result(block)
            pieces.append(view[position - block.start : min(end, block.end) - block.start])
            position = block.end
        self._note(offset, end, blocks[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_directly(self, offset: int, end: int) -> Buffer:
        """Exactly what was asked for, into memory of its own; nothing is held while waiting for it."""
        version = self._version
        target = self._cache.pool.take(end - offset, self._patience)
        if target is None:
            raise DeadlineExceeded(
                f"{version.key}: no memory for {end - offset} bytes came free within {self._patience:g} s",
                operation="GetObject",
                key=version.key,
                hint="raise fs.jindo.fuse.pod.mem.limit",
            )
        self._store.read_into(version.key, offset, target, if_match=version.etag or None)
        self._note(offset, end, None)
        return target

    def _read_large(self, offset: int, end: int) -> Buffer:
        """More than a request of the kernel: the memory is the caller's own, filled piece by piece."""
        if not self._exact:
            with self._lock:
                cursor = self._cursor(offset, end)
                cursor.hits = max(cursor.hits, 2)
                cursor.run = max(cursor.run, end - offset)  # it is known that all of this will be read
        result = bytearray(end - offset)
        for position in range(offset, end, _LARGEST_PIECE):
            piece = self.read(position, min(_LARGEST_PIECE, end - position))
            result[position - offset : position - offset + len(piece)] = piece
        return result
