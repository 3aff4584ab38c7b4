from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from csi.driver.calls.locks import KeyedLocks
from csi.driver.calls.workers import Workers
from csi.errors import CallTimedOut, OperationPending
from csi.volume.units import Seconds

LONG = Seconds(30.0)


def run(body: Callable[[Workers], Coroutine[Any, Any, Any]], *, count: int = 2) -> Any:
    async def scenario() -> Any:
        workers = Workers("test", count, KeyedLocks())
        try:
            return await body(workers)
        finally:
            await workers.close()

    return asyncio.run(scenario())


async def begun(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


def test_work_runs_on_a_thread_and_its_result_comes_back():
    async def body(workers: Workers) -> str:
        return await workers.run(lambda: threading.current_thread().name, what="work", patience=LONG)

    assert run(body).startswith("test")


def test_the_error_of_the_work_is_the_error_of_the_call():
    async def body(workers: Workers) -> None:
        await workers.run(lambda: 1 // 0, what="work", patience=LONG)

    with pytest.raises(ZeroDivisionError):
        run(body)


def test_a_second_call_for_a_key_is_told_to_come_back():
    started, free = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        free.wait(10)

    async def body(workers: Workers) -> None:
        first = asyncio.create_task(workers.run(hold, keys=("a",), what="mounting /x", patience=LONG))
        await begun(started)
        with pytest.raises(OperationPending, match="another call for mounting /x is still under way"):
            await workers.run(hold, keys=("b", "a"), what="mounting /x", patience=LONG)
        free.set()
        await first

    run(body)


def test_a_refused_call_takes_none_of_its_keys():
    started, free = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        free.wait(10)

    async def body(workers: Workers) -> str:
        first = asyncio.create_task(workers.run(hold, keys=("a",), what="one", patience=LONG))
        await begun(started)
        with pytest.raises(OperationPending):
            await workers.run(hold, keys=("b", "a"), what="two", patience=LONG)
        found = await workers.run(lambda: "done", keys=("b",), what="three", patience=LONG)
        free.set()
        await first
        return found

    assert run(body) == "done"


def test_other_keys_work_at_the_same_time():
    both = threading.Barrier(2, timeout=10)

    async def body(workers: Workers) -> None:
        await asyncio.gather(
            workers.run(both.wait, keys=("a",), what="a", patience=LONG),
            workers.run(both.wait, keys=("b",), what="b", patience=LONG),
        )

    run(body)


def test_keys_are_free_when_the_caller_sees_the_result():
    async def body(workers: Workers) -> None:
        for _ in range(50):
            await workers.run(lambda: None, keys=("a",), what="a", patience=LONG)

    run(body)


def test_work_that_outlasts_its_caller_keeps_its_key_and_ends_by_itself():
    started, free, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        free.wait(10)
        ended.set()

    async def body(workers: Workers) -> None:
        with pytest.raises(CallTimedOut, match=r"mounting did not end within 0\.1 s"):
            await workers.run(work, keys=("a",), what="mounting", patience=Seconds(0.1))
        with pytest.raises(OperationPending):
            await workers.run(work, keys=("a",), what="mounting", patience=LONG)
        free.set()

    run(body)

    assert ended.is_set()


def test_work_goes_on_when_the_caller_hangs_up():
    started, free, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        free.wait(10)
        ended.set()
        raise ValueError("nobody is left to hear this")

    async def body(workers: Workers) -> None:
        call = asyncio.create_task(workers.run(work, keys=("a",), what="mounting", patience=LONG))
        await begun(started)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(OperationPending):
            await workers.run(work, keys=("a",), what="mounting", patience=LONG)
        free.set()

    run(body)

    assert ended.is_set()
