"""What is being answered, and for how long."""

from __future__ import annotations

from csi.fuse.requests import RequestTable


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def test_the_oldest_request_and_its_age_are_known() -> None:
    clock = Clock()
    table = RequestTable(clock)
    first = table.begin("open")
    clock.now = 12.0
    table.begin("read")
    clock.now = 15.0

    seen = table.statistics()
    table.end(first)
    later = table.statistics()

    assert (seen.in_flight, seen.oldest, seen.oldest_age) == (2, "open", 5.0)
    assert (later.in_flight, later.oldest, later.oldest_age) == (1, "read", 3.0)
    assert later.answered == {"open": 1}


def test_at_rest_nothing_is_old() -> None:
    seen = RequestTable(Clock()).statistics()

    assert (seen.in_flight, seen.oldest, seen.oldest_age, seen.answered) == (0, "", 0.0, {})
