"""Samples in the order in which they are wanted, fetched ahead of that as far as number and memory allow.

`stream` is for an order that nobody interrupts, `Lookahead` for one that comes in batches whose successors are known or
can be guessed. Both hold at most the fetcher's budget of bytes that were not taken yet, beside one sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from csi.torch.archives import SPAN
from csi.torch.catalogue import Entry
from csi.torch.fetching import Fetcher
from csi.torch.guessing import Guess
from csi.torch.slots import Slot

_DEPTH: Final = 3
"""Samples on their way or there, for each request that may be under way: so that a slow one holds up no other."""


def stream(fetcher: Fetcher, entries: Iterator[Entry]) -> Iterator[Slot]:
    """All entries in order, each with its outcome."""
    most = fetcher.concurrency * _DEPTH
    ahead: deque[Slot] = deque()
    charged = 0
    following = next(entries, None)
    try:
        while following is not None or ahead:
            while following is not None and len(ahead) < most:
                charge = fetcher.charge(following)
                if ahead and charged + charge > fetcher.budget:
                    break
                begun, together = [following], charge
                following = next(entries, None)
                while following is not None and _follows(following, begun[-1]) and together + following.size <= SPAN:
                    together += following.size
                    begun.append(following)
                    following = next(entries, None)
                slots = fetcher.begin_together(begun)
                charged += sum(slot.charge for slot in slots)
                ahead.extend(slots)
            slot = ahead.popleft()
            slot.wait()
            charged -= slot.charge
            yield slot
    finally:
        for slot in ahead:
            slot.give_up()


def _follows(entry: Entry, before: Entry) -> bool:
    """Whether both are members of an archive, one right behind the other."""
    return (
        entry.offset >= 0
        and before.offset >= 0
        and entry.offset == before.offset + before.size
        and entry.key == before.key
        and entry.place == before.place
    )


class Lookahead:
    """The samples of one process of a map-style data set, by their numbers. One thread.

    `_slots`: begun and not taken.
    """

    def __init__(self, fetcher: Fetcher, entry_of: Callable[[int], Entry], count: int) -> None:
        self.most = fetcher.concurrency * _DEPTH
        self._fetcher = fetcher
        self._entry_of = entry_of
        self._guess = Guess(count, self.most)
        self._slots: dict[int, Slot] = {}
        self._charged = 0

    def take(self, wanted: Sequence[int], following: Sequence[int] | None) -> Iterator[Slot]:
        """The samples `wanted`, in that order, while those `following` are fetched too. None: they are guessed."""
        plan = [*wanted, *(self._guess.after(wanted) if following is None else following)]
        self._forget_all_but(plan)
        begun = 0
        for place, number in enumerate(wanted):
            begun = self._begin(plan, max(begun, place))  # what was taken is not begun again
            slot = self._slots.pop(number, None)
            if slot is None:  # wanted twice, or there was no room for it
                entry = self._entry_of(number)
                slot = self._fetcher.begin(entry)
            else:
                self._charged -= slot.charge
            slot.wait()
            yield slot
        self._begin(plan, max(begun, len(wanted)))

    def _begin(self, plan: Sequence[int], begun: int) -> int:
        """Begin as many of the plan as may be, in order; returns how many of it were begun so far."""
        while begun < len(plan) and len(self._slots) < self.most:
            number = plan[begun]
            if number not in self._slots:
                entry = self._entry_of(number)
                charge = self._fetcher.charge(entry)
                if self._slots and self._charged + charge > self._fetcher.budget:
                    break
                slot = self._slots[number] = self._fetcher.begin(entry)
                self._charged += slot.charge
            begun += 1
        return begun

    def _forget_all_but(self, plan: Sequence[int]) -> None:
        if self._slots:
            kept = set(plan)
            for number in [number for number in self._slots if number not in kept]:
                slot = self._slots.pop(number)
                slot.give_up()
                self._charged -= slot.charge
