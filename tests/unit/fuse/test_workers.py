"""Calls that block leave the event loop free, and their results and errors come back."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from csi.fuse.workers import Lanes, Workers


@pytest.fixture
def workers() -> object:
    pool = Workers("test", 2)
    yield pool
    pool.close()


def test_a_result_comes_back_from_another_thread(workers: Workers) -> None:
    async def main() -> tuple[int, bool]:
        ident = await workers.run(lambda add: threading.get_ident() + add, 1)
        return ident, ident - 1 == threading.get_ident()

    _, same = trio.run(main)
    assert not same


def test_an_exception_comes_back_as_it_was(workers: Workers) -> None:
    async def main() -> None:
        await workers.run(int, "not a number")

    with pytest.raises(ValueError, match="not a number"):
        trio.run(main)


def test_calls_beyond_the_size_wait_for_a_thread_and_all_end(workers: Workers) -> None:
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def call(number: int) -> int:
        with lock:
            running.append(number)
            most.append(len(running))
        threading.Event().wait(0.001)
        with lock:
            running.remove(number)
        return number

    async def main() -> list[int]:
        results: list[int] = []

        async def one(number: int) -> None:
            results.append(await workers.run(call, number))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
        return results

    assert sorted(trio.run(main)) == list(range(20))
    assert max(most) <= 2


def test_a_cancelled_call_returns_at_once_and_its_result_is_dropped(workers: Workers) -> None:
    release, ended = threading.Event(), threading.Event()

    def blocks() -> None:
        release.wait(20)
        ended.set()

    async def main() -> bool:
        with trio.CancelScope() as scope:
            scope.cancel()
            await workers.run(blocks)
        still_running = not ended.is_set()
        release.set()
        await trio.to_thread.run_sync(ended.wait, 20)
        return scope.cancelled_caught and still_running

    assert trio.run(main)
    assert ended.is_set()


def test_a_call_that_ends_after_the_loop_harms_nobody(workers: Workers) -> None:
    release = threading.Event()

    async def main() -> None:
        with trio.move_on_after(0):
            await workers.run(release.wait, 20)

    trio.run(main)
    release.set()

    async def again() -> int:
        return await workers.run(lambda: 5)

    assert trio.run(again) == 5


def test_opens_that_wait_do_not_keep_a_flush_from_running() -> None:
    lanes = Lanes(1)
    flushed = threading.Event()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lanes.opens.run, flushed.wait, 20)
            await trio.testing.wait_all_tasks_blocked()
            await lanes.finishes.run(flushed.set)

    trio.run(main)
    lanes.close()
    assert flushed.is_set()


def test_idle_threads_end_when_the_pool_is_closed() -> None:
    pool = Workers("closing", 1)

    async def main() -> threading.Thread:
        return await pool.run(threading.current_thread)

    thread = trio.run(main)
    pool.close()
    thread.join(20)
    assert not thread.is_alive()
