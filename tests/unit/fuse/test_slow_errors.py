"""A failure that took long is repeated to the kernel's second question, and to nobody else."""

from __future__ import annotations

import pytest

from csi.errors import DeadlineExceeded
from csi.fuse.slow_errors import REMEMBERED, SLOW, SlowErrors

ERROR = DeadlineExceeded("60 s passed")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def failed_after(clock: Clock, seconds: float) -> SlowErrors:
    errors = SlowErrors(clock)
    started = errors.now()
    clock.now += seconds
    errors.remember(1, 4096, 8192, started, ERROR)
    return errors


@pytest.mark.parametrize("offset", [4096, 8192, 12287])
def test_the_same_place_of_the_same_file_fails_again_at_once(clock: Clock, offset: int) -> None:
    errors = failed_after(clock, 60.0)

    with pytest.raises(DeadlineExceeded):
        errors.check(1, offset)


@pytest.mark.parametrize(("handle", "offset"), [(1, 0), (1, 12288), (2, 4096)])
def test_other_places_and_files_are_tried(clock: Clock, handle: int, offset: int) -> None:
    failed_after(clock, 60.0).check(handle, offset)


def test_a_quick_failure_is_tried_again(clock: Clock) -> None:
    failed_after(clock, SLOW / 2).check(1, 4096)


def test_later_it_is_tried_again(clock: Clock) -> None:
    errors = failed_after(clock, 60.0)
    clock.now += REMEMBERED

    errors.check(1, 4096)


def test_a_closed_file_is_forgotten(clock: Clock) -> None:
    errors = failed_after(clock, 60.0)
    errors.forget(1)

    errors.check(1, 4096)
