"""Growth: a doubling is held against the cost of a unit before it."""

from __future__ import annotations

from itertools import pairwise

from benchmarks.growth import CPU, KINDS, MEMORY, growth_rows
from benchmarks.model import Sizes


def test_four_sizes_of_each_kind_each_twice_the_one_before() -> None:
    for kind in KINDS:
        counts = [case.count for case in kind.cases(Sizes())]
        assert len(counts) == 4
        assert all(after // before == 2 for before, after in pairwise(counts))


def test_a_unit_that_becomes_dearer_by_a_sixth_is_too_much() -> None:
    samples = {
        "100": [{CPU: 1.0, MEMORY: 2.0}, {CPU: 3.0, MEMORY: 2.0}, {CPU: 2.0, MEMORY: 2.0}],
        "200": [{CPU: 2.2, MEMORY: 1.0}, {CPU: 2.2, MEMORY: 1.0}, {CPU: 2.2, MEMORY: 2.4}],
        "400": [{CPU: 2.6, MEMORY: 1.0}, {CPU: 2.6, MEMORY: 1.0}, {CPU: 2.6, MEMORY: 1.0}],
    }
    found = {row.case: row for row in growth_rows(KINDS[0], samples)}
    first, second = found[f"files 100 to 200: {CPU}"], found[f"files 200 to 400: {CPU}"]
    assert (first.value, first.holds, first.spread) == (1.1, True, (0.7333, 2.2))
    assert (second.value, second.holds) == (1.1818, False)
    assert found[f"files 100 to 200: {MEMORY}"].value == 0.5
