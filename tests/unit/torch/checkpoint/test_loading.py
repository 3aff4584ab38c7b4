"""Which requests reads make, and where the bytes go."""

from __future__ import annotations

import _thread
import itertools
import os
import threading
from collections.abc import Iterator

import pytest

from csi.data.buffers import BufferPool
from csi.data.ledger import MemoryLedger
from csi.data.workers import WorkerPool
from csi.errors import BadHandle, PreconditionFailed, ServerFailure
from csi.oss.store import ObjectMetadata, ObjectVersion
from csi.torch.checkpoint.loading import Loading, LoadPlan
from csi.torch.checkpoint.pieces import move
from csi.volume.units import KIB, MIB, Bytes, ETag, ObjectKey, Seconds
from tests.support.engines import until
from tests.support.memory_store import MemoryStore

KEY = ObjectKey("model.pt")
PLAN = LoadPlan(Bytes(4 * MIB), Bytes(32 * MIB), 8, 64)


def content(size: int) -> bytes:
    block = bytes(range(251)) * 4178  # of no power of two, so that a piece at the wrong place shows
    return (block * (size // len(block) + 1))[:size]


class Opened:
    def __init__(self, size: int, plan: LoadPlan = PLAN, budget: int = 32 * MIB, tick: float = 0.0) -> None:
        """`tick`: the seconds that pass whenever somebody looks at the clock."""
        self.data = content(size)
        self.store = MemoryStore()
        etag = self.store.seed(KEY, self.data)
        self.version = ObjectVersion(KEY, etag, Bytes(size))
        self.workers = WorkerPool("test-load", 8)
        self.ledger = MemoryLedger(Bytes(budget))
        pool = BufferPool(self.ledger, keep=budget)
        clock = itertools.count(0.0, tick)
        self.loading = Loading(self.version, self.store, self.workers, pool, plan, lambda: next(clock))

    def read(self, offset: int, size: int) -> bytes:
        target = bytearray(size)
        self.loading.read(offset, memoryview(target))
        return bytes(target)

    def is_right(self, offset: int, size: int) -> bool:
        return self.read(offset, size) == self.data[offset : offset + size]

    @property
    def fetched(self) -> int:
        return sum(size for _, _, size in self.store.ranges)

    def overlaps(self) -> list[tuple[int, int]]:
        spans = sorted((start, start + size) for _, start, size in self.store.ranges)
        return [later for earlier, later in itertools.pairwise(spans) if later[0] < earlier[1]]

    def close(self) -> None:
        self.loading.close()
        self.workers.close(Seconds(5))


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    made = Opened(*getattr(request, "param", (64 * MIB,)))
    yield made
    made.close()


@pytest.mark.parametrize("opened", [(1 * MIB,)], indirect=True)
def test_a_small_object_is_one_request_whatever_is_read(opened: Opened) -> None:
    assert opened.is_right(1000, 10)
    assert opened.is_right(1 * MIB - 22, 22)
    assert opened.is_right(0, 1 * MIB)
    assert opened.store.ranges == [(KEY, 0, 1 * MIB)]


def test_a_few_bytes_in_the_middle_do_not_bring_the_object(opened: Opened) -> None:
    assert opened.is_right(40 * MIB, 1000)
    assert opened.fetched <= 256 * KIB


def test_the_directory_at_the_end_is_one_request(opened: Opened) -> None:
    end = 64 * MIB
    assert opened.is_right(end - 4096, 4096)
    assert opened.is_right(end - 22, 22)
    assert opened.is_right(end - 100_000, 90_000)
    assert opened.store.ranges == [(KEY, end - 1 * MIB, 1 * MIB)]


def test_a_large_read_is_made_of_many_requests_straight_into_the_target(opened: Opened) -> None:
    assert opened.is_right(10, 40 * MIB)
    assert len(opened.store.ranges) >= 5
    assert opened.fetched == 40 * MIB
    assert opened.ledger.statistics().peak == 0


@pytest.mark.parametrize(
    ("opened", "ahead"),
    [((64 * MIB, PLAN, 32 * MIB, 0.0001), 4 * MIB), ((64 * MIB, PLAN, 32 * MIB, 0.02), 8 * MIB)],
    indirect=["opened"],
)
def test_more_is_fetched_ahead_of_large_reads_where_requests_take_long(opened: Opened, ahead: int) -> None:
    assert opened.is_right(0, 20 * MIB)
    assert opened.is_right(20 * MIB, 8 * MIB)
    until(lambda: opened.fetched == 28 * MIB + ahead)
    assert opened.is_right(28 * MIB, 36 * MIB)
    assert opened.overlaps() == []
    assert opened.fetched == 64 * MIB


def test_the_head_of_an_entry_does_not_have_the_entry_copied(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small reads in order are worth fetching far ahead; one between large reads is not."""
    copied: list[int] = []

    def counted(target: memoryview, source: memoryview) -> None:
        copied.append(len(target))
        move(target, source)

    monkeypatch.setattr("csi.torch.checkpoint.loading.move", counted)
    for position in range(0, 64 * MIB, 16 * MIB):
        assert opened.is_right(position, 64)
        assert opened.is_right(position + 64, 16 * MIB - 64)
    assert opened.overlaps() == []
    assert sum(copied) <= 4 * 6 * MIB


def test_reading_as_torch_does_fetches_every_byte_once(opened: Opened) -> None:
    end = 64 * MIB
    assert opened.is_right(0, 4)
    assert opened.is_right(end - 4096, 4096)
    assert opened.is_right(end - 9000, 3000)
    position = 64
    while position < end - 300 * KIB:
        assert opened.is_right(position, 30)
        assert opened.is_right(position + 64, 250 * KIB)
        position += 64 + 250 * KIB
    assert opened.is_right(position, end - position)
    assert opened.overlaps() == []
    assert opened.fetched == end


@pytest.mark.parametrize(
    "opened", [(64 * MIB, LoadPlan(Bytes(4 * MIB), Bytes(8 * MIB), 8, 64), 8 * MIB)], indirect=True
)
def test_the_buffers_stay_in_their_budget(opened: Opened) -> None:
    for position in range(0, 60 * MIB, 500 * KIB):
        assert opened.is_right(position, 500 * KIB)
    assert opened.overlaps() == []
    assert opened.ledger.statistics().peak <= 8 * MIB


@pytest.mark.parametrize(
    "opened", [(64 * MIB, LoadPlan(Bytes(4 * MIB), Bytes(32 * MIB), 8, 64, exact=True))], indirect=True
)
def test_exactly_what_is_asked_for_is_fetched_when_that_is_wanted(opened: Opened) -> None:
    assert opened.is_right(1000, 500)
    assert opened.is_right(1500, 500)
    assert opened.is_right(64 * MIB - 22, 22)
    assert opened.fetched == 1022


def test_another_version_is_never_mixed_in(opened: Opened) -> None:
    assert opened.is_right(0, 1000)
    opened.store.seed(KEY, content(64 * MIB)[::-1])
    with pytest.raises(PreconditionFailed):
        opened.read(30 * MIB, 1000)
    with pytest.raises(PreconditionFailed):
        opened.read(30 * MIB, 20 * MIB)


def test_a_failed_piece_is_asked_for_again_by_the_next_read(opened: Opened) -> None:
    failing = [ServerFailure("busy", status=503)]

    def fail_once(operation: str, key: str) -> None:
        if failing:
            raise failing.pop()

    opened.store.before = fail_once
    with pytest.raises(ServerFailure):
        opened.read(0, 1000)
    assert opened.is_right(0, 1000)


def test_what_was_fetched_ahead_in_vain_is_asked_for_again(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that nobody waited for is no failure of a later read."""
    asked_for = 301 * KIB
    read_into = opened.store.read_into
    failed: list[int] = []

    def fail_ahead(key: ObjectKey, offset: int, target: memoryview, *, if_match: ETag | None = None) -> ObjectMetadata:
        if offset >= asked_for:
            failed.append(offset)
            raise ServerFailure("busy", status=503)
        return read_into(key, offset, target, if_match=if_match)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(opened.store, "read_into", fail_ahead)
        assert opened.is_right(0, 1000)
        assert opened.is_right(1000, asked_for - 1000)
        assert opened.workers.drain(Seconds(10))
    assert failed
    for position in range(asked_for, 4 * MIB, 100 * KIB):
        assert opened.is_right(position, 100 * KIB)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_read_ends_when_nothing_writes_to_the_target_any_more(opened: Opened) -> None:
    busy: list[int] = []
    gate = threading.Event()
    numbers = itertools.count(1)

    def interrupt(operation: str, key: str) -> None:
        busy.append(1)
        if next(numbers) == 8:  # the last one: the read waits now
            _thread.interrupt_main()
        gate.wait(0.2)
        busy.pop()

    opened.store.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        opened.read(0, 30 * MIB)
    assert busy == []
    opened.store.before = None
    assert opened.is_right(0, 30 * MIB)


def test_nothing_writes_to_the_target_once_a_failed_read_has_returned(opened: Opened) -> None:
    """One request fails at once, the others are slow: the read raises only when they have ended."""
    late = threading.Event()
    busy: list[int] = []
    numbers = itertools.count(1)

    def slow(operation: str, key: str) -> None:
        if next(numbers) == 1:
            raise ServerFailure("busy", status=503)
        busy.append(1)
        late.wait(0.2)
        busy.pop()

    opened.store.before = slow
    with pytest.raises(ServerFailure):
        opened.read(0, 30 * MIB)
    assert busy == []


@pytest.mark.parametrize("opened", [(8 * MIB, LoadPlan(Bytes(4 * MIB), Bytes(8 * MIB), 8, 1))], indirect=True)
def test_requests_are_made_on_as_many_processors_as_are_allowed(opened: Opened) -> None:
    seen: set[int] = set()

    def look(operation: str, key: str) -> None:
        seen.add(len(os.sched_getaffinity(0)))

    opened.store.before = look
    here = os.sched_getaffinity(0)
    opened.read(0, 8 * MIB)
    assert seen == {1}
    assert os.sched_getaffinity(0) == here


def test_reading_after_close_is_refused(opened: Opened) -> None:
    opened.loading.close()
    with pytest.raises(BadHandle, match="read after close"):
        opened.read(0, 10)


def test_memory_comes_back_when_a_reader_is_closed(opened: Opened) -> None:
    for position in range(0, 20 * MIB, 256 * KIB):
        opened.read(position, 256 * KIB)
    opened.loading.close()
    assert opened.workers.drain(Seconds(10))
    pool = opened.loading._pool
    pool.trim()
    assert opened.ledger.statistics().charged == 0
