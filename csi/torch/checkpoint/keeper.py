"""Ends what nobody holds any more: uploads whose writer was forgotten, and at last the threads of an engine.

A writer that is garbage, or open when the interpreter ends, must leave neither an object nor parts behind. Its end can
come in the middle of anything, with any lock held, so it only leaves word here (one operation that needs no lock), and
a thread of the keeper does what takes requests. After fork(2) the child keeps nothing: what was begun is the parent's.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Final, Protocol

from csi.volume.units import Seconds

_FAREWELL: Final = Seconds(10.0)
"""How long the end of the interpreter waits for uploads to be aborted."""


class Abandonable(Protocol):
    def abandon(self) -> None:
        """End it with nothing left behind. May take requests; never raises."""


class Keeper:
    """No lock: `_live` is changed by single operations, the queue is made for it."""

    def __init__(self, closers: Sequence[Callable[[], object]]) -> None:
        """`closers` are called in order when all has ended."""
        self._process = os.getpid()
        self._closers = closers
        self._live: dict[Abandonable, None] = {}
        self._queue: SimpleQueue[Abandonable | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ossfuse-keeper", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    def watch(self, upload: Abandonable) -> None:
        """`upload` is open until `forget`."""
        self._live[upload] = None

    def forget(self, upload: Abandonable) -> None:
        self._live.pop(upload, None)

    def drop(self, upload: Abandonable) -> None:
        """Nobody can finish `upload` any more. From anywhere, also out of the garbage collection."""
        if os.getpid() == self._process:
            self._queue.put(upload)

    def end(self) -> None:
        """Nothing will come any more. From anywhere."""
        if os.getpid() == self._process:
            self._queue.put(None)

    def _run(self) -> None:
        while (upload := self._queue.get()) is not None:
            upload.abandon()
            del upload  # it holds the engine, which could never end while this thread waits for the next one
        for close in self._closers:
            close()
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        if os.getpid() != self._process:
            return
        for upload in list(self._live):
            self._queue.put(upload)
        self._queue.put(None)
        self._thread.join(_FAREWELL)
