"""What a data set expects to be asked for, by the batches of a loader and what is wrapped around it."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils.data import ConcatDataset, Dataset, Subset

from csi.torch.expectation import PROOF, Expectation
from csi.torch.lookahead import Batch
from csi.torch.upcoming import Turn
from csi.torch.wrappers import route

MOST = 12


class Numbers(Dataset):  # type: ignore[misc]
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class Around(Dataset):  # type: ignore[misc]
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)


class Other(Subset):  # type: ignore[misc]
    """Does something of its own with numbers."""

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[len(self) - index]

    def __getitems__(self, indices: Any) -> Any:
        return [self[index] for index in indices]


ours = Numbers(100)


def asked(outer: Any, batch: list[int]) -> Turn:
    return Turn(outer, object(), batch, None)


@pytest.mark.parametrize(
    ("outer", "numbers", "found"),
    [
        (ours, [3, 99], [3, 99]),
        (Subset(ours, [7, 5, 3]), [0, 2], [7, 3]),
        (Subset(Subset(ours, range(50, 60)), [4, 2]), [0, 1], [54, 52]),
        (ConcatDataset([Numbers(10), ours]), [9, 10, 109, -1], [None, 0, 99, 99]),
        (ConcatDataset([Subset(Numbers(10), [1]), Subset(ours, [8, 9])]), [0, 1, 2], [None, 8, 9]),
    ],
)
def test_numbers_are_followed_through_the_wrappers_of_torch(
    outer: Any, numbers: list[int], found: list[int | None]
) -> None:
    way = route(outer, ours)
    assert way is not None
    assert way.known
    assert [way(number) for number in numbers] == found


@pytest.mark.parametrize("outer", [Around(ours), Subset(Around(ours), range(9)), Other(ours, range(9))])
def test_another_wrapper_is_only_supposed_to_hand_numbers_on(outer: Any) -> None:
    way = route(outer, ours)
    assert way is not None
    assert not way.known


def test_which_of_several_unknown_ones_is_ours_is_not_supposed() -> None:
    assert route(ConcatDataset([Around(ours), Around(Numbers(3))]), ours) is None


def test_what_follows_in_a_batch_and_after_it_is_expected_in_our_numbers() -> None:
    outer = Subset(ours, range(99, -1, -1))
    expected = Expectation(len(ours), MOST)
    turn = asked(outer, Batch([5, 1], [2, 3]))
    assert expected.after([94], turn, ours) == [98, 97, 96]
    assert expected.after([98], turn, ours) == [97, 96]


def test_a_supposed_wrapper_is_followed_once_it_is_proven() -> None:
    expected = Expectation(len(ours), MOST)
    outer = Around(ours)
    turn = asked(outer, Batch(range(PROOF + 2), [50]))
    found = [expected.after([number], turn, ours) for number in range(PROOF + 2)]
    assert found[: PROOF - 1] == [[]] * (PROOF - 1)
    assert found[PROOF - 1 :] == [[PROOF, PROOF + 1, 50], [PROOF + 1, 50], [50]]


def test_a_supposed_wrapper_that_asks_for_something_else_is_never_followed_again() -> None:
    expected = Expectation(len(ours), MOST)
    outer = Around(ours)
    assert expected.after([7], asked(outer, Batch([6], [8])), ours) == []
    turn = asked(outer, Batch(range(2 * PROOF), [50]))
    assert [expected.after([number], turn, ours) for number in range(2 * PROOF)] == [[]] * (2 * PROOF)


def test_one_list_that_a_sampler_fills_again_and_again_is_a_batch_each_time() -> None:
    expected = Expectation(len(ours), MOST)
    batch = [1, 5]
    turn = Turn(ours, batch, batch, None)
    assert expected.after([1], turn, ours) == [5]
    batch[:] = [8, 3]
    assert expected.after([8], turn, ours) == [3]
