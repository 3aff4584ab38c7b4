"""Indices of tensors as boxes and runs of bytes, compared with what Python's own slices select."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from csi.errors import InvalidOperation
from csi.torch.boxes import box_of, runs_of

SHAPE = (5, 4, 6)
ITEM = 2


def selected(index: Any) -> list[int]:
    """Flat positions of the elements that `box_of` selects before `picks`, from the runs."""
    box = box_of(index, SHAPE)
    runs = [run for group in runs_of(SHAPE, box, ITEM, near=0, largest=1 << 20) for run in group]
    return [at for start, size in runs for at in range(start // ITEM, (start + size) // ITEM)]


def expected(*ranges: range) -> list[int]:
    return [(a * SHAPE[1] + b) * SHAPE[2] + c for a, b, c in itertools.product(*ranges)]


@pytest.mark.parametrize(
    ("index", "ranges"),
    [
        (slice(None), (range(5), range(4), range(6))),
        (..., (range(5), range(4), range(6))),
        (slice(1, 3), (range(1, 3), range(4), range(6))),
        (-1, (range(4, 5), range(4), range(6))),
        ((slice(None), slice(1, 3)), (range(5), range(1, 3), range(6))),
        ((slice(2, None), slice(None), slice(0, 2)), (range(2, 5), range(4), range(2))),
        ((..., 3), (range(5), range(4), range(3, 4))),
        ((0, ..., slice(-2, None)), (range(1), range(4), range(4, 6))),
        (slice(3, 1), (range(0), range(4), range(6))),
    ],
    ids=str,
)
def test_the_runs_hold_the_elements_of_the_index(index: Any, ranges: tuple[range, ...]) -> None:
    assert selected(index) == expected(*ranges)


def test_rows_that_lie_together_are_one_run() -> None:
    box = box_of(slice(1, 3), SHAPE)
    assert list(runs_of(SHAPE, box, ITEM, near=0, largest=1 << 20)) == [[(48, 96)]]


def test_runs_near_each_other_are_fetched_together_up_to_a_limit() -> None:
    box = box_of((slice(None), slice(0, 1)), SHAPE)
    assert [len(group) for group in runs_of(SHAPE, box, ITEM, near=36, largest=1 << 20)] == [5]
    assert [len(group) for group in runs_of(SHAPE, box, ITEM, near=35, largest=1 << 20)] == [1] * 5
    assert [len(group) for group in runs_of(SHAPE, box, ITEM, near=36, largest=120)] == [3, 2]


def test_a_tensor_without_dimensions_is_one_item() -> None:
    box = box_of(..., ())
    assert list(runs_of((), box, ITEM, near=0, largest=100)) == [[(0, 2)]]


def test_steps_and_single_elements_are_picked_afterwards() -> None:
    box = box_of((slice(0, 5, 2), 1), SHAPE)
    assert box.sizes == (5, 1, 6)
    assert box.picks == (slice(None, None, 2), 0, slice(None))
    assert math.prod(box.sizes) == 30


@pytest.mark.parametrize("index", [5, -6, (0, 0, 0, 0)], ids=str)
def test_what_is_out_of_range_is_an_index_error(index: Any) -> None:
    with pytest.raises(IndexError):
        box_of(index, SHAPE)


@pytest.mark.parametrize("index", [True, 1.5, "a", [0, 1], slice(None, None, -1), (..., ...)], ids=str)
def test_other_kinds_of_index_are_refused(index: Any) -> None:
    with pytest.raises(InvalidOperation):
        box_of(index, SHAPE)


@pytest.mark.parametrize("index", [None, "0", 1.0, True, [0, 1], (0, None)], ids=repr)
def test_what_is_no_index_is_a_type_error(index: Any) -> None:
    with pytest.raises(TypeError, match="use integers, slices and"):
        box_of(index, SHAPE)
