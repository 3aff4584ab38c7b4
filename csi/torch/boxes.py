"""Parts of a tensor: from an index as Python has it to the runs of bytes that hold it.

An index selects a box of elements, and from the box what steps and single elements leave of it. Pure arithmetic.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

from csi.errors import InvalidOperation
from csi.torch.refusals import IndexUnsupported


@dataclass(frozen=True, slots=True)
class Box:
    """`starts` and `sizes` by dimension; `picks` is the index to apply to the box afterwards, () for none."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    picks: tuple[int | slice, ...]


def box_of(index: Any, shape: tuple[int, ...]) -> Box:
    """Raises IndexError for an index out of range, IndexUnsupported for what is none, InvalidOperation."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if sum(isinstance(part, EllipsisType) for part in parts) > 1:
        raise InvalidOperation("an index can have only a single ellipsis ('...')")
    given = sum(not isinstance(part, EllipsisType) for part in parts)
    if given > len(shape):
        raise IndexError(f"{given} indices for a tensor of {len(shape)} dimensions")
    rest = [slice(None)] * (len(shape) - given)
    at = next((at for at, part in enumerate(parts) if isinstance(part, EllipsisType)), None)
    full = parts + rest if at is None else parts[:at] + rest + parts[at + 1 :]
    starts, sizes, picks = [], [], []
    for part, length in zip(full, shape, strict=True):
        start, size, pick = _along(part, length)
        starts.append(start)
        sizes.append(size)
        picks.append(pick)
    needed = any(pick != slice(None) for pick in picks)
    return Box(tuple(starts), tuple(sizes), tuple(picks) if needed else ())


def runs_of(shape: tuple[int, ...], box: Box, item: int, *, near: int, largest: int) -> Iterator[list[tuple[int, int]]]:
    """The bytes of `box` in order, as (start, size) in the tensor's, in groups that are worth fetching together: no gap
    larger than `near`, no group of several runs larger than `largest`."""
    if not math.prod(box.sizes):
        return
    last = max((at for at, size in enumerate(box.sizes) if size != shape[at]), default=0)
    strides = [math.prod(shape[at + 1 :]) * item for at in range(len(shape))]
    size = math.prod(box.sizes[last:]) * item
    outer = [range(start, start + count) for start, count in zip(box.starts[:last], box.sizes[:last], strict=True)]
    base = box.starts[last] * strides[last] if shape else 0
    group: list[tuple[int, int]] = []
    for place in itertools.product(*outer):
        start = base + sum(at * stride for at, stride in zip(place, strides, strict=False))
        if group and (start - sum(group[-1]) > near or start + size - group[0][0] > largest):
            yield group
            group = []
        group.append((start, size))
    yield group


def _along(part: Any, length: int) -> tuple[int, int, int | slice]:
    """Start and size of the box in one dimension, and what to pick of it."""
    if isinstance(part, slice):
        start, stop, step = part.indices(length)
        if step < 1:
            raise InvalidOperation(f"a step of {step} is not possible", hint="take the slice, then tensor.flip()")
        return start, max(0, stop - start), slice(None) if step == 1 else slice(None, None, step)
    if isinstance(part, bool) or not hasattr(part, "__index__"):
        raise IndexUnsupported(
            f"an index of {type(part).__name__} is not possible here", hint="use integers, slices and ..."
        )
    at = part.__index__()
    if not -length <= at < length:
        raise IndexError(f"index {at} is out of range for a dimension of {length}")
    return at % length, 1, 0
