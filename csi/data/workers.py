"""A fixed number of threads that carry out requests in order of urgency.

Promises: at most `threads` tasks run at once beside those that a waiting thread carries out itself, the most urgent
first and among equals the oldest; a task that was cancelled before a thread took it never runs; an exception in a task
ends that task and nothing else; `close` leaves no thread waiting. Threads are started when there is work for them. Must
not know what the tasks do.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from csi.volume.units import Seconds

log = logging.getLogger(__name__)

URGENT = 0
"""Somebody waits for the result. Larger numbers are less urgent."""


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """Threads that may run and that were started; tasks queued and running now, finished and failed so far."""

    threads: int
    started: int
    queued: int
    running: int
    finished: int
    failed: int


class Task:
    """Something to run once. `run` returns whether it succeeded; `dropped` is called instead when `close` comes
    first."""

    __slots__ = ("_dropped", "_run", "priority")

    def __init__(self, run: Callable[[], bool], dropped: Callable[[], None], priority: int) -> None:
        self._run: Callable[[], bool] | None = run
        self._dropped = dropped
        self.priority = priority


class WorkerPool:
    """`_lock`, also that of `_condition` and `_idle`, guards every field and the tasks' `_run`; nothing is called while
    it is held."""

    def __init__(self, name: str, threads: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._threads = threads
        self._clock = clock
        # taken by itself: entering a condition is code in Python, where Ctrl-C could come between lock and block
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._heap: list[tuple[int, int, Task]] = []
        self._serial = itertools.count()
        self._queued = 0
        self._running = 0
        self._here = 0
        self._sleeping = 0
        self._started: list[threading.Thread] = []
        self._finished = 0
        self._failed = 0
        self._closed = False

    def submit(self, run: Callable[[], bool], *, priority: int, dropped: Callable[[], None]) -> Task:
        """Queue `run`. After `close`, `dropped` is called at once."""
        task = Task(run, dropped, priority)
        with self._lock:
            if not self._closed:
                heapq.heappush(self._heap, (priority, next(self._serial), task))
                self._queued += 1
                self._wake()
                return task
            task._run = None
        dropped()
        return task

    def begin_here(self) -> bool:
        """A thread that would wait for a task carries it out itself, which spares two changes of thread and comes on
        top of `threads`; it owes `end_here`. False after `close`."""
        with self._lock:
            if self._closed:
                return False
            self._here += 1
            return True

    def end_here(self, *, succeeded: bool) -> None:
        with self._lock:
            self._here -= 1
            self._count(succeeded)

    def cancel(self, task: Task) -> bool:
        """True: `task` had not begun and never will."""
        with self._lock:
            if task._run is None:
                return False
            task._run = None
            self._queued -= 1
            if self._queued == 0 and self._heap:
                self._heap.clear()
            self._tell_if_idle()
            return True

    def hasten(self, task: Task, priority: int) -> None:
        """Make `task` at least this urgent, if it has not begun."""
        with self._lock:
            if task._run is not None and priority < task.priority:
                task.priority = priority
                heapq.heappush(self._heap, (priority, next(self._serial), task))

    @property
    def succeeded(self) -> int:
        """How many tasks have succeeded so far: whether it grows tells a slow store from a dead one."""
        return self._finished - self._failed

    def drain(self, within: Seconds) -> bool:
        """Wait until nothing is queued or running; False after `within` seconds."""
        with self._lock:
            return self._idle.wait_for(self._is_idle, within)

    def close(self, within: Seconds) -> bool:
        """Drop what is queued, take nothing new, and wait for what is running; False if that outlasts `within`."""
        with self._lock:
            self._closed = True
            waiting = [task for _, _, task in self._heap if task._run is not None]
            for task in waiting:
                task._run = None
            self._heap.clear()
            self._queued = 0
            self._condition.notify_all()
            started = list(self._started)
        for task in dict.fromkeys(waiting):
            task._dropped()
        end = self._clock() + within
        for thread in started:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - self._clock()))
        return not any(thread.is_alive() for thread in started)

    def statistics(self) -> WorkerStatistics:
        with self._lock:
            return WorkerStatistics(
                self._threads,
                len(self._started),
                self._queued,
                self._running + self._here,
                self._finished,
                self._failed,
            )

    def _wake(self) -> None:
        """Have a thread look for work, if it may do any: one that ends a task looks by itself."""
        if not self._queued or self._running >= self._threads:
            return
        if self._sleeping:
            self._sleeping -= 1  # here and not by the woken thread: the next task must not count on it
            self._condition.notify()
        elif len(self._started) < self._threads:
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._started)}", daemon=True)
        self._started.append(thread)
        thread.start()

    def _work(self) -> None:
        while (run := self._next()) is not None:
            succeeded = False
            try:
                succeeded = run()
            except Exception:
                log.exception("a task of %s failed in a way nobody foresaw", self._name)
            finally:
                del run  # a thread that waits for work must not keep the last task's memory alive
                self._done(succeeded)

    def _next(self) -> Callable[[], bool] | None:
        with self._lock:
            while True:
                while self._heap and self._running < self._threads:
                    task = heapq.heappop(self._heap)[2]
                    run, task._run = task._run, None
                    if run is not None:
                        self._queued -= 1
                        self._running += 1
                        return run
                if self._closed:
                    return None
                self._sleeping += 1
                self._condition.wait()

    def _done(self, succeeded: bool) -> None:
        with self._lock:
            self._running -= 1
            self._count(succeeded)

    def _count(self, succeeded: bool) -> None:
        self._finished += 1
        self._failed += not succeeded
        self._tell_if_idle()

    def _is_idle(self) -> bool:
        return not self._queued and not self._running and not self._here

    def _tell_if_idle(self) -> None:
        if not self._running and not self._here and not self._queued:
            self._idle.notify_all()
