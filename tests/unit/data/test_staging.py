"""Writers' memory: waiting at open only, and never more than the limit."""

from __future__ import annotations

import pytest

from csi.data.buffers import BufferPool
from csi.data.ledger import MemoryLedger
from csi.data.staging import StagingMemory, largest_write
from csi.errors import OutOfMemoryBudget
from csi.volume.units import GIB, KIB, MIB, Bytes, Seconds
from tests.support.engines import LONG, Running, until


def staging(limit: int, budget: int = 64 * MIB) -> StagingMemory:
    return StagingMemory(BufferPool(MemoryLedger(Bytes(budget)), keep=0), limit=limit)


def nothing() -> None:
    return


@pytest.mark.parametrize(("limit", "buffer"), [(1 * MIB, 128 * KIB), (32 * MIB, 512 * KIB), (1024 * MIB, 1 * MIB)])
def test_buffers_are_smaller_when_there_is_little_memory(limit: int, buffer: int) -> None:
    assert staging(limit).buffer == buffer


def test_a_writer_alone_may_use_the_whole_limit_and_no_more() -> None:
    memory = staging(1 * MIB)
    writer = memory.admit(nothing, Seconds(LONG))
    taken = []
    while (buffer := writer.take()) is not None:
        taken.append(buffer)
    assert len(taken) == 8
    assert memory.statistics().held == 1 * MIB
    writer.give(taken)
    assert memory.statistics().held == memory.buffer


def test_the_own_buffer_is_always_to_be_had_again() -> None:
    memory = staging(1 * MIB)
    writers = [memory.admit(nothing, Seconds(LONG)) for _ in range(8)]
    for writer in writers:
        buffer = writer.take()
        assert buffer is not None
        assert writer.take() is None
        writer.give([buffer])
        assert writer.take() is buffer


def test_one_writer_too_many_waits_and_is_then_refused() -> None:
    memory = staging(256 * KIB)
    writers = [memory.admit(nothing, Seconds(LONG)) for _ in range(2)]
    with pytest.raises(OutOfMemoryBudget, match="2 files are open for writing"):
        memory.admit(nothing, Seconds(0.01))
    assert len(writers) == 2
    assert memory.statistics().held == 256 * KIB


def test_who_waits_to_open_is_let_in_when_another_closes() -> None:
    memory = staging(256 * KIB)
    writers = [memory.admit(nothing, Seconds(LONG)) for _ in range(2)]
    running = Running()
    running.start(lambda: memory.admit(nothing, Seconds(LONG)))
    until(lambda: len(memory._turns) == 1)
    writers[0].close()
    assert len(running.join()) == 1


def test_others_are_asked_to_send_when_somebody_waits_to_open() -> None:
    memory = staging(512 * KIB)
    taken: list[memoryview] = []

    def send() -> None:
        full, taken[:] = taken[1:], taken[:1]
        writer.give(full)

    writer = memory.admit(send, Seconds(LONG))
    while (buffer := writer.take()) is not None:
        taken.append(buffer)
    assert memory.admit(nothing, Seconds(LONG)) is not None


def test_a_writer_closed_while_its_buffer_travels_gives_it_back_later() -> None:
    memory = staging(256 * KIB)
    writer = memory.admit(nothing, Seconds(LONG))
    buffer = writer.take()
    assert buffer is not None
    writer.close()
    assert memory.statistics().held == 128 * KIB
    writer.give([buffer])
    assert memory.statistics() == type(memory.statistics())(0, 0, 256 * KIB, 0)


@pytest.mark.parametrize(
    ("limit", "largest"),
    [(0, 64 * KIB), (128 * MIB, 64 * KIB), (300 * MIB, 128 * KIB), (512 * MIB, 256 * KIB), (1 * GIB, 4 * MIB)],
)
def test_writes_bring_less_at_once_where_there_is_little_memory(limit: int, largest: int) -> None:
    assert largest_write(Bytes(limit)) == largest
