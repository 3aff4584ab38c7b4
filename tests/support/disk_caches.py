"""Disk caches for tests: over a directory, with calls that fail when a test says so, and offers that are waited for."""

from __future__ import annotations

import functools
import os
import random
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from csi.data.buffers import BufferPool
from csi.data.disk.cache import DiskCache, Place
from csi.data.disk.files import Files
from csi.data.disk.naming import scope_of
from csi.data.ledger import MemoryLedger
from csi.oss.store import ObjectVersion
from csi.volume.naming import CACHE_FOLDER
from csi.volume.units import MIB, Bytes, ETag, ObjectKey, Seconds
from tests.support.engines import LONG, ManualClock, content

SCOPE = scope_of("http://h", "bucket", "somebody")


class FailingFiles(Files):
    """`fail(error, "write", …)` makes those calls raise until `mend`."""

    def __init__(self) -> None:
        self._errors: dict[str, OSError] = {}

    def fail(self, number: int, *calls: str) -> None:
        for call in calls:
            self._errors[call] = OSError(number, os.strerror(number))

    def mend(self) -> None:
        self._errors.clear()

    def _maybe(self, call: str) -> None:
        error = self._errors.get(call)
        if error is not None:
            raise error

    def open_directory(self, path: str) -> int:
        self._maybe("open_directory")
        return super().open_directory(path)

    def open(self, root: int, path: str, flags: int) -> int:
        self._maybe("open")
        return super().open(root, path, flags)

    def read(self, descriptor: int, targets: Sequence[memoryview | bytearray], offset: int) -> int:
        self._maybe("read")
        return super().read(descriptor, targets, offset)

    def write(self, descriptor: int, parts: Sequence[memoryview | bytes], offset: int) -> None:
        self._maybe("write")
        super().write(descriptor, parts, offset)

    def used_now(self, descriptor: int, when: float) -> None:
        self._maybe("used_now")
        super().used_now(descriptor, when)


def version(key: str, size: int, etag: str = "one") -> ObjectVersion:
    return ObjectVersion(ObjectKey(key), ETag(etag), Bytes(size))


@functools.lru_cache(maxsize=128)
def bytes_of(of: ObjectVersion) -> bytes:
    """What the object holds, in these tests."""
    return content(of.size, seed=zlib.crc32(f"{of.key} {of.etag}".encode()))


@contextmanager
def disk_cache(
    directory: Path,
    *,
    limit: int = 64 * MIB,
    budget: int = 64 * MIB,
    files: Files | None = None,
    scope: bytes = SCOPE,
    clock: ManualClock | None = None,
    wall: ManualClock | None = None,
) -> Iterator[DiskCache]:
    pool = BufferPool(MemoryLedger(Bytes(budget)), keep=0)
    clocks = {name: given for name, given in (("clock", clock), ("wall", wall)) if given is not None}
    cache = DiskCache(
        Place(str(directory), Bytes(limit), scope),
        pool,
        files=files,
        choice=random.Random(1),
        **clocks,
    )
    try:
        yield cache
    finally:
        cache.close(Seconds(LONG))
        pool.close()
        assert pool.ledger.statistics().charged == 0


def keep(cache: DiskCache, of: ObjectVersion, start: int = 0, end: int | None = None) -> None:
    """Offer these bytes, and wait until they are written or passed over."""
    cache.offer(of, start, memoryview(bytes_of(of)[start:end]))
    assert cache.settle(Seconds(LONG))


def kept(cache: DiskCache, of: ObjectVersion, start: int = 0, end: int | None = None) -> int:
    """How many bytes from `start` the cache gives; those it gives are the right ones."""
    end = int(of.size) if end is None else end
    target = memoryview(bytearray(end - start))
    got = cache.fill(of, start, target)
    assert bytes(target[:got]) == bytes_of(of)[start : start + got]
    return got


def files_in(directory: Path) -> list[Path]:
    """The files that hold entries."""
    return sorted(path for path in (directory / CACHE_FOLDER).glob("??/*") if path.is_file())
