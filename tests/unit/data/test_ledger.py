"""The memory ledger: never over budget, served in turn, nobody waits for ever."""

from __future__ import annotations

import pytest

from csi.data.ledger import MemoryLedger, Turns, budget_for
from csi.errors import OutOfMemoryBudget
from csi.volume.units import GIB, MIB, Bytes, Seconds
from tests.support.engines import LONG, Running, until


def test_a_reservation_beyond_the_budget_is_refused_without_waiting() -> None:
    ledger = MemoryLedger(Bytes(100))
    held = ledger.try_reserve(60)
    assert held is not None
    assert ledger.try_reserve(41) is None
    assert ledger.try_reserve(40) is not None


def test_release_is_idempotent_and_happens_at_the_end_of_a_with_block() -> None:
    ledger = MemoryLedger(Bytes(100))
    with ledger.reserve(100, Seconds(LONG)) as held:
        held.release()
    held.release()
    assert ledger.statistics().charged == 0
    assert ledger.statistics().peak == 100


def test_a_waiting_reservation_is_granted_when_memory_comes_free() -> None:
    ledger = MemoryLedger(Bytes(100))
    held = ledger.reserve(100, Seconds(LONG))
    running = Running()
    running.start(lambda: ledger.reserve(50, Seconds(LONG)))
    until(lambda: ledger.contended)
    held.release()
    assert running.join()[0].size == 50


def test_nobody_overtakes_those_who_wait() -> None:
    ledger = MemoryLedger(Bytes(100))
    held = ledger.reserve(60, Seconds(LONG))
    running = Running()
    running.start(lambda: ledger.reserve(80, Seconds(LONG)))
    until(lambda: ledger.contended)
    assert ledger.try_reserve(10) is None
    held.release()
    running.join()
    assert ledger.try_reserve(10) is not None


def test_waiting_ends_with_an_error_that_says_what_to_do() -> None:
    ledger = MemoryLedger(Bytes(100))
    held = ledger.reserve(100, Seconds(LONG))
    with pytest.raises(OutOfMemoryBudget, match=r"pod\.mem\.limit"):
        ledger.reserve(1, Seconds(0.01))
    held.release()
    assert not ledger.contended


def test_more_than_the_budget_is_refused_at_once() -> None:
    with pytest.raises(OutOfMemoryBudget):
        MemoryLedger(Bytes(100)).reserve(101, Seconds(3600))


def test_pressure_makes_caches_shrink_before_anybody_waits() -> None:
    ledger = MemoryLedger(Bytes(100))
    cached = ledger.reserve(90, Seconds(LONG))
    asked = []

    def shrink(size: int) -> int:
        asked.append(size)
        cached.release()
        return 90

    undo = ledger.on_pressure(shrink)
    ledger.reserve(80, Seconds(LONG))
    undo()
    assert asked == [80]
    assert not ledger.relieve(10)


def test_turns_are_served_first_come_first_served() -> None:
    turns = Turns()
    permits: list[int] = []
    served: list[int] = []
    running = Running()

    def take(name: int) -> bool | None:
        if not permits:
            return None
        permits.pop()
        served.append(name)
        return True

    for name in range(5):
        running.start(lambda name=name: turns.wait_for(lambda: take(name), Seconds(LONG)))
        until(lambda name=name: len(turns) > name)
    permits.extend(range(5))
    turns.poke()
    running.join()
    assert served == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("limit", "least", "most"),
    [(128 * MIB, 16 * MIB, 48 * MIB), (256 * MIB, 96 * MIB, 128 * MIB), (1 * GIB, 768 * MIB, 900 * MIB)],
)
def test_the_budget_leaves_room_for_the_process_itself(limit: int, least: int, most: int) -> None:
    assert least <= budget_for(Bytes(limit)) <= most


@pytest.mark.parametrize("limit", [0, 1, 64 * MIB, 96 * MIB, 10 * GIB, 1024 * GIB])
def test_there_is_always_some_budget(limit: int) -> None:
    assert 16 * MIB <= budget_for(Bytes(limit)) <= max(limit, 16 * MIB)
