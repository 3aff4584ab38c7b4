"""Recycled memory for blocks and parts.

Fresh memory is expensive (3-5 µs per 4 KiB page where this was measured), so buffers are anonymous mappings in sizes
of powers of two that are used again and again. A buffer is handed out as a memoryview and comes back by itself when
that view, and every slice anybody made of it, is gone: the view is taken of a small object that exists for this one
loan, slices keep that object alive, and its death returns the buffer. So a slice can be given to the kernel session
without a copy and without anybody saying when it is done with it.

Every mapping is charged to the ledger from its creation to its unmapping, whether it is lent out or not. Must not know
what is in the buffers.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import threading
import weakref
from dataclasses import dataclass

from csi.data.ledger import MemoryLedger
from csi.volume.units import KIB, MIB, Seconds

SMALLEST = 16 * KIB
_HUGE_PAGE = 2 * MIB
"""From this size on buffers are in huge pages where the kernel has them: they are filled to the end anyway, and both
the socket and FUSE find the memory faster."""


def charged_size(size: int) -> int:
    """What a buffer for `size` bytes is charged: the next power of two, at least 16 KiB."""
    return max(SMALLEST, 1 << (size - 1).bit_length())


def floor_power(size: int) -> int:
    """The largest power of two that is no larger than `size` (which is at least 1)."""
    return 1 << (size.bit_length() - 1)


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Bytes lent out, bytes kept for the next loan, loans so far, and how many of them needed fresh memory."""

    lent: int
    kept: int
    loans: int
    fresh: int


class _Loan(weakref.ref[ctypes.Array[ctypes.c_char]]):
    """Watches the object whose life is the length of one loan."""

    __slots__ = ("capacity", "mapping")
    capacity: int
    mapping: mmap.mmap


class BufferPool:
    """Lends buffers that are charged to `ledger`; keeps at most `keep` bytes of returned ones.

    `_lock` guards everything, and is held over no call but mmap(2) and the ledger's counting. What comes back, anywhere
    and also inside this class, rings the bell of the ledger's `turns`, and is put back from there; so it is the only
    pool of its ledger.
    """

    def __init__(self, ledger: MemoryLedger, *, keep: int) -> None:
        self.ledger = ledger
        self._keep = keep
        self._lock = threading.Lock()
        self._free: dict[int, list[mmap.mmap]] = {}
        self._kept = 0
        self._mapped = 0
        self._loans = 0
        self._fresh = 0
        self._loaned: dict[int, _Loan] = {}
        self._undo_pressure = ledger.on_pressure(self._shrink)

    def try_take(self, size: int, *, in_turn: bool = False) -> memoryview | None:
        """A buffer of exactly `size` (> 0) bytes with arbitrary contents, or None.

        None as well when somebody is waiting, unless the caller says it is that somebody (`in_turn`).
        """
        if self.ledger.contended and not in_turn:
            return None
        capacity = charged_size(size)
        with self._lock:
            self._collect()
            mapping = self._reuse(capacity) or self._map(capacity)
            if mapping is None:
                return None
            self._loans += 1
            return self._lend(capacity, mapping, size)

    def take(self, size: int, within: Seconds) -> memoryview | None:
        """A buffer of `size` bytes, waiting in turn; None after `within` seconds. The caller must hold nothing."""
        if charged_size(size) > self.ledger.budget:
            return None
        return self.ledger.turns.wait_for(lambda: self.press(size), within)

    def press(self, size: int) -> memoryview | None:
        """One attempt that makes caches give up what they can; for a caller whose turn it is."""
        got = self.try_take(size, in_turn=True)
        if got is None and self.ledger.relieve(charged_size(size)):
            got = self.try_take(size, in_turn=True)
        return got

    def trim(self, keep: int = 0) -> int:
        """Unmap returned buffers until at most `keep` bytes of them are left; returns the bytes unmapped."""
        with self._lock:
            self._collect()
            return self._unmap_until(keep)

    def close(self) -> None:
        """Keep nothing from now on; buffers still lent out are unmapped as they come back and are looked at."""
        self._keep = 0
        self._undo_pressure()
        self.trim()

    def statistics(self) -> PoolStatistics:
        with self._lock:
            self._collect()
            return PoolStatistics(self._mapped - self._kept, self._kept, self._loans, self._fresh)

    # --- with the lock held ---

    def _lend(self, capacity: int, mapping: mmap.mmap, size: int) -> memoryview:
        exporter = (ctypes.c_char * capacity).from_buffer(mapping)
        loan = _Loan(exporter, self.ledger.turns.bell.put)
        loan.capacity = capacity
        loan.mapping = mapping
        self._loaned[id(loan)] = loan
        return memoryview(exporter).cast("B")[:size]

    def _collect(self) -> None:
        before = self._kept
        for heard in self.ledger.turns.heard():
            ended = self._loaned.pop(id(heard), None)
            if ended is not None:  # else Ctrl-C came while it was being lent
                self._free.setdefault(ended.capacity, []).append(ended.mapping)
                self._kept += ended.capacity
        if self._kept != before:
            self.ledger.turns.poke()
        if self._kept > self._keep:
            self._unmap_until(self._keep)

    def _reuse(self, capacity: int) -> mmap.mmap | None:
        free = self._free.get(capacity)
        if not free:
            return None
        self._kept -= capacity
        return free.pop()

    def _map(self, capacity: int) -> mmap.mmap | None:
        if not self.ledger.debit(capacity):
            if not self._kept:
                return None
            self._unmap_until(max(self._kept - capacity, 0))
            if not self.ledger.debit(capacity):
                return None
        try:
            mapping = mmap.mmap(-1, capacity, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:  # the kernel has no memory for us: the same as a budget that is used up
            self.ledger.credit(capacity)
            return None
        if capacity >= _HUGE_PAGE:
            with contextlib.suppress(OSError):  # a kernel without them
                mapping.madvise(mmap.MADV_HUGEPAGE)
        self._mapped += capacity
        self._fresh += 1
        return mapping

    def _unmap_until(self, keep: int) -> int:
        unmapped = 0
        for capacity in sorted(self._free, reverse=True):
            free = self._free[capacity]
            while free and self._kept > keep:
                free.pop()  # the mapping goes with its last reference; close() could meet a loan that is just dying
                self._kept -= capacity
                unmapped += capacity
        self._mapped -= unmapped
        if unmapped:
            self.ledger.credit(unmapped)
        return unmapped

    def _shrink(self, size: int) -> int:
        with self._lock:
            self._collect()
            return self._unmap_until(max(self._kept - size, 0))
