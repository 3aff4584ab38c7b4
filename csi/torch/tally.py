"""Numbers that the processes of one data set share: what was skipped and read, and which epoch it is.

A page of memory that workers have in common with the process that made the data set, however they were started. Each
process counts in a row of its own, so that no lock is needed. A copy that is pickled for another purpose starts at
zero.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from multiprocessing import context, reduction
from typing import Any, Final

_ROWS: Final = 1024
_COLUMNS: Final = 4
_SIZE: Final = _ROWS * _COLUMNS * 8
_EPOCH: Final = 3
"""The column of the first row that holds the epoch."""


@dataclass(frozen=True, slots=True)
class DatasetStatistics:
    """Of all processes together: samples given, their bytes, samples left out after an error."""

    samples: int
    bytes: int
    skipped: int


class Tally:
    def __init__(self, descriptor: int | None = None) -> None:
        made = descriptor is None
        self._descriptor = os.memfd_create("ossfuse-torch", os.MFD_CLOEXEC) if descriptor is None else descriptor
        if made:
            os.ftruncate(self._descriptor, _SIZE)
        self._cells = memoryview(mmap.mmap(self._descriptor, _SIZE)).cast("q")

    def count(self, row: int, samples: int, size: int) -> None:
        """`row` is 0 in the process that made the data set, a worker's number plus one in others."""
        base = row % _ROWS * _COLUMNS
        self._cells[base] += samples
        self._cells[base + 1] += size

    def skip(self, row: int) -> None:
        self._cells[row % _ROWS * _COLUMNS + 2] += 1

    @property
    def epoch(self) -> int:
        return self._cells[_EPOCH]

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._cells[_EPOCH] = epoch

    def statistics(self) -> DatasetStatistics:
        return DatasetStatistics(*(sum(self._cells[column::_COLUMNS]) for column in range(3)))

    def __del__(self) -> None:
        descriptor = self.__dict__.get("_descriptor")
        if descriptor is not None:
            os.close(descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        if context.get_spawning_popen() is None:
            return _apart, (self.epoch,)
        return _shared, (reduction.DupFd(self._descriptor),)


def _apart(epoch: int) -> Tally:
    tally = Tally()
    tally.epoch = epoch
    return tally


def _shared(descriptor: Any) -> Tally:
    return Tally(descriptor.detach())
