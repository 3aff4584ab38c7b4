"""Bytes of files without a name: they have what memory writers leave, and give it up when one wants it."""

from __future__ import annotations

import random

import pytest

from csi.data.buffers import BufferPool
from csi.data.ledger import MemoryLedger
from csi.data.scratch import Scratch
from csi.data.staging import StagingMemory
from csi.volume.units import KIB, MIB, Bytes, Seconds

AT_ONCE = Seconds(0.0)


@pytest.fixture
def pool() -> BufferPool:
    return BufferPool(MemoryLedger(Bytes(16 * MIB)), keep=0)


@pytest.fixture
def memory(pool: BufferPool) -> StagingMemory:
    return StagingMemory(pool, limit=MIB)  # eight buffers


def lent(pool: BufferPool) -> int:
    return pool.statistics().lent


def test_it_is_a_file(memory: StagingMemory) -> None:
    numbers = random.Random(1)
    scratch, local = Scratch(memory, MIB), bytearray()
    for _ in range(500):
        offset, size = numbers.randrange(600 * KIB), numbers.randrange(100 * KIB)
        what = numbers.random()
        if what < 0.5:
            data = numbers.randbytes(size)
            assert scratch.write(offset, data)
            local += bytes(max(0, offset - len(local)))
            local[offset : offset + size] = data
        elif what < 0.6:
            assert scratch.resize(offset)
            local = local[:offset] + bytes(max(0, offset - len(local)))
        assert scratch.read(offset, size) == local[offset : offset + size]
    assert scratch.read(0, MIB) == local
    scratch.close()


def test_all_of_it_is_gone_with_what_is_too_large(pool: BufferPool, memory: StagingMemory) -> None:
    scratch = Scratch(memory, 200 * KIB)
    assert scratch.write(0, bytes(200 * KIB))
    assert not scratch.write(200 * KIB, b"x")
    assert scratch.read(0, 1) is None
    assert not scratch.write(0, b"x")
    assert not scratch.resize(0)
    assert lent(pool) == 0


def test_it_takes_only_what_is_free(pool: BufferPool, memory: StagingMemory) -> None:
    writers = [memory.admit(lambda: None, AT_ONCE) for _ in range(7)]
    first, second = Scratch(memory, MIB), Scratch(memory, MIB)
    assert first.write(0, b"first")
    assert not second.write(0, b"second")
    assert first.read(0, 10) == b"first"
    assert memory.statistics().writers == 7
    first.close()
    for writer in writers:
        writer.close()
    assert (lent(pool), memory.statistics().held) == (0, 0)


def test_writers_take_it_back_one_after_the_other(pool: BufferPool, memory: StagingMemory) -> None:
    scratches = [Scratch(memory, MIB) for _ in range(8)]
    for scratch in scratches:
        assert scratch.write(0, b"x")
    opened = memory.admit(lambda: None, AT_ONCE)
    assert [scratch.read(0, 1) for scratch in scratches] == [None] + [b"x"] * 7
    taken = [opened.take(), opened.take()]  # the first is its own
    assert None not in taken
    assert [scratch.read(0, 1) for scratch in scratches] == [None] * 2 + [b"x"] * 6
    for scratch in scratches:
        scratch.close()
        scratch.close()
    assert lent(pool) == 2 * memory.buffer


def test_readers_have_what_it_does_not_use(memory: StagingMemory) -> None:
    assert memory.reserved == 0
    scratch = Scratch(memory, MIB)
    assert scratch.write(0, bytes(200 * KIB))
    assert memory.reserved == 2 * memory.buffer
    writer = memory.admit(lambda: None, AT_ONCE)
    assert memory.reserved == memory.limit
    writer.close()
    scratch.close()
    assert memory.reserved == 0
