"""Worker threads: urgency, cancelling, shutting down."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from csi.data.workers import URGENT, WorkerPool
from csi.volume.units import Seconds
from tests.support.engines import LONG, until


@pytest.fixture
def one() -> WorkerPool:
    pool = WorkerPool("test", 1)
    yield pool
    assert pool.close(Seconds(LONG))


def nothing() -> None:
    return


def blocked(pool: WorkerPool) -> tuple[threading.Event, threading.Event]:
    """Occupy one thread: returns (it began, let it go)."""
    began, go = threading.Event(), threading.Event()

    def run() -> bool:
        began.set()
        return go.wait(LONG)

    pool.submit(run, priority=URGENT, dropped=nothing)
    assert began.wait(LONG)
    return began, go


def noting(names: list[str], name: str) -> Callable[[], bool]:
    def run() -> bool:
        names.append(name)
        return True

    return run


def test_urgent_tasks_overtake_and_equals_keep_their_order(one: WorkerPool) -> None:
    _, go = blocked(one)
    names: list[str] = []
    one.submit(noting(names, "later"), priority=5, dropped=nothing)
    one.submit(noting(names, "first"), priority=URGENT, dropped=nothing)
    one.submit(noting(names, "second"), priority=URGENT, dropped=nothing)
    go.set()
    assert one.drain(Seconds(LONG))
    assert names == ["first", "second", "later"]


def test_a_hastened_task_runs_once_and_earlier(one: WorkerPool) -> None:
    _, go = blocked(one)
    names: list[str] = []
    one.submit(noting(names, "other"), priority=3, dropped=nothing)
    task = one.submit(noting(names, "hastened"), priority=9, dropped=nothing)
    one.hasten(task, URGENT)
    go.set()
    assert one.drain(Seconds(LONG))
    assert names == ["hastened", "other"]


def test_a_cancelled_task_never_runs(one: WorkerPool) -> None:
    _, go = blocked(one)
    names: list[str] = []
    task = one.submit(noting(names, "never"), priority=1, dropped=nothing)
    assert one.cancel(task)
    assert not one.cancel(task)
    go.set()
    assert one.drain(Seconds(LONG))
    assert names == []


def test_a_task_that_began_cannot_be_cancelled(one: WorkerPool) -> None:
    began, go = threading.Event(), threading.Event()

    def run() -> bool:
        began.set()
        return go.wait(LONG)

    task = one.submit(run, priority=1, dropped=nothing)
    assert began.wait(LONG)
    assert not one.cancel(task)
    go.set()


def test_an_exception_ends_its_task_and_not_the_thread(one: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> bool:
        raise RuntimeError("on purpose")

    names: list[str] = []
    one.submit(broken, priority=1, dropped=nothing)
    one.submit(noting(names, "next"), priority=2, dropped=nothing)
    assert one.drain(Seconds(LONG))
    assert names == ["next"]
    assert "on purpose" in caplog.text
    assert one.statistics().failed == 1
    assert one.statistics().started == 1
    assert one.succeeded == 1


def test_as_many_tasks_run_at_once_as_there_are_threads() -> None:
    pool = WorkerPool("test", 3)
    barrier = threading.Barrier(3)

    def meet() -> bool:
        barrier.wait(LONG)
        return True

    for _ in range(3):
        pool.submit(meet, priority=1, dropped=nothing)
    assert pool.drain(Seconds(LONG))
    assert pool.statistics().failed == 0
    assert pool.close(Seconds(LONG))


def test_close_drops_what_is_queued_and_says_so(one: WorkerPool) -> None:
    _, go = blocked(one)
    dropped = []
    one.submit(noting([], "never"), priority=1, dropped=lambda: dropped.append("queued"))
    assert not one.close(Seconds(0))
    one.submit(noting([], "never"), priority=1, dropped=lambda: dropped.append("late"))
    go.set()
    assert dropped == ["queued", "late"]


def test_drain_gives_up_in_time(one: WorkerPool) -> None:
    _, go = blocked(one)
    assert not one.drain(Seconds(0.01))
    go.set()


def test_a_task_carried_out_by_who_waits_for_it_is_counted_and_keeps_no_thread_from_working(one: WorkerPool) -> None:
    names: list[str] = []

    assert one.begin_here()
    one.submit(noting(names, "queued"), priority=1, dropped=nothing)
    until(lambda: names == ["queued"])
    assert not one.drain(Seconds(0))
    one.end_here(succeeded=False)

    assert one.drain(Seconds(LONG))
    assert (one.statistics().finished, one.succeeded) == (2, 1)


def test_nothing_is_begun_after_the_end(one: WorkerPool) -> None:
    one.close(Seconds(LONG))
    assert not one.begin_here()
