"""What to ask for: follows the streams of reads of one open file and keeps the right blocks coming.

- An object no larger than a megabyte: all of it, by one request, whatever is read.
- At the start of a larger one: `first` bytes, so that the first byte is early, and more if that makes it hardly later;
  then, read on, a window that grows with every byte read (`window`), in requests of up to the read-ahead size, or
  larger ones where the store is far.
- Anywhere else: what is read, rounded to 8 KiB (not at all when `exact`), until reads follow one another; and where
  they are at equal distances, the next ones (`stride`).

Every method is called with the reader's lock held. Never waits, and never makes a request on the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from csi.data.blocks import BlockCache
from csi.data.buffers import charged_size, floor_power
from csi.data.shelves import UNIT, Block, Shelf
from csi.data.stride import Stride, rounded
from csi.data.window import FAR, Cursor, Streams
from csi.data.workers import URGENT
from csi.volume.units import MIB

WHOLE = 1 * MIB
"""Objects up to this size are fetched by one request."""

_SCATTERED = 16
"""Reads one after another that belong to no stream: those that follow will not either."""

_HARDLY = 1.5
"""A request that takes so many times as long as a smaller one takes hardly longer."""

_ENOUGH = 512 * MIB
"""Bytes a second of one connection that need no other beside it: more requests would only be more work."""

_MOST_CURSORS = 32
_LOOKED_AT = 4
_STEPS = 8  # how many times on its length a window is moved along


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Sizes in bytes, all powers of two: `first` request, largest request (`chunk`) and largest to a store that is far
    (`widest`), `reach` a window begins with and `largest` it may grow to (these two need not be powers of two)."""

    first: int
    chunk: int
    widest: int
    reach: int
    largest: int


class Pattern:
    """The cursors of one reader, and the blocks they want."""

    def __init__(
        self,
        shelf: Shelf,
        cache: BlockCache,
        streams: Streams,
        plan: ReadPlan,
        *,
        exact: bool,
        clock: Callable[[], float],
    ) -> None:
        self._shelf = shelf
        self._grid = shelf.grid
        self._size = int(shelf.version.size)
        self._cache = cache
        self._streams = streams
        self._plan = plan
        self._exact = exact
        self._clock = clock
        self._cursors: list[Cursor] = []  # most recently used last
        self._stride = Stride(shelf, cache, streams)
        self._strays = 0  # reads that belonged to no stream, since the last that did

    @property
    def scattered(self) -> bool:
        """See `csi.data.streams.Reader`."""
        return self._strays >= _SCATTERED and not self._stride.is_steady

    def off_grid(self) -> Iterator[Block]:
        """The latest blocks that only this reader knows. May be called without the lock: a block missed is a block
        asked for again."""
        for cursor in self._cursors[: -_LOOKED_AT - 1 : -1]:
            if (block := cursor.private) is not None:
                yield block
        yield from self._stride.ahead

    def read(self, offset: int, end: int) -> int:
        """These bytes were read: move the window along. Returns where it has to be moved next; 0: there is none."""
        notice = self._move(self._cursor(offset, end), offset, end)
        self._stride.extend()
        return notice

    def reached(self, offset: int, end: int) -> int:
        """All that is there up to these bytes was read, which is told late: as `read`, but nothing new begins here."""
        for cursor in reversed(self._cursors):
            if cursor.low <= offset <= cursor.high:
                return self._move(cursor, min(offset, cursor.position), end)
        return 0

    def _move(self, cursor: Cursor, offset: int, end: int) -> int:
        cursor.advance(offset, end, self._clock())
        while cursor.blocks and cursor.blocks[0].end <= cursor.position:
            self._cache.leave(cursor.blocks.popleft())
        if not cursor.goes_on or self._exact:
            return 0
        self._strays = 0
        self._extend(cursor)
        return cursor.position + max(UNIT, min(cursor.run, cursor.reach) // _STEPS)

    def begin(self, offset: int, end: int, pinned: list[Block]) -> bool:
        """Find the blocks that cover the range, pin them and add them to `pinned`; the requests of those that are new
        are not made yet. False when there is no memory for them now.
        """
        cursor = self._cursor(offset, end)
        cursor.stalled(self._plan.largest)
        position = offset
        while position < end:
            block = self._begin_block(cursor, position, end)
            if block is None:
                return False
            pinned.append(block)
            position = block.end
        if cursor.promises(offset, end):
            self._extend(cursor, end - offset)
        elif cursor.goes_on:
            self._extend(cursor)
        self._stride.extend()
        return True

    def expect(self, offset: int, end: int) -> None:
        """It is known that all of this will be read in order."""
        if not self._exact:
            cursor = self._cursor(offset, end)
            cursor.hits = max(cursor.hits, 2)
            cursor.bound()
            cursor.run = max(cursor.run, end - offset)

    def close(self) -> None:
        self._stride.close()
        for cursor in self._cursors:
            self._retire(cursor)
        self._cursors.clear()

    def _begin_block(self, cursor: Cursor, position: int, end: int) -> Block | None:
        """The block that holds `position`, pinned; None when there is no memory."""
        found = self._grid.get(position // UNIT)
        if found is None:
            private = cursor.private
            if private is not None and private.start <= position < private.end:
                if self._cache.pin(private):
                    return private
                cursor.private = None
            if not self._on_grid(cursor, position):
                return self._begin_private(cursor, position, end)
            self._restart(cursor, position)
        start, stop = self._demand(cursor, position, end)
        join = self._size > WHOLE and not self._exact and found not in cursor.blocks
        block = self._cache.fetch(
            self._shelf, start, stop, priority=URGENT, on_grid=True, join=join, pin=True, launch=False
        )
        if block is not None and join:
            if cursor.blocks and block.start < cursor.blocks[-1].start:
                cursor.blocks.appendleft(block)
            else:
                cursor.blocks.append(block)
            cursor.frontier = max(cursor.frontier, block.end)
            cursor.bound()
            self._share(cursor)
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
        size = self._opening(cursor, position, end) if start == 0 else min(first, floor_power(max(cursor.run, UNIT)))
        size = max(size, min(self._plan.chunk, floor_power(end - start)))
        return start, min(start + size, self._size)

    def _opening(self, cursor: Cursor, position: int, end: int) -> int:
        """How much the first request of a file is for: of one that is read through, as much as takes hardly longer, and
        a little more where that is all there is."""
        size = first = self._plan.first
        if not cursor.promises(position, end):
            return first
        pace, share = self._cache.pace, self._share(cursor)
        quickest = pace.quickest(first)
        most = min(self._plan.chunk, cursor.wanted(first, quickest, end - position), share)
        while size * 2 <= most and pace.expected(size * 2) <= quickest * _HARDLY:
            size *= 2
        is_nearly_all = first < size < self._size <= size + size // 4
        return self._size if is_nearly_all and charged_size(self._size) <= share else size

    def _begin_private(self, cursor: Cursor, position: int, end: int) -> Block | None:
        start, stop = position, end
        if not self._exact:
            start, stop = rounded(start, stop, self._size)
        block = self._cache.fetch(self._shelf, start, stop, priority=URGENT, on_grid=False, pin=True, launch=False)
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
            cursor.bound()

    def _extend(self, cursor: Cursor, coming: int = 0) -> None:
        """Ask for more ahead of a sequential cursor, as far as its run, its reach and the memory allow. `coming` bytes
        are being read."""
        plan = self._plan
        if self._exact or cursor.frontier >= self._size:
            return
        floor = plan.first if cursor.hits and cursor.position <= WHOLE else UNIT
        want = cursor.wanted(floor, self._cache.pace.quickest(plan.first), coming)
        position = cursor.position + coming
        if cursor.frontier >= position + want:
            if want == cursor.reach and cursor.blocks and cursor.blocks[-1].view is not None:
                cursor.filled()
            return
        cursor.resumed()
        want = min(want, self._share(cursor))
        chunk = self._request_size(want)
        cursor.judge(self._cache.pace.quickest(chunk), plan.largest)
        if chunk < UNIT:
            return
        target = min(position + want, self._size)
        cursor.frontier = max(cursor.frontier, position)
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
            cursor.bound()

    def _request_size(self, want: int) -> int:
        """In which pieces to ask for a window of `want` bytes. One request does for two if it takes so little time that
        a second one costs more than it gains, or hardly longer. Beyond the usual size, where the window holds two of
        them: of a store that is far, which is made no use of by many small ones, since only so many are made at a time;
        and of one that is so fast that a second connection gains nothing."""
        plan, pace = self._plan, self._cache.pace
        size = min(plan.chunk, floor_power(max(want // 2, min(want, plan.first), 1)))
        while size * 2 <= (want if size < plan.chunk else min(want // 2, plan.widest)):
            took, longer = pace.quickest(size), pace.expected(size * 2)
            is_hardly_longer = longer <= took * _HARDLY
            if size < plan.chunk:
                is_better = is_hardly_longer or longer <= FAR
            else:
                is_better = (is_hardly_longer and took >= FAR) or longer * _ENOUGH <= size * 2
            if not is_better:
                break
            size *= 2
        return size

    def _share(self, cursor: Cursor) -> int:
        """Bytes this cursor may keep ahead; the windows of those that are not being read are given up for it."""
        share, idle = self._streams.share(cursor, self._clock())
        for other in idle:
            self._cache.demote(list(other.blocks))
        return share

    def _cursor(self, offset: int, end: int) -> Cursor:
        """The stream a read belongs to; a new one when it belongs to none."""
        cursors = self._cursors
        for cursor in reversed(cursors):
            if _holds(cursor.private, offset, end) if self._exact else cursor.low <= offset <= cursor.high:
                if cursor is not cursors[-1]:
                    cursors.remove(cursor)
                    cursors.append(cursor)
                if offset > cursor.position and not self._exact:
                    self._stride.skipped(cursor, offset, end)
                return cursor
        if len(cursors) >= _MOST_CURSORS:
            self._retire(cursors.pop(0))
        cursor = Cursor(offset, end, self._plan.reach, self._clock())
        cursors.append(cursor)
        self._strays += 1
        if not self._exact:
            self._stride.jumped(cursor, offset, end)
        return cursor

    def _retire(self, cursor: Cursor) -> None:
        self._streams.remove(cursor)
        self._leave_all(cursor)
        if cursor.private is not None:
            self._cache.discard(cursor.private)

    def _leave_all(self, cursor: Cursor) -> None:
        while cursor.blocks:
            self._cache.leave(cursor.blocks.pop())


def _holds(block: Block | None, offset: int, end: int) -> bool:
    return block is not None and block.start <= offset and end <= block.end
