"""Batches of numbers that carry what comes after them, so that a worker can fetch ahead of a shuffled order too.

    batches = LookAhead(BatchSampler(RandomSampler(dataset), 64, drop_last=False), num_workers=4)
    loader = DataLoader(dataset, batch_sampler=batches, num_workers=4)

A DataLoader tells a worker of a batch only when it is due. Without shuffling the next ones can be guessed; with it,
they have to be told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from csi.errors import InvalidOption


class Batch(list[int]):
    """The numbers of one batch; `following`: those that the same worker will be asked for next, in order."""

    def __init__(self, numbers: Iterable[int] = (), following: Sequence[int] = ()) -> None:
        super().__init__(numbers)
        self.following = tuple(following)


class LookAhead:
    """A batch sampler around another, `batches` of which are known ahead to each of `num_workers` workers (as many as
    the DataLoader is given). `set_epoch` goes on to the sampler inside."""

    def __init__(self, batch_sampler: Any, *, num_workers: int = 0, batches: int = 2) -> None:
        if num_workers < 0:
            raise InvalidOption("num_workers", num_workers, "the number that the DataLoader is given, from 0 on")
        if batches < 1:
            raise InvalidOption("batches", batches, "1 or more")
        self.batch_sampler = batch_sampler
        self._stride = max(1, num_workers)
        self._batches = batches

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        inner = iter(self.batch_sampler)
        window = deque(islice(inner, self._stride * self._batches))
        while window:
            window.extend(islice(inner, 1))
            batch = window.popleft()
            own = islice(window, self._stride - 1, None, self._stride)
            yield Batch(batch, list(chain.from_iterable(own)))

    def set_epoch(self, epoch: int) -> None:
        for each in (self.batch_sampler, getattr(self.batch_sampler, "sampler", None)):
            advance = getattr(each, "set_epoch", None)
            if advance is not None:
                advance(epoch)
