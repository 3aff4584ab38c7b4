"""Bytes that are put into a part without its writer: the object is the same, whatever else happens meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csi.data.engine import DataEngine
from csi.errors import BadHandle, ServerFailure
from csi.oss.checksum import crc64_of
from csi.volume.spec import WriteOptions
from csi.volume.units import KIB, MIB, Bytes, FileHandle, ObjectKey
from tests.support.engines import Hold, Running, content, engine_over, seeded, until
from tests.support.hand_tails import HandTail, HandTails
from tests.support.memory_store import MemoryStore

KEY = ObjectKey("object")
HANDLE = FileHandle(1)
SMALL_PARTS = WriteOptions(threads=2, part_size=Bytes(256 * KIB))


class Session:
    """A writer, and who puts bytes where it wants them if it lends the room."""

    def __init__(
        self, engine: DataEngine, tails: HandTails, key: ObjectKey = KEY, handle: FileHandle = HANDLE, **options: object
    ) -> None:
        self.writer = engine.open_writer(key, **options)
        self.tails, self.handle = tails, handle
        assert isinstance(self.writer.tail, HandTail)
        self.tail = self.writer.tail
        self.tail.show(handle)
        self.writer.lend()

    def put(self, data: bytes) -> bool:
        return self.tails.put(self.handle, self.writer.position, data)

    def write(self, data: bytes) -> None:
        """As the filesystem does it: by the writer what nobody could put."""
        if not self.put(data):
            self.writer.write(data)
            self.writer.lend()


@contextmanager
def session(store: MemoryStore, *, budget: int = 64 * MIB, write: WriteOptions | None = None) -> Iterator[Session]:
    tails = HandTails()
    with engine_over(store, budget=budget, write=write or SMALL_PARTS, tails=tails) as engine:
        yield Session(engine, tails)
        until(lambda: engine.statistics().writers == 0)
        assert engine.statistics().staging.held == 0
        assert engine.statistics().memory.peak <= budget
    assert tails.shown == {}
    assert store.uploads == {}


def test_a_small_file_is_put_whole_and_is_one_request() -> None:
    store = MemoryStore()
    data = content(100 * KIB)
    with session(store) as opened:
        assert opened.put(data[:50_000])
        assert opened.put(data[50_000:])
        assert opened.writer.position == len(data)
        assert opened.writer.statistics().unsent == len(data)
        result = opened.writer.finish()
    assert store.data(KEY) == data
    assert result.crc64 == crc64_of([data])
    assert dict(store.requests) == {"PutObject": 1}


def test_a_small_file_is_lent_no_more_than_its_own_buffer() -> None:
    with engine_over(MemoryStore(), tails=(tails := HandTails())) as engine:
        opened = Session(engine, tails)
        for _ in range(3):
            opened.write(content(100 * KIB))
        assert 0 < opened.tail.room < 512 * KIB
        assert engine.statistics().staging.held == 512 * KIB
        opened.writer.abandon()


def test_most_of_a_large_file_is_put_without_its_writer() -> None:
    store = MemoryStore()
    data = content(96 * MIB)
    with session(store, budget=512 * MIB, write=WriteOptions(threads=4)) as opened:
        for begin in range(0, len(data), MIB):
            opened.write(data[begin : begin + MIB])
        opened.writer.finish()
        assert opened.tails.puts >= 60
        assert store.requests["UploadPart"] == 12  # as large as ever
    assert store.data(KEY) == data


STEPS = st.one_of(
    st.integers(1, 700 * KIB),  # bytes, however they get there
    st.sampled_from(["write", "lend", "recall", "flush", "others", "statistics"]),
)


@pytest.mark.parametrize("budget", [1 * MIB, 64 * MIB])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=30))
def test_the_object_is_what_was_written_in_any_way(budget: int, steps: list[int | str]) -> None:
    store = MemoryStore()
    written = bytearray()
    tails = HandTails()
    with engine_over(store, budget=budget, write=SMALL_PARTS, tails=tails) as engine:
        opened = Session(engine, tails)
        for number, step in enumerate(steps):
            if isinstance(step, int):
                data = content(step, number)
                opened.write(data)
                written += data
            elif step == "write":
                data = content(1000, number)
                opened.writer.write(data)  # the room it had lent is not lent any more
                written += data
            elif step == "lend":
                opened.writer.lend()
            elif step == "recall":
                assert opened.tail.recall() <= len(written)
            elif step == "flush":
                opened.writer.flush()
            elif step == "statistics":
                assert opened.writer.statistics().unsent <= len(written)
            else:  # may have to wait until this one has sent what it holds
                engine.open_writer(ObjectKey("other")).abandon()
            assert opened.writer.position == len(written)
        result = opened.writer.finish()
        assert engine.statistics().memory.peak <= budget
        assert engine.statistics().staging.held == 0
    assert store.data(KEY) == bytes(written)
    assert result.crc64 in (None, crc64_of([bytes(written)]))
    assert tails.shown == {}


@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_nothing_is_put_into_a_file_that_is_over(size: int) -> None:
    for end in ("finish", "abandon"):
        with session(MemoryStore()) as opened:
            opened.write(content(size))
            getattr(opened.writer, end)()
            assert not opened.put(b"more")
            assert opened.tail.room == 0
            opened.writer.lend()
            assert opened.tail.room == 0
            with pytest.raises(BadHandle):
                opened.writer.write(b"more")


def test_what_was_put_counts_when_another_object_is_copied_behind_it() -> None:
    store = MemoryStore()
    source, data = content(2 * MIB, 1), content(300 * KIB, 2)
    version = seeded(store, "source", source)
    with session(store, write=WriteOptions(threads=2)) as opened:
        assert opened.put(data)
        assert opened.writer.copy(version, 0, len(source))
        assert not opened.put(b"x")  # not lent after a copy
        opened.write(b"the end")
        opened.writer.finish()
    assert store.data(KEY) == data + source + b"the end"


@pytest.mark.parametrize("size", [100, 5 * MIB])
def test_what_is_put_continues_an_object_once_its_writer_has_it(size: int) -> None:
    store = MemoryStore()
    old = content(size)
    base = seeded(store, KEY, old)
    tails = HandTails()
    with engine_over(store, write=SMALL_PARTS, tails=tails) as engine:
        opened = Session(engine, tails, base=base)
        assert not opened.put(b"a")  # what is there is not in the part yet
        opened.write(b"a")
        assert opened.put(b"b")
        opened.writer.finish()
    assert store.data(KEY) == old + b"ab"


def test_a_failure_in_the_background_is_told_by_who_comes_next() -> None:
    hold = Hold("UploadPart")
    store = MemoryStore(hold)
    with session(store) as opened:
        hold.fail_next(ServerFailure("broken", status=500))
        opened.write(content(300 * KIB))
        until(lambda: opened.writer.statistics().under_way == 0)
        opened.put(b"more")
        for again in (opened.writer.finish, lambda: opened.writer.write(b"more"), opened.writer.flush):
            with pytest.raises(ServerFailure, match="broken"):
                again()
        assert not opened.put(b"more")
    assert KEY not in store.objects


def test_room_that_is_lent_is_given_up_for_others_who_open() -> None:
    store = MemoryStore()
    data = content(100_000)
    tails = HandTails()
    with engine_over(store, budget=8 * MIB, write=WriteOptions(threads=2), tails=tails, admission=5) as engine:
        opened = Session(engine, tails)
        while opened.writer.position < 4 * MIB or opened.tail.room < 3 * 128 * KIB:
            opened.write(data)
        pieces = opened.writer.position // len(data)
        staging = engine.statistics().staging
        others = [engine.open_writer(ObjectKey(f"other{number}")) for number in range(staging.limit // (128 * KIB) - 1)]
        opened.write(b"the end")
        for other in others:
            other.abandon()
        opened.writer.finish()
    assert store.data(KEY) == data * pieces + b"the end"


@pytest.mark.parametrize("budget", [512 * KIB, 4 * MIB])
def test_many_files_with_little_memory_are_all_written(budget: int) -> None:
    store = MemoryStore()
    data = content(2 * MIB + 12345)
    tails = HandTails()
    with engine_over(store, budget=budget, tails=tails) as engine:

        def write(number: int) -> None:
            opened = Session(engine, tails, ObjectKey(f"file{number}"), FileHandle(number + 1))
            for begin in range(0, len(data), 30_000):
                opened.write(data[begin : begin + 30_000])
            opened.writer.finish()

        running = Running()
        for number in range(8):
            running.start(lambda number=number: write(number))
        running.join()
        assert engine.statistics().memory.peak <= budget
        assert engine.statistics().staging.held == 0
    assert all(store.data(f"file{number}") == data for number in range(8))
    assert tails.puts > 0
