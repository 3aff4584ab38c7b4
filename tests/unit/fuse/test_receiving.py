"""Waiting for the next request: at once when it is there, and never past it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pyfuse3
import pytest
import trio
import trio.testing

from csi.fuse.receiving import IN_A_ROW, Readiness, Turnstile, direct_receiving


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_what_is_there_is_told_without_a_turn_of_the_loop(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.write(writer, b"x")

    async def main() -> None:
        readiness = Readiness(reader)
        with trio.testing.assert_no_checkpoints():
            for _ in range(IN_A_ROW):
                await readiness.wait(reader)

    trio.run(main)


def test_after_some_requests_in_a_row_other_tasks_have_their_turn(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.write(writer, b"x")

    async def main() -> None:
        readiness = Readiness(reader)
        for _ in range(IN_A_ROW):
            await readiness.wait(reader)
        with trio.testing.assert_checkpoints():
            await readiness.wait(reader)
        with trio.testing.assert_no_checkpoints():
            await readiness.wait(reader)

    trio.run(main)


def test_what_is_not_there_is_waited_for(pipe: tuple[int, int]) -> None:
    reader, writer = pipe

    async def main() -> bytes:
        readiness = Readiness(reader)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def write() -> None:
                await trio.testing.wait_all_tasks_blocked()
                os.write(writer, b"x")

            with trio.fail_after(20):
                await readiness.wait(reader)
            return os.read(reader, 1)

    assert trio.run(main) == b"x"


def test_a_wait_ends_when_the_descriptor_is_about_to_be_closed(pipe: tuple[int, int]) -> None:
    reader, _ = pipe

    async def main() -> None:
        readiness = Readiness(reader)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def close() -> None:
                await trio.testing.wait_all_tasks_blocked()
                trio.lowlevel.notify_closing(reader)

            with trio.fail_after(20), pytest.raises(trio.ClosedResourceError):
                await readiness.wait(reader)

    trio.run(main)


def test_a_turnstile_lets_one_through_at_a_time_and_forgets_nobody() -> None:
    async def main() -> tuple[int, int]:
        turnstile = Turnstile()
        inside = most = passed = 0

        async def one() -> None:
            nonlocal inside, most, passed
            for _ in range(5):
                async with turnstile:
                    inside += 1
                    most = max(most, inside)
                    await trio.lowlevel.checkpoint()
                    inside -= 1
                passed += 1

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(one)
        return most, passed

    assert trio.run(main) == (1, 50)


def test_who_gives_up_at_a_turnstile_does_not_keep_the_others_out() -> None:
    async def main() -> bool:
        turnstile = Turnstile()
        passed = trio.Event()

        async def enter() -> None:
            async with turnstile:
                passed.set()

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                async with turnstile:
                    with trio.move_on_after(0):
                        await enter()
                    nursery.start_soon(enter)
                    await trio.testing.wait_all_tasks_blocked()
                await passed.wait()
        return True

    assert trio.run(main)


def test_pyfuse3_has_its_own_trio_back_afterwards(pipe: tuple[int, int]) -> None:
    before = pyfuse3.trio  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="stop"), direct_receiving(pipe[0]):
        assert pyfuse3.trio is not before  # type: ignore[attr-defined]
        raise ValueError("stop")
    assert pyfuse3.trio is before  # type: ignore[attr-defined]
