"""What a worker of a DataLoader will be asked for next: the batches that wait in its queue already.

PyTorch gives a data set one batch at a time, although by default two wait for each worker (`prefetch_factor`). Here the
queue is found in the frame of PyTorch's worker loop, emptied into a list of ours, and given a `get` that takes from
that list first: the loop gets the same messages in the same order. Where there is no such loop, or it is another one
than is known, nothing is known of what comes next, which costs only the look-ahead.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Any, Final

_LOOP: Final = "_worker_loop"
_QUEUE: Final = "index_queue"
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
            batch = message[1] if isinstance(message, tuple) and len(message) == 2 else None
            if isinstance(batch, tuple) and batch:  # with a word on whether the state is to be saved after it
                batch = batch[0]
            if not isinstance(batch, list):
                break  # a word of the loader's to its worker
            found.extend(int(number) for number in batch)
        return found

    def _get(self, block: bool = True, timeout: float | None = None) -> Any:
        return self._waiting.popleft() if self._waiting else self._take(block, timeout)


def upcoming() -> Upcoming | None:
    """Of the worker loop that called, directly or not; None when there is none. To be asked for once in a process."""
    frame = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame.f_code.co_name == _LOOP and str(frame.f_globals.get("__name__", "")).startswith(_MODULES):
            queue = frame.f_locals.get(_QUEUE)
            return Upcoming(queue) if callable(getattr(queue, "get", None)) else None
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None
