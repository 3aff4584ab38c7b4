"""How far ahead of a reader to read: positions, runs, and each reader's share of the memory.

A *cursor* follows one stream of reads through a file (a file may be read at several places at once, and the kernel
reorders what it asks for). Its *run* is how many bytes were read one after another; skipping forward takes from it.
The window is never larger than the run, so what is fetched in vain is never more than what was read: that is the
doubling of a window and the bound on waste for random readers in one rule. Who reads a file from its start will mostly
read on, and each doubling is one more request, to pay for and to wait for: there it may be four times the run, where
requests take long at once, elsewhere when more than a megabyte was read. Pure bookkeeping: fetches nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from csi.data.shelves import UNIT, Block
from csi.volume.units import KIB, MIB, Seconds

BACKWARD = 1 * MIB
"""Going back this far is still the same stream."""

SLACK = 2 * UNIT
"""A read this far beyond what was asked for is the kernel's reordering, not a jump. At the start of a stream, where it
would make one of random reads near each other, it is two of the reads."""


FAR = Seconds(0.004)
"""A store whose quickest request takes so long is far: what a request costs is waiting. Elsewhere it is work."""

_TRUSTED = 4  # times the run, from the start of a file
_BULK = 256 * KIB
"""Who asks for so much at once, at the start of a file, reads it through."""

RHYTHM = Seconds(0.05)
"""How long the network has to stand still before a larger window is of use."""


class Cursor:
    """One stream of reads. Guarded by its reader's lock."""

    __slots__ = (
        "begin",
        "blocks",
        "frontier",
        "full_since",
        "high",
        "hits",
        "lost",
        "low",
        "marked",
        "position",
        "private",
        "reach",
        "record",
        "run",
        "skipped",
        "step",
        "stood_still",
        "used",
    )

    def __init__(self, offset: int, end: int, reach: int, now: float) -> None:
        """The first read of the stream is `offset`..`end`."""
        self.begin = offset
        self.position = offset  # end of the furthest read
        self.frontier = offset  # end of what was asked for
        self.run = 0
        self.hits = 0  # reads that went on from where the ones before had come to
        self.skipped = 0  # bytes left out, which may still come
        self.lost = 0  # what the run lost for them
        self.reach = reach  # the window's present upper limit
        self.full_since = (
            0.0  # since when everything up to `reach` is there and the network stands still; 0: it does not
        )
        self.blocks: deque[Block] = deque()  # the window: blocks this cursor has joined, in order
        self.private: Block | None = None  # a block off the grid, asked for before a pattern was known
        self.record = 0  # end of what was fetched because a stride led here: nothing is read ahead up to there
        self.used = now
        self.stood_still = False
        self.step = min(end - offset, UNIT)  # how far a second read may be from the first
        self.marked = now, offset  # since when, and from where, the present window is judged
        self.low = self.high = offset  # where a read may begin that belongs to this stream
        self.bound()

    @property
    def sequential(self) -> bool:
        return self.hits > 1 and self.run > 0

    @property
    def goes_on(self) -> bool:
        """What comes next is worth reading ahead."""
        return self.sequential and self.position > self.record

    def promises(self, offset: int, end: int) -> bool:
        """Whether it is seen before `offset`..`end` is read that what comes next is worth reading ahead."""
        return self.begin == 0 and offset == self.position and (self.hits > 0 or end - offset >= _BULK)

    def wanted(self, floor: int, quickest: float, coming: int) -> int:
        """The window, at least `floor` bytes, where a small request takes `quickest` seconds. `coming` bytes are being
        read."""
        run = self.run + coming
        is_trusted = self.begin == 0 and (quickest >= FAR or run > MIB)
        return min(self.reach, max(run * _TRUSTED if is_trusted else run, floor))

    def bound(self) -> None:
        """After a change of `position`, `frontier` or `hits`: what belongs to this stream now."""
        if self.hits > 1:
            self.low = self.position - BACKWARD
            self.high = max(self.frontier, self.position + SLACK)
        else:
            self.low = self.position - self.step
            self.high = self.position + 2 * self.step

    def advance(self, offset: int, end: int, now: float) -> None:
        """Bytes `offset`..`end` were read."""
        self.used = now
        if offset < self.position:
            late = min(min(end, self.position) - offset, self.skipped)  # the kernel reordered: no skip after all
            back = min(late, self.lost)
            self.skipped -= late
            self.lost -= back
            self.run += late + back
        elif offset > self.position:
            gap = offset - self.position
            loss = min(gap, self.run)
            self.skipped += gap
            self.lost += loss
            self.run -= loss
        if end > self.position:
            self.hits += 1
            self.run += end - max(offset, self.position)
            self.position = end
        self.bound()

    def judge(self, quickest: float, largest: int) -> None:
        """Once a window's worth has been read: twice what is read while a request takes must fit the window.

        A request that waits for its turn takes longer than the `quickest`; more of a window would not help there.
        """
        since, begin = self.marked
        read = self.position - begin
        if read >= self.reach:
            took = self.used - since
            if took * self.reach < 2 * read * quickest:
                self.reach = min(self.reach * 2, largest)
            self.marked = self.used, self.position

    def filled(self) -> None:
        """All of the window is there, and the network has nothing to do."""
        if not self.full_since:
            self.full_since = self.used

    def resumed(self) -> None:
        """More is being asked for."""
        if self.full_since:
            self.stood_still = self.stood_still or self.used - self.full_since > RHYTHM
            self.full_since = 0.0

    def stalled(self, largest: int) -> None:
        """A read had to wait. If the network had stood still for a while before, the window was too small for this
        rhythm: it is read in bursts."""
        if self.stood_still:
            self.reach = min(self.reach * 2, largest)
            self.stood_still = False


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """Streams that are being read ahead of now, and readers that jump by one length (`strided`); records fetched ahead
    of jumps so far (`foretold`), and how many of them were read (`met`)."""

    open: int
    strided: int
    foretold: int
    met: int


class Streams:
    """Divides the memory for read-ahead evenly among the cursors that are in use, and counts what readers foretell.

    `_lock` guards every field; it is taken after a reader's lock and nothing is called while it is held but `capacity`.
    """

    IDLE = Seconds(2.0)
    """A cursor not read for this long makes room for others; its blocks become the first to go."""

    _LOOKED_AT = 8  # cursors looked at for idleness each time, in turn

    def __init__(self, capacity: Callable[[], int]) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._cursors: dict[Cursor, None] = {}
        self._strides: set[object] = set()
        self._foretold = 0
        self._met = 0

    def share(self, cursor: Cursor, now: float) -> tuple[int, list[Cursor]]:
        """The bytes `cursor` may keep ahead now, and the cursors that have just been found idle."""
        with self._lock:
            self._cursors.pop(cursor, None)
            self._cursors[cursor] = None
            idle = []
            for other in list(itertools.islice(self._cursors, self._LOOKED_AT)):
                if other is cursor:
                    break
                del self._cursors[other]
                if now - other.used > self.IDLE:
                    idle.append(other)
                else:
                    self._cursors[other] = None
            return self._capacity() // len(self._cursors), idle

    def remove(self, cursor: Cursor) -> None:
        with self._lock:
            self._cursors.pop(cursor, None)

    # --- of strides, which fetch by themselves (`stride`) ---

    def stride_goes_on(self, stride: object) -> None:
        with self._lock:
            self._strides.add(stride)

    def stride_ends(self, stride: object) -> None:
        with self._lock:
            self._strides.discard(stride)

    def foretell(self) -> None:
        """A record is fetched ahead."""
        with self._lock:
            self._foretold += 1

    def meet(self) -> None:
        """It is read."""
        with self._lock:
            self._met += 1

    def statistics(self) -> StreamStatistics:
        with self._lock:
            return StreamStatistics(len(self._cursors), len(self._strides), self._foretold, self._met)
