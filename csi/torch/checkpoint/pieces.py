"""Pieces of one object on their way into memory: a request each, made on a thread, waited for by who wants the bytes.

A piece lies either in a buffer of the reader's or straight in the memory of who reads; the latter must not be let go of
before the piece has ended, however it ends, which is what `settle` is for. Knows nothing of what is worth fetching.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable

from csi.data.workers import Task, WorkerPool
from csi.errors import BadHandle, OssFuseError, ServerFailure
from csi.oss.cancellation import Cancellation
from csi.oss.store import ObjectStore, ObjectVersion
from csi.volume.units import KIB

_WORTH_UNLOCKING = 64 * KIB


class Piece:
    """Bytes `start`..`end` of an object; `target` is where they arrive. `used` is the reader's own;
    `seconds` is how long the request took, 0 while nobody knows."""

    __slots__ = ("_cancellation", "_ended", "_task", "end", "error", "seconds", "start", "target", "used")

    def __init__(self, start: int, target: memoryview) -> None:
        self.start = start
        self.end = start + len(target)
        self.target = target
        self.error: OssFuseError | None = None
        self.used = 0
        self.seconds = 0.0
        self._ended = threading.Event()
        self._cancellation = Cancellation()
        self._task: Task | None = None

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def request(
        self,
        store: ObjectStore,
        version: ObjectVersion,
        workers: WorkerPool,
        *,
        priority: int,
        prepare: Callable[[], None],
        monotonic: Callable[[], float],
    ) -> None:
        """Have it fetched, by a thread that has called `prepare`; called once."""

        def fetch() -> bool:
            try:
                prepare()
                started = monotonic()
                store.fill(version, self.start, self.target, cancellation=self._cancellation)
                self.seconds = monotonic() - started
            except OssFuseError as error:
                self.error = error.without_frames()
            except BaseException as error:
                self.error = ServerFailure(f"{version.key}: {type(error).__name__} while reading", key=version.key)
                raise
            finally:
                self._ended.set()
                self._task = None
            return self.error is None

        def dropped() -> None:
            self.error = BadHandle(f"{version.key}: the connection is closed")
            self._ended.set()
            self._task = None

        self._task = workers.submit(fetch, priority=priority, dropped=dropped)
        if self.has_ended:  # piece and task know each other, and neither should have to wait for the garbage collector
            self._task = None

    def wait(self) -> None:
        """Until it has ended, however; a request ends within its deadline. Raises nothing of its own."""
        self._ended.wait()

    def raise_error(self) -> None:
        if self.error is not None:
            raise self.error.with_traceback(None)

    def give_up(self, workers: WorkerPool) -> None:
        """Nobody wants it any more: it ends soon, if it has not. Does not wait."""
        task, self._task = self._task, None
        if task is not None and workers.cancel(task):
            self.error = BadHandle("given up")
            self._ended.set()
        else:
            self._cancellation.request()


def settle(pieces: Iterable[Piece]) -> None:
    """Return when all of them have ended, and not before: what they write to belongs to somebody else afterwards. An
    interruption from outside (Ctrl-C) is raised then."""
    interruption: BaseException | None = None
    for piece in pieces:
        while not piece.has_ended:
            try:
                piece.wait()
            except BaseException as error:
                interruption = error
    if interruption is not None:
        raise interruption


def move(target: memoryview, source: memoryview) -> None:
    """Copy between writable memory of the same size, without the interpreter's lock when it is worth it: the pages of
    `target` may be new, and the kernel takes its time to bring them."""
    if len(target) < _WORTH_UNLOCKING:
        target[:] = source
        return
    here = ctypes.c_char.from_buffer(target)
    there = ctypes.c_char.from_buffer(source)
    ctypes.memmove(ctypes.addressof(here), ctypes.addressof(there), len(target))
