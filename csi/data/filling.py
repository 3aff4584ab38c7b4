"""The part of a file that is being filled: its buffers, which others may read while the writer goes on.

The writer alone adds buffers and puts bytes after those that are there, so that needs no lock. What takes buffers away
does: nothing is read from memory that somebody else may have by then.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from csi.data.staging import Allotment


class Filling:
    """`_lock` guards that buffers leave, and is held for moments only. All but `read` and `give` are of the writer."""

    def __init__(self, allotment: Allotment, begins: int) -> None:
        """`begins`: where in the file the first byte of the first buffer belongs."""
        self.buffers: list[memoryview] = []  # with bytes in them, and some for what comes then
        self.begins = begins
        self._allotment = allotment
        self._lock = threading.Lock()
        self._last: Sequence[memoryview] | None = None  # of the last part, while that is under way
        self._over = False

    def memory(self, begin: int, size: int) -> list[memoryview]:
        """At most `size` bytes from `begin` of the part."""
        found = []
        full, begin = divmod(begin, self._allotment.buffer)
        for buffer in self.buffers[full:]:
            found.append(buffer[begin : begin + size])
            size -= len(found[-1])
            begin = 0
        return [memory for memory in found if memory]

    def read(self, offset: int, size: int) -> bytes | None:
        """A copy of `size` bytes of the file that were written; None if some of them are not here (any more)."""
        with self._lock:
            if offset < self.begins:
                return None
            found = b"".join(self.memory(offset - self.begins, size))
            return found if len(found) == size else None

    def body(self, filled: int) -> list[memoryview]:
        """The bytes of the part."""
        return self.memory(0, filled)

    def start(self, offset: int) -> None:
        """The part begins at `offset` of the file."""
        with self._lock:
            self.begins = offset

    def take(self, filled: int) -> list[memoryview]:
        """The buffers with bytes in them, to be sent; the next part begins after those."""
        with self._lock:
            begun = self._begun(filled)
            taken, self.buffers = self.buffers[:begun], self.buffers[begun:]
            self.begins += filled
        return taken

    def keep_last(self, filled: int) -> list[memoryview]:
        """The same for the last part, which can be read until all is over: a file is not busy for being closed."""
        self.give_spare(filled)
        self._last = self.buffers
        return self.buffers

    def give_spare(self, filled: int) -> None:
        """Give the buffers without bytes back."""
        with self._lock:
            begun = self._begun(filled)
            self.buffers, spare = self.buffers[:begun], self.buffers[begun:]
        if spare:
            self._allotment.give(spare)

    def replace(self, buffers: list[memoryview]) -> None:
        """The same bytes are in these buffers."""
        with self._lock:
            self.buffers = buffers

    def give(self, buffers: Sequence[memoryview]) -> None:
        """A part has ended, on the thread that sent it."""
        with self._lock:
            if buffers is self._last:
                self._last = None
                if not self._over:
                    return
        self._allotment.give(buffers)

    def end(self, offset: int) -> None:
        """Nothing is here any more, up to `offset` of the file."""
        with self._lock:
            self._over, self.begins = True, offset
            left, self.buffers = self.buffers if self._last is None else [], []
        self._allotment.give(left)

    def _begun(self, filled: int) -> int:
        return -(-filled // self._allotment.buffer)
