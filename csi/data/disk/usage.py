"""How many bytes a cache directory holds, known to all processes that share it.

A file of one number a shard, changed under flock(2) for a few microseconds. Room is taken before bytes are written and
given back after they are removed, so a process that dies in between leaves the numbers too high, never too low;
whoever opens a directory that nobody else uses counts anew (`cache`). The bound is whoever writes': processes with
different bounds share the directory, and each removes what is over its own before it writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from struct import Struct

from csi.data.disk.files import Files
from csi.data.disk.naming import SHARDS

_NUMBERS = Struct(f"<{len(SHARDS)}Q")
_ONE = Struct("<Q")
_NAME = "usage"


class Usage:
    """Used by one thread at a time. Raises OSError."""

    def __init__(self, root: int, files: Files) -> None:
        self._files = files
        self._descriptor = files.open(root, _NAME, os.O_RDWR | os.O_CREAT)

    def total(self) -> int:
        """Bytes in the directory, as far as is known."""
        return sum(self._read())

    def take(self, shard: int, size: int, limit: int) -> int:
        """Take `size` bytes; 0 when that leaves the directory within `limit`, else how many must be removed first,
        none being taken."""
        with self._locked():
            numbers = self._read()
            over = sum(numbers) + size - limit
            if over > 0:
                return over
            self._write(shard, numbers[shard] + size)
            return 0

    def give_back(self, sizes: Mapping[int, int]) -> None:
        """Bytes removed, by shard."""
        with self._locked():
            numbers = self._read()
            for shard, size in sizes.items():
                self._write(shard, max(0, numbers[shard] - size))

    def correct(self, counted: Mapping[int, int]) -> None:
        """These shards were counted, and hold so much."""
        with self._locked():
            for shard, size in counted.items():
                self._write(shard, size)

    def close(self) -> None:
        self._files.close(self._descriptor)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._files.lock(self._descriptor, alone=True, wait=True)
        try:
            yield
        finally:
            self._files.unlock(self._descriptor)

    def _read(self) -> tuple[int, ...]:
        raw = bytearray(_NUMBERS.size)
        self._files.read(self._descriptor, [raw], 0)
        return _NUMBERS.unpack(raw)  # a file that is shorter ends in zeros

    def _write(self, shard: int, number: int) -> None:
        self._files.write(self._descriptor, [_ONE.pack(number)], shard * _ONE.size)
