"""How the bytes of samples arrive in one process: a bounded number of requests at a time, each made ahead by a thread.

A small sample is one GET into memory of its own, by a courier where there is a post (`lines`); a sample larger than
`unit` is left to its reader, who gets it by ranges from a data engine. Two budgets of half the configured one bound
what was fetched ahead and not yet taken, and what the engine holds. Knows no PyTorch; order and retention are the
business of `pipeline`.
"""

from __future__ import annotations

import _thread
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Any, Final

from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger
from csi.data.streams import Reader
from csi.errors import EndpointUnreachable, OssFuseError, PreconditionFailed
from csi.oss.client import OssClient
from csi.oss.store import ObjectVersion
from csi.torch.archives import HEADERS
from csi.torch.catalogue import UNKNOWN, Entry
from csi.torch.connection import Connection
from csi.torch.lines import Post, post_to
from csi.torch.processors import confine
from csi.torch.slots import Fetched, Slot, member_of, version_of
from csi.torch.uri import Place
from csi.volume.spec import ReadOptions, WriteOptions
from csi.volume.units import MIB, Bytes

FIRST_GUESS: Final = 1 * MIB
"""Of the size of an object that nobody listed: what its first request asks for."""
_LEAST_LEDGER: Final = 16 * MIB
_SPARE: Final = 4
"""Connections for samples that are read on the caller's thread meanwhile."""


class Fetcher:
    """Of one process: made in it, and never used in another. Any thread may call.

    `_lock` guards `_engines`, `_posts` and `_threads`; it is held for no request. Its threads and engines end with
    `close`, or when nobody holds it any more.
    """

    def __init__(self, connection: Connection) -> None:
        options = connection.configuration.dataset
        self.process = os.getpid()
        self.unit = options.unit
        self.budget = Bytes(max(options.budget // 2, options.unit))
        self.concurrency = options.concurrency
        self._processors = options.workers
        self.connection = connection
        self._connection = connection.with_bounds(connections=options.concurrency + _SPARE, timeout=options.timeout)
        self._guess = FIRST_GUESS
        self._lock = threading.Lock()
        self._ledger = MemoryLedger(Bytes(max(options.budget // 2, _LEAST_LEDGER)))
        self._engines: dict[Place, DataEngine] = {}
        self._queue: _Queue = SimpleQueue()
        self._threads = 0
        self._closed = False
        self._posts: dict[Place, Post | None] = {}
        self._ordinary = _Ordinary(weakref.ref(self))
        weakref.finalize(self, _end, self.process, self._queue, self._engines, self._posts).atexit = False

    def begin(self, entry: Entry) -> Slot:
        """Have a sample fetched by the next thread that is free. Does not wait."""
        slot = Slot(entry, self.charge(entry))
        if entry.size > self.unit and entry.offset < 0:
            slot.fetched = Fetched(version_of(entry), None, entry.key, entry.size)
            slot.gate.release()
            return slot
        if entry.etag and entry.size > 0 and entry.offset < 0:
            post = self._post(entry.place)
            if post is not None:
                slot.post, slot.parcel = post, post.send(version_of(entry), slot, self._ordinary)
                return slot
        self._queue.put((self, [slot]))
        if self._threads < self.concurrency:
            self._hire()
        return slot

    def begin_together(self, entries: Sequence[Entry]) -> list[Slot]:
        """The same for members of an archive that lie one behind the other: by one request."""
        if len(entries) == 1:
            return [self.begin(entries[0])]
        slots = [Slot(entry, entry.size) for entry in entries]
        self._queue.put((self, slots))
        if self._threads < self.concurrency:
            self._hire()
        return slots

    def charge(self, entry: Entry) -> int:
        """Bytes that a sample takes until it is taken."""
        if entry.size == UNKNOWN:
            return self._guess
        return entry.size if entry.size <= self.unit else 0

    def fetch(self, entry: Entry) -> Fetched:
        """The bytes of a sample, by one request on this thread unless it is large.

        Raises a StoreError (PreconditionFailed when the object is not the version that was listed),
        CredentialsMissing, InvalidOption.
        """
        store = self.store(entry.place)
        if entry.size == UNKNOWN:
            return self._discover(store, entry)
        version = version_of(entry)
        is_large = entry.size > self.unit
        if is_large and entry.offset < 0:
            return Fetched(version, None, entry.key, entry.size)
        data = bytearray(min(entry.size, HEADERS) if is_large else entry.size)
        if data:
            try:
                store.fill(version, max(entry.offset, 0), memoryview(data))
            except PreconditionFailed as error:
                raise replaced(error, entry) from None
        if entry.offset >= 0:
            return member_of(entry, version, data)
        return Fetched(version, data, entry.key, entry.size)

    def confirm(self, entry: Entry, version: ObjectVersion) -> None:
        """Ask whether a large sample, of which nothing was asked yet, is there as it was listed. Raises what `fetch`
        does."""
        if entry.size == UNKNOWN or entry.offset >= 0:  # asked already
            return
        found = self.store(entry.place).head(entry.key)
        if version.etag and found.etag != version.etag:
            raise replaced(PreconditionFailed(f"its ETag is {found.etag}", status=412, key=entry.key), entry)

    def store(self, place: Place) -> OssClient:
        return self._connection.store(place)

    def open(self, place: Place, version: ObjectVersion) -> Reader:
        """A reader by ranges, within the memory of the engine. Makes no request."""
        engine = self._engines.get(place)
        if engine is None:
            with self._lock:
                engine = self._engines.get(place)
                if engine is None:
                    engine = self._engines[place] = DataEngine(
                        self.store(place),
                        read=ReadOptions(threads=self.concurrency),
                        write=WriteOptions(),
                        ledger=self._ledger,
                    )
        return engine.open_reader(version)

    def close(self) -> None:
        """End the threads when their requests are done, and close the connections. Idempotent."""
        with self._lock:
            self._closed = True
            engines = list(self._engines.values())
            self._engines.clear()
        self._queue.put(None)
        _dismiss(self._posts)
        _close_all(engines)
        self._connection.close()

    def _post(self, place: Place) -> Post | None:
        """The couriers to a bucket. None: there are none, or the ordinary way has to say what is wrong."""
        try:
            return self._posts[place]
        except KeyError:
            pass
        with self._lock:
            if self._closed or place in self._posts:
                return self._posts.get(place)
            try:
                store, audit = self.store(place), self._connection.audit()
            except OssFuseError:
                return None
            made = post_to(store, audit, self.unit, most=self.concurrency, processors=self._processors)
            self._posts[place] = made
            return made

    def _hire(self) -> None:
        """Start another thread, unless there are enough."""
        with self._lock:
            if self._closed or self._threads >= self.concurrency:
                return
            self._threads += 1
        work = (self._queue, self._processors)
        threading.Thread(target=_work, args=work, name=f"ossfuse-fetch-{self._threads}", daemon=True).start()

    def fill(self, slots: Sequence[Slot]) -> None:
        """What was begun together, on a thread of the fetcher's."""
        if len(slots) == 1:
            self._fill(slots[0])
        else:
            self._fill_together(slots)

    def _fill(self, slot: Slot) -> None:
        if not slot.unwanted:
            try:
                slot.fetched = self.fetch(slot.entry)
            except BaseException as error:  # whatever it is, who waits has to be told
                slot.error = _told(error, slot.entry)
        slot.gate.release()

    def _fill_together(self, slots: Sequence[Slot]) -> None:
        if slots[-1].unwanted:  # they are given up together
            return
        first = slots[0].entry
        version = version_of(first)
        data = bytearray(sum(slot.entry.size for slot in slots))
        failure: OssFuseError | None = None
        try:
            self.store(first.place).fill(version, first.offset, memoryview(data))
        except PreconditionFailed as error:
            failure = replaced(error, first)
        except BaseException as error:
            failure = _told(error, first)
        for slot in slots:
            start = slot.entry.offset - first.offset
            try:
                if failure is not None:
                    raise failure
                slot.fetched = member_of(slot.entry, version, data[start : start + slot.entry.size])
            except OssFuseError as error:
                slot.error = error
            slot.gate.release()

    def _discover(self, store: OssClient, entry: Entry) -> Fetched:
        """An object of which only the name is known: its first bytes tell the rest."""
        data = bytearray(self._guess)
        with memoryview(data) as target:
            found, received = store.read_start(entry.key, target)
        size = found.size
        if size > self.unit:
            return Fetched(found.version, None, entry.key, size)
        if size <= received:
            del data[size:]
            return Fetched(found.version, data, entry.key, size)
        self._guess = min(self.unit, max(self._guess, 2 * size))
        data.extend(bytes(size - received))
        with memoryview(data) as target:
            store.fill(found.version, received, target[received:])
        return Fetched(found.version, data, entry.key, size)


def fetcher_of(connection: Connection) -> Fetcher:
    """The one that samples share which came from another process with this connection: their memory has one bound."""
    shared = connection.fetcher() if connection.fetcher is not None else None
    if not isinstance(shared, Fetcher) or shared.process != os.getpid():
        shared = Fetcher(connection)
        connection.fetcher = weakref.ref(shared)
    return shared


_Queue = SimpleQueue[tuple[Fetcher, Sequence[Slot]] | None]


class _Ordinary:
    """Of a fetcher, which it does not hold: fetches what a courier could not. Who is left by all needs nothing."""

    def __init__(self, fetcher: weakref.ref[Fetcher]) -> None:
        self._fetcher = fetcher

    def __call__(self, slot: Any) -> None:
        fetcher = self._fetcher()
        if fetcher is None:
            slot.gate.release()
        else:
            fetcher.fill([slot])


def _work(queue: _Queue, processors: int) -> None:
    """A thread of a fetcher, which it does not hold while it waits: who is forgotten by all others ends it."""
    confine(processors)
    while (taken := queue.get()) is not None:
        fetcher, slots = taken
        fetcher.fill(slots)
        del taken, fetcher, slots  # they hold the bytes of samples
    queue.put(None)  # for the next thread


def _end(process: int, queue: _Queue, engines: Mapping[Place, DataEngine], posts: Mapping[Place, Post | None]) -> None:
    """Of a fetcher that nobody holds. Comes in the middle of anything, with any lock held: so it takes none itself."""
    if os.getpid() == process:
        queue.put(None)
        _dismiss(posts)
        if engines:
            left = list(engines.values())
            closing = threading.Thread(target=_close_all, args=(left,), name="ossfuse-fetch-end", daemon=True)
            _thread.start_new_thread(closing.start, ())  # which takes a lock, and waits


def _dismiss(posts: Mapping[Place, Post | None]) -> None:
    for post in list(posts.values()):
        if post is not None:
            post.parcels.close()


def _close_all(engines: Sequence[DataEngine]) -> None:
    for engine in engines:
        engine.close()


def _told(error: BaseException, entry: Entry) -> OssFuseError:
    if isinstance(error, OssFuseError):
        return error
    return EndpointUnreachable(f"oss://{entry.place.bucket}/{entry.key}: fetching failed: {error!r}")


def replaced(error: PreconditionFailed, entry: Entry) -> PreconditionFailed:
    """What is said of an object that another client has overwritten."""
    error.message = f"oss://{entry.place.bucket}/{entry.key} is no longer the version that was listed: {error.message}"
    error.hint = "the object was replaced after the data set was made; make it again to list the new version"
    error.args = (error.message,)
    return error
