"""Bytes of a file that has no name any more and never will be an object: a temporary file, removed while it is open.

They stay in memory, and only as long as no writer wants it; then they are gone, and reading says so. Nothing waits.
"""

from __future__ import annotations

import threading

from csi.data.staging import Allotment, StagingMemory
from csi.oss.store import Buffer


class Scratch:
    """A `csi.data.streams.Scratch` of at most `most` bytes. `_lock` guards every field."""

    def __init__(self, memory: StagingMemory, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._size = 0
        self._buffers: list[memoryview] = []
        self._allotment: Allotment | None = memory.admit_spare(self._make_room)

    def write(self, offset: int, data: Buffer) -> bool:
        view = memoryview(data).cast("B")
        with self._lock:
            allotment = self._reach(max(self._size, offset + len(view)))
            if allotment is None:
                return False
            for memory in allotment.pieces(self._buffers, offset, len(view)):
                memory[:], view = view[: len(memory)], view[len(memory) :]
            return True

    def read(self, offset: int, size: int) -> bytes | None:
        with self._lock:
            if self._allotment is None:
                return None
            size = max(0, min(size, self._size - offset))
            return b"".join(self._allotment.pieces(self._buffers, offset, size))

    def resize(self, size: int) -> bool:
        with self._lock:
            if size > self._size:
                return self._reach(size) is not None
            self._size = size
            return self._allotment is not None

    def close(self) -> None:
        with self._lock:
            self._end()

    # --- with the lock held ---

    def _reach(self, size: int) -> Allotment | None:
        """The file has `size` bytes, not less than it had, zeros at its end; None if that is too much."""
        if size > self.most:
            self._end()
        allotment = self._allotment
        if allotment is None:
            return None
        while len(self._buffers) * allotment.buffer < size:
            buffer = allotment.take()
            if buffer is None:
                self._end()
                return None
            self._buffers.append(buffer)
        for memory in allotment.pieces(self._buffers, self._size, size - self._size):
            memory[:] = bytes(len(memory))
        self._size = size
        return allotment

    def _end(self) -> None:
        allotment, self._allotment = self._allotment, None
        buffers, self._buffers = self._buffers, []
        if allotment is not None:
            allotment.give(buffers)
            allotment.close()

    # --- from any thread ---

    def _make_room(self) -> None:
        """A writer waits for memory."""
        if self._lock.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._lock.release()
