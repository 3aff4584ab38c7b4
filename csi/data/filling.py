"""The part of a file that is being filled: its buffers, which others may read while the writer goes on; and, where that
is asked for, the parts before it, as long as nobody has a better use for their memory.

The writer alone adds buffers and puts bytes after those that are there, so that needs no lock. What takes buffers away
does: nothing is read from memory that somebody else may have by then.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from csi.data.staging import Allotment


@dataclass(slots=True, eq=False)
class _Sent:
    """A part that was sent, or is under way: `size` bytes of the file from `begins` on."""

    begins: int
    size: int
    buffers: list[memoryview]
    arrived: bool = False


class Filling:
    """`_lock` guards that buffers leave, and is held for moments only. All but `keep`, `readable_from`, `read` and
    `give` are of the writer."""

    def __init__(self, allotment: Allotment, begins: int) -> None:
        """`begins`: where in the file the first byte of the first buffer belongs."""
        self.buffers: list[memoryview] = []  # with bytes in them, and some for what comes then
        self.begins = begins
        self._allotment = allotment
        self._lock = threading.Lock()
        self._sent: list[_Sent] = []  # without a gap up to the part being filled
        self._last: Sequence[memoryview] | None = None  # of the last part, while that is under way
        self._over = False

    def keep(self) -> None:
        """From now on, parts that are sent too, until their memory is wanted."""
        with self._lock:
            if not (self._allotment.keeps or self._over):
                self._allotment.keeps = True
                self._allotment.offer(self._yield)

    @property
    def readable_from(self) -> int:
        with self._lock:
            return self._sent[0].begins if self._sent else self.begins

    def memory(self, begin: int, size: int) -> list[memoryview]:
        """At most `size` bytes from `begin` of the part."""
        return self._allotment.pieces(self.buffers, begin, size)

    def read(self, offset: int, size: int) -> bytes | None:
        """A copy of `size` bytes of the file that were written; None if some of them are not here (any more)."""
        end, found = offset + size, []
        with self._lock:
            for part in self._sent:
                if part.begins <= offset < part.begins + part.size:
                    count = min(part.begins + part.size, end) - offset
                    found += self._allotment.pieces(part.buffers, offset - part.begins, count)
                    offset += count
            if self.begins <= offset < end:
                found += self.memory(offset - self.begins, end - offset)
            copied = b"".join(found)
        return copied if len(copied) == size else None

    def body(self, filled: int) -> list[memoryview]:
        """The bytes of the part."""
        return self.memory(0, filled)

    def start(self, offset: int) -> None:
        """The part begins at `offset` of the file, and what is before it is not here."""
        with self._lock:
            self.begins = offset
            given = self._forget_sent()
        self._allotment.give(given)

    def take(self, filled: int) -> list[memoryview]:
        """The buffers with bytes in them, to be sent; the next part begins after those."""
        with self._lock:
            begun = self._begun(filled)
            taken, self.buffers = self.buffers[:begun], self.buffers[begun:]
            if self._allotment.keeps:
                self._sent.append(_Sent(self.begins, filled, taken))
            self.begins += filled
        return taken

    def forget_sent(self) -> bool:
        """Keep no parts that were sent any more; whether some of their memory is free now."""
        with self._lock:
            given = self._forget_sent()
        self._allotment.give(given)
        return bool(given)

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
            for part in self._sent:
                if part.buffers is buffers:
                    part.arrived = True
                    return
        self._allotment.give(buffers)

    def end(self, offset: int) -> None:
        """Nothing is here any more, up to `offset` of the file."""
        with self._lock:
            self._over, self.begins = True, offset
            left, self.buffers = self.buffers if self._last is None else [], []
            left = left + self._forget_sent()
        self._allotment.give(left)

    # --- private ---

    def _forget_sent(self) -> list[memoryview]:
        """The memory of parts that have arrived; the others give it when they do."""
        self._allotment.keeps = False
        given = [buffer for part in self._sent if part.arrived for buffer in part.buffers]
        self._sent.clear()
        return given

    def _yield(self) -> None:
        """Another wants memory. A file without its beginning is of no use to who reads it: all of it goes."""
        if self._lock.acquire(blocking=False):
            given = self._forget_sent()
            self._lock.release()
            self._allotment.give(given)

    def _begun(self, filled: int) -> int:
        return -(-filled // self._allotment.buffer)
