"""One open file being read.

Promises: a read is never short before the end of the object, never mixes two versions, returns a slice of a block
without copying when the range lies in one, and always makes progress however little memory there is: when there is none
for blocks, a read fetches exactly its range into memory it waits for in turn, holding nothing meanwhile. What is
fetched otherwise, and when, is the business of `pattern`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from csi.data.blocks import BlockCache
from csi.data.pattern import WHOLE, Pattern, ReadPlan
from csi.data.shelves import UNIT, Block
from csi.data.window import Streams
from csi.errors import BadHandle, DeadlineExceeded
from csi.oss.store import Buffer, ObjectStore, ObjectVersion
from csi.volume.units import MIB, Seconds

_LARGEST_PIECE = 1 * MIB


class BlockReader:
    """A `Reader` (csi/data/streams.py).

    `_lock` guards `_pattern` and `_open`; it comes before the cache's lock and is not held across a request
    or a wait.
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
        self._patience = patience
        self._on_close = closed
        self._shelf = cache.open(version)
        self._grid = self._shelf.grid
        self._lock = threading.Lock()
        self._pattern = Pattern(self._shelf, cache, streams, plan, exact=exact, clock=clock)
        self._open = True
        self._shown = False
        self.notice = 0
        self.scattered = False

    @property
    def version(self) -> ObjectVersion:
        return self._version

    def try_read(self, offset: int, size: int) -> Buffer | None:
        end = min(offset + size, self._size)
        if offset >= end:
            return b""
        return self._present(offset, end)

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
                self._check_open()
                covered = self._pattern.begin(offset, end, blocks)
            if covered:
                self._cache.launch(blocks)
                return self._collect(blocks, offset, end)
        finally:
            for block in blocks:
                self._cache.unpin(block)
        read = read_directly(self._version, self._store, self._cache, offset, end, self._patience)
        self._note(offset, end, None)
        return read

    def publish(self) -> int | None:
        with self._lock:
            self._check_open()
            content = None if self._shown else self._cache.show(self._shelf)
            self._shown = self._shown or content is not None
            return self._shelf.content if self._shown else None

    def file(self) -> tuple[int, int] | None:
        return self._cache.file(self._shelf)

    def reached(self, offset: int, end: int) -> int:
        with self._lock:
            if self._open:
                self.notice = self._pattern.reached(offset, end)
                self.scattered = self._pattern.scattered
            return self.notice

    def close(self) -> None:
        with self._lock:
            if not self._open:
                return
            self._open = False
            self._pattern.close()
            if self._shown:
                self._cache.conceal(self._shelf)
        self._cache.close(self._shelf)
        self._on_close(self)

    # --- what is there already ---

    def _present(self, offset: int, end: int) -> Buffer | None:
        self._check_open()
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
                pieces.append(view[position - following.start : end - following.start])
                position = following.end
            found = self._together(pieces, end - offset)
        self._note(offset, end, block)
        return found

    def _present_off_grid(self, offset: int, end: int) -> Buffer | None:
        for block in self._pattern.off_grid():
            if block.start <= offset and end <= block.end:
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
                    self.notice = self._pattern.read(offset, end)
                    self.scattered = self._pattern.scattered
        if block is not None and not block.users:
            self._cache.touch(block)

    def _check_open(self) -> None:
        if not self._open:
            raise BadHandle(f"{self._version.key}: read after close")

    # --- waiting, without the lock ---

    def _collect(self, blocks: list[Block], offset: int, end: int) -> Buffer:
        pieces = []
        position = offset
        for block in blocks:
            view = self._cache.result(block)
            pieces.append(view[position - block.start : min(end, block.end) - block.start])
            position = block.end
        self._note(offset, end, blocks[-1])
        return pieces[0] if len(pieces) == 1 else self._together(pieces, end - offset)

    def _together(self, pieces: list[memoryview], size: int) -> Buffer:
        """A range that lies in several blocks. Recycled memory if there is any: fresh pages cost more than the copy."""
        target = self._cache.pool.try_take(size)
        if target is None:
            return b"".join(pieces)
        position = 0
        for piece in pieces:
            target[position : position + len(piece)] = piece
            position += len(piece)
        return target

    def _read_large(self, offset: int, end: int) -> Buffer:
        """More than a request of the kernel: the memory is the caller's own, filled piece by piece."""
        with self._lock:
            self._pattern.expect(offset, end)
        result = bytearray(end - offset)
        for position in range(offset, end, _LARGEST_PIECE):
            piece = self.read(position, min(_LARGEST_PIECE, end - position))
            result[position - offset : position - offset + len(piece)] = piece
        return result


def read_directly(
    version: ObjectVersion, store: ObjectStore, cache: BlockCache, offset: int, end: int, patience: Seconds
) -> memoryview:
    """Exactly what was asked for, into memory of its own; nothing is held while waiting for it."""
    target = cache.pool.take(end - offset, patience)
    if target is None:
        raise DeadlineExceeded(
            f"{version.key}: no memory for {end - offset} bytes came free within {patience:g} s",
            operation="GetObject",
            key=version.key,
            hint="raise fs.jindo.fuse.pod.mem.limit",
        )
    store.fill(version, offset, target)
    return target
