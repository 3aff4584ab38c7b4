"""The disk cache of one volume: blocks by version below the blocks in memory, shared with whoever uses the directory.

Reading happens on the thread that wants the bytes, without a lock: an entry is opened, read and checked, or it is not
there. Everything that changes the directory happens on one thread of the cache's own, fed by a queue that offers are
passed over for when it is full. What waits in the queue keeps its block's memory, which stays charged to the ledger as
it was, and is given up when somebody needs that memory.

A disk that is full, read-only, broken or gone costs nobody an error: after the first failure the cache says so once,
in the log, leaves the disk alone for five minutes, and tries again. Bytes are believed only if their CRC64 is right
(`entries`); what is wrong is removed and fetched anew.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from csi.data.buffers import BufferPool
from csi.data.disk.directory import CacheDirectory, Counters
from csi.data.disk.entries import Corrupt, Missing, storable
from csi.data.disk.files import Files
from csi.data.disk.naming import EntryName, name_of
from csi.data.disk.statistics import DiskStatistics
from csi.data.disk.trouble import Trouble
from csi.data.disk.whole import WholeFiles
from csi.oss.store import ObjectVersion
from csi.volume.units import MIB, Bytes, Seconds

log = logging.getLogger(__name__)

_LARGEST_QUEUE = 32 * MIB  # four of the largest requests
_SHARE = 8
"""The queue holds at most one part in so many of the memory budget."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cache is and how much it may hold: `path` as this process sees it, `scope` as of `naming`."""

    path: str
    limit: Bytes
    scope: bytes


@dataclass(frozen=True, slots=True)
class _Offer:
    name: EntryName
    size: int
    part: Missing


class DiskCache:
    """A `KeptBlocks` (csi/data/kept.py). `_condition` guards the queue, what is to be removed, what trouble there is,
    `_closed` and the counters of reading; nothing is called while it is held but the log. `_directory` is changed by
    the cache's thread alone, and read by all."""

    def __init__(
        self,
        place: Place,
        pool: BufferPool,
        *,
        files: Files | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        choice: random.Random | None = None,
    ) -> None:
        self._place = place
        self._pool = pool
        self._files = files if files is not None else Files()
        self._clock = clock
        self._trouble = Trouble(place.path, clock)
        self._wall = wall
        self._choice = choice if choice is not None else random.Random()
        self._room = min(_LARGEST_QUEUE, pool.ledger.budget // _SHARE)
        self._condition = threading.Condition()
        self._queue: deque[_Offer] = deque()
        self._queued = 0
        self._condemned: deque[EntryName] = deque()
        self._busy = False
        self._closed = False
        self._counters = Counters()
        self._hits = self._hit_bytes = self._misses = self._corrupt = self._passed_over = 0
        self._in_work = 0  # bytes of the offer that is being written
        self._replaced: list[CacheDirectory] = []  # readers may still be using these
        self._whole = WholeFiles(self._files, pool.try_take)
        self._directory = self._open()
        self._undo_pressure = pool.ledger.on_pressure(self._shrink)
        self._thread = threading.Thread(target=self._work, name="ossfuse-disk", daemon=True)
        self._thread.start()

    # --- on the threads that read ---

    def fill(self, version: ObjectVersion, start: int, target: memoryview) -> int:
        directory = self._directory
        if directory is None or not version.etag or self._trouble.blind:
            return 0
        name = name_of(self._place.scope, version)
        try:
            got = directory.entries.read(name, int(version.size), start, target, self._pool.try_take)
        except Corrupt:
            self._condemn(name)
            got = 0
        except OSError as error:
            self._fail("reading", error)
            got = 0
        with self._condition:
            if got:
                self._hits += 1
                self._hit_bytes += got
            else:
                self._misses += 1
        return got

    def offer(self, version: ObjectVersion, start: int, data: memoryview) -> None:
        if not version.etag:
            return
        part = storable(int(version.size), start, data)
        if part is None:
            return
        offer = _Offer(name_of(self._place.scope, version), int(version.size), part)
        with self._condition:
            if self._closed:
                return
            full = self._queued + len(part.data) > self._room
            if full or self._pool.ledger.contended or self._trouble.pausing:
                self._passed_over += 1
                return
            self._queue.append(offer)
            self._queued += len(part.data)
            if not self._busy:
                self._condition.notify_all()

    def whole(self, version: ObjectVersion) -> int | None:
        directory = self._directory
        if directory is None or not version.etag or self._trouble.blind:
            return None
        try:
            descriptor = self._whole.open(directory.entries, name_of(self._place.scope, version), int(version.size))
        except OSError as error:
            self._fail("opening a file", error)
            return None
        if descriptor is None and len(self._whole):
            with self._condition:
                self._condition.notify_all()
        return descriptor

    # --- the end, and what was done ---

    def close(self, within: Seconds) -> None:
        """Write what is queued, for `within` seconds at most, and keep nothing more."""
        end = self._clock() + within
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._undo_pressure()
        self._thread.join(max(0.0, end - self._clock()))
        with self._condition:
            self._drop(len(self._queue))

    def settle(self, within: Seconds) -> bool:
        """Wait until nothing is queued, to be removed, counted or looked at; False after `within` seconds."""
        with self._condition:
            return self._condition.wait_for(self._is_idle, within)

    def statistics(self) -> DiskStatistics:
        directory = self._directory
        try:
            stored_now = directory.stored_now() if directory is not None and not self._closed else 0
        except OSError:
            stored_now = 0
        with self._condition:
            return DiskStatistics(
                limit=self._place.limit,
                directory_bytes=stored_now,
                queued_bytes=self._queued,
                unchecked=len(self._whole),
                hits=self._hits,
                hit_bytes=self._hit_bytes,
                misses=self._misses,
                stored=self._counters.stored,
                stored_bytes=self._counters.stored_bytes,
                passed_over=self._passed_over + self._counters.passed_over,
                evicted=self._counters.evicted,
                corrupt=self._corrupt,
                failed=self._trouble.count,
                trouble=self._trouble.text,
            )

    # --- trouble ---

    def _open(self) -> CacheDirectory | None:
        place = self._place
        try:
            return CacheDirectory(
                place.path, place.limit, self._files, self._counters, wall=self._wall, choice=self._choice
            )
        except OSError as error:
            self._fail("opening", error)
            return None

    def _fail(self, doing: str, error: OSError) -> None:
        with self._condition:
            self._trouble.note(doing, error)
            self._passed_over += self._drop(len(self._queue))

    def _recover(self) -> None:
        """The pause is over: open the directory again, which may be another one by now."""
        before, after = self._directory, self._open()
        if after is None:
            return
        if before is not None and before.identity == after.identity:
            after.close()
        else:
            self._directory = after
            if before is not None:
                self._replaced.append(before)
        with self._condition:
            self._trouble.over()

    def _condemn(self, name: EntryName) -> None:
        with self._condition:
            self._corrupt += 1
            first = self._corrupt == 1
            if name not in self._condemned:
                self._condemned.append(name)
            self._condition.notify_all()
        if first:
            log.warning(
                "disk cache in %s: an entry is not what was written and is removed; others will only be counted",
                self._place.path,
            )

    # --- on the cache's own thread ---

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except OSError as error:
                self._fail("writing", error)
            except Exception:
                log.exception("the disk cache failed in a way nobody foresaw")
            finally:
                del job  # and with it the last reference to a block
                with self._condition:
                    self._busy = False
                    self._queued -= self._in_work
                    self._in_work = 0
                    self._condition.notify_all()
        for directory in (*self._replaced, self._directory):
            if directory is not None:
                directory.close()
        self._whole.close()

    def _next(self) -> Callable[[], None] | None:
        """What to do now; None at the end."""
        with self._condition:
            while True:
                job = self._choose()
                if job is not None:
                    self._busy = True
                    return job
                if self._closed:
                    return None
                self._condition.wait()

    def _choose(self) -> Callable[[], None] | None:
        if self._trouble.pausing:
            return None
        if self._trouble.text:
            return None if self._closed or not self._queue else self._recover
        directory = self._directory
        if directory is None:
            return None
        if self._queue:
            offer = self._queue.popleft()
            self._in_work = len(offer.part.data)
            return lambda: self._keep(directory, offer)
        if self._closed:
            return None
        if self._condemned:
            condemned = self._condemned.popleft()
            return lambda: directory.discard(condemned)
        if not directory.counted:
            return directory.count
        return (lambda: self._look_at_whole(directory)) if len(self._whole) else None

    def _keep(self, directory: CacheDirectory, offer: _Offer) -> None:
        directory.keep(offer.name, offer.size, offer.part)
        self._trouble.works()

    def _look_at_whole(self, directory: CacheDirectory) -> None:
        wrong = self._whole.step(directory.entries)
        if wrong is not None:
            self._condemn(wrong)

    def _is_idle(self) -> bool:
        counted = self._directory is None or self._directory.counted
        waiting = self._queue or self._condemned or len(self._whole) or not counted
        return not self._busy and (self._trouble.pausing or not waiting)

    def _shrink(self, size: int) -> int:
        """Somebody waits for memory: what is queued may be the last to hold a block's. Says nothing of how much that
        gives, because the block may be kept elsewhere too."""
        with self._condition:
            while self._queue and size > 0:
                size -= len(self._queue[-1].part.data)
                self._passed_over += self._drop(1)
        return 0

    def _drop(self, count: int) -> int:
        """Forget the latest offers, with the lock held; how many they were."""
        for _ in range(count):
            self._queued -= len(self._queue.pop().part.data)
        return count
