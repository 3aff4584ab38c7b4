"""A cache directory that is open, and all that one thread does to it: keep what is offered, make room, count.

Raises OSError; what to do about it is `cache`'s.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from csi.data.disk.entries import SMALL, Entries, Missing, cost_of
from csi.data.disk.eviction import Evictor
from csi.data.disk.files import Files
from csi.data.disk.naming import SHARDS, EntryName
from csi.data.disk.usage import Usage
from csi.volume.naming import CACHE_FOLDER

_ATTEMPTS = 8
_AHEAD = 32
"""One part in so many of the limit is made free at a time, so that not every block has to."""
_LOCK = "lock"


@dataclass(slots=True)
class Counters:
    """What was done so far; changed by one thread."""

    stored: int = 0
    stored_bytes: int = 0
    passed_over: int = 0
    evicted: int = 0


class CacheDirectory:
    """The folder of ours in `path`. Its `entries` may be read by any thread, all else is one thread's."""

    def __init__(
        self,
        path: str,
        limit: int,
        files: Files,
        counters: Counters,
        *,
        wall: Callable[[], float],
        choice: random.Random,
    ) -> None:
        self._limit = limit
        self._files = files
        self._counters = counters
        with ExitStack() as opened:
            parent = files.open_directory(path)
            try:
                self._root = files.own_directory(parent, CACHE_FOLDER)
            finally:
                files.close(parent)
            opened.callback(files.close, self._root)
            status = files.status(self._root)
            self.identity = status.st_dev, status.st_ino
            owner = status.st_uid
            if owner != os.geteuid():
                raise PermissionError(f"{CACHE_FOLDER} in it belongs to user {owner}, not to {os.geteuid()}")
            self.entries = Entries(self._root, files, wall=wall)
            self._usage = Usage(self._root, files)
            opened.callback(self._usage.close)
            self._evictor = Evictor(self._root, files, self.entries, choice)
            self._lock = files.open(self._root, _LOCK, os.O_RDWR | os.O_CREAT)
            opened.callback(files.close, self._lock)
            self._uncounted = list(range(len(SHARDS))) if files.lock(self._lock, alone=True, wait=False) else []
            if not self._uncounted:
                files.lock(self._lock, alone=False, wait=False)
            self._opened = opened.pop_all()

    @property
    def counted(self) -> bool:
        """Whether there is nothing to `count`."""
        return not self._uncounted

    def stored_now(self) -> int:
        return self._usage.total()

    def count(self) -> None:
        """Count one more shard of a directory that nobody else has open, and remove what a dead process left there."""
        shard = self._uncounted.pop()
        found = self._evictor.scan(shard)
        self._evictor.remove_leftovers(found)
        self._usage.correct({shard: sum(entry.charge for entry in found)})
        if not self._uncounted:
            self._files.lock(self._lock, alone=False, wait=False)
            over = self._usage.total() - self._limit
            if over > 0:
                self._make_room(over, None)

    def keep(self, name: EntryName, size: int, offered: Missing) -> None:
        """Write what is not there of `offered`, a part of an object of `size` bytes, if there can be room for it."""
        runs = self.entries.missing(name, size, offered)
        if not runs:
            return
        cost = cost_of(size, runs)
        if not self._take(name, cost):
            self._counters.passed_over += 1
            return
        try:
            unused = self._write(name, size, runs)
        except OSError:
            if size <= SMALL:  # of a large one some may have been written
                self._usage.give_back({name.shard: cost})
            raise
        if unused:
            self._usage.give_back({name.shard: unused})
        self._counters.stored += 1
        self._counters.stored_bytes += sum(len(run.data) for run in runs)

    def discard(self, name: EntryName) -> None:
        """Remove an entry that is not what was written."""
        for entry in self._evictor.scan(name.shard):
            if entry.name == name and self.entries.remove(name):
                self._usage.give_back({name.shard: entry.charge})

    def close(self) -> None:
        self._opened.close()

    def _write(self, name: EntryName, size: int, runs: list[Missing]) -> int:
        try:
            return self.entries.write(name, size, runs)
        except FileNotFoundError:  # the first entry of its shard
            self._files.make_directory(self._root, SHARDS[name.shard])
            return self.entries.write(name, size, runs)

    def _take(self, name: EntryName, cost: int) -> bool:
        for _ in range(_ATTEMPTS):
            over = self._usage.take(name.shard, cost, self._limit)
            if over == 0:
                return True
            if cost > self._limit or not self._make_room(over, name):
                return False
        return False

    def _make_room(self, over: int, spare: EntryName | None) -> bool:
        """Whether it was of any use."""
        removal = self._evictor.remove(over + self._limit // _AHEAD, spare=spare)
        self._counters.evicted += removal.entries
        if removal.counted is not None and removal.size < over:  # the numbers may be wrong: now they are known
            before = self._usage.total()
            self._usage.correct(removal.counted)
            return self._usage.total() < before
        self._usage.give_back(removal.freed)
        return removal.size > 0
