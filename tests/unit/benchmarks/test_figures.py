"""Samples become rows: which way a ratio goes, what a bar says, and what the spread is of."""

from __future__ import annotations

import math

import pytest

from benchmarks.figures import BAR, ratio, rows
from benchmarks.model import Metric, Row

SPEED = Metric("MB/s", bars={"old": 2.0, "curl": 0.6})
CPU = Metric("CPU-s/GiB", higher=False, limit=0.8)
KINDS = {"ossfuse": "ours", "s3fs": "old", "curl": "limit", "goofys": "mount"}


def of(values: dict[str, list[float]], metric: Metric = SPEED) -> dict[str, Row]:
    return {row.peer: row for row in rows("work", "case", metric, metric == SPEED, values, KINDS)}


def test_more_is_better_for_a_speed_and_less_for_a_cost() -> None:
    assert ratio(300, 100, higher=True) == 3
    assert ratio(1, 4, higher=False) == 4
    assert math.isinf(ratio(0, 4, higher=False))


def test_a_row_compares_medians_of_the_same_run() -> None:
    row = of({"ossfuse": [100, 300, 200], "s3fs": [90, 110, 50]})["s3fs"]
    assert (row.ours, row.peer_value, row.value, row.rounds) == (200, 90, 2.2222, 3)


def test_the_spread_is_of_ratios_within_a_round() -> None:
    assert of({"ossfuse": [100, 300], "s3fs": [50, 100]})["s3fs"].spread == (2, 3)


@pytest.mark.parametrize(("theirs", "holds"), [(100.0, True), (101.0, False)])
def test_the_bar_of_a_kind_holds_from_its_value_on(theirs: float, holds: bool) -> None:
    row = of({"ossfuse": [200], "s3fs": [theirs]})["s3fs"]
    assert (row.bar, row.holds) == (2.0, holds)


def test_the_bar_of_a_name_goes_before_that_of_its_kind_and_some_have_none() -> None:
    found = of({"ossfuse": [60], "curl": [100], "goofys": [100]})
    assert (found["curl"].bar, found["curl"].holds) == (0.6, True)
    assert (found["goofys"].bar, found["goofys"].holds) == (None, None)


def test_a_limit_is_a_row_against_a_number() -> None:
    row = of({"ossfuse": [0.9, 0.7, 0.8]}, CPU)[BAR]
    assert (row.case, row.value, row.peer_value, row.bar, row.holds) == ("case: CPU-s/GiB", 0.8, None, 0.8, True)
    assert not of({"ossfuse": [0.81]}, CPU)[BAR].holds


def test_without_our_own_samples_there_is_nothing_to_say() -> None:
    assert of({"s3fs": [1.0]}) == {}
