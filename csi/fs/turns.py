"""Who may change what at the same time: one operation on a file after the other, and no change below a directory that
is being renamed.

These are not locks around fields (`InodeTable.lock` is that, and is never held across the network): they order whole
operations, requests to OSS included, the way i_rwsem does in the kernel. Whoever waits here waits for an operation that
has a deadline itself. Order: a `Gate` before a `Turn`, never the other way round; neither is entered twice by a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from csi.fs.names import is_inside


class Turn:
    """One operation at a time on one open file or directory."""

    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken = threading.Lock()

    def __enter__(self) -> None:
        self._taken.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._taken.release()


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """Changes of names and files, and moves of subtrees, that are under way or wait for each other."""

    changes: int = 0
    moves: int = 0


class Gate:
    """Lets changes through side by side, and keeps those below a path waiting while that path is being moved.

    `_changed` guards the two lists of what is under way. A rename announces itself before it waits, so that a stream
    of small changes cannot keep it out.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._changes: list[str] = []
        self._moves: list[tuple[str, ...]] = []

    def statistics(self) -> GateStatistics:
        with self._changed:
            return GateStatistics(len(self._changes), len(self._moves))

    @contextmanager
    def change(self, path_of: Callable[[], str]) -> Iterator[str]:
        """A change at the path that `path_of` tells, asked again after each wait: a rename may have moved it."""
        with self._changed:
            path = path_of()
            while any(is_inside(path, root) for move in self._moves for root in move):
                self._changed.wait()
                path = path_of()
            self._changes.append(path)
        try:
            yield path
        finally:
            with self._changed:
                self._changes.remove(path)
                self._changed.notify_all()

    @contextmanager
    def move(self, *roots: str) -> Iterator[None]:
        """A change of whole subtrees: waits for what is under way in them, and keeps the rest out."""
        with self._changed:
            while any(_overlap(mine, theirs) for move in self._moves for theirs in move for mine in roots):
                self._changed.wait()
            self._moves.append(roots)
            while any(is_inside(path, root) for path in self._changes for root in roots):
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._moves.remove(roots)
                self._changed.notify_all()


def _overlap(one: str, other: str) -> bool:
    return is_inside(one, other) or is_inside(other, one)
