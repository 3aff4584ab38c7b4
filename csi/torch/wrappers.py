"""Which samples of a data set the numbers of another mean that wraps it: those of torch are known, by what they do.

Of a wrapper that is not known it can only be supposed that it hands numbers on as they are, which the caller has to see
proven by what the data set is really asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch.utils.data

Step = Callable[[int], int | None]

_DEEPEST: Final = 8


@dataclass(frozen=True, slots=True)
class Route:
    """From the numbers of a loader's data set to those of ours. `known`: every step of it is."""

    steps: tuple[Step, ...]
    known: bool

    def __call__(self, number: int) -> int | None:
        """None: the number means a sample of another data set."""
        found: int | None = number
        for step in self.steps:
            if found is None:
                return None
            found = step(found)
        return found


def route(outer: Any, ours: Any) -> Route | None:
    """None: `outer` may ask `ours` for anything."""
    found = _exact(outer, ours, _DEEPEST)
    if found is not None:
        return Route(tuple(found), known=True)
    steps: list[Step] = []
    while _is(outer, torch.utils.data.Subset):
        steps.append(_picked(outer))
        outer = outer.dataset
    several = (torch.utils.data.ConcatDataset, torch.utils.data.StackDataset)
    return None if isinstance(outer, several) else Route(tuple(steps), known=False)


def _exact(outer: Any, ours: Any, depth: int) -> list[Step] | None:
    if outer is ours:
        return []
    if not depth:
        return None
    for step, inner in _inside(outer):
        below = _exact(inner, ours, depth - 1)
        if below is not None:
            return [step, *below]
    return None


def _inside(outer: Any) -> list[tuple[Step, Any]]:
    """The data sets that a known wrapper asks, and for what."""
    if _is(outer, torch.utils.data.Subset):
        return [(_picked(outer), outer.dataset)]
    if _is(outer, torch.utils.data.ConcatDataset):
        ends = outer.cumulative_sizes
        return [
            (_between(start, end, ends[-1]), inner)
            for start, end, inner in zip([0, *ends], ends, outer.datasets, strict=False)
        ]
    if _is(outer, torch.utils.data.StackDataset):
        several = outer.datasets
        return [(_same, inner) for inner in (several.values() if isinstance(several, Mapping) else several)]
    return []


def _is(outer: Any, kind: type[Any]) -> bool:
    """A subclass may do something else with its numbers."""
    return isinstance(outer, kind) and all(
        getattr(type(outer), name, None) is getattr(kind, name, None) for name in ("__getitem__", "__getitems__")
    )


def _picked(subset: Any) -> Step:
    indices = subset.indices
    return lambda number: int(indices[number])


def _between(start: int, end: int, total: int) -> Step:
    def step(number: int) -> int | None:
        place = number % total
        return place - start if start <= place < end else None

    return step


def _same(number: int) -> int:
    return number
