"""Threads for the calls that may block, a lane for each kind of call.

Kinds wait for each other: an open may wait for memory that only the flush of another file gives back, so opens must
never occupy the threads that flushes need. Threads are started when they are first needed.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

_Call = Callable[[], None]


class Closing(Protocol):
    def close(self) -> None: ...


L = TypeVar("L", bound=Closing)


class KindsOfCalls(Generic[L]):
    """One lane for each kind, by what its calls wait for."""

    def __init__(self, lane: Callable[[str], L]) -> None:
        self.names = lane("fuse-names")  # lookups, listings, renames: requests to OSS
        self.opens = lane("fuse-opens")  # for writing: may wait for memory
        self.reads = lane("fuse-reads")  # wait for blocks
        self.writes = lane("fuse-writes")  # wait for the uploader
        self.finishes = lane("fuse-finishes")  # flush, fsync: end uploads and give memory back
        self.releases = lane("fuse-releases")  # never in the way of anything that has a caller

    def close(self) -> None:
        for lane in (self.names, self.opens, self.reads, self.writes, self.finishes, self.releases):
            lane.close()


class Lane:
    """Up to `size` threads. `_lock` guards the counters."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads = 0
        self._outstanding = 0

    def submit(self, call: _Call) -> None:
        """Have it called on a thread. It must not raise."""
        with self._lock:
            self._outstanding += 1
            wanted = self._outstanding > self._threads and self._threads < self._size
            self._threads += wanted
            number = self._threads
        if wanted:
            # daemon: a call that outlives its deadline must not keep the process from ending
            threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True).start()
        self._jobs.put(call)

    def close(self) -> None:
        """Let idle threads end; busy ones end after what they are doing."""
        with self._lock:
            threads = self._threads
        for _ in range(threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (call := self._jobs.get()) is not None:
            call()
            with self._lock:
                self._outstanding -= 1
            del call  # an idle thread must not keep the last answer's buffer alive
