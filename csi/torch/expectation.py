"""Which samples a data set will be asked for next by a DataLoader, whatever data set it is wrapped in.

The loader's batches are followed in its own numbers, as batches or guessed, and then translated. Where the translation
is only supposed (a wrapper of the user's), nothing is expected until `PROOF` numbers in a row were asked for as they
stood in the loader's batches, and nothing ever again once one was not: what is fetched by a wrong number is fetched in
vain.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

from csi.torch.guessing import Guess
from csi.torch.lookahead import Batch
from csi.torch.upcoming import Turn
from csi.torch.wrappers import Route, route

PROOF: Final = 16


class Expectation:
    """Of one data set in one process; `most` numbers are expected at a time. One thread.

    `_now`: what is expected of the loader's batch, of which the first `_asked` were asked for, `_then`: of later ones.
    Holds no data set: the threads of one end with its last user, without a garbage collection.
    """

    def __init__(self, count: int, most: int) -> None:
        self._count = count
        self._most = most
        self._outer: Callable[[], object] = _nothing
        self._route: Route | None = None
        self._guess: Guess | None = None
        self._source: object = None
        self._batch: list[int] = []
        self._now: list[int] = []
        self._then: list[int] = []
        self._asked = 0
        self._proven = 0
        self._refuted = False

    def after(self, wanted: Sequence[int], turn: Turn, ours: object) -> list[int]:
        """What comes after `wanted`, which the data set `ours` is asked for in this turn of a loader."""
        if turn.dataset is not self._outer():
            self._begin(turn.dataset, ours)
        if self._route is None or self._refuted:
            return []
        if turn.source is not self._source or turn.batch != self._batch:  # a sampler may use one list for all
            self._follow(turn, self._route)
        if self._now[self._asked : self._asked + len(wanted)] == list(wanted):
            self._asked += len(wanted)
            self._proven += len(wanted)
        elif not self._route.known:
            self._refuted = True
            return []
        if not self._route.known and self._proven < PROOF:
            return []
        return [*self._now[self._asked : self._asked + self._most], *self._then][: self._most]

    def _begin(self, outer: Any, ours: object) -> None:
        try:
            self._outer = weakref.ref(outer)
        except TypeError:  # of a class with __slots__
            self._outer = partial(_itself, outer)
        self._route = route(outer, ours)
        try:
            self._guess = Guess(len(outer), self._most)
        except (TypeError, NotImplementedError):  # it has no length
            self._guess = None
        self._source, self._batch, self._now, self._then, self._asked = None, [], [], [], 0
        self._proven, self._refuted = 0, False

    def _follow(self, turn: Turn, way: Route) -> None:
        """Into another batch of the loader's."""
        batch = turn.batch
        later: Sequence[int] = ()
        if isinstance(batch, Batch):
            later = batch.following
        elif batch:
            later = self._guess.after(batch) if self._guess is not None else ()
            if not later and turn.upcoming is not None:
                later = turn.upcoming.numbers()
        self._source, self._batch, self._asked = turn.source, list(batch), 0
        self._now = self._ours_of(batch, way, len(batch))
        self._then = self._ours_of(later, way, self._most)

    def _ours_of(self, numbers: Sequence[int], way: Route, most: int) -> list[int]:
        """Those of `numbers` that are ours, as we call them; up to one that cannot be."""
        return list(islice(self._each(numbers, way), most))

    def _each(self, numbers: Sequence[int], way: Route) -> Iterator[int]:
        count = self._count
        for number in numbers:
            try:
                found = way(int(number))
            except (IndexError, TypeError, ValueError):  # the wrapper will say so itself, in its place
                return
            if found is None:
                continue
            if not -count <= found < count:
                return
            yield found % count


def _nothing() -> object:
    return None


def _itself(outer: object) -> object:
    return outer
