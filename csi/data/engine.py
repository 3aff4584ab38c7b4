"""The data engine: everything of one mount that moves bytes, behind five calls.

It makes the readers and writers of `streams.py` and owns what they share: the memory, the block cache, the threads.
Half of the memory budget at most is for writers, the rest is for readers; a quarter of it, at most 16 MiB, keeps what
was read already. Knows no names, no modes and no FUSE: keys and versions come from `csi/fs`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from csi.data.appender import AppendWriter
from csi.data.blocks import BlockCache, CacheStatistics
from csi.data.buffers import BufferPool, PoolStatistics, floor_power
from csi.data.disk.cache import DiskCache
from csi.data.disk.statistics import DiskStatistics
from csi.data.ledger import LedgerStatistics, MemoryLedger
from csi.data.leftovers import Leftovers, LeftoverStatistics
from csi.data.pattern import WHOLE, ReadPlan
from csi.data.plan import SMALLEST_PART, PartPlan
from csi.data.reader import BlockReader
from csi.data.scratch import Scratch
from csi.data.shelves import UNIT
from csi.data.staging import StagingMemory, StagingStatistics
from csi.data.streams import BlockTable, Reader, Tail, Writer, WriterStatistics
from csi.data.ticker import Ticker, TickerStatistics
from csi.data.whole import WholeReader
from csi.data.window import Streams, StreamStatistics
from csi.data.workers import URGENT, WorkerPool, WorkerStatistics
from csi.data.writer import PartWriter
from csi.errors import BadHandle
from csi.oss.store import ObjectStore, ObjectVersion
from csi.volume.spec import ReadOptions, WriteOptions
from csi.volume.units import MIB, Bytes, ObjectKey, Seconds

_READERS = (BlockReader, WholeReader)
Handle = TypeVar("Handle", BlockReader, WholeReader, PartWriter, AppendWriter)

PATIENCE = Seconds(120.0)
ADMISSION = Seconds(30.0)
CLOSING = Seconds(5.0)

_RETAINED = 16 * MIB
_KEPT_FREE = 64 * MIB
_LARGEST_REQUEST = 16 * MIB
_WIDEST = 8 * MIB
"""Of requests beyond the size that was asked for: one stream was no faster with 16 MiB, and took more CPU."""
_WORTH_AHEAD = Seconds(0.004)
"""Of a request: one that is made ahead costs another thread and two switches, about a millisecond on a busy machine."""
_CLOSED_AT_ONCE = 16
_SOMEDAY = 1 << 30


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Everything countable. `readers` and `writers` are open now, `writing` is what the writers do together."""

    readers: int
    writers: int
    writing: WriterStatistics
    streams: StreamStatistics
    memory: LedgerStatistics
    buffers: PoolStatistics
    cache: CacheStatistics
    staging: StagingStatistics
    downloads: WorkerStatistics
    uploads: WorkerStatistics
    leftovers: LeftoverStatistics
    flushes: TickerStatistics
    disk: DiskStatistics | None

    @property
    def memory_in_use(self) -> int:
        """Bytes that somebody is working with: neither free for the next loan nor read already."""
        return self.buffers.lent - self.cache.spent_bytes


class DataEngine:
    """It has no lock: `_open` is changed by single operations that the interpreter does not interrupt, and whoever adds
    to it looks at `_closed` afterwards.

    `patience` is how long a call waits for memory or for a queue that does not move before it raises DeadlineExceeded;
    `admission` how long opening a file for writing waits for memory before it raises OutOfMemoryBudget. `published`
    is where blocks are published for reads that are answered without the engine, `tails` makes what writes are put in
    without it; `disk` makes the cache of blocks on a disk, whose memory is the pool's.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        read: ReadOptions,
        write: WriteOptions,
        ledger: MemoryLedger,
        clock: Callable[[], float] = time.monotonic,
        patience: Seconds = PATIENCE,
        admission: Seconds = ADMISSION,
        published: BlockTable | None = None,
        tails: Callable[[], Tail] | None = None,
        disk: Callable[[BufferPool], DiskCache] | None = None,
    ) -> None:
        self._store = store
        self._write = write
        self._clock = clock
        self._patience = patience
        self._admission = admission
        self._ledger = ledger
        self._open: dict[BlockReader | WholeReader | PartWriter | AppendWriter, None] = {}
        self._closed = False
        self._pool = BufferPool(ledger, keep=min(ledger.budget // 4, _KEPT_FREE))
        self._tails = tails
        self._disk = disk(self._pool) if disk is not None else None
        self._downloads = WorkerPool("ossfuse-read", read.threads)
        self._uploads = WorkerPool("ossfuse-write", write.threads)
        self._retained = min(ledger.budget // 4, _RETAINED)
        self._cache = BlockCache(
            store,
            self._pool,
            self._downloads,
            retained=self._retained,
            patience=patience,
            clock=clock,
            published=published,
            kept=self._disk,
        )
        self._staging = StagingMemory(self._pool, limit=ledger.budget // 2)
        self._streams = Streams(self._read_ahead_capacity)
        self._reads = _read_plan(read, ledger.budget)
        self._someday = itertools.count(_SOMEDAY, -1)
        self._leftovers = Leftovers(store)
        self._parts = PartPlan(max(write.part_size, SMALLEST_PART))
        self._ticker = Ticker(write.flush_interval) if write.flush_interval is not None else None

    # --- what the filesystem asks for ---

    def open_reader(self, version: ObjectVersion, *, exact: bool = False) -> Reader:
        """Read one version; with `exact`, nothing is fetched that was not asked for. Makes no request."""
        self._check_open()
        if version.size <= WHOLE and not exact:
            whole = WholeReader(version, self._store, self._cache, patience=self._patience, closed=self._forget_reader)
            return self._remember(whole)
        reader = BlockReader(
            version,
            self._store,
            self._cache,
            self._streams,
            self._reads,
            exact=exact,
            patience=self._patience,
            clock=self._clock,
            closed=self._forget_reader,
        )
        return self._remember(reader)

    def gains_ahead(self, size: Bytes) -> bool:
        """Not known yet: no."""
        return self._cache.pace.quickest(size) >= _WORTH_AHEAD

    def prefetch(self, version: ObjectVersion) -> bool:
        """Fetch a small object that will probably be read soon, when nothing more urgent is to be done; the last one
        asked for first, since who reads will fetch the next ones himself."""
        if version.size > WHOLE or self._closed:
            return False
        return self._cache.prefetch(version, priority=next(self._someday))

    def open_writer(
        self,
        key: ObjectKey,
        *,
        base: ObjectVersion | None = None,
        user: Mapping[str, str] | None = None,
        content_type: str = "",
        forbid_overwrite: bool = False,
    ) -> Writer:
        """Write a new object, or with `base` continue that version (its position is then the version's size).

        Makes no request. Raises OutOfMemoryBudget.
        """
        self._check_open()
        writer = PartWriter(
            key,
            self._store,
            self._uploads,
            self._staging,
            self._parts,
            base=base,
            user=user,
            content_type=content_type,
            forbid_overwrite=forbid_overwrite,
            crc64=self._write.crc64,
            parallel=self._write.threads,
            leftovers=self._leftovers,
            patience=self._patience,
            admission=self._admission,
            closed=self._forget,
            cache=self._cache,
            tail=self._tails() if self._tails is not None else None,
        )
        return self._remember(writer)

    def open_scratch(self) -> Scratch:
        """Bytes that are never sent, in at most half of what writers have, for as long as none of them wants it."""
        self._check_open()
        return Scratch(self._staging, self._staging.limit // 2)

    def open_appender(self, key: ObjectKey, *, position: int, content_type: str = "") -> Writer:
        """Append to an object of `position` bytes; at 0 it is created now, and must not exist with any bytes in it or
        as another type than Appendable.

        Raises AppendConflict when the object is anything else, FileTooLarge, OutOfMemoryBudget.
        """
        self._check_open()
        writer = AppendWriter(
            key,
            self._store,
            self._uploads,
            self._staging,
            position=position,
            buffer_size=self._write.buffer_size,
            content_type=content_type,
            crc64=self._write.crc64,
            patience=self._patience,
            admission=self._admission,
            closed=self._forget,
        )
        if self._ticker is not None:
            self._ticker.add(writer.push)
        return self._remember(writer)

    def forget(self, key: ObjectKey) -> None:
        """Drop the cached blocks of every version of `key`; open readers fetch theirs again."""
        self._cache.forget(key)

    # --- the end ---

    def drain(self, within: Seconds) -> bool:
        """Wait until no request is under way or queued; False after `within` seconds. Finishes no writer."""
        end = self._clock() + within
        return self._uploads.drain(within) and self._downloads.drain(Seconds(max(0.0, end - self._clock())))

    def close(self, within: Seconds = CLOSING) -> None:
        """Abandon the writers, close the readers, end the threads and give back all memory; idempotent.

        Waits at most about `within` seconds for requests under way to end.
        """
        self._closed = True
        left = list(self._open)
        if self._ticker is not None:
            self._ticker.close()
        closing = WorkerPool("ossfuse-close", _CLOSED_AT_ONCE)
        for handle in left:
            if isinstance(handle, _READERS):
                handle.close()
            else:
                closing.submit(partial(_abandon, handle), priority=URGENT, dropped=_nothing)
        end = self._clock() + within
        closing.drain(within)
        closing.submit(self._abort_leftovers, priority=URGENT, dropped=_nothing)
        closing.drain(Seconds(max(0.0, end - self._clock())))
        self._leftovers.close()
        for pool in (closing, self._downloads, self._uploads):  # a writer not abandoned in time ends when its parts do
            pool.close(Seconds(max(0.0, end - self._clock())))
        if self._disk is not None:
            self._disk.close(Seconds(max(0.0, end - self._clock())))
        self._cache.shut()
        self._pool.close()

    def trim(self) -> None:
        """Give the memory that nobody works with back to the system."""
        self._ledger.relieve(self._ledger.budget)
        self._pool.trim()

    def statistics(self) -> EngineStatistics:
        handles = list(self._open)
        writers = [handle for handle in handles if not isinstance(handle, _READERS)]
        return EngineStatistics(
            len(handles) - len(writers),
            len(writers),
            sum((writer.statistics() for writer in writers), WriterStatistics()),
            self._streams.statistics(),
            self._ledger.statistics(),
            self._pool.statistics(),
            self._cache.statistics(),
            self._staging.statistics(),
            self._downloads.statistics(),
            self._uploads.statistics(),
            self._leftovers.statistics(),
            self._ticker.statistics() if self._ticker is not None else TickerStatistics(0),
            self._disk.statistics() if self._disk is not None else None,
        )

    # --- private ---

    def _abort_leftovers(self) -> bool:
        self._leftovers.retry()
        return True

    def _read_ahead_capacity(self) -> int:
        """Bytes that windows may take together now."""
        return self._ledger.budget - self._retained - self._staging.reserved

    def _remember(self, handle: Handle) -> Handle:
        self._open[handle] = None
        if not self._closed:  # otherwise `close` may not have seen it
            return handle
        self._open.pop(handle, None)
        if isinstance(handle, _READERS):
            handle.close()
        else:
            handle.abandon()
        raise BadHandle("the volume is being unmounted")

    def _forget_reader(self, reader: BlockReader | WholeReader) -> None:
        self._open.pop(reader, None)

    def _forget(self, writer: PartWriter | AppendWriter) -> None:
        if self._ticker is not None and isinstance(writer, AppendWriter):
            self._ticker.remove(writer.push)
        self._open.pop(writer, None)

    def _check_open(self) -> None:
        if self._closed:
            raise BadHandle("the volume is being unmounted")


def _abandon(writer: PartWriter | AppendWriter) -> bool:
    writer.abandon()
    return True


def _nothing() -> None:
    return


def _read_plan(read: ReadOptions, budget: int) -> ReadPlan:
    """Sizes for `reader`: what was asked for, in powers of two, and small enough that a few blocks fit the budget."""
    chunk = _block_size(min(read.readahead_size, budget // 8, _LARGEST_REQUEST))
    first = min(_block_size(read.buffer_size), chunk)
    largest = read.readahead_count * read.readahead_size
    # Two requests under way and two blocks ready. That more is of use is found out by `Cursor.judge` and `stalled`.
    reach = min(largest, min(read.threads + 2, 4) * chunk)
    widest = max(chunk, _block_size(min(budget // 16, _WIDEST)))
    return ReadPlan(first, chunk, widest, reach, largest)


def _block_size(size: int) -> int:
    return max(UNIT, floor_power(max(size, 1)))
