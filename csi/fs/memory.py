"""What names cost in memory, and who pays for it.

Inodes, kept listings, names known to be absent and pages on their way are estimated by number, not measured one by one.
A part of the memory limit is set aside for them (`metadata_allowance`); what they take beyond it is charged to the
ledger, so that blocks and parts have that much less, up to half of what the ledger has. Inodes that the kernel knows
have to stay until it forgets them: for what cannot be charged, and when others need the memory, it is asked to
(`csi/fs/surplus.py`). Listings are given up at once, but only where that does not help or others wait: without them
every name is a request. How much may be remembered in the first place follows from the allowance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from csi.data.ledger import MemoryLedger
from csi.volume.units import KIB, MIB, Bytes

INODE = 800
"""Bytes an inode was seen to take with facts, name and places in two tables, and in those of the session."""

NAME = 352
"""Bytes a name of a kept listing takes when no inode shares its facts."""

ABSENCE = 256

PAGE = 384 * KIB
"""A page of a thousand names, as it is parsed."""

_STEP = 1 * MIB
_TOLERATED = 2
_MORE = 16
"""Parts of the allowance: what may be held beyond all until the kernel has forgotten enough, and what it is asked to
forget at once."""
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
    """`_lock` guards `_charged`, `_wanted` and `_claimant`. Nothing is called with it that calls back; the ledger is
    asked to relieve without `InodeTable.lock`."""

    def __init__(self, ledger: MemoryLedger | None, allowance: Bytes) -> None:
        """`allowed_inodes` cost nobody else anything, or little with `most_names` in listings. Up to `most_inodes` may
        be made for names that will be looked up soon: somewhat more than can be charged, which the kernel is forgetting
        then."""
        self.allowed_inodes = max(allowance * 5 // 8 // INODE, _LEAST_INODES)
        self.most_names = max(allowance // (2 * NAME), _LEAST_NAMES)
        self._ledger = ledger
        self._allowance = allowance
        self._most_charged = ledger.budget // 2 if ledger is not None else 0
        self.most_inodes = max((allowance + self._most_charged) * 5 // 4 // INODE, self.allowed_inodes)
        self._lock = threading.Lock()
        self._charged = 0
        self._wanted = 0
        self._claimant = 0
        self._held: Callable[[], int] = lambda: 0
        self._give_up: Callable[[int], int] = lambda size: 0
        self._on_want: Callable[[], None] = lambda: None
        self._undo_pressure = ledger.on_pressure(self._shrink) if ledger is not None else None

    def watch(self, held: Callable[[], int], give_up: Callable[[int], int]) -> None:
        """`held` tells the bytes taken now; `give_up` forgets what can be asked for again, and how many bytes that
        were."""
        self._held, self._give_up = held, give_up

    def on_want(self, tell: Callable[[], None]) -> None:
        """Call `tell` when there may be something `owed`. Must not wait."""
        self._on_want = tell

    def weigh(self) -> None:
        """Charge what is held now."""
        if self._weigh():
            self._on_want()

    def owed(self) -> int:
        """Bytes that are held without having been charged or set aside, or that others have been waiting for since the
        last call; if it is anything, a little more, so that it is not at once that much again."""
        owed = self._weigh()
        with self._lock:
            wanted, self._wanted = self._wanted, 0
            owed += min(wanted, self._charged)
        return owed and owed + self._allowance // _MORE

    def statistics(self) -> MetadataMemoryStatistics:
        self.weigh()
        return MetadataMemoryStatistics(self._held(), self._allowance, self._charged)

    def close(self) -> None:
        """Pay everything back."""
        if self._undo_pressure is not None:
            self._undo_pressure()
        self._charge(0)

    # --- private ---

    def _weigh(self) -> int:
        """Bytes that could not be charged. Listings are given up for much of it only: they are bounded, and worth more
        than inodes of names that nobody has looked up for long."""
        self._charge(min(self._over(), self._most_charged))
        uncharged = self._uncharged()
        if uncharged > self._allowance // _TOLERATED:
            self._give_up(uncharged)
            self._charge(min(self._over(), self._most_charged))
            uncharged = self._uncharged()
        return uncharged

    def _over(self) -> int:
        return max(0, self._held() - self._allowance)

    def _uncharged(self) -> int:
        """Nothing where nobody counts."""
        return max(0, self._over() - self._charged) if self._ledger is not None else 0

    def _charge(self, over: int) -> None:
        """Have `over` bytes charged, in steps, as far as the ledger has as many or others can give up the rest."""
        ledger = self._ledger
        if ledger is not None and not self._settle(ledger, over) and self._claim(ledger, over - self._charged):
            self._settle(ledger, over)

    def _settle(self, ledger: MemoryLedger, over: int) -> bool:
        """False if the ledger does not have as many."""
        with self._lock:
            more = -(-over // _STEP) * _STEP - self._charged
            if more > 0 and not ledger.debit(more):
                return False
            self._charged += more
        if more < 0:
            ledger.credit(-more)
        return True

    def _claim(self, ledger: MemoryLedger, size: int) -> bool:
        """Have caches give up `size` bytes for names."""
        with self._lock:
            if self._claimant:
                return False
            self._claimant = threading.get_ident()
        try:
            return ledger.relieve(size)
        finally:
            with self._lock:
                self._claimant = 0

    def _shrink(self, size: int) -> int:
        """Somebody needs memory: nothing is gained by giving up what was set aside."""
        before = self._charged
        if not before or self._claimant == threading.get_ident():
            return 0
        self._give_up(size)
        self._charge(min(self._over(), before))
        given = max(0, before - self._charged)
        if given < size:
            with self._lock:
                self._wanted = max(self._wanted, size - given)
            self._on_want()
        return given
