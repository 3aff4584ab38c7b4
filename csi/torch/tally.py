"""What the processes of one data set share: what was skipped and read, which epoch it is, and which sample each worker
had last, so that somebody can say it of one that was killed.

Memory that workers have in common with the process that made the data set, however they were started. Each
process counts in a row of its own, so that no lock is needed. A copy that is pickled for another purpose starts at
zero.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from multiprocessing import context, reduction
from typing import Any, Final

_ROWS: Final = 1024
_COLUMNS: Final = 4
_COUNTS: Final = _ROWS * _COLUMNS * 8
_ADDRESS: Final = 1152
"""Bytes for the address of a sample: a bucket has 63 of them, a key 1023."""
_NOTE: Final = struct.Struct(f"<qH{_ADDRESS}s")
"""A process, the length of the address and the address. Pages that nobody writes to take no memory."""
_SIZE: Final = _COUNTS + _ROWS * _NOTE.size
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
        self._memory = memoryview(mmap.mmap(self._descriptor, _SIZE))
        self._cells = self._memory[:_COUNTS].cast("q")

    def count(self, row: int, samples: int, size: int) -> None:
        """`row` is 0 in the process that made the data set, a worker's number plus one in others."""
        base = row % _ROWS * _COLUMNS
        self._cells[base] += samples
        self._cells[base + 1] += size

    def skip(self, row: int) -> None:
        self._cells[row % _ROWS * _COLUMNS + 2] += 1

    def note(self, row: int, address: str) -> None:
        """This process is about to give out the sample at `address`."""
        text = address.encode("utf-8", "surrogateescape")[:_ADDRESS]
        _NOTE.pack_into(self._memory, _COUNTS + row % _ROWS * _NOTE.size, os.getpid(), len(text), text)

    def noted(self, process: int) -> str:
        """The address of the sample that a process had last; '' when it had none."""
        for row in range(_ROWS):
            owner, length, text = _NOTE.unpack_from(self._memory, _COUNTS + row * _NOTE.size)
            if owner == process:
                return str(text[:length], "utf-8", "surrogateescape")
            if not owner and row:
                break
        return ""

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
