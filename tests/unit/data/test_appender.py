"""Append mode: readable while being written, nothing twice, nothing lost that a flush promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csi.data.appender import LARGEST_APPENDABLE
from csi.errors import AppendConflict, BadHandle, ChecksumMismatch, FileTooLarge, ServerFailure
from csi.oss.store import AppendResult, Buffer
from csi.volume.spec import WriteOptions
from csi.volume.units import KIB, MIB, Bytes, ObjectKey, Seconds
from tests.support.engines import Hold, Running, content, engine_over, until
from tests.support.memory_store import MemoryStore

KEY = ObjectKey("log")
OPTIONS = WriteOptions(threads=2, buffer_size=Bytes(64 * KIB), append=True)


def test_the_object_exists_from_the_moment_it_is_opened() -> None:
    store = MemoryStore()
    with engine_over(store, write=OPTIONS) as engine:
        writer = engine.open_appender(KEY, position=0)
        assert store.data(KEY) == b""
        assert store.objects[KEY].type == "Appendable"
        assert writer.visible_version.size == 0
        assert writer.visible_version.etag == store.objects[KEY].etag


def test_what_was_flushed_can_be_read() -> None:
    store = MemoryStore()
    with engine_over(store, write=OPTIONS) as engine:
        writer = engine.open_appender(KEY, position=0)
        writer.write(b"one line\n")
        assert store.data(KEY) == b""
        writer.flush()
        assert store.data(KEY) == b"one line\n"
        assert writer.visible_version.size == 9
        assert writer.visible_version.etag == store.objects[KEY].etag


def test_a_full_buffer_is_pushed_without_a_flush() -> None:
    store = MemoryStore()
    with engine_over(store, write=OPTIONS) as engine:
        writer = engine.open_appender(KEY, position=0)
        writer.write(content(64 * KIB))
        until(lambda: len(store.data(KEY)) == 64 * KIB)


class DamagingStore(MemoryStore):
    """What is appended at `at` arrives damaged."""

    at = -1

    def append(self, key: ObjectKey, position: int, body: Sequence[Buffer], *, content_type: str = "") -> AppendResult:
        if position == self.at:
            body = [bytes(len(b"".join(body)))]
        return super().append(key, position, body, content_type=content_type)


@pytest.mark.parametrize("old", [0, 5])
@pytest.mark.parametrize("pushed", [0, 3])
def test_what_arrives_damaged_is_told(old: int, pushed: int) -> None:
    store = DamagingStore()
    if old:
        store.append(KEY, 0, [b"older"])
    with engine_over(store, write=OPTIONS) as engine:
        writer = engine.open_appender(KEY, position=old)
        if pushed:
            writer.write(b"one")
            writer.flush()
        store.at = old + pushed
        writer.write(b"a line\n")
        for call in (writer.flush, writer.finish):
            with pytest.raises(ChecksumMismatch, match=f"7 bytes from {old + pushed} on were damaged"):
                call()
    with engine_over(store, write=replace(OPTIONS, crc64=False)) as engine:
        writer = engine.open_appender(KEY, position=len(store.data(KEY)))
        store.at = len(store.data(KEY))
        writer.write(b"not compared")
        writer.finish()


def test_the_flush_interval_pushes_what_is_left() -> None:
    store = MemoryStore()
    options = WriteOptions(threads=2, append=True, flush_interval=Seconds(0.005))
    with engine_over(store, write=options) as engine:
        writer = engine.open_appender(KEY, position=0)
        writer.write(b"a line nobody flushes\n")
        until(lambda: store.data(KEY) == b"a line nobody flushes\n")
        asked = store.requests["AppendObject"]
        writer.finish()
    assert asked == store.requests["AppendObject"], "nothing is pushed when there is nothing"


def test_finish_tells_the_whole_and_is_idempotent() -> None:
    store = MemoryStore()
    with engine_over(store, write=OPTIONS) as engine:
        writer = engine.open_appender(KEY, position=0)
        writer.write(b"abc")
        result = writer.finish()
        assert writer.finish() == result
        assert result.etag == store.objects[KEY].etag
        with pytest.raises(BadHandle):
            writer.write(b"d")
        assert engine.statistics().staging.held == 0
    assert store.data(KEY) == b"abc"


def test_an_existing_object_is_continued_at_its_end() -> None:
    store = MemoryStore()
    store.append(KEY, 0, [b"old"])
    with engine_over(store, write=OPTIONS) as engine:
        writer = engine.open_appender(KEY, position=3)
        assert writer.position == 3
        assert writer.visible_version.size == 3
        writer.write(b"new")
        writer.finish()
    assert store.data(KEY) == b"oldnew"


@pytest.mark.parametrize("position", [0, 2, 4])
def test_a_wrong_position_is_refused_at_open(position: int) -> None:
    store = MemoryStore()
    store.append(KEY, 0, [b"old"])
    with engine_over(store, write=OPTIONS) as engine:
        with pytest.raises(AppendConflict):
            engine.open_appender(KEY, position=position)
        assert engine.statistics().staging.held == 0
    assert store.data(KEY) == b"old"


def test_an_object_of_another_type_is_refused_at_open() -> None:
    store = MemoryStore()
    store.seed(KEY, b"old")
    with engine_over(store, write=OPTIONS) as engine, pytest.raises(AppendConflict):
        engine.open_appender(KEY, position=3)


def test_another_appender_is_noticed_and_nothing_is_overwritten() -> None:
    store = MemoryStore()
    with engine_over(store, write=OPTIONS) as engine:
        writer = engine.open_appender(KEY, position=0)
        writer.write(b"mine")
        store.append(KEY, 0, [b"theirs"])
        for attempt in (writer.flush, writer.flush, writer.finish, lambda: writer.write(b"more")):
            with pytest.raises(AppendConflict):
                attempt()
        assert engine.statistics().staging.held == 0
    assert store.data(KEY) == b"theirs"


def test_a_failed_push_is_told_by_every_later_call() -> None:
    hold = Hold("AppendObject")
    store = MemoryStore(hold)
    with engine_over(store, write=OPTIONS) as engine:
        writer = engine.open_appender(KEY, position=0)
        writer.write(b"abc")
        hold.fail_next(ServerFailure("broken", status=500))
        for attempt in (writer.flush, writer.finish):
            with pytest.raises(ServerFailure):
                attempt()


def test_abandoning_keeps_what_was_flushed() -> None:
    store = MemoryStore()
    with engine_over(store, write=OPTIONS) as engine:
        writer = engine.open_appender(KEY, position=0)
        writer.write(b"kept")
        writer.flush()
        writer.write(b"lost")
        writer.abandon()
        writer.abandon()
        assert engine.statistics().staging.held == 0
    assert store.data(KEY) == b"kept"


def test_five_gibibytes_are_the_end() -> None:
    store = MemoryStore()
    with engine_over(store, write=OPTIONS) as engine:
        writer = engine.open_appender(KEY, position=0)
        writer._position = LARGEST_APPENDABLE - 1
        with pytest.raises(FileTooLarge, match="5 GiB"):
            writer.write(b"ab")
        writer._position = 0


def test_a_slow_network_makes_pushes_larger_not_memory() -> None:
    hold = Hold("AppendObject")
    store = MemoryStore(hold)
    data = content(6 * MIB)
    with engine_over(store, write=OPTIONS, budget=2 * MIB) as engine:
        writer = engine.open_appender(KEY, position=0)
        hold.hold()
        running = Running()
        running.start(lambda: [writer.write(data[start : start + 10_000]) for start in range(0, len(data), 10_000)])
        hold.wait_for(1)
        hold.release()
        running.join()
        writer.finish()
        assert engine.statistics().memory.peak <= 2 * MIB
    assert store.data(KEY) == data


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(st.tuples(st.integers(0, 300 * KIB), st.booleans()), max_size=15),
    buffer_size=st.sampled_from([64 * KIB, 100_000, MIB, 4 * MIB]),
    budget=st.sampled_from([512 * KIB, 8 * MIB]),
)
def test_any_sequence_of_appends_makes_exactly_those_bytes(
    steps: list[tuple[int, bool]], buffer_size: int, budget: int
) -> None:
    store = MemoryStore()
    data = content(sum(size for size, _ in steps))
    options = WriteOptions(threads=2, buffer_size=Bytes(buffer_size), append=True)
    with engine_over(store, write=options, budget=budget) as engine:
        writer = engine.open_appender(KEY, position=0)
        offset = 0
        for size, flush in steps:
            writer.write(data[offset : offset + size])
            offset += size
            if flush:
                writer.flush()
                assert store.data(KEY) == data[:offset]
        writer.finish()
    assert store.data(KEY) == data
