"""Reading: what is fetched for which pattern, and that it is always the right bytes of the right version."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csi.data.engine import DataEngine
from csi.data.shelves import Block
from csi.errors import BadHandle, DeadlineExceeded, ObjectNotFound, PreconditionFailed, ServerFailure
from csi.oss.store import ObjectVersion
from csi.volume.spec import ReadOptions
from csi.volume.units import KIB, MIB, Bytes, ETag, ObjectKey
from tests.support.engines import FarStore, Hold, ManualClock, Running, content, engine_over, seeded, until
from tests.support.memory_store import MemoryStore

READ = 128 * KIB


def read_through(engine: DataEngine, version: ObjectVersion, step: int = READ) -> bytes:
    reader = engine.open_reader(version)
    parts = []
    offset = 0
    while piece := bytes(reader.read(offset, step)):
        parts.append(piece)
        offset += len(piece)
    reader.close()
    return b"".join(parts)


def settle(engine: DataEngine) -> None:
    until(lambda: engine.statistics().cache.in_flight == 0)


# --- what is fetched ---


@pytest.mark.parametrize("size", [1, 100 * KIB, 1 * MIB])
def test_a_small_object_is_one_request_whatever_is_read_of_it(size: int) -> None:
    store = MemoryStore()
    version = seeded(store, "small", content(size))
    with engine_over(store) as engine:
        reader = engine.open_reader(version)
        reader.read(size // 2, 1)
        reader.read(0, size)
        reader.close()
    assert store.ranges == [("small", 0, size)]


def test_an_empty_object_is_no_request_at_all() -> None:
    store = MemoryStore()
    version = seeded(store, "empty", b"")
    with engine_over(store) as engine:
        assert engine.open_reader(version).read(0, 10) == b""
    assert store.ranges == []


def test_the_first_request_of_a_large_object_is_small() -> None:
    store = MemoryStore()
    version = seeded(store, "large", content(20 * MIB))
    with engine_over(store) as engine:
        engine.open_reader(version).read(0, READ)
        settle(engine)
    assert store.ranges == [("large", 0, 1 * MIB)]


@pytest.mark.parametrize(("begin", "times"), [(0, 4), (8 * MIB, 1)])
def test_the_window_never_exceeds_what_was_read_or_from_the_start_four_times_that(begin: int, times: int) -> None:
    store = MemoryStore()
    version = seeded(store, "large", content(40 * MIB))
    with engine_over(store, budget=256 * MIB, clock=ManualClock()) as engine:
        reader = engine.open_reader(version)
        for read in range(READ, 12 * MIB, READ):
            reader.read(begin + read - READ, READ)
            settle(engine)
            asked = max(start + length for _, start, length in store.ranges) - begin
            assert asked <= read + max(read * (times if read > MIB else 1), MIB) + 4 * MIB


@pytest.mark.parametrize(
    ("two", "requests"),
    [(0.02, [(0, 5)]), (0.025, [(0, 2), (2, 3)]), (0.04, [(0, 1), (1, 2), (3, 2)])],
)
def test_the_first_request_of_a_file_that_is_read_through_is_for_as_much_as_takes_hardly_longer(
    two: float, requests: list[tuple[int, int]]
) -> None:
    store = MemoryStore()
    version = seeded(store, "large", content(5 * MIB))
    with engine_over(store, budget=256 * MIB, clock=ManualClock()) as engine:
        engine._cache.pace.note(1 * MIB, 0.02)
        engine._cache.pace.note(2 * MIB, two)
        assert engine.open_reader(version).read(0, 1 * MIB) == content(5 * MIB)[: 1 * MIB]
        settle(engine)
    assert sorted(store.ranges) == [("large", start * MIB, size * MIB) for start, size in requests]


def test_who_only_looks_into_a_file_that_is_far_away_is_not_sent_all_of_it() -> None:
    store = MemoryStore()
    version = seeded(store, "large", content(5 * MIB))
    with engine_over(store, budget=256 * MIB, clock=ManualClock()) as engine:
        for size in (1, 2, 4):
            engine._cache.pace.note(size * MIB, 0.02)
        engine.open_reader(version).read(0, READ)
        settle(engine)
    assert store.ranges == [("large", 0, 1 * MIB)]


def test_the_first_request_of_a_file_is_no_larger_than_its_readers_share_of_the_memory() -> None:
    store = MemoryStore()
    versions = [seeded(store, f"large-{number}", content(5 * MIB)) for number in range(16)]
    with engine_over(store, budget=32 * MIB, clock=ManualClock()) as engine:
        for size in (1, 2, 4):
            engine._cache.pace.note(size * MIB, 0.02)
        for version in versions:
            assert engine.open_reader(version).read(0, 1 * MIB) == content(5 * MIB)[: 1 * MIB]
            settle(engine)
    assert [length for key, start, length in store.ranges if key == "large-0" and start == 0] == [5 * MIB]
    assert [length for key, start, length in store.ranges if key == "large-15" and start == 0] == [1 * MIB]


@pytest.mark.parametrize(
    ("delay", "a_megabyte", "largest"),
    [
        (0.02, 0.001, 8),
        (0.02, 0.02, 4),
        (0.0005, 0.001, 8),
        (0.0005, 0.003, 4),  # a connection brings 333 MiB a second: several are of use
    ],
)
def test_requests_are_larger_where_the_store_is_far_and_that_takes_hardly_longer_or_one_connection_does_for_all(
    delay: float, a_megabyte: float, largest: int
) -> None:
    clock = ManualClock()
    store = FarStore(clock, delay, a_megabyte)
    version = seeded(store, "large", content(64 * MIB))
    with engine_over(store, budget=256 * MIB, clock=clock) as engine:
        reader = engine.open_reader(version)
        for offset in range(0, 64 * MIB, MIB):
            assert len(reader.read(offset, MIB)) == MIB
            settle(engine)
    assert max(length for _, _, length in store.ranges) == largest * MIB


def test_next_to_a_store_one_request_does_where_two_would_only_cost_more() -> None:
    store = MemoryStore()
    version = seeded(store, "large", content(5 * MIB))
    with engine_over(store, budget=256 * MIB, clock=ManualClock()) as engine:
        engine._cache.pace.note(1 * MIB, 0.0005)
        reader = engine.open_reader(version)
        for offset in range(0, 5 * MIB, MIB):
            reader.read(offset, MIB)
            settle(engine)
    assert sorted(store.ranges) == [("large", 0, 1 * MIB), ("large", 1 * MIB, 1 * MIB), ("large", 2 * MIB, 3 * MIB)]


@pytest.mark.parametrize(("took", "asked"), [(0.02, 5), (0.001, 2)])
def test_from_the_start_of_a_file_that_is_far_away_more_is_asked_for_at_once(took: float, asked: int) -> None:
    clock = ManualClock()
    store = FarStore(clock, took)
    version = seeded(store, "large", content(5 * MIB))
    with engine_over(store, budget=256 * MIB, clock=clock) as engine:
        reader = engine.open_reader(version)
        for offset in range(0, 1 * MIB, READ):
            reader.read(offset, READ)
        settle(engine)
        assert max(start + length for _, start, length in store.ranges) == asked * MIB


@pytest.mark.parametrize(("took", "asked"), [(0.02, 5), (0.001, 2)])
def test_who_asks_for_much_at_once_is_read_ahead_for_before_the_first_bytes_are_here(took: float, asked: int) -> None:
    clock = ManualClock()
    store = FarStore(clock, took)
    first, second = seeded(store, "first", content(5 * MIB)), seeded(store, "second", content(8 * MIB))
    with engine_over(store, budget=256 * MIB, clock=clock) as engine:
        engine.open_reader(first).read(0, 1 * MIB)  # now it is known how long requests take
        settle(engine)
        engine.open_reader(second).read(0, 1 * MIB)
        settle(engine)
        assert sum(length for key, _, length in store.ranges if key == "second") == asked * MIB


def test_one_read_in_the_middle_of_a_file_promises_nothing() -> None:
    store = MemoryStore()
    version = seeded(store, "large", content(40 * MIB))
    with engine_over(store, budget=256 * MIB) as engine:
        reader = engine.open_reader(version)
        for megabyte in (8, 13, 21, 36):
            reader.read(megabyte * MIB, 1 * MIB)
        settle(engine)
        assert sum(length for _, _, length in store.ranges) == 4 * MIB


@pytest.mark.parametrize(("begin", "most"), [(0, 2), (8 * MIB, 1)])
def test_who_reads_little_from_far_away_is_not_sent_much(begin: int, most: int) -> None:
    """The head of a file, and a record in the middle of one."""
    clock = ManualClock()
    store = FarStore(clock, 0.02)
    version = seeded(store, "large", content(40 * MIB))
    with engine_over(store, budget=256 * MIB, clock=clock) as engine:
        reader = engine.open_reader(version)
        for offset in range(begin, begin + 256 * KIB, READ):
            reader.read(offset, READ)
        settle(engine)
        assert sum(length for _, _, length in store.ranges) <= most * MIB


def test_requests_grow_to_the_read_ahead_size_and_overlap_nowhere() -> None:
    store = MemoryStore()
    data = content(40 * MIB)
    version = seeded(store, "large", data)
    with engine_over(store, budget=256 * MIB, clock=ManualClock()) as engine:
        assert read_through(engine, version) == data
        settle(engine)
    ranges = sorted((start, length) for _, start, length in store.ranges)
    assert [start for start, _ in ranges[1:]] == [start + length for start, length in ranges[:-1]]
    assert max(length for _, length in ranges) == 4 * MIB
    assert len(ranges) < 24


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_window_stays_within_count_times_size(count: int) -> None:
    store = MemoryStore()
    version = seeded(store, "large", content(24 * MIB))
    options = ReadOptions(threads=4, readahead_count=count, readahead_size=Bytes(1 * MIB))
    with engine_over(store, read=options) as engine:
        reader = engine.open_reader(version)
        for offset in range(0, 20 * MIB, READ):
            reader.read(offset, READ)
            settle(engine)
            asked = max(start + length for _, start, length in store.ranges)
            assert asked <= offset + READ + count * MIB + 1 * MIB


def test_random_reads_fetch_little_more_than_they_return() -> None:
    store = MemoryStore()
    data = content(32 * MIB)
    version = seeded(store, "large", data)
    offsets = [(index * 7_919_993) % (31 * MIB) + MIB // 2 for index in range(100)]
    with engine_over(store) as engine:
        reader = engine.open_reader(version)
        for offset in offsets:
            assert reader.read(offset, 4 * KIB) == data[offset : offset + 4 * KIB]
    assert sum(length for _, _, length in store.ranges) <= 100 * 32 * KIB


def scattered_places(count: int) -> list[int]:
    return random.Random(count).sample(range(0, 23 * MIB, 64 * KIB), count)


def test_reads_at_random_places_are_known_as_such_until_some_follow_one_another() -> None:
    store = MemoryStore()
    with engine_over(store) as engine:
        reader = engine.open_reader(seeded(store, "large", content(24 * MIB)))
        known = []
        for place in scattered_places(20):
            reader.read(place, 4 * KIB)
            known.append(reader.scattered)
        assert known == [False] * 15 + [True] * 5
        for offset in range(23 * MIB, 23 * MIB + 8 * KIB, 4 * KIB):
            assert reader.scattered
            reader.read(offset, 4 * KIB)
        assert not reader.scattered


@pytest.mark.parametrize(
    "places",
    [
        pytest.param([number * 128 * KIB for number in range(100)], id="from start to end"),
        pytest.param([number * 600 * KIB for number in range(40)], id="at equal distances"),
        pytest.param(
            [place for run in scattered_places(8) for place in range(run, run + 64 * KIB, 4 * KIB)], id="in short runs"
        ),
    ],
)
def test_reads_with_a_pattern_are_not_scattered(places: list[int]) -> None:
    store = MemoryStore()
    with engine_over(store) as engine:
        reader = engine.open_reader(seeded(store, "large", content(24 * MIB)))
        for place in places:
            reader.read(place, 4 * KIB)
            assert not reader.scattered


def test_an_object_fetched_whole_is_never_scattered() -> None:
    store = MemoryStore()
    with engine_over(store) as engine:
        reader = engine.open_reader(seeded(store, "small", content(1 * MIB)))
        for place in random.Random(1).sample(range(0, 1 * MIB, 4 * KIB), 60):
            reader.read(place, 4 * KIB)
        assert not reader.scattered


def test_an_exact_reader_fetches_what_is_asked_and_nothing_else() -> None:
    store = MemoryStore()
    version = seeded(store, "large", content(8 * MIB))
    with engine_over(store) as engine:
        reader = engine.open_reader(version, exact=True)
        for offset in (5, 5_000_001, 0, 131_072, 262_144, 393_216):
            reader.read(offset, 1000)
    assert store.ranges == [("large", offset, 1000) for offset in (5, 5_000_001, 0, 131_072, 262_144, 393_216)]


def test_reading_on_after_a_jump_becomes_sequential_again() -> None:
    store = MemoryStore()
    data = content(40 * MIB)
    version = seeded(store, "large", data)
    with engine_over(store, budget=256 * MIB) as engine:
        reader = engine.open_reader(version)
        start = 20 * MIB + 12345
        for offset in range(start, start + 8 * MIB, READ):
            assert reader.read(offset, READ) == data[offset : offset + READ]
        settle(engine)
    assert len(store.ranges) < 8 * MIB // READ / 2
    assert sum(length for _, _, length in store.ranges) <= (8 + 8 + 4) * MIB, "read, window, one request"


def test_a_strided_reader_does_not_fetch_the_gaps() -> None:
    store = MemoryStore()
    version = seeded(store, "large", content(64 * MIB))
    with engine_over(store) as engine:
        reader = engine.open_reader(version)
        for offset in range(0, 64 * MIB, 2 * MIB):
            reader.read(offset, 64 * KIB)
        settle(engine)
    assert sum(length for _, _, length in store.ranges) < 32 * 64 * KIB * 2.5


def test_going_back_a_megabyte_costs_no_request() -> None:
    store = MemoryStore()
    data = content(20 * MIB)
    version = seeded(store, "large", data)
    with engine_over(store, budget=256 * MIB) as engine:
        reader = engine.open_reader(version)
        for offset in range(0, 10 * MIB, READ):
            reader.read(offset, READ)
        settle(engine)
        before = len(store.ranges)
        assert reader.read(9 * MIB, READ) == data[9 * MIB : 9 * MIB + READ]
        assert len(store.ranges) == before


def test_two_streams_through_one_handle_are_both_read_ahead() -> None:
    store = MemoryStore()
    data = content(64 * MIB)
    version = seeded(store, "large", data)
    with engine_over(store, budget=256 * MIB) as engine:
        reader = engine.open_reader(version)
        for step in range(0, 16 * MIB, READ):
            assert reader.read(step, READ) == data[step : step + READ]
            other = 32 * MIB + step
            assert reader.read(other, READ) == data[other : other + READ]
        settle(engine)
    assert len(store.ranges) < 60


def test_reads_the_kernel_reorders_are_still_one_stream() -> None:
    store = MemoryStore()
    version = seeded(store, "large", content(20 * MIB))
    with engine_over(store, budget=256 * MIB) as engine:
        reader = engine.open_reader(version)
        for offset in range(0, 16 * MIB, 2 * READ):
            reader.read(offset + READ, READ)
            reader.read(offset, READ)
        settle(engine)
        assert engine.statistics().streams.open == 1
    assert len(store.ranges) < 24


# --- sharing ---


def test_readers_of_one_version_wait_for_one_request() -> None:
    hold = Hold("GetObject")
    store = MemoryStore(hold)
    data = content(900 * KIB)
    version = seeded(store, "shared", data)
    with engine_over(store) as engine:
        hold.hold()
        running = Running()
        for _ in range(8):
            reader = engine.open_reader(version)
            running.start(lambda reader=reader: bytes(reader.read(0, len(data))))
        hold.wait_for(1)
        until(lambda: engine.statistics().readers == 8)
        hold.release()
        assert running.join() == [data] * 8
    assert store.requests["GetObject"] == 1


def test_a_second_reader_finds_what_the_first_read() -> None:
    store = MemoryStore()
    data = content(8 * MIB)
    version = seeded(store, "shared", data)
    with engine_over(store) as engine:
        assert read_through(engine, version) == data
        asked = store.requests["GetObject"]
        assert read_through(engine, version) == data
    assert store.requests["GetObject"] == asked


def test_forget_makes_the_next_read_ask_again() -> None:
    store = MemoryStore()
    version = seeded(store, "shared", content(1000))
    with engine_over(store) as engine:
        read_through(engine, version)
        engine.forget(version.key)
        read_through(engine, version)
    assert store.requests["GetObject"] == 2


def test_try_read_answers_what_is_there_and_asks_for_nothing() -> None:
    store = MemoryStore()
    data = content(5 * MIB)
    version = seeded(store, "object", data)
    with engine_over(store) as engine:
        reader = engine.open_reader(version)
        assert reader.try_read(0, READ) is None
        assert store.ranges == []
        assert reader.read(0, READ) == data[:READ]
        assert reader.try_read(READ, READ) == data[READ : 2 * READ]


@pytest.mark.parametrize("offset", [3 * MIB + 17, 4 * MIB])
@pytest.mark.parametrize("exact", [False, True])
def test_a_random_read_is_not_asked_for_twice(offset: int, exact: bool) -> None:
    store = MemoryStore()
    data = content(5 * MIB)
    version = seeded(store, "object", data)
    with engine_over(store) as engine:
        reader = engine.open_reader(version, exact=exact)
        assert reader.read(offset, 1000) == data[offset : offset + 1000]
        assert reader.try_read(offset, 1000) == data[offset : offset + 1000]
        assert reader.read(offset, 1000) == data[offset : offset + 1000]
    assert store.requests["GetObject"] == 1


def test_a_read_inside_one_block_is_not_copied() -> None:
    store = MemoryStore()
    version = seeded(store, "object", content(1 * MIB))
    with engine_over(store) as engine:
        reader = engine.open_reader(version)
        first = reader.read(0, 1000)
        second = reader.try_read(500, 1000)
        assert isinstance(first, memoryview)
        assert isinstance(second, memoryview)
        assert first.obj is second.obj
        del first, second


# --- versions and failures ---


def test_an_overwritten_object_is_refused_rather_than_mixed() -> None:
    store = MemoryStore()
    old = content(8 * MIB, 1)
    version = seeded(store, "object", old)
    with engine_over(store) as engine:
        reader = engine.open_reader(version)
        assert reader.read(0, READ) == old[:READ]
        store.seed("object", content(8 * MIB, 2))
        with pytest.raises(PreconditionFailed):
            reader.read(6 * MIB, READ)
        assert reader.read(READ, READ) == old[READ : 2 * READ], "what was fetched before is still that version"


def test_versions_of_one_key_do_not_share_blocks() -> None:
    store = MemoryStore()
    first = seeded(store, "object", b"first")
    with engine_over(store) as engine:
        assert read_through(engine, first) == b"first"
        second = seeded(store, "object", b"other")
        assert read_through(engine, second) == b"other"
        assert read_through(engine, first) == b"first"


def test_a_version_of_unknown_etag_is_never_shared() -> None:
    store = MemoryStore()
    version = seeded(store, "object", b"first")
    unknown = ObjectVersion(version.key, type(version.etag)(""), version.size)
    with engine_over(store) as engine:
        assert read_through(engine, unknown) == b"first"
        store.seed("object", b"other")
        assert read_through(engine, unknown) == b"other"


def test_a_smaller_object_of_the_same_name_is_not_returned_short() -> None:
    store = MemoryStore()
    version = seeded(store, "object", b"0123456789")
    unknown = ObjectVersion(version.key, type(version.etag)(""), version.size)
    with engine_over(store) as engine:
        reader = engine.open_reader(unknown)
        store.seed("object", b"01234")
        with pytest.raises(PreconditionFailed):
            reader.read(0, 10)


def test_a_failure_reaches_everybody_who_waits_and_is_not_remembered() -> None:
    hold = Hold("GetObject")
    store = MemoryStore(hold)
    data = content(1000)
    version = seeded(store, "object", data)
    outcomes = []

    def attempt() -> None:
        try:
            outcomes.append(bytes(engine.open_reader(version).read(0, 1000)))
        except ServerFailure as error:
            outcomes.append(str(error))

    with engine_over(store) as engine:
        hold.fail_next(ServerFailure("broken", status=500))
        attempt()
        attempt()
    assert outcomes == ["broken", data]


def test_a_failed_read_ahead_disturbs_nobody_until_it_is_needed() -> None:
    hold = Hold("GetObject")
    store = MemoryStore(hold)
    data = content(4 * MIB)
    version = seeded(store, "object", data)
    with engine_over(store) as engine:
        reader = engine.open_reader(version)
        reader.read(0, READ)
        hold.fail_next(ServerFailure("broken", status=500))
        reader.read(READ, READ)
        settle(engine)
        assert engine.statistics().cache.failed == 1
        assert reader.read(1 * MIB, READ) == data[1 * MIB : 1 * MIB + READ]


def test_a_deleted_object_is_said_to_be_gone() -> None:
    store = MemoryStore()
    version = seeded(store, "object", content(1000))
    store.delete(version.key)
    with engine_over(store) as engine, pytest.raises(ObjectNotFound):
        engine.open_reader(version).read(0, 10)


def test_a_closed_reader_refuses() -> None:
    store = MemoryStore()
    version = seeded(store, "object", content(1000))
    with engine_over(store) as engine:
        reader = engine.open_reader(version)
        reader.read(0, 10)
        reader.close()
        reader.close()
        with pytest.raises(BadHandle):
            reader.read(0, 10)
        with pytest.raises(BadHandle):
            reader.try_read(0, 10)


def test_a_store_that_never_answers_ends_in_an_error() -> None:
    hold = Hold("GetObject")
    store = MemoryStore(hold)
    version = seeded(store, "object", content(3 * MIB))
    with engine_over(store, patience=0.05) as engine:
        reader = engine.open_reader(version)
        hold.hold()
        running = Running()
        running.start(lambda: bytes(reader.read(0, READ)))
        hold.wait_for(1)
        with pytest.raises(DeadlineExceeded):
            reader.read(0, READ)
        hold.release()
        running.join()


# --- memory ---


def test_all_gauges_return_to_nothing_when_everything_is_closed() -> None:
    store = MemoryStore()
    version = seeded(store, "object", content(16 * MIB))
    with engine_over(store) as engine:
        read_through(engine, version)
        settle(engine)
        assert engine.statistics().memory_in_use == 0
        engine.trim()
        figures = engine.statistics()
        assert (figures.readers, figures.streams.open, figures.memory.charged, figures.cache.blocks) == (0, 0, 0, 0)


def test_closing_a_reader_calls_off_what_was_not_begun() -> None:
    hold = Hold("GetObject")
    store = MemoryStore(hold)
    version = seeded(store, "object", content(32 * MIB))
    with engine_over(store, read=ReadOptions(threads=1), budget=256 * MIB) as engine:
        reader = engine.open_reader(version)
        for offset in range(0, 8 * MIB, READ):
            reader.read(offset, READ)
        settle(engine)
        hold.hold()
        position = 8 * MIB
        while reader.try_read(position, READ) is not None:
            position += READ
        hold.wait_for(1)
        assert engine.statistics().downloads.queued > 0
        reader.close()
        assert engine.statistics().downloads.queued == 0
        hold.release()
        settle(engine)
        assert engine.statistics().memory_in_use == 0


def test_idle_windows_make_room_for_others() -> None:
    store = MemoryStore()
    clock = ManualClock()
    data = content(16 * MIB)
    first, second = seeded(store, "first", data), seeded(store, "second", data)
    with engine_over(store, budget=16 * MIB, clock=clock) as engine:
        idle = engine.open_reader(first)
        for offset in range(0, 4 * MIB, READ):
            idle.read(offset, READ)
        settle(engine)
        held = engine.statistics().cache.ahead_bytes
        assert held > 0
        clock.now += 10
        busy = engine.open_reader(second)
        for offset in range(0, 4 * MIB, READ):
            busy.read(offset, READ)
        assert engine.statistics().streams.open == 1
        assert idle.read(4 * MIB, READ) == data[4 * MIB : 4 * MIB + READ], "it only has to ask again"


def test_a_handle_that_keeps_its_buffers_does_not_stop_others() -> None:
    store = MemoryStore()
    data = content(16 * MIB)
    version = seeded(store, "object", data)
    with engine_over(store, budget=4 * MIB) as engine:
        kept = [engine.open_reader(version).read(offset, READ) for offset in range(0, 2 * MIB, READ)]
        reader = engine.open_reader(version)
        for offset in range(8 * MIB, 16 * MIB, READ):
            assert reader.read(offset, READ) == data[offset : offset + READ]
        assert b"".join(kept) == data[: 2 * MIB]
        kept.clear()


@pytest.mark.parametrize("budget", [1 * MIB, 3 * MIB, 16 * MIB])
def test_many_readers_with_little_memory_all_finish(budget: int) -> None:
    store = MemoryStore()
    data = content(3 * MIB + 12345)
    version = seeded(store, "object", data)
    others = [seeded(store, f"other-{index}", data) for index in range(3)]
    with engine_over(store, budget=budget) as engine:
        running = Running()
        for index in range(40):
            chosen = others[index % 4 - 1] if index % 4 else version
            running.start(lambda chosen=chosen: read_through(engine, chosen) == data)
        assert running.join() == [True] * 40
        settle(engine)
        figures = engine.statistics()
        assert figures.memory_in_use == 0
        assert figures.memory.peak <= budget


def test_five_hundred_open_readers_fit_the_smallest_budget() -> None:
    store = MemoryStore()
    data = content(2 * MIB)
    version = seeded(store, "object", data)
    with engine_over(store, budget=16 * MIB) as engine:
        readers = [engine.open_reader(version) for _ in range(500)]
        for index, reader in enumerate(readers):
            offset = index * 4096 % MIB
            assert reader.read(offset, 4096) == data[offset : offset + 4096]
        assert engine.statistics().memory.peak <= 16 * MIB


def test_a_read_larger_than_any_block_is_whole() -> None:
    store = MemoryStore()
    data = content(9 * MIB + 7)
    version = seeded(store, "object", data)
    with engine_over(store, budget=4 * MIB) as engine:
        reader = engine.open_reader(version)
        assert reader.read(3, 20 * MIB) == data[3:]
        assert engine.open_reader(version, exact=True).read(0, 20 * MIB) == data


@pytest.mark.parametrize("budget", [1 * MIB, 4 * MIB, 64 * MIB])
def test_threads_that_share_a_reader_get_the_right_bytes(budget: int) -> None:
    store = MemoryStore()
    data = content(4 * MIB + 321)
    version = seeded(store, "object", data)

    def hammer(seed: int) -> bool:
        chosen = random.Random(seed)
        for _ in range(150):
            if chosen.random() < 0.1:
                engine.forget(version.key)
            offset = chosen.randrange(len(data))
            for step in range(chosen.randrange(1, 4)):
                start = offset + step * READ
                size = chosen.choice((1, 4096, READ, 3 * READ))
                found = shared.try_read(start, size) if chosen.random() < 0.5 else None
                found = shared.read(start, size) if found is None else found
                if bytes(found) != data[start : start + size]:
                    return False
                del found
        return True

    with engine_over(store, budget=budget) as engine:
        shared = engine.open_reader(version)
        running = Running()
        for seed in range(8):
            running.start(lambda seed=seed: hammer(seed))
        assert running.join() == [True] * 8
        shared.close()
        settle(engine)
        assert engine.statistics().memory_in_use == 0
        assert engine.statistics().memory.peak <= budget


def test_what_was_given_up_is_asked_for_again() -> None:
    store = MemoryStore()
    data = content(4 * MIB)
    version = seeded(store, "object", data)
    with engine_over(store) as engine:
        reader = engine.open_reader(version)
        assert reader.read(3 * MIB + 17, 1000) == data[3 * MIB + 17 : 3 * MIB + 1017]
        engine.trim()
        assert reader.try_read(3 * MIB + 17, 1000) is None
        assert reader.read(3 * MIB + 17, 1000) == data[3 * MIB + 17 : 3 * MIB + 1017]
    assert store.requests["GetObject"] == 2


def test_what_was_fetched_for_somebody_is_there_when_it_is_read() -> None:
    store = MemoryStore()
    data = content(100 * KIB)
    version = seeded(store, "small", data)
    with engine_over(store) as engine:
        assert engine.prefetch(version)
        settle(engine)
        reader = engine.open_reader(version)
        assert reader.try_read(0, READ) == data
        reader.close()
    assert store.ranges == [("small", 0, len(data))]


def test_who_waits_for_a_request_that_has_not_begun_makes_it() -> None:
    hold = Hold("GetObject")
    store = MemoryStore(hold)
    versions = [seeded(store, str(number), content(100 * KIB, number)) for number in range(8)]
    with engine_over(store, read=ReadOptions(threads=1)) as engine:
        hold.hold()
        assert engine.prefetch(versions[0])
        hold.wait_for(1)  # the only thread has this one
        for version in versions[1:]:
            assert engine.prefetch(version)
        running = Running()
        running.start(lambda: bytes(engine.open_reader(versions[7]).read(0, READ)))
        hold.wait_for(2)
        hold.release()
        running.join()
        settle(engine)
    assert running.results == [content(100 * KIB, 7)]
    assert sorted(key for key, _, _ in store.ranges) == [str(number) for number in range(8)]


# --- any sequence ---

SIZES = st.integers(0, 3 * MIB)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    size=SIZES,
    exact=st.booleans(),
    budget=st.sampled_from([1 * MIB, 2 * MIB, 8 * MIB]),
    buffer_size=st.sampled_from([128 * KIB, 1 * MIB]),
    reads=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 3 * MIB), st.just(-1)),
            st.one_of(st.sampled_from([1, 4096, READ, MIB]), st.integers(0, MIB)),
            st.booleans(),
        ),
        max_size=25,
    ),
)
def test_any_sequence_of_reads_returns_the_bytes_of_the_object(
    size: int, exact: bool, budget: int, buffer_size: int, reads: list[tuple[int, int, bool]]
) -> None:
    store = MemoryStore()
    data = content(size)
    version = seeded(store, "object", data)
    options = ReadOptions(threads=2, buffer_size=Bytes(buffer_size))
    with engine_over(store, budget=budget, read=options) as engine:
        reader = engine.open_reader(version, exact=exact)
        position = 0
        for offset, length, first_try in reads:
            start = position if offset < 0 else offset
            found = reader.try_read(start, length) if first_try else None
            if found is None:
                found = reader.read(start, length)
            assert bytes(found) == data[start : start + length]
            position = start + length
            del found
        reader.close()
        settle(engine)
        assert engine.statistics().memory_in_use == 0


def test_who_sees_without_the_lock_that_a_request_has_ended_sees_how(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two lines another thread may look: it took the block for one of a volume that is unmounted (EBADF)."""
    seen: list[bool] = []

    class WatchedBlock(Block):
        @property  # type: ignore[override]
        def gates(self) -> object:
            return Block.gates.__get__(self)  # type: ignore[attr-defined]

        @gates.setter
        def gates(self, gates: object) -> None:
            if gates is None:
                seen.append(self.view is not None or self.error is not None)
            Block.gates.__set__(self, gates)  # type: ignore[attr-defined]

    monkeypatch.setattr("csi.data.blocks.Block", WatchedBlock)
    store = MemoryStore()
    version, missing = seeded(store, "there", b"x"), ObjectVersion(ObjectKey("missing"), ETag('"1"'), Bytes(1))
    with engine_over(store) as engine:
        assert engine.open_reader(version).read(0, 1) == b"x"
        with pytest.raises(ObjectNotFound):
            engine.open_reader(missing).read(0, 1)
    assert seen == [True, True]
