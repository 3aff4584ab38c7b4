"""What a DataLoader asks for now, and what it will ask for next: its batches, found in the frames of its loop.

PyTorch gives a data set one batch at a time, although by default two wait for each worker (`prefetch_factor`). Here the
queue is found in the frame of PyTorch's worker loop, emptied into a list of ours, and given a `get` that takes from
that list first: the loop gets the same messages in the same order. The numbers are those of the data set that the
loader was given, which may be one around ours (`wrappers`). Where there is no such loop, or it is another one than is
known, nothing is known of what comes next, which costs only the look-ahead.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty
from typing import Any, Final

_WORKER: Final = "_worker_loop"
_HERE: Final = "_next_data"
_MODULES: Final = ("torch.utils.data.", "torchdata.stateful_dataloader.")
_FRAMES: Final = 16


class Upcoming:
    """Of one queue, in the process that reads it."""

    def __init__(self, queue: Any) -> None:
        self._take: Callable[..., Any] = queue.get
        self._waiting: deque[Any] = deque()
        queue.get = self._get

    def numbers(self) -> list[int]:
        """Those of the batches that wait, in order."""
        try:
            while True:
                self._waiting.append(self._take(False))
        except Empty:
            pass
        found: list[int] = []
        for message in self._waiting:
            batch = _batch_of(message)
            if batch is None:
                break  # a word of the loader's to its worker
            found.extend(int(number) for number in batch)
        return found

    def _get(self, block: bool = True, timeout: float | None = None) -> Any:
        return self._waiting.popleft() if self._waiting else self._take(block, timeout)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a loader has its data set fetch at this moment: `batch`, numbers of `dataset`. `source` is the object that
    the loader holds for it, another one in the next turn; `upcoming` is None where no queue is read."""

    dataset: Any
    source: object
    batch: Sequence[int]
    upcoming: Upcoming | None


def turn() -> Turn | None:
    """Of the loader that called, directly or not; None when there is none."""
    frame = sys._getframe(1)
    for _ in range(_FRAMES):
        name = frame.f_code.co_name
        if name in (_WORKER, _HERE) and str(frame.f_globals.get("__name__", "")).startswith(_MODULES):
            return (_turn_of_worker if name == _WORKER else _turn_here)(frame.f_locals)
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


def _turn_of_worker(names: Any) -> Turn | None:
    message, queue = names.get("r"), names.get("index_queue")
    batch = _batch_of(message)
    if batch is None or not callable(getattr(queue, "get", None)):
        return None
    reader = getattr(queue.get, "__self__", None)
    # one for all data sets of the process: each takes from the queue for the others too
    upcoming = reader if isinstance(reader, Upcoming) else Upcoming(queue)
    return Turn(names.get("dataset"), message, batch, upcoming)


def _turn_here(names: Any) -> Turn | None:
    """Of a loader without workers."""
    index = names.get("index")
    fetcher = getattr(names.get("self"), "_dataset_fetcher", None)
    batch = _numbers_in(index)
    return None if batch is None or fetcher is None else Turn(getattr(fetcher, "dataset", None), index, batch, None)


def _batch_of(message: Any) -> list[int] | None:
    batch = message[1] if isinstance(message, tuple) and len(message) == 2 else None
    if isinstance(batch, tuple) and batch:  # with a word on whether the state is to be saved after it
        batch = batch[0]
    return _numbers_in(batch)


def _numbers_in(batch: Any) -> list[int] | None:
    if isinstance(batch, int):  # batch_size=None
        return [batch]
    # an iterable data set is asked for None, and a sampler of the user's may have other keys than numbers
    return batch if isinstance(batch, list) and all(hasattr(each, "__index__") for each in batch) else None
