"""How long requests take, and what follows for windows and for requests that are overdue."""

from __future__ import annotations

import math

import pytest

from csi.data.pace import Pace
from csi.data.window import Cursor
from csi.volume.units import KIB, MIB


def test_nothing_is_overdue_before_enough_is_known() -> None:
    pace = Pace()
    for _ in range(15):
        pace.note(100 * KIB, 0.5)
    assert pace.overdue(100 * KIB) is None
    pace.note(100 * KIB, 0.5)
    assert pace.overdue(100 * KIB) == 1.0


def test_a_request_is_overdue_after_twice_what_nearly_all_take() -> None:
    pace = Pace()
    for number in range(100):
        pace.note(1 * MIB, 9.0 if number == 50 else 0.4)
    assert pace.overdue(1 * MIB) == 0.8


def test_quick_requests_are_not_overdue_at_once() -> None:
    pace = Pace()
    for _ in range(100):
        pace.note(1 * MIB, 0.001)
    assert pace.overdue(1 * MIB) == 0.3


def test_requests_of_other_sizes_do_not_count() -> None:
    pace = Pace()
    for _ in range(100):
        pace.note(4 * MIB, 2.0)
    assert pace.overdue(100 * KIB) is None
    assert pace.quickest(100 * KIB) == 0.0


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, math.inf),
        ({1: 0.02}, 0.08),  # at most as long as four of them
        ({1: 0.02, 2: 0.021}, 0.023),  # a megabyte more is a millisecond more
        ({1: 0.02, 2: 0.018}, 0.018),
        ({1: 0.02, 2: 0.021, 4: 0.05}, 0.05),
        ({0.5: 0.02, 2: 0.0215}, 0.0235),
    ],
)
def test_what_a_request_will_take_is_told_by_smaller_ones(known: dict[float, float], expected: float) -> None:
    pace = Pace()
    for size, seconds in known.items():
        pace.note(round(size * MIB), seconds)
    assert pace.expected(4 * MIB) == pytest.approx(expected)


def test_the_quickest_is_of_the_latest_requests() -> None:
    pace = Pace()
    pace.note(4 * MIB, 0.001)
    for _ in range(128):
        pace.note(4 * MIB, 0.02)
    assert pace.quickest(4 * MIB) == 0.02


@pytest.mark.parametrize(("rate", "grown"), [(100 * MIB, 16 * MIB), (500 * MIB, 32 * MIB)])
def test_a_window_grows_when_twice_what_is_read_during_a_request_does_not_fit(rate: int, grown: int) -> None:
    """Requests take 20 ms: at 100 MiB/s that is 2 MiB, at 500 MiB/s 10 MiB."""
    cursor = Cursor(0, MIB, 16 * MIB, 0.0)
    now = 0.0
    for offset in range(0, 16 * MIB, MIB):
        now += MIB / rate
        cursor.advance(offset, offset + MIB, now)
        cursor.judge(0.02, 256 * MIB)
    assert cursor.reach == grown


def test_a_window_does_not_outgrow_what_was_allowed() -> None:
    cursor = Cursor(0, MIB, 16 * MIB, 0.0)
    for offset in range(0, 64 * MIB, MIB):
        cursor.advance(offset, offset + MIB, offset / MIB / 10_000)
        cursor.judge(1.0, 24 * MIB)
    assert cursor.reach == 24 * MIB


def read(cursor: Cursor, *, pause: float, bursts: int) -> None:
    """Bursts that end in a wait, with a pause before each in which the window fills."""
    now = 100.0
    for burst in range(bursts):
        cursor.filled()
        now += pause
        cursor.advance(burst * MIB, (burst + 1) * MIB, now)
        cursor.resumed()
        cursor.stalled(256 * MIB)


def test_a_window_that_is_read_in_bursts_grows() -> None:
    cursor = Cursor(0, MIB, 16 * MIB, 100.0)
    read(cursor, pause=1.0, bursts=2)
    assert cursor.reach == 64 * MIB


def test_a_window_of_a_reader_as_quick_as_the_network_does_not_grow() -> None:
    cursor = Cursor(0, MIB, 16 * MIB, 100.0)
    read(cursor, pause=0.01, bursts=50)
    assert cursor.reach == 16 * MIB


def test_a_stall_while_the_network_works_does_not_let_a_window_grow() -> None:
    cursor = Cursor(0, MIB, 16 * MIB, 100.0)
    cursor.advance(0, MIB, 105.0)
    cursor.resumed()
    cursor.stalled(256 * MIB)
    assert cursor.reach == 16 * MIB
