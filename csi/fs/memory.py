"""What names cost in memory, and who pays for it.

Inodes, kept listings, names known to be absent and pages on their way are estimated by number, not measured one by one.
A part of the memory limit is set aside for them (`metadata_allowance`); what they take beyond it is charged to the
ledger, so that blocks and parts have that much less. Inodes that the kernel knows have to stay; listings are given up
when others need the memory. How much may be remembered in the first place follows from the allowance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from csi.data.ledger import MemoryLedger
from csi.volume.units import KIB, MIB, Bytes

INODE = 640
"""Bytes an inode was seen to take with its facts, its name and its places in two tables."""

NAME = 352
"""Bytes a name of a kept listing takes when no inode shares its facts."""

ABSENCE = 256

PAGE = 384 * KIB
"""A page of a thousand names, as it is parsed."""

_STEP = 1 * MIB
_LEAST_INODES = 10_000
_LEAST_NAMES = 20_000

DEFAULT_ALLOWANCE = Bytes(128 * MIB)


@dataclass(frozen=True, slots=True)
class MetadataMemoryStatistics:
    """Bytes that names take by estimate, what was set aside for them, and what is charged to the ledger beyond that."""

    held: int
    allowance: int
    charged: int


class MetadataMemory:
    """`_lock` guards `_charged`; the ledger is called without it, and without `InodeTable.lock`."""

    def __init__(self, ledger: MemoryLedger | None, allowance: Bytes) -> None:
        self.most_inodes = max(allowance // (2 * INODE), _LEAST_INODES)
        self.most_names = max(allowance // (2 * NAME), _LEAST_NAMES)
        self._ledger = ledger
        self._allowance = allowance
        self._lock = threading.Lock()
        self._charged = 0
        self._held: Callable[[], int] = lambda: 0
        self._give_up: Callable[[int], int] = lambda size: 0
        self._undo_pressure = ledger.on_pressure(self._shrink) if ledger is not None else None

    def watch(self, held: Callable[[], int], give_up: Callable[[int], int]) -> None:
        """`held` tells the bytes taken now; `give_up` forgets what can be asked for again, and how many bytes that
        were."""
        self._held, self._give_up = held, give_up

    def weigh(self) -> None:
        """Charge what is held now. What the ledger does not have is given up, or owed until it has."""
        over = max(0, self._held() - self._allowance)
        if not self._charge(over) and self._give_up(over - self._charged):
            self._charge(max(0, self._held() - self._allowance))

    def statistics(self) -> MetadataMemoryStatistics:
        self.weigh()
        return MetadataMemoryStatistics(self._held(), self._allowance, self._charged)

    def close(self) -> None:
        """Pay everything back."""
        if self._undo_pressure is not None:
            self._undo_pressure()
        self._charge(0)

    # --- private ---

    def _charge(self, over: int) -> bool:
        """Have `over` bytes charged, in steps; False if the ledger does not have as many."""
        if self._ledger is None:
            return True
        with self._lock:
            wanted = -(-over // _STEP) * _STEP
            if wanted > self._charged and not self._ledger.debit(wanted - self._charged):
                return False
            freed, self._charged = self._charged - wanted, wanted
        if freed > 0:
            self._ledger.credit(freed)
        return True

    def _shrink(self, size: int) -> int:
        """Somebody needs memory: nothing is gained by giving up what was set aside."""
        before = self._charged
        if before:
            self._give_up(size)
            self._charge(max(0, self._held() - self._allowance))
        return max(0, before - self._charged)
