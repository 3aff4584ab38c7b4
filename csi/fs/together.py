"""Names of one directory that are asked for at the same time, by one request.

Eight programs that look for files in a directory, none of which anything is known of, ask for eight names, and the
store would answer eight listings of one name each. While a request for a name of a directory is under way, further
names wait for each other, and the next request is one page that tells all of them. (Not those of files that are being
made: the kernel makes one file of a directory after the other.) Promises that every answer was asked for after its
name was: it is as fresh as one of its own. Nobody waits where that would be long: only where the store answers at
once, which is where the work is what counts. Names that lie far apart in the listing are not told by one page; when
that happens often, each is asked for by itself.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from csi.errors import OssFuseError
from csi.fs.metadata import Facts, ask, ask_about
from csi.fs.names import decode
from csi.oss.store import ObjectStore
from csi.volume.units import ObjectKey, Seconds

_AT_ONCE = 1
"""Requests for names of one directory before others wait for each other."""
_QUICK = Seconds(0.012)
"""What a request takes at best where a name may wait for others: a store that is busy takes longer, and gains most."""
_REMEMBERED = 512  # requests, and as many before them, by which that is known
_MOST = 64  # names by one request
_TRUST = 8
_RETRY = 64  # names asked for alone until it is tried again whether names can be asked for together


class Told(NamedTuple):
    """What OSS said about a name (None: nothing is there), asked for at serial `asked` and time `at`."""

    facts: Facts | None
    asked: int
    at: float


@dataclass(frozen=True, slots=True)
class TogetherStatistics:
    """Requests for names under way, names that wait for one, and names so far that another's request told."""

    under_way: int = 0
    waiting: int = 0
    shared: int = 0


@dataclass(slots=True, eq=False)
class _Batch:
    """Names that wait. The first one's thread makes the request once it may `begin`; the others wait until `over`."""

    names: set[bytes] = field(default_factory=set)
    waiting: int = 0
    begin: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    told: Mapping[bytes, Facts | None] = field(default_factory=dict)
    asked: int = 0
    at: float = 0.0
    error: OssFuseError | None = None


@dataclass(slots=True, eq=False)
class _Group:
    """The requests for names of one directory."""

    flying: int = 0
    batch: _Batch | None = None


class Together:
    """`_lock` guards every field below it; it is not held across a request."""

    def __init__(
        self,
        store: ObjectStore,
        serial: Callable[[], int],
        clock: Callable[[], float],
        *,
        symlinks: bool,
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._serial = serial
        self._clock = clock
        self._symlinks = symlinks
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}
        self._waiting = 0
        self._shared = 0
        self._trust = _TRUST
        self._alone = 0
        self._best = self._best_before = math.inf  # of the latest requests, and of those before them

    def ask(self, directory: ObjectKey, name: bytes) -> Told:
        """What is at `name` in the directory whose keys begin with `directory`. Raises StoreError."""
        with self._lock:
            group = self._groups.setdefault(directory, _Group())
            batch = self._join(group, name)
            leads = batch is not None and batch.waiting == 1
            group.flying += batch is None
        if batch is not None and not leads:
            batch.over.wait()
            return self._told(directory, name, batch)
        try:
            if batch is not None:
                batch.begin.wait()
                self._ask_for(directory, batch)
                return self._told(directory, name, batch)
            return self._ask_alone(directory, name)
        finally:
            self._land(directory, group)

    def statistics(self) -> TogetherStatistics:
        with self._lock:
            flying = sum(group.flying for group in self._groups.values())
            return TogetherStatistics(flying, self._waiting, self._shared)

    # --- private ---

    def _join(self, group: _Group, name: bytes) -> _Batch | None:
        """The names that `name` waits with; None if it is asked for now. The lock is held."""
        if group.flying < _AT_ONCE or self._trust <= 0 or min(self._best, self._best_before) > _QUICK:
            return None
        batch = group.batch = group.batch or _Batch()
        if len(batch.names) >= _MOST and name not in batch.names:
            return None
        batch.names.add(name)
        batch.waiting += 1
        self._waiting += 1
        return batch

    def _land(self, directory: str, group: _Group) -> None:
        """A request has ended: those who wait may begin theirs."""
        with self._lock:
            batch, group.batch = group.batch, None
            if batch is not None:
                self._waiting -= batch.waiting  # theirs is in the place of this one
            else:
                group.flying -= 1
                if not group.flying:
                    del self._groups[directory]
        if batch is not None:
            batch.begin.set()

    def _ask_alone(self, directory: str, name: bytes) -> Told:
        asked, at, began = self._serial(), self._clock(), self._monotonic()
        facts = ask(self._store, ObjectKey(directory + decode(name)), symlinks=self._symlinks)
        took = self._monotonic() - began
        with self._lock:
            self._alone += 1
            if self._alone % _REMEMBERED == 0:
                self._best, self._best_before = took, self._best
            self._best = min(self._best, took)
            if self._alone % _RETRY == 0:
                self._trust = max(self._trust, 1)
        return Told(facts, asked, at)

    def _ask_for(self, directory: str, batch: _Batch) -> None:
        """The request of all who wait with the calling thread. A failure is kept for them."""
        batch.asked, batch.at = self._serial(), self._clock()
        try:
            if batch.waiting > 1:
                batch.told = ask_about(self._store, directory, batch.names, symlinks=self._symlinks)
                with self._lock:
                    self._shared += max(0, len(batch.told) - 1)
                    self._trust = min(self._trust + 1, _TRUST) if len(batch.told) > 1 else self._trust - 2
        except OssFuseError as error:
            batch.error = error
        finally:
            batch.over.set()

    def _told(self, directory: str, name: bytes, batch: _Batch) -> Told:
        if batch.error is not None:
            raise batch.error.with_traceback(None)
        if name not in batch.told:
            return self._ask_alone(directory, name)
        return Told(batch.told[name], batch.asked, batch.at)
