"""Which samples an iterable data set gives to whom, and in what order: the same whenever it is asked the same.

Every sample goes to exactly one of the consumers (each data loading worker of each distributed rank), and their numbers
differ by at most one. Shuffling mixes twice: runs of consecutive samples change places, the same for everybody, and
each consumer draws from a buffer. All of it follows from seed and epoch. Knows no data.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """Consumer `number` of `count`: the first workers of the `ranks`, then their second ones, and so on."""

    number: int = 0
    count: int = 1
    ranks: int = 1


@dataclass(frozen=True, slots=True)
class Shuffling:
    """`run`: samples, at most, that stay together at first; `buffer`: samples that a consumer draws from."""

    seed: int = 0
    run: int = 1000
    buffer: int = 1000


def numbers(count: int, share: Share, shuffling: Shuffling | None, epoch: int, *, block: int = 1) -> Iterator[int]:
    """The numbers, out of `count`, of the samples of one consumer.

    With `block`, so many neighbours go to the same worker, where they can be fetched together; then it is the numbers
    of ranks that differ by at most one, those of a rank's workers by a block. Shuffling leaves no neighbours together.
    """
    if shuffling is None:
        return _in_blocks(count, share, block) if block > 1 else iter(range(share.number, count, share.count))
    return drawn(_mixed(count, share, shuffling, epoch), share, shuffling, epoch)


def dealt(entries: Iterable[T], share: Share, shuffling: Shuffling | None, epoch: int) -> Iterator[T]:
    """The entries of one consumer, out of a stream of which nobody knows the length."""
    own = islice(entries, share.number, None, share.count)
    return own if shuffling is None else drawn(own, share, shuffling, epoch)


def drawn(entries: Iterator[T], share: Share, shuffling: Shuffling, epoch: int) -> Iterator[T]:
    """`entries` through a buffer, of which each next one is drawn at random."""
    chance = random.Random(f"{shuffling.seed}/{epoch}/{share.number}/{share.count}")
    buffer = list(islice(entries, shuffling.buffer))
    draw = chance.randrange
    for entry in entries:
        place = draw(len(buffer))
        yield buffer[place]
        buffer[place] = entry
    chance.shuffle(buffer)
    yield from buffer


def _in_blocks(count: int, share: Share, block: int) -> Iterator[int]:
    worker, rank = divmod(share.number, share.ranks)
    workers = share.count // share.ranks
    end = count * (rank + 1) // share.ranks
    for start in range(count * rank // share.ranks + worker * block, end, workers * block):
        yield from range(start, min(start + block, end))


def _mixed(count: int, share: Share, shuffling: Shuffling, epoch: int) -> Iterator[int]:
    """Runs of consecutive numbers in an order that is the same for all consumers, of which each takes its turn.

    The runs are of different lengths: so the turns fall on other samples in every epoch.
    """
    chance = random.Random(f"{shuffling.seed}/{epoch}")
    cuts = [0]
    while cuts[-1] < count:
        cuts.append(min(count, cuts[-1] + chance.randint((shuffling.run + 1) // 2, shuffling.run)))
    runs = list(pairwise(cuts))
    chance.shuffle(runs)
    ends = list(accumulate(end - start for start, end in runs))  # in the new order
    for position in range(share.number, count, share.count):
        index = bisect_right(ends, position)
        yield runs[index][1] - (ends[index] - position)
