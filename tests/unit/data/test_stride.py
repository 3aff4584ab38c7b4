"""Reads at equal distances: the next ones are fetched before they come, and nothing once they do not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from csi.data.engine import DataEngine
from csi.data.streams import Reader
from csi.data.stride import BYTES_AHEAD, MOST_AHEAD
from csi.oss.store import ObjectVersion
from csi.volume.spec import ReadOptions
from csi.volume.units import KIB, MIB
from tests.support.engines import content, engine_over, seeded, until
from tests.support.memory_store import MemoryStore

SIZE = 64 * MIB
RECORD = 4 * KIB


def settle(engine: DataEngine) -> None:
    until(lambda: engine.statistics().cache.in_flight == 0)


def read_records(engine: DataEngine, reader: Reader, offsets: Sequence[int], length: int, data: bytes) -> int:
    """How many of the records were there before they were asked for; all of them must be right."""
    ready = 0
    for offset in offsets:
        found = reader.try_read(offset, length)
        ready += found is not None
        assert bytes(found if found is not None else reader.read(offset, length)) == data[offset : offset + length]
        settle(engine)
    return ready


def opened(engine: DataEngine, version: ObjectVersion, *, exact: bool = False) -> Reader:
    reader = engine.open_reader(version, exact=exact)
    reader.read(63 * MIB + 640 * KIB, RECORD)  # so that nothing is the start of the file
    return reader


@pytest.mark.parametrize("step", [1 * MIB, 400 * KIB, -700 * KIB])
@pytest.mark.parametrize("length", [4 * KIB, 100 * KIB])
def test_records_at_equal_distances_are_there_before_they_are_read(step: int, length: int) -> None:
    store = MemoryStore()
    data = content(SIZE)
    version = seeded(store, "large", data)
    offsets = [30 * MIB + step * index for index in range(30)]
    with engine_over(store) as engine:
        reader = opened(engine, version)
        ready = read_records(engine, reader, offsets, length, data)
        figures = engine.statistics().streams
        asked = [start for _, start, _ in store.ranges]
    assert ready == 27, "the first three tell of the distance"
    assert (figures.strided, figures.met) == (1, 27)
    assert figures.foretold <= 27 + MOST_AHEAD
    assert len(asked) == len(set(asked)), "nothing is fetched twice"
    assert sum(size for _, _, size in store.ranges) <= (30 + 1 + MOST_AHEAD) * (length + 16 * KIB)


@pytest.mark.parametrize(("step", "length"), [(256 * KIB, 128 * KIB), (300 * KIB, 100 * KIB), (12 * KIB, 4 * KIB)])
def test_short_jumps_of_one_length_are_a_stride_too(step: int, length: int) -> None:
    store = MemoryStore()
    data = content(SIZE)
    version = seeded(store, "large", data)
    offsets = [20 * MIB + step * index for index in range(40)]
    with engine_over(store) as engine:
        ready = read_records(engine, opened(engine, version), offsets, length, data)
        assert engine.statistics().streams.strided == 1
    assert ready >= 34
    assert sum(size for _, _, size in store.ranges) <= (40 + 1 + MOST_AHEAD) * (length + 16 * KIB) + MIB


def test_reads_that_arrive_in_another_order_are_no_stride() -> None:
    store = MemoryStore()
    data = content(SIZE)
    version = seeded(store, "large", data)
    unit = 128 * KIB
    order = [place + swap for place in range(0, 40, 2) for swap in (1, 0)]
    with engine_over(store) as engine:
        reader = opened(engine, version)
        read_records(engine, reader, [10 * MIB + place * unit for place in order], unit, data)
        assert engine.statistics().streams.foretold == 0


def test_distances_that_differ_by_a_page_are_equal() -> None:
    store = MemoryStore()
    data = content(SIZE)
    version = seeded(store, "large", data)
    record = 100_000
    places = [1_000_000 * index + 20 * MIB for index in range(30)]
    offsets = [place - place % (4 * KIB) for place in places]
    with engine_over(store) as engine:
        ready = read_records(engine, opened(engine, version), offsets, record, data)
        figures = engine.statistics().streams
    assert figures.strided == 1
    assert ready >= 24


def test_what_is_fetched_ahead_grows_with_what_was_foretold_rightly_and_is_bounded() -> None:
    store = MemoryStore()
    version = seeded(store, "large", content(SIZE))
    with engine_over(store) as engine:
        reader = opened(engine, version)
        begun = len(store.ranges)
        for index in range(40):
            reader.read(index * MIB + 17 * KIB * 8, RECORD)
            settle(engine)
            ahead = len(store.ranges) - begun - (index + 1)
            assert ahead <= min(max(index, 0), MOST_AHEAD)
        assert engine.statistics().streams.foretold == len(store.ranges) - begun - 3


def test_large_records_ahead_are_bounded_by_their_bytes() -> None:
    store = MemoryStore()
    data = content(SIZE)
    version = seeded(store, "large", data)
    length = 1 * MIB
    with engine_over(store, budget=256 * MIB) as engine:
        reader = opened(engine, version)
        for index in range(12):
            offset = index * 5 * MIB + 1 * MIB
            assert bytes(reader.read(offset, length)) == data[offset : offset + length]
            settle(engine)
            furthest = max(start for _, start, _ in store.ranges[1:])
            assert furthest <= offset + 5 * BYTES_AHEAD
        assert engine.statistics().streams.met >= 8


def test_a_jump_elsewhere_ends_it_at_once() -> None:
    store = MemoryStore()
    data = content(SIZE)
    version = seeded(store, "large", data)
    with engine_over(store) as engine:
        reader = opened(engine, version)
        read_records(engine, reader, [index * MIB + 200 * KIB for index in range(10)], RECORD, data)
        before, spent = len(store.ranges), engine.statistics().cache.blocks
        read_records(engine, reader, [50 * MIB + 300 * KIB, 21 * MIB, 47 * MIB, 3 * MIB], RECORD, data)
        figures = engine.statistics()
        assert figures.streams.strided == 0
        assert len(store.ranges) == before + 4, "only what is read is fetched"
        assert figures.cache.blocks < spent, "what was fetched ahead is given up"


def test_records_read_out_of_order_are_still_met() -> None:
    store = MemoryStore()
    data = content(SIZE)
    version = seeded(store, "large", data)
    order = [0, 1, 2, 3, 4, 6, 5, 8, 7, 9, 11, 10, 12, 13]
    with engine_over(store) as engine:
        ready = read_records(
            engine, opened(engine, version), [place * MIB + 200 * KIB for place in order], RECORD, data
        )
        figures = engine.statistics().streams
    assert ready == len(order) - 3
    assert figures.strided == 1


def test_random_reads_foretell_nothing() -> None:
    store = MemoryStore()
    data = content(SIZE)
    version = seeded(store, "large", data)
    offsets = [(index * index * 7_919_993) % (60 * MIB) + 256 * KIB for index in range(100)]
    with engine_over(store) as engine:
        read_records(engine, opened(engine, version), offsets, RECORD, data)
        assert engine.statistics().streams.foretold == 0


def test_an_exact_reader_fetches_nothing_ahead() -> None:
    store = MemoryStore()
    data = content(SIZE)
    version = seeded(store, "large", data)
    offsets = [index * MIB + 200 * KIB for index in range(20)]
    with engine_over(store) as engine:
        read_records(engine, opened(engine, version, exact=True), offsets, RECORD, data)
    assert [start for _, start, _ in store.ranges[1:]] == offsets


def test_a_reader_that_is_closed_leaves_nothing_ahead() -> None:
    store = MemoryStore()
    data = content(SIZE)
    version = seeded(store, "large", data)
    with engine_over(store, read=ReadOptions(threads=1)) as engine:
        reader = opened(engine, version)
        read_records(engine, reader, [index * MIB + 200 * KIB for index in range(12)], RECORD, data)
        reader.close()
        settle(engine)
        figures = engine.statistics()
        assert (figures.streams.strided, figures.cache.ahead_bytes, figures.memory_in_use) == (0, 0, 0)
