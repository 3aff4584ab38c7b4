"""Small files that are opened and read without Python: each object is asked for once, every READ is answered, and what
goes wrong in any way comes to Python with nothing lost."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from csi.data.ledger import MemoryLedger
from csi.fs.light_opens import SLOT, LightOpen, slots_in
from csi.fs.published import LIGHT, FilesShown, ListedFile, PlanLeft
from csi.fuse.protocol.bodies import Forget
from csi.fuse.protocol.constants import Opcode, OpenFlag
from csi.volume.units import MIB, Bytes, ETag, InodeNumber
from tests.support.engines import until
from tests.support.kernel_end import forget_body, open_body, read_body, release_body
from tests.support.raw_server import RawServer, raw_server
from tests.unit.fuse.native.conftest import BODY, ETAG, LONG, PYTHON, Store, Tables, couriers_to

ROOT = InodeNumber(1)
FILE = InodeNumber(7)
OTHER = InodeNumber(8)
HANDLE = LIGHT | FILE
NAMES = {FILE: b"a", OTHER: b"b"}
SHOWN = FilesShown(0o100644, 0, 0, 1, LONG, LONG, LONG, LONG, LONG)


class Volume:
    """Tables with couriers, and the store that these ask."""

    def __init__(self, tables: Tables, store: Store, server: RawServer) -> None:
        self.tables, self.kernel, self.answers = tables, tables.kernel, tables.answers
        self.store, self.server = store, server

    def publish(self, *inodes: InodeNumber, offered: bool = False, opened: bool = False) -> None:
        size = Bytes(len(BODY))
        files = [ListedFile(NAMES[inode], inode, size, 5_000_000_007, ETAG, offered, opened) for inode in inodes]
        assert self.answers.publish_files(ROOT, b"data/", files, SHOWN) == len(inodes)

    def open(self, inode: InodeNumber = FILE) -> tuple[int, int]:
        answered = self.kernel.ask(Opcode.OPEN, open_body(os.O_RDONLY), node=inode)
        assert answered.error == 0
        handle, flags = struct.unpack_from("<QI", answered.body)
        return handle, flags

    def ask_for(self, offset: int = 0, size: int = len(BODY), inode: InodeNumber = FILE) -> int:
        return self.kernel.send(Opcode.READ, read_body(LIGHT | inode, offset, size), node=inode)

    def read(self, offset: int = 0, size: int = len(BODY), inode: InodeNumber = FILE) -> bytes:
        self.ask_for(offset, size, inode)
        answered = self.kernel.receive()
        assert answered.error == 0
        return answered.body

    def release(self, inode: InodeNumber = FILE) -> None:
        assert self.kernel.ask(Opcode.RELEASE, release_body(LIGHT | inode), node=inode).error == 0

    def keys(self) -> list[bytes]:
        return [request.split()[1] for request in self.server.requests]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def volume(tables: Tables, store: Store) -> Iterator[Volume]:
    with ExitStack() as stack:
        server = stack.enter_context(raw_server(store.play))
        stack.callback(store.answering.set)
        yield stack.enter_context(with_couriers(tables, store, server, MemoryLedger(Bytes(64 * MIB))))


@contextmanager
def with_couriers(tables: Tables, store: Store, server: RawServer, ledger: MemoryLedger) -> Iterator[Volume]:
    with couriers_to(tables, server.url, ledger):
        yield Volume(tables, store, server)


def test_a_listed_file_is_opened_read_and_released_without_python(volume: Volume) -> None:
    volume.publish(FILE)

    handle, flags = volume.open()
    read = volume.read()
    volume.release()

    assert (handle, flags & OpenFlag.NOFLUSH, read) == (HANDLE, OpenFlag.NOFLUSH, BODY)
    assert volume.keys() == [b"/bucket/data/a"]
    assert volume.tables.brought == []
    assert volume.answers.statistics().opens == 0
    until(lambda: volume.answers.fetching().jobs == 0)  # a courier tidies up when its answer is out


def test_a_file_is_shown_as_the_listing_says(volume: Volume) -> None:
    volume.publish(FILE)

    body = volume.kernel.ask(Opcode.LOOKUP, b"a\0").body

    assert struct.unpack_from("<QQ", body, 40) == (FILE, len(BODY))
    assert struct.unpack_from("<QQQIIIII", body, 64) == (5, 5, 5, 7, 7, 7, 0o100644, 1)


def test_pages_are_kept_from_the_second_open_of_a_version_on(volume: Volume) -> None:
    volume.publish(FILE)
    volume.publish(OTHER, opened=True)

    flags = [volume.open()[1], volume.open()[1], volume.open(OTHER)[1]]

    assert [bool(each & OpenFlag.KEEP_CACHE) for each in flags] == [False, True, True]


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY | os.O_DIRECT])
def test_other_opens_come_to_python(volume: Volume, flags: int) -> None:
    volume.publish(FILE)

    assert volume.kernel.ask(Opcode.OPEN, open_body(flags), node=FILE).error == PYTHON


def test_reads_in_parts_are_one_request(volume: Volume) -> None:
    volume.publish(FILE)
    volume.open()

    parts = [volume.read(offset, 4096) for offset in range(0, len(BODY), 4096)]

    assert b"".join(parts) == BODY
    assert volume.read(len(BODY), 4096) == b""
    assert len(volume.keys()) == 1


def test_who_comes_while_a_request_is_under_way_waits_for_it(volume: Volume) -> None:
    volume.store.answering.clear()
    volume.publish(FILE)
    volume.open()
    first = volume.ask_for()
    assert volume.store.asked.acquire(timeout=20)
    second = volume.ask_for(100, 50)
    volume.store.answering.set()

    answered = {each.unique: each.body for each in (volume.kernel.receive(), volume.kernel.receive())}

    assert answered == {first: BODY, second: BODY[100:150]}
    assert len(volume.keys()) == 1


def test_a_file_fetched_ahead_is_not_asked_for_again(volume: Volume) -> None:
    volume.publish(FILE, OTHER)

    assert volume.answers.fetch_ahead(ROOT, [b"a", b"b", b"unknown"]) == 3
    for inode in (FILE, OTHER):
        assert volume.store.asked.acquire(timeout=20)
        volume.open(inode)
        assert volume.read(inode=inode) == BODY

    assert sorted(volume.keys()) == [b"/bucket/data/a", b"/bucket/data/b"]


def test_a_file_that_was_opened_is_not_fetched_ahead(volume: Volume) -> None:
    volume.publish(FILE, OTHER)
    volume.open()

    volume.answers.fetch_ahead(ROOT, [b"a", b"b"])
    volume.open(OTHER)

    assert volume.read(inode=OTHER) == BODY
    assert volume.keys() == [b"/bucket/data/b"]


def test_what_is_refused_comes_to_python_with_the_open(volume: Volume) -> None:
    volume.store.refusing = True
    volume.publish(FILE)
    volume.open()
    unique = volume.ask_for()

    answered = volume.kernel.receive()

    assert (answered.unique, answered.error) == (unique, PYTHON)
    assert [request.header.node for request in volume.tables.brought] == [FILE]
    assert volume.answers.withdraw_plan(FILE) == PlanLeft(1, True)


def test_a_server_that_cannot_be_reached_leaves_reads_to_python(tables: Tables) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with with_couriers(tables, Store(), RawServer(port), MemoryLedger(Bytes(64 * MIB))) as volume:
        volume.publish(FILE)
        volume.open()
        volume.ask_for()

        assert volume.kernel.receive().error == PYTHON


def test_without_memory_reads_come_to_python(tables: Tables) -> None:
    ledger = MemoryLedger(Bytes(64 * MIB))
    ledger.debit(64 * MIB)
    with with_couriers(tables, Store(), RawServer(1), ledger) as volume:
        volume.publish(FILE)
        volume.open()
        volume.ask_for()

        assert volume.kernel.receive().error == PYTHON


def test_a_connection_that_the_server_closed_is_no_failure(volume: Volume) -> None:
    volume.store.closing = True
    volume.publish(FILE, OTHER)

    for inode in (FILE, OTHER):
        volume.open(inode)
        assert volume.read(inode=inode) == BODY

    assert volume.tables.brought == []


def test_a_plan_that_is_taken_back_leaves_its_opens(volume: Volume) -> None:
    volume.publish(FILE)
    volume.open()
    volume.open()

    assert volume.answers.count_opens(FILE) == 2
    assert volume.answers.withdraw_plan(FILE) == PlanLeft(2, True)
    assert volume.answers.withdraw_plan(FILE) is None
    volume.ask_for()
    assert volume.kernel.receive().error == PYTHON
    assert volume.kernel.ask(Opcode.RELEASE, release_body(HANDLE), node=FILE).error == PYTHON
    assert volume.kernel.ask(Opcode.OPEN, open_body(os.O_RDONLY), node=FILE).error == PYTHON
    assert volume.answers.statistics().opens == 0


def test_a_read_under_way_is_answered_when_its_plan_is_taken_back(volume: Volume) -> None:
    volume.store.answering.clear()
    volume.publish(FILE)
    volume.open()
    volume.ask_for()
    assert volume.store.asked.acquire(timeout=20)

    volume.answers.withdraw_plan(FILE)
    volume.store.answering.set()

    assert volume.kernel.receive().body == BODY


def test_retracted_attributes_end_opens_but_not_reads(volume: Volume) -> None:
    volume.publish(FILE)
    volume.open()

    volume.answers.retract_inode(FILE)

    assert volume.kernel.ask(Opcode.OPEN, open_body(os.O_RDONLY), node=FILE).error == PYTHON
    assert volume.read() == BODY


def test_another_version_is_not_planned_beside_the_one_that_is_open(volume: Volume) -> None:
    volume.publish(FILE)
    volume.open()

    assert not volume.answers.publish_plan(
        FILE, b"data/a", '"other"', Bytes(len(BODY)), keeps=1, opened=False, believed=LONG
    )
    assert volume.read() == BODY


def test_an_offered_inode_is_given_back_with_the_last_forget(volume: Volume) -> None:
    volume.publish(FILE, offered=True)
    for _ in range(3):
        volume.kernel.ask(Opcode.LOOKUP, b"a\0")

    volume.kernel.send(Opcode.FORGET, forget_body(1), node=FILE)
    volume.kernel.send(Opcode.FORGET, forget_body(2), node=FILE)
    assert volume.tables.came.acquire(timeout=20)

    assert [request.body for request in volume.tables.brought] == [Forget(((FILE, 1),))]
    assert volume.answers.withdraw_inode(FILE) == 0


def test_an_offered_inode_can_be_taken_back_until_the_kernel_has_it(volume: Volume) -> None:
    volume.publish(FILE, OTHER, offered=True)
    volume.kernel.ask(Opcode.LOOKUP, b"b\0")

    assert volume.answers.reclaim_inode(FILE)
    assert not volume.answers.reclaim_inode(OTHER)
    assert volume.kernel.ask(Opcode.LOOKUP, b"a\0").error == PYTHON


def test_lookups_of_an_offered_inode_are_told_less_the_one_that_is_counted_already(volume: Volume) -> None:
    volume.publish(FILE, offered=True)
    for _ in range(3):
        volume.kernel.ask(Opcode.LOOKUP, b"a\0")

    assert volume.answers.withdraw_inode(FILE) == 2


def test_lookups_are_counted_for_their_directory(volume: Volume) -> None:
    volume.publish(FILE)
    volume.kernel.ask(Opcode.LOOKUP, b"a\0")
    volume.kernel.ask(Opcode.LOOKUP, b"a\0")

    assert [volume.answers.hits(ROOT), volume.answers.hits(FILE)] == [2, 0]


def test_who_is_interrupted_is_answered_without_the_store(volume: Volume) -> None:
    volume.store.answering.clear()
    volume.publish(FILE)
    volume.open()
    unique = volume.ask_for()
    assert volume.store.asked.acquire(timeout=20)

    volume.kernel.send(Opcode.INTERRUPT, struct.pack("<Q", unique), unique=unique | 1)
    answered = volume.kernel.receive()

    assert (answered.unique, answered.error) == (unique, errno.EINTR)
    assert volume.tables.brought == []


def test_an_interrupt_of_another_request_comes_to_python(volume: Volume) -> None:
    volume.kernel.send(Opcode.INTERRUPT, struct.pack("<Q", 4), unique=5)

    assert volume.tables.came.acquire(timeout=20)


def test_who_waits_when_it_ends_is_answered(volume: Volume) -> None:
    volume.store.answering.clear()
    volume.publish(FILE)
    volume.open()
    unique = volume.ask_for()
    assert volume.store.asked.acquire(timeout=20)

    volume.answers.stop_fetching()
    answered = volume.kernel.receive()

    assert (answered.unique, answered.error) == (unique, errno.EIO)
    assert volume.kernel.ask(Opcode.OPEN, open_body(os.O_RDONLY), node=FILE).error == PYTHON


# --- noted for a successor ---


@pytest.fixture
def notes(volume: Volume) -> Iterator[int]:
    """A file with room for one open file."""
    descriptor = os.memfd_create("notes")
    os.ftruncate(descriptor, 4096 + SLOT)
    assert volume.answers.note_opens(descriptor, 4096, SLOT)
    yield descriptor
    os.close(descriptor)


def noted(descriptor: int) -> list[LightOpen]:
    return slots_in(os.pread(descriptor, SLOT, 4096))


def opened(opens: int) -> list[LightOpen]:
    return [LightOpen(FILE, opens, b"data/a", ETag(ETAG), Bytes(len(BODY)))]


def test_an_open_is_noted_before_the_kernel_hears_of_it_and_no_more_after_its_last_release(
    volume: Volume, notes: int
) -> None:
    volume.publish(FILE)

    found = []
    for step in (volume.open, volume.open, volume.release, volume.release):
        step()
        until(lambda: sum(note.opens for note in noted(notes)) == volume.answers.statistics().opens)
        found.append(noted(notes))

    assert found == [opened(1), opened(2), opened(1), []]


def test_what_there_is_no_room_to_note_comes_to_python(volume: Volume, notes: int) -> None:
    volume.publish(FILE, OTHER)
    volume.open()

    assert volume.kernel.ask(Opcode.OPEN, open_body(os.O_RDONLY), node=OTHER).error == PYTHON
    assert not volume.answers.open_planned(OTHER)
    volume.release()
    until(lambda: noted(notes) == [])
    volume.open(OTHER)

    assert [(note.inode, note.opens) for note in noted(notes)] == [(OTHER, 1)]


def test_opens_of_a_plan_that_is_taken_back_are_noted_until_they_are_noted_elsewhere(
    volume: Volume, notes: int
) -> None:
    volume.publish(FILE)
    volume.open()
    volume.open()

    left = volume.answers.withdraw_plan(FILE)

    assert left is not None
    assert noted(notes) == opened(2)
    volume.answers.forget_noted(left.slot, left.opens)
    assert noted(notes) == []
    volume.publish(FILE)
    volume.open()
    assert noted(notes) == opened(1)
