"""What the files of one checkpoint store share in a process: threads, memory, the way to the buckets.

An engine lives as long as somebody holds it or a file of it; its threads end with it. Files of a
process forked later get an engine of their own.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from functools import partial

from csi.data.buffers import BufferPool
from csi.data.ledger import MemoryLedger
from csi.data.leftovers import Leftovers
from csi.data.workers import URGENT, WorkerPool
from csi.oss.store import ObjectStore, ObjectVersion
from csi.torch.checkpoint.keeper import Keeper
from csi.torch.checkpoint.loading import Loading, LoadPlan
from csi.torch.checkpoint.saving import Saving
from csi.torch.checkpoint.stale import end_stale_uploads
from csi.torch.configuration import CheckpointOptions
from csi.torch.uri import ObjectUri, Place
from csi.volume.units import MIB, Seconds

PATIENCE = Seconds(120.0)
_KEPT = 64 * MIB
"""Bytes of buffers that stay for the next save or load: fresh memory is slow."""
_LATER = URGENT + 100

StoreOf = Callable[[Place], ObjectStore]


class Engine:
    """No lock: its dicts are changed by single operations. `stores` gives the store of a bucket, `clock` is seconds
    since the epoch."""

    def __init__(
        self,
        stores: StoreOf,
        options: CheckpointOptions,
        *,
        clock: Callable[[], float] = time.time,
        patience: Seconds = PATIENCE,
    ) -> None:
        self.process = os.getpid()
        self._stores = stores
        self._options = options
        self._clock = clock
        self._patience = patience
        self._downloads = WorkerPool("ossfuse-load", options.concurrency)
        self._uploads = WorkerPool("ossfuse-save", options.upload_concurrency)
        self._load_memory = BufferPool(MemoryLedger(options.read_buffer), keep=options.read_buffer)
        self._save_memory = BufferPool(MemoryLedger(options.upload_buffer), keep=options.upload_buffer)
        self._leftovers: dict[Place, Leftovers] = {}
        self._looked_at: set[ObjectUri] = set()
        self._saving: dict[Saving, None] = {}
        pools = (self._downloads, self._uploads)
        closers: list[Callable[[], object]] = [partial(pool.close, Seconds(0)) for pool in pools]
        closers.append(partial(_close_all, self._leftovers))
        self._keeper = Keeper(closers)
        weakref.finalize(self, self._keeper.end).atexit = False

    def version_of(self, uri: ObjectUri) -> ObjectVersion:
        """What the object is now. Raises ObjectNotFound, …"""
        return self._stores(uri.place).head(uri.key).version

    def load(self, uri: ObjectUri, version: ObjectVersion, *, exact: bool = False) -> Loading:
        """`exact`: only what is asked for is fetched."""
        options = self._options
        plan = LoadPlan(options.read_size, options.read_buffer, options.concurrency, options.workers, exact)
        return Loading(version, self._stores(uri.place), self._downloads, self._load_memory, plan)

    def save(self, uri: ObjectUri) -> Saving:
        """Begin to write an object; makes no request."""
        store = self._stores(uri.place)
        saving = Saving(
            uri.key,
            store,
            self._uploads,
            self._save_memory,
            self._leftovers_of(uri.place, store),
            part_size=self._options.part_size,
            budget=self._options.upload_buffer,
            patience=self._patience,
            began=partial(self._look_for_stale, uri, store),
            ended=self._ended,
        )
        self._saving[saving] = None
        self._keeper.watch(saving)
        return saving

    def drop_when_gone(self, writer: object, saving: Saving) -> None:
        """`saving` is given up when `writer` is garbage."""
        weakref.finalize(writer, self._keeper.drop, saving).atexit = False

    def drop(self, saving: Saving) -> None:
        """Nobody can finish `saving` any more. From anywhere, also out of the garbage collection."""
        self._keeper.drop(saving)

    def released(self) -> None:
        """A file was closed: keep no more memory than the next one needs at once."""
        self._load_memory.trim(_KEPT)
        if not self._saving:
            self._save_memory.trim(_KEPT)

    def _ended(self, saving: Saving) -> None:
        self._saving.pop(saving, None)
        self._keeper.forget(saving)

    def _leftovers_of(self, place: Place, store: ObjectStore) -> Leftovers:
        found = self._leftovers.get(place)
        return found if found is not None else self._leftovers.setdefault(place, Leftovers(store))

    def _look_for_stale(self, uri: ObjectUri, store: ObjectStore) -> None:
        """Once for each object, in the background: what a killed process left of it."""
        if uri in self._looked_at:
            return
        self._looked_at.add(uri)
        now = self._clock()

        def look() -> bool:
            end_stale_uploads(store, uri.key, now, lambda: {saving.upload_id for saving in list(self._saving)})
            return True

        self._uploads.submit(look, priority=_LATER, dropped=lambda: None)


def _close_all(leftovers: dict[Place, Leftovers]) -> None:
    for each in list(leftovers.values()):
        each.close()
