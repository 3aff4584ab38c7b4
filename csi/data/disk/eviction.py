"""What goes when a cache directory is full: the entries that were used longest ago.

There is no list of them to keep up to date, and none to be wrong after a crash: shards are looked at in random order
until a thousand entries are seen, or all, and the oldest of those go, half of them at most. With few entries that is
least recently used exactly, with many nearly so (the oldest half of a random sample), and its cost does not grow with
the directory. The age of an entry is the time of its file.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from csi.data.disk.entries import Entries, charge_of
from csi.data.disk.files import Files
from csi.data.disk.naming import MAP, SHARDS, TEMPORARY, EntryName

SAMPLE = 1000
"""Entries looked at at least, if there are as many."""


@dataclass(slots=True)
class Found:
    """One entry as it lies on the disk: `used` when, in seconds; `charge` of its files together."""

    name: EntryName
    used: float = 0.0
    charge: int = 0


@dataclass(slots=True)
class Removal:
    """What was removed: entries, and bytes by shard. `counted`: what is left in every shard, where all were seen."""

    entries: int = 0
    freed: dict[int, int] = field(default_factory=dict)
    counted: dict[int, int] | None = None

    @property
    def size(self) -> int:
        return sum(self.freed.values())


class Evictor:
    """Used by one thread. Raises OSError."""

    def __init__(self, root: int, files: Files, entries: Entries, choice: random.Random) -> None:
        self._root = root
        self._files = files
        self._entries = entries
        self._choice = choice

    def remove(self, size: int, *, spare: EntryName | None) -> Removal:
        """Remove at least `size` bytes of what was used longest ago, `spare` excepted; less where there is not as much
        or the sample is too small, which calling again mends."""
        order = list(range(len(SHARDS)))
        self._choice.shuffle(order)
        seen: list[Found] = []
        looked_at = 0
        for shard in order:
            seen += self.scan(shard)
            looked_at += 1
            if len(seen) >= SAMPLE:
                break
        exact = looked_at == len(SHARDS)
        removal = Removal()
        self._remove_oldest(seen, size, removal, spare=spare, at_most=len(seen) if exact else len(seen) // 2)
        if exact:
            removal.counted = dict.fromkeys(range(len(SHARDS)), 0)
            for found in seen:
                removal.counted[found.name.shard] += found.charge
        return removal

    def scan(self, shard: int) -> list[Found]:
        """The entries of one shard, each with what belongs to it."""
        found: dict[str, Found] = {}
        for name, status in self._files.entries(self._root, SHARDS[shard]):
            path = f"{SHARDS[shard]}/{name}"
            plain = path.removesuffix(MAP)
            entry = found.setdefault(plain, Found(EntryName(shard, plain)))
            entry.charge += charge_of(path, status)
            entry.used = max(entry.used, status.st_mtime)
        return list(found.values())

    def remove_leftovers(self, entries: Iterable[Found]) -> None:
        """Remove what a process that died was about to rename; only where no other process may be doing so."""
        for entry in entries:
            if entry.name.path.endswith(TEMPORARY):
                self._entries.remove(entry.name)
                entry.charge = 0

    def _remove_oldest(
        self, seen: list[Found], size: int, removal: Removal, *, spare: EntryName | None, at_most: int
    ) -> None:
        seen.sort(key=lambda entry: entry.used)
        for entry in seen[:at_most]:
            if removal.size >= size:
                return
            if entry.name == spare:
                continue
            if not self._entries.remove(entry.name):
                continue
            removal.entries += 1
            removal.freed[entry.name.shard] = removal.freed.get(entry.name.shard, 0) + entry.charge
            entry.charge = 0
