"""Writes that go on where the last one ended: put where their writer wants them, without Python."""

from __future__ import annotations

import os
import random
import struct
import time

import pytest

from csi.fuse.native.tails import WriterTail
from csi.fuse.protocol.constants import Opcode
from csi.volume.units import KIB, FileHandle
from tests.unit.fuse.native.conftest import PYTHON, Tables
from tests.unit.fuse.native.test_device import running, unique_of

HANDLE = FileHandle(7)
WRITE_CACHE = 1


def write_body(
    data: bytes,
    offset: int,
    handle: int = HANDLE,
    flags: int = 0,
    size: int | None = None,
    file_flags: int = os.O_WRONLY,
) -> bytes:
    size = len(data) if size is None else size
    return struct.pack("<QQIIQI4x", handle, offset, size, flags, 0, file_flags) + data


class Writer:
    """Of one file, with room in several memories."""

    def __init__(self, tables: Tables, *sizes: int) -> None:
        self.tables = tables
        self.memories = [bytearray(size) for size in sizes]
        self.tail = WriterTail(tables.answers)

    def lend(self, position: int = 0) -> None:
        self.tail.lend(position, [memoryview(memory) for memory in self.memories])

    def write(self, data: bytes, offset: int, **more: int) -> bool:
        """Whether it was answered without Python."""
        answered = self.tables.kernel.ask(Opcode.WRITE, write_body(data, offset, **more))
        if answered.error == PYTHON:
            return False
        assert answered.error == 0
        assert answered.body == struct.pack("<I4x", len(data))
        return True

    @property
    def content(self) -> bytes:
        return b"".join(self.memories)


@pytest.fixture
def writer(tables: Tables) -> Writer:
    made = Writer(tables, 10, 20, 30)
    made.tail.show(HANDLE)
    return made


def test_writes_go_where_the_writer_wants_them(writer: Writer) -> None:
    writer.lend(position=1000)
    before = time.time_ns()

    assert writer.write(b"a" * 4, 1000)
    assert writer.write(b"b" * 30, 1004)  # over three memories
    assert writer.write(b"c", 1034)

    assert writer.content == b"a" * 4 + b"b" * 30 + b"c" + bytes(25)
    assert writer.tail.position == 1035
    assert before <= writer.tail.written_ns <= time.time_ns()
    assert writer.tables.brought == []
    assert writer.tables.answers.statistics().answered == {"write": 3}
    assert writer.tail.recall() == 1035


def test_to_the_last_byte_and_no_further(writer: Writer) -> None:
    writer.lend()
    assert not writer.write(b"x" * 61, 0)
    assert writer.write(b"y" * 60, 0)
    assert not writer.write(b"z", 60)
    assert writer.content == b"y" * 60


@pytest.mark.parametrize("size", [3, 5, 1 << 31])
def test_a_write_that_does_not_say_how_long_it_is_comes_to_python(size: int) -> None:
    with running(lambda device, message: device.reply(unique_of(message), PYTHON)) as (kernel, _, answers):
        memory = bytearray(60)
        tail = WriterTail(answers)
        tail.show(HANDLE)
        tail.lend(0, [memoryview(memory)])
        for body in (write_body(b"data", 0, size=size), write_body(b"data", 0)[:39]):
            assert kernel.ask(Opcode.WRITE, body).error == PYTHON
        assert memory == bytes(60)


@pytest.mark.parametrize("offset", [0, 9, 11, 1 << 63, (1 << 64) - 1])
def test_only_where_the_last_one_ended(writer: Writer, offset: int) -> None:
    writer.lend(position=10)
    assert not writer.write(b"data", offset)
    assert writer.content == bytes(60)
    assert writer.write(b"data", 10)


def test_what_is_no_plain_write_comes_to_python(writer: Writer) -> None:
    writer.lend()
    assert not writer.write(b"data", 0, handle=8)
    assert not writer.write(b"", 0)
    assert not writer.write(b"page", 0, flags=WRITE_CACHE)
    assert not writer.write(b"kept", 0, file_flags=os.O_WRONLY | os.O_SYNC)
    assert not writer.write(b"kept", 0, file_flags=os.O_WRONLY | os.O_DSYNC)
    assert writer.content == bytes(60)


def test_nothing_is_put_anywhere_once_it_is_recalled_or_hidden(writer: Writer) -> None:
    assert not writer.write(b"before", 0)
    writer.lend()
    assert writer.write(b"data", 0)
    assert writer.tail.recall() == 4
    assert writer.tail.recall() == 4
    assert not writer.write(b"more", 4)
    writer.lend(position=4)
    writer.tail.hide()
    writer.tail.hide()
    assert not writer.write(b"more", 4)
    assert writer.content == b"data" + bytes(56)


def test_memory_is_held_while_it_is_lent_and_no_longer(writer: Writer) -> None:
    memory = bytearray(10)
    writer.tail.lend(0, [memoryview(memory)])
    with pytest.raises(BufferError):
        memory.append(1)
    writer.tail.recall()
    memory.append(1)


def test_what_cannot_be_written_to_is_not_lent(writer: Writer) -> None:
    writer.lend()
    with pytest.raises(BufferError):
        writer.tail.lend(0, [memoryview(b"constant")])


def test_the_first_tail_of_a_handle_is_the_one_until_it_is_hidden(tables: Tables, writer: Writer) -> None:
    other = Writer(tables, 10)
    other.tail.show(HANDLE)
    other.lend()
    assert not writer.write(b"data", 0)
    writer.tail.hide()
    other.tail.show(HANDLE)
    assert other.write(b"data", 0)
    assert other.content[:4] == b"data"


def test_a_tail_that_nobody_has_any_more_is_not_found(tables: Tables) -> None:
    gone = Writer(tables, 10)
    gone.tail.show(HANDLE)
    gone.lend()
    del gone.tail
    assert not gone.write(b"data", 0)


def test_a_tail_of_nothing_is_refused() -> None:
    with pytest.raises(TypeError):
        WriterTail(None)  # type: ignore[arg-type]


def test_many_files_are_written_side_by_side(tables: Tables) -> None:
    writers = {FileHandle(number): Writer(tables, 50) for number in range(1, 601)}
    for handle, one in writers.items():
        one.tail.show(handle)
        one.lend()
    for handle, one in writers.items():
        assert one.write(b"%d" % handle, 0, handle=handle)
    for handle, one in list(writers.items())[::2]:
        one.tail.hide()
        del writers[handle]
    for handle, one in writers.items():
        assert one.write(b"!", one.tail.position, handle=handle)
        assert one.content.rstrip(b"\0") == b"%d!" % handle


def test_a_recall_waits_for_what_is_being_copied(tables: Tables) -> None:
    chunk = 960 * KIB  # which takes long to copy
    data = random.Random(1).randbytes(40 * chunk)
    writer = Writer(tables, len(data))
    writer.tail.show(HANDLE)
    memory = memoryview(writer.memories[0])
    for begin in range(0, len(data), chunk):
        end = begin + chunk
        writer.tail.lend(begin, [memory[begin:]])
        unique = tables.kernel.send(Opcode.WRITE, write_body(data[begin:end], begin))
        late = time.monotonic() + 20
        while writer.tail.position == begin:  # without a pause: copying takes 0.1 ms
            assert time.monotonic() < late

        recalled, last = writer.tail.recall(), bytes(memory[end - 8 : end])

        assert (recalled, last) == (end, data[end - 8 : end])
        assert memory[begin:end] == data[begin:end]
        assert tables.kernel.receive().unique == unique
    assert tables.brought == []
