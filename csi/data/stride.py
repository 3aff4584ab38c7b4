"""Jumps of one length: columns of a matrix, every tenth record. The next ones are fetched before they are read.

Two equal jumps in a row are a stride. From then on records are fetched ahead, never more of them than jumps were
foretold rightly, so that what is fetched in vain is never more than what was read, as with windows. A jump to anywhere
else ends it at once: what was not asked for yet is not asked for, the rest is given up. The kernel reads whole pages,
so that jumps of equal length reach it as jumps that differ by a page: records are then taken a page longer.

Every method is called with the reader's lock held, but for `ahead`, which may be looked at without. Never waits.
"""

from __future__ import annotations

from csi.data.blocks import BlockCache
from csi.data.buffers import charged_size
from csi.data.shelves import UNIT, Block, Shelf
from csi.data.window import Cursor, Streams
from csi.volume.units import KIB, MIB

MOST_AHEAD = 16
"""Records."""
BYTES_AHEAD = 4 * MIB
"""Of them, as charged; one record is fetched ahead if it is no larger than this."""

_ALIGNMENT = 8 * KIB
_PAGE = 4 * KIB
_ENOUGH = 2  # jumps of one length before anything is fetched ahead
_LATE = 4  # records that may be read after later ones


class Stride:
    """The jumps of one reader: how long they are, how far they have come, and the records fetched ahead of them."""

    def __init__(self, shelf: Shelf, cache: BlockCache, streams: Streams) -> None:
        self._shelf = shelf
        self._size = int(shelf.version.size)
        self._cache = cache
        self._streams = streams
        self.ahead: tuple[Block, ...] = ()  # in the order in which they will be read
        self._last: Cursor | None = None  # the record begun last
        self._first = 0  # where the first record of this stride began
        self._start = 0  # where the furthest one did
        self._jumps = 0  # of one length, from `_first` to `_start`
        self._asked = 0  # the same to the furthest record asked for
        self._right = 0  # jumps that went where they should
        self._length = 0  # of the longest record
        self._slack = 0  # by how much jumps differ
        self._holes = 0  # bytes that short jumps left out

    @property
    def is_steady(self) -> bool:
        """Records are fetched ahead."""
        return self._jumps >= _ENOUGH

    @property
    def _step(self) -> float:
        return (self._start - self._first) / self._jumps

    def jumped(self, cursor: Cursor, offset: int, end: int) -> None:
        """A read of `offset`..`end` belongs to no stream: `cursor` begins one. If it was foretold, it gets the block
        that was fetched for it."""
        last, self._last = self._last, cursor
        self._holes = 0
        if last is None:
            self._start = offset
        else:
            self._jump(cursor, offset, end, last.position - last.begin)

    def skipped(self, cursor: Cursor, offset: int, end: int) -> None:
        """A read of `offset`..`end` leaves a hole in the stream of `cursor`: a short jump, or the kernel reads in
        another order, which shows when the hole is filled."""
        if cursor is not self._last or offset == self._start:
            return
        filled = cursor.skipped < self._holes
        self._holes = 0 if filled else self._holes + offset - cursor.position
        length, cursor.begin = cursor.position - cursor.begin, offset
        if filled:
            self._end()
            self._start = offset
        else:
            self._jump(cursor, offset, end, length)

    def extend(self) -> None:
        """Ask for records ahead, as far as the stride has proved itself and the memory allows."""
        if not self.is_steady or self._length > BYTES_AHEAD:
            return
        most = min(self._right, MOST_AHEAD, max(1, BYTES_AHEAD // charged_size(self._length)))
        self._asked = max(self._asked, self._jumps)
        while self._asked < self._jumps + most:
            distance = self._asked + 1 - self._jumps
            start = self._start + round(self._step * distance)
            stop = min(start + self._length + self._slack, self._size)
            start = max(start - self._slack, 0)
            if start >= stop:
                return
            if not self._is_there(start, stop):
                start, stop = rounded(start, stop, self._size)
                block = self._cache.fetch(self._shelf, start, stop, priority=distance, on_grid=False)
                if block is None:
                    return
                self.ahead = (*self.ahead, block)
                self._streams.foretell()
            self._asked += 1

    def close(self) -> None:
        self._leave(self.ahead)
        self._streams.stride_ends(self)

    # --- private ---

    def _jump(self, cursor: Cursor, offset: int, end: int, length: int) -> None:
        """`length` bytes were read of the record before."""
        found = next((block for block in self.ahead if block.start <= offset < block.end), None)
        if found is not None:
            self._meet(cursor, found)
        elif not self._is_step(offset):
            self._break(offset)
            return
        self._length = max(self._length, length, end - offset)
        self._advance(offset)

    def _meet(self, cursor: Cursor, block: Block) -> None:
        """A record that was foretold is being read; those long before it will not be."""
        place = self.ahead.index(block)
        passed = self.ahead[: max(0, place - _LATE)]
        self._leave(passed)
        self.ahead = tuple(one for one in self.ahead if one is not block)
        if cursor.private is not None:
            self._cache.discard(cursor.private)
        cursor.private, cursor.record = block, block.end
        self._streams.meet()

    def _is_step(self, offset: int) -> bool:
        """Whether this jump is as long as those before, or a page longer or shorter."""
        if not self._jumps:
            return False
        off = abs(offset - self._start - self._step)
        return off <= _PAGE and off * 8 <= abs(self._step)

    def _advance(self, offset: int) -> None:
        steps = round((offset - self._start) / self._step)
        if offset - self._start != steps * self._step:
            self._slack = _PAGE
        if steps > 0:  # otherwise it comes late: others went further
            self._start = offset
            self._jumps += steps
        self._right += 1
        if self.is_steady:
            self._streams.stride_goes_on(self)

    def _break(self, offset: int) -> None:
        """This jump is of another length: it is the first of another stride, or of none."""
        self._end()
        self._first, self._start = self._start, offset
        self._jumps = int(offset != self._first)

    def _end(self) -> None:
        self._leave(self.ahead)
        self._streams.stride_ends(self)
        self._jumps = self._right = self._length = self._slack = self._asked = 0

    def _is_there(self, start: int, stop: int) -> bool:
        """Whether a record lies in a block that every reader of the version finds."""
        block = self._shelf.grid.get(start // UNIT)
        return block is not None and block.end >= stop

    def _leave(self, blocks: tuple[Block, ...]) -> None:
        self.ahead = tuple(block for block in self.ahead if block not in blocks)
        for block in blocks:
            self._cache.discard(block)


def rounded(start: int, stop: int, size: int) -> tuple[int, int]:
    """`start`..`stop` of an object of `size` bytes widened to the alignment of requests, unless that takes a larger
    buffer."""
    wide = start - start % _ALIGNMENT, min(stop + -stop % _ALIGNMENT, size)
    return (start, stop) if charged_size(wide[1] - wide[0]) > charged_size(stop - start) else wide
