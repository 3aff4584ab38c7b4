"""Part sizes: they reach far enough and never break OSS's limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.data.plan import LARGEST_PART, MOST_PARTS, SMALLEST_PART, PartPlan, copied_ranges
from csi.volume.units import GIB, KIB, MIB

PART_SIZES = st.integers(SMALLEST_PART, 5 * GIB)
CAPS = st.integers(128 * KIB, 10 * GIB)


@given(first=PART_SIZES, cap=CAPS, number=st.integers(1, MOST_PARTS))
def test_every_part_is_one_oss_accepts(first: int, cap: int, number: int) -> None:
    assert SMALLEST_PART <= PartPlan(first).size_of(number, cap) <= min(LARGEST_PART, max(cap, SMALLEST_PART))


@given(first=PART_SIZES, cap=CAPS, number=st.integers(1, MOST_PARTS - 1))
def test_parts_never_shrink_while_memory_is_the_same(first: int, cap: int, number: int) -> None:
    plan = PartPlan(first)
    assert plan.size_of(number, cap) <= plan.size_of(number + 1, cap)


def test_there_is_no_part_ten_thousand_and_one() -> None:
    assert PartPlan(8 * MIB).size_of(MOST_PARTS + 1, 1 * GIB) == 0


@pytest.mark.parametrize(
    ("number", "size"),
    [(1, 8), (1000, 8), (1001, 32), (2000, 32), (2001, 128), (10_000, 128)],
)
def test_the_default_plan_grows_in_stages(number: int, size: int) -> None:
    assert PartPlan(8 * MIB).size_of(number, 1 * GIB) == size * MIB


def test_the_default_plan_reaches_a_tebibyte() -> None:
    assert PartPlan(8 * MIB).largest_object(1 * GIB) >= 1024 * GIB * 99 // 100


def test_little_memory_makes_the_largest_file_smaller() -> None:
    assert PartPlan(8 * MIB).largest_object(6 * MIB) == 6 * MIB * MOST_PARTS


@given(size=st.integers(SMALLEST_PART, 48 * 1024 * GIB))
def test_copied_ranges_cover_the_object_in_few_legal_parts(size: int) -> None:
    ranges = copied_ranges(size)
    assert ranges[0][0] == 0
    assert [offset + length for offset, length in ranges[:-1]] == [offset for offset, _ in ranges[1:]]
    assert sum(length for _, length in ranges) == size
    assert len(ranges) <= MOST_PARTS // 2
    assert min(length for _, length in ranges) >= SMALLEST_PART
    assert size > 5000 * GIB or max(length for _, length in ranges) <= GIB
