"""Who gets which samples, in what order."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from csi.torch.order import Share, Shuffling, dealt, numbers

shufflings = st.one_of(st.none(), st.builds(Shuffling, st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)))


@given(st.integers(0, 200), st.integers(1, 9), shufflings, st.integers(0, 5))
def test_every_sample_goes_to_exactly_one_consumer(
    count: int, consumers: int, shuffling: Shuffling | None, epoch: int
) -> None:
    shares = [list(numbers(count, Share(number, consumers), shuffling, epoch)) for number in range(consumers)]
    assert sorted(number for share in shares for number in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(0, 200), st.integers(1, 4), st.integers(1, 4), st.integers(2, 9))
def test_neighbours_stay_together_and_ranks_are_even(count: int, ranks: int, workers: int, block: int) -> None:
    shares = {
        (rank, worker): list(numbers(count, Share(worker * ranks + rank, ranks * workers, ranks), None, 0, block=block))
        for rank in range(ranks)
        for worker in range(workers)
    }
    assert sorted(number for share in shares.values() for number in share) == list(range(count))
    of_ranks = [sum(len(shares[rank, worker]) for worker in range(workers)) for rank in range(ranks)]
    assert max(of_ranks) - min(of_ranks) <= 1
    for share in shares.values():
        assert sum(after != before + 1 for before, after in pairwise(share)) <= len(share) // block


@given(st.integers(0, 200), st.integers(1, 9), shufflings, st.integers(0, 5))
def test_a_stream_is_dealt_out_to_exactly_one_consumer_too(
    count: int, consumers: int, shuffling: Shuffling | None, epoch: int
) -> None:
    shares = [
        list(dealt(iter(range(count)), Share(number, consumers), shuffling, epoch)) for number in range(consumers)
    ]
    assert sorted(number for share in shares for number in share) == list(range(count))


@given(st.integers(0, 200), shufflings, st.integers(0, 5))
def test_the_same_is_in_the_same_order_again(count: int, shuffling: Shuffling | None, epoch: int) -> None:
    share = Share(0, 2)
    assert list(numbers(count, share, shuffling, epoch)) == list(numbers(count, share, shuffling, epoch))


def test_another_epoch_gives_a_rank_other_samples() -> None:
    share, shuffling = Share(0, 2), Shuffling(0, 10, 10)
    first, second = (set(numbers(1000, share, shuffling, epoch)) for epoch in (0, 1))
    assert 150 < len(first & second) < 350


def test_a_small_buffer_still_moves_samples_far() -> None:
    order = list(numbers(10_000, Share(), Shuffling(0, 100, 100), 0))
    far = sum(abs(place - number) > 1000 for place, number in enumerate(order))
    assert far > 5000
