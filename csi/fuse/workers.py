"""Threads for the calls that may block, seen from the trio event loop.

Each kind of call has threads of its own (`csi/fuse/lanes.py`), started when they are first needed. A hop costs 24 µs
here, half of `trio.to_thread.run_sync`, which is most of a small request.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

import outcome
import trio
from trio.lowlevel import Abort, Task, TrioToken

from csi.fuse.lanes import KindsOfCalls

T = TypeVar("T")


class _Job:
    __slots__ = ("abandoned", "arguments", "function", "task", "token")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], task: Task, token: TrioToken) -> None:
        self.function = function
        self.arguments = arguments
        self.task = task
        self.token = token
        self.abandoned = False


class Workers:
    """Up to `size` threads. `run` belongs to the event loop's thread, which alone touches the counters."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._outstanding = 0

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """`function(*arguments)` on a thread: its result or its exception.

        When cancelled, returns at once with trio.Cancelled: the call runs on and its result is dropped.
        """
        job = _Job(function, arguments, trio.lowlevel.current_task(), trio.lowlevel.current_trio_token())
        self._outstanding += 1
        if self._outstanding > self._threads and self._threads < self._size:
            self._threads += 1
            name = f"{self._name}-{self._threads}"
            # daemon: a call that outlives its deadline must not keep the process from ending
            threading.Thread(target=self._work, name=name, daemon=True).start()
        self._jobs.put(job)

        def abandon(_raise_cancel: Callable[[], None]) -> Abort:
            job.abandoned = True
            return Abort.SUCCEEDED

        return cast(T, await trio.lowlevel.wait_task_rescheduled(abandon))

    def close(self) -> None:
        """Let idle threads end; busy ones end after what they are doing."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            result = outcome.capture(job.function, *job.arguments)
            try:
                job.token.run_sync_soon(self._deliver, job, result)
            except trio.RunFinishedError:
                return  # the session is over: nobody waits for this answer
            # an idle thread must not keep the last answer's buffer alive
            del job, result

    def _deliver(self, job: _Job, result: outcome.Outcome[Any]) -> None:
        self._outstanding -= 1
        if not job.abandoned:
            trio.lowlevel.reschedule(job.task, result)


class Lanes(KindsOfCalls[Workers]):
    """The threads of a session on an event loop."""

    def __init__(self, size: int) -> None:
        super().__init__(lambda name: Workers(name, size))
