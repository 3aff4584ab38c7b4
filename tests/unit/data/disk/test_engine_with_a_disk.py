"""Reading through the data engine with a disk cache below it: what is asked of the store, and what is not."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from csi.data.disk.cache import DiskCache, Place
from csi.data.disk.statistics import DiskStatistics
from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger
from csi.data.pattern import WHOLE
from csi.oss.store import ObjectVersion
from csi.volume.spec import ReadOptions, WriteOptions
from csi.volume.units import KIB, MIB, Bytes, ObjectKey, Seconds
from tests.support.disk_caches import SCOPE
from tests.support.engines import LONG, content, seeded, until
from tests.support.memory_store import MemoryStore


@contextmanager
def engine_with_a_disk(store: MemoryStore, directory: Path, *, budget: int = 256 * MIB) -> Iterator[DataEngine]:
    ledger = MemoryLedger(Bytes(budget))
    place = Place(str(directory), Bytes(256 * MIB), SCOPE)
    engine = DataEngine(
        store,
        read=ReadOptions(threads=4, readahead_size=Bytes(1 * MIB)),
        write=WriteOptions(threads=4),
        ledger=ledger,
        disk=lambda pool: DiskCache(place, pool),
    )
    try:
        yield engine
    finally:
        engine.close(Seconds(LONG))
        assert ledger.statistics().charged == 0


def read(engine: DataEngine, version: ObjectVersion, size: int = 128 * KIB, *, exact: bool = False) -> bytes:
    """All of it, as slowly as the disk takes it."""
    reader = engine.open_reader(version, exact=exact)
    pieces = []
    for offset in range(0, version.size, size):
        pieces.append(bytes(reader.read(offset, size)))
        until(lambda: disk_of(engine).queued_bytes == 0)
    reader.close()
    assert disk_of(engine).passed_over == 0
    return b"".join(pieces)


def disk_of(engine: DataEngine) -> DiskStatistics:
    found = engine.statistics().disk
    assert found is not None
    return found


@pytest.mark.parametrize("size", [1, 300_000, WHOLE, WHOLE + 1, 20 * MIB + 77])
def test_what_was_read_once_is_not_asked_for_after_a_restart(tmp_path: Path, size: int) -> None:
    store = MemoryStore()
    version = seeded(store, "a", content(size))
    with engine_with_a_disk(store, tmp_path) as engine:
        assert read(engine, version) == content(size)
    before = store.requests["GetObject"]
    with engine_with_a_disk(store, tmp_path) as engine:
        assert read(engine, version) == content(size)
        assert disk_of(engine).misses == 0
    assert store.requests["GetObject"] == before


def test_windows_of_another_size_find_the_same_bytes(tmp_path: Path) -> None:
    store = MemoryStore()
    version = seeded(store, "a", content(12 * MIB + 5))
    with engine_with_a_disk(store, tmp_path) as engine:
        read(engine, version, MIB)
    before = store.requests["GetObject"]
    with engine_with_a_disk(store, tmp_path) as engine:
        assert read(engine, version, 64 * KIB) == content(12 * MIB + 5)
        reader = engine.open_reader(version)
        for offset in (7 * MIB + 12345, 3 * MIB + 1, 11 * MIB):
            assert reader.read(offset, 4096) == content(12 * MIB + 5)[offset : offset + 4096]
        reader.close()
        assert read(engine, version, 1000 * KIB, exact=True) == content(12 * MIB + 5)
    assert store.requests["GetObject"] == before


def test_what_is_missing_is_asked_for_and_no_more(tmp_path: Path) -> None:
    store = MemoryStore()
    data = content(8 * MIB)
    version = seeded(store, "a", data)
    with engine_with_a_disk(store, tmp_path) as engine:
        reader = engine.open_reader(version)
        assert reader.read(0, 128 * KIB) == data[: 128 * KIB]
        reader.close()
    with engine_with_a_disk(store, tmp_path) as engine:
        assert read(engine, version) == data
        found = disk_of(engine)
    assert found.hit_bytes >= MIB
    assert found.stored_bytes == 8 * MIB - found.hit_bytes


def test_a_new_version_is_fetched(tmp_path: Path) -> None:
    store = MemoryStore()
    old = seeded(store, "a", content(300_000))
    with engine_with_a_disk(store, tmp_path) as engine:
        read(engine, old)
        new = seeded(store, "a", content(300_000, seed=1))
        engine.forget(ObjectKey("a"))
        assert read(engine, new) == content(300_000, seed=1)


def test_many_readers_in_little_memory_are_served_with_a_cache_that_takes_part_of_it(tmp_path: Path) -> None:
    store = MemoryStore()
    data = {number: content(3 * MIB + number, seed=number) for number in range(40)}
    versions = {number: seeded(store, str(number), of) for number, of in data.items()}

    def read_one(engine: DataEngine, number: int) -> bool:
        reader = engine.open_reader(versions[number])
        size = len(data[number])
        found = b"".join(bytes(reader.read(offset, 128 * KIB)) for offset in range(0, size, 128 * KIB))
        reader.close()
        return found == data[number]

    for _ in range(2):
        with engine_with_a_disk(store, tmp_path, budget=16 * MIB) as engine, ThreadPoolExecutor(40) as threads:
            assert all(threads.map(lambda number: read_one(engine, number), data))
            assert engine.statistics().memory.peak <= 16 * MIB
            assert disk_of(engine).corrupt == disk_of(engine).failed == 0
    assert disk_of(engine).hits > 0
