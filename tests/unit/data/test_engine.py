"""The engine as a whole: opening, draining, closing."""

from __future__ import annotations

import threading

import pytest

from csi.errors import BadHandle
from csi.volume.spec import WriteOptions
from csi.volume.units import KIB, MIB, Bytes, ObjectKey, Seconds
from tests.support.engines import LONG, FarStore, Hold, ManualClock, Running, content, engine_over, seeded, until
from tests.support.memory_store import MemoryStore


def test_drain_waits_for_requests_under_way() -> None:
    hold = Hold("GetObject")
    store = MemoryStore(hold)
    version = seeded(store, "object", content(1000))
    with engine_over(store) as engine:
        hold.hold()
        assert engine.prefetch(version)
        hold.wait_for(1)
        assert not engine.drain(Seconds(0.01))
        hold.release()
        assert engine.drain(Seconds(LONG))


def test_a_closed_engine_opens_nothing_and_its_handles_refuse() -> None:
    store = MemoryStore()
    version = seeded(store, "object", content(1000))
    with engine_over(store) as engine:
        reader = engine.open_reader(version)
        writer = engine.open_writer(ObjectKey("new"))
        engine.close()
        engine.close()
        attempts = (
            lambda: reader.read(0, 10),
            lambda: writer.write(b"x"),
            writer.finish,
            lambda: engine.open_reader(version),
            lambda: engine.open_writer(ObjectKey("new")),
            lambda: engine.open_appender(ObjectKey("new"), position=0),
        )
        for attempt in attempts:
            with pytest.raises(BadHandle):
                attempt()
    assert "new" not in store.objects


def test_closing_ends_reads_that_wait() -> None:
    hold = Hold("GetObject")
    store = MemoryStore(hold)
    data = content(100 * KIB)
    versions = [seeded(store, f"object {index}", data) for index in range(8)]
    with engine_over(store) as engine:
        hold.hold()
        outcomes = []
        readers = [engine.open_reader(version) for version in versions]

        def read(index: int) -> None:
            try:
                outcomes.append(bytes(readers[index].read(0, 10)) == data[:10])
            except BadHandle:
                outcomes.append("refused")

        for version in versions:
            assert engine.prefetch(version)
        hold.wait_for(4)
        running = Running()
        for index in range(8):
            running.start(lambda index=index: read(index))
        hold.wait_for(8)  # who waits for a request that has not begun makes it itself
        until(lambda: engine.statistics().cache.joined == 8)
        engine.close(Seconds(0))
        hold.release()
        running.join()
        assert engine.statistics().cache.in_flight == 0
    assert len(outcomes) == 8
    assert set(outcomes) <= {True, "refused"}


def test_closing_gives_back_all_memory_and_ends_all_threads() -> None:
    before = set(threading.enumerate())
    store = MemoryStore()
    data = content(4 * MIB)
    version = seeded(store, "object", data)
    options = WriteOptions(threads=2, part_size=Bytes(256 * KIB), flush_interval=Seconds(3600))
    with engine_over(store, write=options) as engine:
        engine.open_reader(version).read(0, 128 * KIB)
        engine.open_reader(version).read(3 * MIB, 128 * KIB)
        engine.open_writer(ObjectKey("new")).write(data)
        engine.open_appender(ObjectKey("log"), position=0).write(data)
    until(lambda: not set(threading.enumerate()) - before)
    figures = engine.statistics()
    assert (figures.memory.charged, figures.readers, figures.writers, figures.cache.blocks) == (0, 0, 0, 0)


def test_threads_are_started_when_there_is_work() -> None:
    with engine_over(MemoryStore()) as engine:
        assert engine.statistics().downloads.started == 0
        assert engine.statistics().uploads.started == 0


def test_closing_does_not_wait_for_a_store_that_never_answers() -> None:
    hold = Hold("UploadPart")
    store = MemoryStore(hold)
    options = WriteOptions(threads=1, part_size=Bytes(256 * KIB))
    with engine_over(store, write=options) as engine:
        writer = engine.open_writer(ObjectKey("new"))
        hold.hold()
        writer.write(content(300 * KIB))
        hold.wait_for(1)
        engine.close(Seconds(0.05))
        assert engine.statistics().uploads.running == 1, "it came back although a part is still under way"
        hold.release()
        until(lambda: store.uploads == {})
        with pytest.raises(BadHandle):
            writer.finish()
    assert store.objects == {}


def test_writers_are_abandoned_at_close_even_with_one_thread() -> None:
    store = MemoryStore()
    options = WriteOptions(threads=1, part_size=Bytes(256 * KIB))
    with engine_over(store, write=options) as engine:
        for index in range(20):
            engine.open_writer(ObjectKey(f"{index}")).write(content(1 * MIB))
    assert store.uploads == {}
    assert store.objects == {}


@pytest.mark.parametrize(("takes", "gains"), [(0.0, False), (0.006, True)])
def test_fetching_ahead_is_a_gain_only_where_requests_take_long(takes: float, gains: bool) -> None:
    clock = ManualClock()
    store = FarStore(clock, takes)
    version = seeded(store, "object", content(1000))
    with engine_over(store, clock=clock) as engine:
        assert not engine.gains_ahead(version.size), "nothing is known yet"
        engine.open_reader(version).read(0, 1000)
        assert engine.gains_ahead(version.size) is gains
        assert not engine.gains_ahead(Bytes(500_000)), "nothing is known of requests of this size"
