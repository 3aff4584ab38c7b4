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
            if not self._reach(max(self._size, offset + len(view))):
                return False
            self._put(offset, view)
            return True

    def read(self, offset: int, size: int) -> bytes | None:
        with self._lock:
            if self._allotment is None:
                return None
            return b"".join(self._memory(offset, max(0, min(size, self._size - offset))))

    def resize(self, size: int) -> bool:
        with self._lock:
            if size > self._size:
                return self._reach(size)
            self._size = size
            return self._allotment is not None

    def close(self) -> None:
        with self._lock:
            self._end()

    # --- with the lock held ---

    def _reach(self, size: int) -> bool:
        """The file has `size` bytes, not less than it had, zeros at its end; False if that is too much."""
        if size > self.most:
            self._end()
        allotment = self._allotment
        if allotment is None:
            return False
        while len(self._buffers) * allotment.buffer < size:
            buffer = allotment.take()
            if buffer is None:
                self._end()
                return False
            self._buffers.append(buffer)
        for memory in self._memory(self._size, size - self._size):
            memory[:] = bytes(len(memory))
        self._size = size
        return True

    def _put(self, offset: int, data: memoryview) -> None:
        for memory in self._memory(offset, len(data)):
            memory[:], data = data[: len(memory)], data[len(memory) :]

    def _memory(self, offset: int, size: int) -> list[memoryview]:
        """Where `size` bytes from `offset` are."""
        found = []
        while size > 0 and self._allotment is not None:
            which, begin = divmod(offset, self._allotment.buffer)
            memory = self._buffers[which][begin : begin + size]
            found.append(memory)
            offset, size = offset + len(memory), size - len(memory)
        return found

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
