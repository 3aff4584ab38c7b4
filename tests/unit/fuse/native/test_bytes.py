"""OPEN, READ, FLUSH and RELEASE answered from tables: exactly the bytes, never short, never from memory given back."""

from __future__ import annotations

import os
import struct
import threading

import pytest

from csi.fuse.protocol.constants import Opcode, OpenFlag
from csi.volume.units import Bytes, FileHandle, InodeNumber, Seconds
from tests.support.kernel_end import open_body, read_body, release_body
from tests.unit.fuse.native.conftest import LONG, PYTHON, Tables, attributes

HANDLE = FileHandle(5)
CONTENT = 77
FILE = InodeNumber(7)
DATA = bytes(range(256)) * 40  # 10,240 bytes in blocks of 4,000, 4,000 and 2,240
BLOCKS = (0, 4000, 8000)


@pytest.fixture
def published(tables: Tables) -> Tables:
    for start in BLOCKS:
        assert tables.answers.publish_block(CONTENT, start, DATA[start : start + 4000])
    tables.answers.publish_file(HANDLE, CONTENT, Bytes(len(DATA)))
    return tables


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        pytest.param(0, 4000, id="one whole block"),
        pytest.param(17, 100, id="within a block"),
        pytest.param(3999, 2, id="across a border"),
        pytest.param(100, 9000, id="across all blocks"),
        pytest.param(4000, 4000, id="from border to border"),
        pytest.param(8000, 4096, id="cut by the end of the file"),
        pytest.param(10_239, 1, id="the last byte"),
        pytest.param(10_240, 4096, id="at the end"),
        pytest.param(1 << 62, 4096, id="far beyond the end"),
        pytest.param(0, 1 << 20, id="more than there is"),
        pytest.param(5, 0, id="nothing"),
    ],
)
def test_a_read_has_the_bytes_of_the_file_and_no_fewer(published: Tables, offset: int, size: int) -> None:
    answered = published.kernel.ask(Opcode.READ, read_body(HANDLE, offset, size))

    assert (answered.error, answered.body) == (0, DATA[offset : offset + size])


def test_a_read_into_a_gap_comes_to_python_whole(published: Tables) -> None:
    published.answers.retract_block(CONTENT, 4000)

    assert published.kernel.ask(Opcode.READ, read_body(HANDLE, 3000, 2000)).error == PYTHON
    assert published.kernel.ask(Opcode.READ, read_body(HANDLE, 3000, 1000)).body == DATA[3000:4000]


def test_a_read_of_another_handle_comes_to_python(published: Tables) -> None:
    assert published.kernel.ask(Opcode.READ, read_body(HANDLE + 1, 0, 10)).error == PYTHON


def test_a_file_whose_blocks_are_not_there_comes_to_python(tables: Tables) -> None:
    tables.answers.publish_file(HANDLE, CONTENT, Bytes(10))

    assert tables.kernel.ask(Opcode.READ, read_body(HANDLE, 0, 10)).error == PYTHON


def test_blocks_are_shared_by_the_handles_of_a_version(published: Tables) -> None:
    other = FileHandle(6)
    published.answers.publish_file(other, CONTENT, Bytes(len(DATA)))

    assert published.kernel.ask(Opcode.READ, read_body(other, 0, 10)).body == DATA[:10]


@pytest.mark.parametrize(("start", "length"), [(0, 10), (3999, 2), (7000, 4096), (0, 20_000)])
def test_blocks_do_not_overlap(published: Tables, start: int, length: int) -> None:
    assert not published.answers.publish_block(CONTENT, start, bytes(length))


def test_a_withdrawn_file_comes_to_python(published: Tables) -> None:
    assert published.answers.withdraw_file(HANDLE) == 0

    assert published.kernel.ask(Opcode.READ, read_body(HANDLE, 0, 10)).error == PYTHON


def test_the_memory_of_a_retracted_block_is_let_go_of(tables: Tables) -> None:
    memory = bytearray(4096)
    tables.answers.publish_block(CONTENT, 0, memory)
    with pytest.raises(BufferError):
        memory.extend(b"x")

    tables.answers.retract_block(CONTENT, 0)

    memory.extend(b"x")
    assert tables.answers.statistics().block_bytes == 0


def test_all_blocks_of_a_version_are_retracted(published: Tables) -> None:
    published.answers.retract_content(CONTENT)

    assert published.kernel.ask(Opcode.READ, read_body(HANDLE, 0, 10)).error == PYTHON
    left = published.answers.statistics()
    assert (left.blocks, left.block_bytes) == (0, 0)


def test_a_block_is_never_read_after_its_memory_was_given_back() -> None:
    """A block is taken back, its memory filled with other bytes and published again, while threads read it."""
    tables = Tables(threads=4)
    size = 1 << 16
    memory = bytearray(b"a" * size)
    tables.answers.publish_file(HANDLE, CONTENT, Bytes(size))
    over = threading.Event()

    def recycle() -> None:
        turn = 0
        while not over.is_set():
            tables.answers.publish_block(CONTENT, 0, memory)
            tables.answers.retract_block(CONTENT, 0)
            turn += 1
            memory[:] = bytes([ord("a") + turn % 20]) * size

    recycling = threading.Thread(target=recycle)
    recycling.start()
    mixed = answered_here = 0
    try:
        for _ in range(3000):
            answered = tables.kernel.ask(Opcode.READ, read_body(HANDLE, 0, size))
            if answered.error == 0:
                answered_here += 1
                mixed += len(answered.body) != size or answered.body.count(answered.body[:1]) != size
    finally:
        over.set()
        recycling.join()
        tables.close()

    assert answered_here > 0
    assert mixed == 0


def test_a_read_beyond_a_mark_is_told_once(published: Tables) -> None:
    published.answers.tell_at(HANDLE, 5000)

    published.kernel.ask(Opcode.READ, read_body(HANDLE, 0, 5000))
    assert published.answers.take_told(Seconds(0.0)) == []
    published.kernel.ask(Opcode.READ, read_body(HANDLE, 4000, 2000))
    published.kernel.ask(Opcode.READ, read_body(HANDLE, 6000, 2000))

    assert published.answers.take_told(Seconds(20.0)) == [(HANDLE, 4000, 6000)]
    assert published.answers.take_told(Seconds(0.0)) == []


def test_who_waits_for_a_mark_is_let_go_at_the_end(tables: Tables) -> None:
    told: list[object] = []
    waiting = threading.Thread(target=lambda: told.append(tables.answers.take_told(Seconds(60.0))))
    waiting.start()

    tables.answers.close()

    waiting.join(20)
    assert told == [[]]


# --- opens ---


@pytest.fixture
def openable(published: Tables) -> Tables:
    published.answers.publish_inode(attributes(FILE, len(DATA)), believed=LONG, told=LONG)
    published.answers.publish_open(FILE, HANDLE, keep_cache=True, believed=LONG)
    return published


def test_an_open_for_reading_gets_the_shared_handle(openable: Tables) -> None:
    answered = openable.kernel.ask(Opcode.OPEN, open_body(os.O_RDONLY), node=FILE)

    handle, flags = struct.unpack("<QIxxxx", answered.body)
    assert (handle, flags) == (HANDLE, OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH)


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY | os.O_DIRECT])
def test_other_opens_come_to_python(openable: Tables, flags: int) -> None:
    assert openable.kernel.ask(Opcode.OPEN, open_body(flags), node=FILE).error == PYTHON


def test_opens_are_counted_and_released_here(openable: Tables) -> None:
    for _ in range(2):
        openable.kernel.ask(Opcode.OPEN, open_body(os.O_RDONLY), node=FILE)
    openable.kernel.ask(Opcode.RELEASE, release_body(HANDLE))

    assert openable.answers.statistics().opens == 1
    assert openable.brought == []


def test_opens_that_are_left_are_moved_to_who_withdraws_the_file(openable: Tables) -> None:
    openable.kernel.ask(Opcode.OPEN, open_body(os.O_RDONLY), node=FILE)
    openable.answers.retract_open(FILE)

    assert openable.kernel.ask(Opcode.OPEN, open_body(os.O_RDONLY), node=FILE).error == PYTHON
    assert openable.answers.withdraw_file(HANDLE) == 1
    assert openable.kernel.ask(Opcode.RELEASE, release_body(HANDLE)).error == PYTHON


def test_a_release_of_an_open_that_python_answered_comes_to_python(openable: Tables) -> None:
    assert openable.kernel.ask(Opcode.RELEASE, release_body(HANDLE)).error == PYTHON


def test_an_open_of_changed_attributes_comes_to_python(openable: Tables) -> None:
    openable.answers.retract_inode(FILE)

    assert openable.kernel.ask(Opcode.OPEN, open_body(os.O_RDONLY), node=FILE).error == PYTHON


def test_a_flush_of_what_is_read_is_answered(openable: Tables) -> None:
    assert openable.kernel.ask(Opcode.FLUSH, struct.pack("<QxxxxxxxxQ", HANDLE, 0)).error == 0
    assert openable.brought == []
