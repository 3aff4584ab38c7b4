"""Reads one version of an object as `torch.load` does: the directory at its end, then the entries, most in order.

Promises: what was fetched is not fetched again while it may still be wanted and the memory allows; bytes that were not
asked for are fetched only after reads that follow one another, or with a few that were asked for; every request is
bound to the version. A large read goes straight into the memory of who reads, by many requests at a time. Must not know
files.

How: small reads are cut from pieces in buffers (`pieces`), which are kept until memory is needed, the one used longest
ago going first. Reads in order make a window of pieces ahead that grows with what was read. A read larger than a piece
takes what pieces have of it, and fetches the rest past them; ahead of the next one of its kind little is fetched, for
that would only have to be copied; more where requests take long even when they are small, for then the network would
have nothing to do between two such reads.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from csi.data.buffers import BufferPool, floor_power
from csi.data.workers import URGENT, WorkerPool
from csi.errors import BadHandle
from csi.oss.store import ObjectStore, ObjectVersion
from csi.torch.checkpoint.pieces import Piece, move, settle
from csi.torch.processors import confine
from csi.volume.units import KIB, MIB, Bytes, Seconds

_GRAIN = 256 * KIB
"""Fetched for a few bytes somewhere: about as quickly there as they alone, and what follows is often wanted too."""
_ALIGNMENT = 64 * KIB
_TAIL = 1 * MIB
"""The end of an object, where the directory of ten thousand entries fits."""
_DIRECT = 1 * MIB
_LARGEST_REQUEST = 8 * MIB
_GAP = 64 * KIB
"""Reads this far apart follow one another: entries are padded, and have heads."""
_AHEAD = URGENT + 1
_FAR = Seconds(0.005)
"""Of the quickest request: a store that answers no sooner should always have something to do."""
_KIND = 4
"""Reads by which is judged what the next ones are: a large one comes after the few bytes of its head."""
_READ_AGAIN = 8 * MIB
"""Of what was read in order: memory that is used again at once is much faster than fresh memory."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """`chunk`: bytes of a request ahead; `ahead`: of all of them together; `parallel`: requests at a time, on
    `processors`. `exact`: nothing is fetched but what is asked for."""

    chunk: Bytes
    ahead: Bytes
    parallel: int
    processors: int
    exact: bool = False


class Loading:
    """`_turn` puts readers of one file in order and guards every field; requests never wait for it."""

    def __init__(
        self,
        version: ObjectVersion,
        store: ObjectStore,
        workers: WorkerPool,
        pool: BufferPool,
        plan: LoadPlan,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._version = version
        self._size = int(version.size)
        self._store = store
        self._workers = workers
        self._pool = pool
        self._plan = plan
        self._monotonic = monotonic
        self._prepare = partial(confine, plan.processors)
        self._turn = threading.Lock()
        self._pieces: list[Piece] = []  # by where they begin; they do not overlap
        self._spent: deque[Piece] = deque()  # read to their end
        self._clock = 0
        self._last_end = -(1 << 62)  # nothing was read: nothing goes on from there
        self._run = 0
        self._sizes: deque[int] = deque(maxlen=_KIND)  # of the last reads in order
        self._quickest = math.inf  # seconds of a request
        self._open = True

    def read(self, offset: int, target: memoryview) -> None:
        """Fill `target` from `offset`; all of it has to lie in the object. Nothing writes to it afterwards, also when
        this raises. Raises PreconditionFailed when the object is another version now."""
        with self._turn:
            if not self._open:
                raise BadHandle(f"{self._version.key}: read after close")
            self._follow(offset, offset + len(target))
            kept: list[Piece] = []
            direct: list[Piece] = []
            try:
                self._begin(offset, target, kept, direct)
                self._look_ahead(offset + len(target))
                self._copy(offset, target, kept)
                for piece in direct:
                    piece.wait()
            except BaseException:  # also Ctrl-C
                for piece in direct:
                    piece.give_up(self._workers)
                settle(direct)
                raise
            for piece in direct:
                piece.raise_error()
            for piece in (*kept, *direct):
                self._quickest = min(self._quickest, piece.seconds or math.inf)
            self._leave(kept, offset + len(target))

    def peek(self, offset: int) -> bytes:
        """What is there already of the bytes at `offset`, some or none; asks for nothing."""
        with self._turn:
            piece = self._holding(offset)
            if piece is None or not piece.has_ended or piece.error is not None:
                return b""
            return bytes(piece.target[offset - piece.start : offset - piece.start + _ALIGNMENT])

    def close(self) -> None:
        """Give up what is under way, and the memory. Idempotent; does not wait."""
        with self._turn:
            self._open = False
            for piece in self._pieces:
                piece.give_up(self._workers)
            self._pieces.clear()
            self._spent.clear()

    # --- with the turn held ---

    def _follow(self, offset: int, end: int) -> None:
        """How many bytes have been read in order up to `end`."""
        if self._last_end <= offset <= self._last_end + _GAP:
            self._run += end - self._last_end
        elif self._last_end - _GAP <= offset < self._last_end:
            pass  # read again, or a little before: neither more nor less in order
        else:
            self._run = 0
            self._sizes.clear()
        self._sizes.append(end - offset)
        self._last_end = end

    def _begin(self, offset: int, target: memoryview, kept: list[Piece], direct: list[Piece]) -> None:
        """Have everything under way that the read needs: pieces to copy from go to `kept`, others to `direct`."""
        self._clock += 1
        position, end = offset, offset + len(target)
        while position < end:
            piece = self._holding(position)
            if piece is not None and piece.error is not None:  # it was fetched ahead: whatever it was may be over
                self._pieces.remove(piece)
                piece = None
            if piece is None:
                stop = min(end, self._next_start(position))
                if stop - position >= _DIRECT or (piece := self._fetch(position, stop)) is None:
                    self._fetch_directly(position, target[position - offset : stop - offset], direct)
                    position = stop
                    continue
            piece.used = self._clock
            kept.append(piece)
            position = piece.end

    def _copy(self, offset: int, target: memoryview, kept: list[Piece]) -> None:
        end = offset + len(target)
        for piece in kept:
            piece.wait()
            if piece.error is not None:
                self._pieces.remove(piece)  # who reads here again asks again
                piece.raise_error()
            start, stop = max(offset, piece.start), min(end, piece.end)
            move(target[start - offset : stop - offset], piece.target[start - piece.start : stop - piece.start])

    def _leave(self, kept: list[Piece], end: int) -> None:
        """Let go of pieces that were read to their end, but for the last ones and the directory."""
        self._spent.extend(piece for piece in kept if piece.end <= end and piece.end < self._size)
        while sum(len(piece.target) for piece in self._spent) > _READ_AGAIN:
            piece = self._spent.popleft()
            if piece in self._pieces:
                self._pieces.remove(piece)

    def _fetch_directly(self, start: int, target: memoryview, direct: list[Piece]) -> None:
        share = -(-len(target) // self._plan.parallel)
        size = min(max(share, self._plan.chunk), _LARGEST_REQUEST)
        for begin in range(0, len(target), size):
            piece = Piece(start + begin, target[begin : begin + size])
            direct.append(piece)
            self._request(piece, URGENT)

    def _fetch(self, position: int, stop: int) -> Piece | None:
        """A new piece with `position`..`stop` and what is probably wanted soon; None when there is no memory for it."""
        floor, ceiling = self._last_piece_end(position), self._next_start(position)
        if self._plan.exact:
            start, end = position, stop
        elif self._size <= self._plan.chunk:
            start, end = floor, ceiling
        elif position >= self._size - _TAIL:
            start, end = max(floor, self._size - _TAIL), ceiling
        else:
            start = max(floor, position - position % _ALIGNMENT)
            wanted = max(_GRAIN, floor_power(max(1, min(self._run, self._plan.chunk))))
            end = min(ceiling, max(stop, start + wanted))
        return self._place(start, end, URGENT)

    def _look_ahead(self, end: int) -> None:
        """Keep pieces coming after `end`, where a read has ended."""
        plan = self._plan
        if not self._run or plan.exact:
            return
        if max(self._sizes) < plan.ahead // 8:
            most = plan.ahead // 2
        else:
            most = plan.ahead // 4 if _FAR <= self._quickest < math.inf else plan.chunk
        reach = min(2 * self._run, most)
        chunk = min(plan.chunk, max(_GRAIN, floor_power(max(reach // 4, 1))))
        position, limit = end, min(end + reach, self._size)
        while position < limit:
            piece = self._holding(position)
            if piece is None:
                piece = self._place(position, min(position + chunk, self._next_start(position)), _AHEAD)
                if piece is None:
                    return
            piece.used = self._clock
            position = piece.end

    def _place(self, start: int, end: int, priority: int) -> Piece | None:
        buffer = self._buffer(end - start, priority)
        if buffer is None:
            return None
        piece = Piece(start, buffer)
        self._pieces.insert(self._index(start), piece)
        self._request(piece, priority)
        return piece

    def _request(self, piece: Piece, priority: int) -> None:
        piece.request(
            self._store,
            self._version,
            self._workers,
            priority=priority,
            prepare=self._prepare,
            monotonic=self._monotonic,
        )

    def _buffer(self, size: int, priority: int) -> memoryview | None:
        """Memory for a piece: that of pieces read to their end if there is no other, or of those used longest ago."""
        buffer = self._pool.try_take(size)
        while buffer is None:
            if not self._drop_one(priority):
                return None
            buffer = self._pool.try_take(size)
        return buffer

    def _drop_one(self, priority: int) -> bool:
        """The directory at the end is kept for as long as anything else can go."""
        old = [piece for piece in self._pieces if piece.used < self._clock and piece.has_ended]
        others = [piece for piece in old if piece.end < self._size] or (old if priority == URGENT else [])
        if not others:
            return False
        self._pieces.remove(min(others, key=lambda piece: (piece.end > self._last_end, piece.used)))
        return True

    # --- where the pieces are ---

    def _index(self, position: int) -> int:
        """How many pieces begin at `position` or before."""
        return bisect_right(self._pieces, position, key=lambda piece: piece.start)

    def _holding(self, position: int) -> Piece | None:
        index = self._index(position)
        if index and position < self._pieces[index - 1].end:
            return self._pieces[index - 1]
        return None

    def _last_piece_end(self, position: int) -> int:
        index = self._index(position)
        return self._pieces[index - 1].end if index else 0

    def _next_start(self, position: int) -> int:
        index = self._index(position)
        return self._pieces[index].start if index < len(self._pieces) else self._size
