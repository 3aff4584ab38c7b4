"""What is sent while an object is written, and what is left when that ends in every possible way."""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from csi.data.buffers import BufferPool
from csi.data.ledger import MemoryLedger
from csi.data.leftovers import Leftovers
from csi.data.workers import WorkerPool
from csi.errors import BadHandle, ServerFailure
from csi.torch.checkpoint.saving import Saving
from csi.volume.units import KIB, MIB, Bytes, ObjectKey, Seconds
from tests.support.memory_store import MemoryStore

KEY = ObjectKey("model.pt")
PART = 256 * KIB
BUDGET = 1 * MIB


class Desk:
    """Where objects are written."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.ledger = MemoryLedger(Bytes(BUDGET))
        self.workers = WorkerPool("test-save", 4)
        self.pool = BufferPool(self.ledger, keep=BUDGET)
        self.ended: list[Saving] = []

    def begin(self) -> Saving:
        return Saving(
            KEY,
            self.store,
            self.workers,
            self.pool,
            Leftovers(self.store),
            part_size=PART,
            budget=BUDGET,
            patience=Seconds(10),
            began=lambda: None,
            ended=self.ended.append,
        )

    @property
    def parts(self) -> int:
        return self.store.requests["UploadPart"]


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.workers.close(Seconds(5))


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def test_what_fits_in_one_part_is_one_request(desk: Desk) -> None:
    saving = desk.begin()
    for piece in (b"ab", b"", b"cde"):
        saving.write(memoryview(piece))
    saving.finish()
    assert desk.store.data(KEY) == b"abcde"
    assert dict(desk.store.requests) == {"PutObject": 1}


def test_nothing_written_is_an_empty_object(desk: Desk) -> None:
    desk.begin().finish()
    assert desk.store.data(KEY) == b""


@pytest.mark.parametrize("piece", [1000, PART - 1, PART, PART + 1, 3 * PART, BUDGET, 4 * BUDGET])
def test_pieces_of_any_size_become_the_object(desk: Desk, piece: int) -> None:
    data = content(4 * BUDGET + 12345)
    saving = desk.begin()
    for start in range(0, len(data), piece):
        saving.write(memoryview(data)[start : start + piece])
    assert saving.position == len(data)
    saving.finish()
    assert desk.store.data(KEY) == data
    assert desk.store.uploads == {}
    assert desk.ledger.statistics().peak <= BUDGET
    assert desk.ended == [saving]


def test_memory_that_was_written_may_change_when_write_returns(desk: Desk) -> None:
    data = bytearray(content(3 * BUDGET))
    saving = desk.begin()
    saving.write(memoryview(data))
    data[:] = bytes(len(data))
    saving.finish()
    assert desk.store.data(KEY) == content(3 * BUDGET)


def test_the_old_object_is_there_until_the_new_one_is(desk: Desk) -> None:
    desk.store.seed(KEY, b"old")
    saving = desk.begin()
    saving.write(memoryview(content(3 * BUDGET)))
    assert desk.store.data(KEY) == b"old"
    saving.finish()
    assert desk.store.data(KEY) == content(3 * BUDGET)


def test_giving_up_leaves_the_old_object_and_no_parts(desk: Desk) -> None:
    desk.store.seed(KEY, b"old")
    saving = desk.begin()
    saving.write(memoryview(content(3 * BUDGET)))
    saving.abandon()
    assert desk.store.data(KEY) == b"old"
    assert desk.store.uploads == {}
    with pytest.raises(BadHandle):
        saving.write(memoryview(b"x"))
    saving.abandon()


@pytest.mark.parametrize("size", [BUDGET // 2, 4 * BUDGET])
def test_a_part_that_fails_ends_it_with_that_error_every_time(desk: Desk, size: int) -> None:
    desk.store.seed(KEY, b"old")

    def fail(operation: str, key: str) -> None:
        if operation == "UploadPart" and desk.parts == 2:
            raise ServerFailure("the server is busy", status=503)

    desk.store.before = fail
    saving = desk.begin()

    def save() -> None:
        for _ in range(8):
            saving.write(memoryview(content(size)))
        saving.finish()

    with pytest.raises(ServerFailure, match="busy"):
        save()
    with pytest.raises(ServerFailure, match="busy"):
        saving.finish()
    with pytest.raises(ServerFailure, match="busy"):
        saving.write(memoryview(b"more"))
    assert desk.store.data(KEY) == b"old"
    assert desk.store.uploads == {}


def test_a_failed_completion_leaves_the_old_object_and_no_parts(desk: Desk) -> None:
    desk.store.seed(KEY, b"old")

    def fail(operation: str, key: str) -> None:
        if operation == "CompleteMultipartUpload":
            raise ServerFailure("the server is busy", status=503)

    desk.store.before = fail
    saving = desk.begin()
    saving.write(memoryview(content(2 * BUDGET)))
    with pytest.raises(ServerFailure):
        saving.finish()
    assert desk.store.data(KEY) == b"old"
    assert desk.store.uploads == {}


def test_nothing_reads_lent_memory_once_a_failed_write_has_returned(desk: Desk) -> None:
    busy: list[int] = []
    gate = threading.Event()

    def slow(operation: str, key: str) -> None:
        if operation != "UploadPart":
            return
        if desk.parts == 1:
            raise ServerFailure("the server is busy", status=503)
        busy.append(1)
        gate.wait(0.2)
        busy.pop()

    desk.store.before = slow
    saving = desk.begin()
    with pytest.raises(ServerFailure):
        saving.write(memoryview(content(8 * BUDGET)))
    assert busy == []


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("size", [PART // 2, 8 * BUDGET])
def test_an_interruption_ends_it_and_leaves_the_old_object(desk: Desk, size: int) -> None:
    desk.store.seed(KEY, b"old")

    once = threading.Semaphore(1)

    def interrupt(operation: str, key: str) -> None:
        if operation == "PutObject":
            raise KeyboardInterrupt
        # parts travel side by side: there may be none that begins when there are exactly three
        if operation == "UploadPart" and desk.parts >= 3 and once.acquire(blocking=False):
            _thread.interrupt_main()

    desk.store.before = interrupt
    saving = desk.begin()

    def save() -> None:
        saving.write(memoryview(content(size)))
        saving.finish()

    with pytest.raises(KeyboardInterrupt):
        save()
    with pytest.raises(BadHandle, match="interrupted"):
        saving.finish()
    assert desk.store.data(KEY) == b"old"
    assert desk.store.uploads == {}


def test_wherever_an_interruption_comes_it_leaves_no_part_that_is_waited_for_for_ever(desk: Desk) -> None:
    """At each line that runs while large parts are taken up: an unlucky one once left the count of parts wrong."""
    line = 1
    while (outcome := interrupted_at(desk, line)) == "interrupted":
        assert desk.store.uploads == {}
        line += 1
    assert outcome == "not reached"
    assert line > 50


def interrupted_at(desk: Desk, line: int) -> str:
    """How writing ends that is interrupted at its `line`th line, as Ctrl-C does in a main thread."""
    saving = desk.begin()
    ended = []
    left = [line]

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith(("checkpoint/saving.py", "data/upload.py")):
            return None
        if event == "line" and frame.f_code.co_name in TAKING_UP:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return trace

    def write() -> None:
        sys.settrace(trace)
        try:
            saving.write(memoryview(content(3 * BUDGET)))
        except KeyboardInterrupt:
            ended.append("interrupted")
        else:
            ended.append("not reached")
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(20)
    saving.abandon() if ended else ended.append(f"hangs when interrupted at line {line}")
    return ended[0]


TAKING_UP = {"_accept", "_lend", "_begin", "_send", "submit", "_queue", "_register"}


def test_many_writers_at_a_time_do_not_wait_for_each_other(desk: Desk) -> None:
    """Each holds a part that is half full: more than the budget has."""
    savings = [desk.begin() for _ in range(12)]
    for saving in savings:
        saving.write(memoryview(content(PART // 2)))
    for saving in savings:
        saving.write(memoryview(content(PART)))
    for saving in savings:
        saving.finish()
    assert desk.store.data(KEY) == content(PART // 2) + content(PART)


def test_memory_comes_back_when_it_ends(desk: Desk) -> None:
    saving = desk.begin()
    saving.write(memoryview(content(3 * BUDGET)))
    saving.finish()
    assert desk.workers.drain(Seconds(10))
    desk.pool.trim()
    assert desk.ledger.statistics().charged == 0
