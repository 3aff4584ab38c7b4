"""What comes after batches of consecutive numbers, as a loader makes them that does not shuffle."""

from __future__ import annotations

from collections.abc import Sequence


class Guess:
    """`_last`: the first number and the length of the last batch that was a run of consecutive numbers, `_stride` how
    far it was from the one before."""

    def __init__(self, count: int, most: int) -> None:
        self._count = count
        self._most = most
        self._last: tuple[int, int] | None = None
        self._stride = 0

    def after(self, batch: Sequence[int]) -> Sequence[int]:
        """The next numbers, where batches go on at a constant distance; none otherwise."""
        first, size = batch[0], len(batch)
        if any(number != first + index for index, number in enumerate(batch)):
            self._last = None
            return ()
        last, self._last = self._last, (first, size)
        if last is None or last[1] != size or first - last[0] < size:
            self._stride = 0
            return ()
        stride, self._stride = self._stride, first - last[0]
        if stride not in (0, self._stride):
            return ()
        starts = range(first + self._stride, self._count, self._stride)[: -(-self._most // size)]
        return [number for start in starts for number in range(start, min(start + size, self._count))]
