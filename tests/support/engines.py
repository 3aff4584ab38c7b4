"""Data engines over the object store in memory, for tests of `csi/data`, and a way to stop requests on their way."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger
from csi.oss.cancellation import Cancellation
from csi.oss.store import ObjectVersion
from csi.volume.spec import ReadOptions, WriteOptions
from csi.volume.units import MIB, Bytes, ObjectKey, Seconds
from tests.support.hand_tails import HandTails
from tests.support.memory_store import MemoryStore

LONG = 30.0
"""Seconds after which a test that waits for something to happen gives up."""


class Hold:
    """A `before` hook for MemoryStore that keeps requests of one operation waiting, or makes them fail."""

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._changed = threading.Condition()
        self._held = False
        self._waiting = 0
        self._failures: list[Exception] = []

    def __call__(self, operation: str, key: str) -> None:
        if operation != self._operation:
            return
        with self._changed:
            if self._failures:
                raise self._failures.pop(0)
            self._waiting += 1
            self._changed.notify_all()
            released = self._changed.wait_for(lambda: not self._held, LONG)
            self._waiting -= 1
            self._changed.notify_all()
        if not released:
            raise AssertionError(f"{operation} {key} was held and never released")

    def hold(self) -> None:
        with self._changed:
            self._held = True

    def release(self) -> None:
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Until `count` requests are being held."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._waiting >= count, LONG), f"only {self._waiting} requests came"

    def fail_next(self, error: Exception) -> None:
        with self._changed:
            self._failures.append(error)


def until(condition: Callable[[], bool]) -> None:
    """Until something becomes true that nothing announces; fails after LONG seconds."""
    end = time.monotonic() + LONG
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, "this never became true"
        pause.wait(0.001)


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FarStore(MemoryStore):
    """Each GET takes `took` seconds of `clock`, and `a_megabyte` for each that comes."""

    def __init__(self, clock: ManualClock, took: float, a_megabyte: float = 0.0) -> None:
        super().__init__(before=self._wait)
        self._clock, self._took, self._a_megabyte = clock, took, a_megabyte
        self._moving = threading.Lock()

    def fill(
        self, version: ObjectVersion, offset: int, target: memoryview, *, cancellation: Cancellation | None = None
    ) -> None:
        super().fill(version, offset, target, cancellation=cancellation)
        self._pass(self._a_megabyte * len(target) / MIB)

    def _wait(self, operation: str, _key: str) -> None:
        self._pass(self._took if operation == "GetObject" else 0.0)

    def _pass(self, seconds: float) -> None:
        with self._moving:
            self._clock.now += seconds


def content(size: int, seed: int = 0) -> bytes:
    """`size` bytes that are different at every offset a mistake could confuse."""
    return random.Random(seed).randbytes(size)


def seeded(store: MemoryStore, key: str, data: bytes) -> ObjectVersion:
    return ObjectVersion(ObjectKey(key), store.seed(key, data), Bytes(len(data)))


@contextmanager
def engine_over(
    store: MemoryStore,
    *,
    budget: int = 64 * MIB,
    read: ReadOptions | None = None,
    write: WriteOptions | None = None,
    clock: Callable[[], float] | None = None,
    patience: float = LONG,
    admission: float = LONG,
    tails: HandTails | None = None,
) -> Iterator[DataEngine]:
    """An engine that is closed at the end, and must then have given back all its memory."""
    ledger = MemoryLedger(Bytes(budget))
    extra = {} if clock is None else {"clock": clock}
    engine = DataEngine(
        store,
        read=read or ReadOptions(threads=4),
        write=write or WriteOptions(threads=4),
        ledger=ledger,
        patience=Seconds(patience),
        admission=Seconds(admission),
        tails=tails.make if tails is not None else None,
        **extra,
    )
    try:
        yield engine
    finally:
        engine.close()


class Running:
    """Threads that run functions; `join` raises what they raised."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self.results: list[object] = []

    def start(self, function: Callable[[], object]) -> None:
        def run() -> None:
            try:
                self.results.append(function())
            except BaseException as error:
                self._errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> list[object]:
        for thread in self._threads:
            thread.join(LONG)
            assert not thread.is_alive(), "a thread is stuck"
        if self._errors:
            raise self._errors[0]
        return self.results
