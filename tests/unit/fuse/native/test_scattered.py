"""Reads at random places of a large file: each is one request for just its bytes, answered without Python; what may be
a pattern, and what goes wrong in any way, comes to Python."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from csi.data.ledger import MemoryLedger
from csi.fuse.protocol.constants import Opcode
from csi.volume.units import KIB, MIB, Bytes, FileHandle
from tests.support.engines import until
from tests.support.kernel_end import read_body
from tests.support.raw_server import RawServer, raw_server
from tests.unit.fuse.native.conftest import ETAG, PYTHON, Store, Tables, couriers_to

HANDLE = FileHandle(5)
CONTENT = 9
DATA = random.Random(3).randbytes(4 * MIB + 1000)
PLACES = [100_000, 3_000_000, 700_000, 2_100_000]
"""None near another, no two steps alike."""


class Volume:
    def __init__(self, tables: Tables, store: Store, server: RawServer) -> None:
        self.tables, self.kernel, self.answers = tables, tables.kernel, tables.answers
        self.store, self.server = store, server

    def publish(self) -> None:
        assert self.answers.publish_file(HANDLE, CONTENT, Bytes(len(DATA)))
        assert self.answers.publish_version(HANDLE, b"data/large", ETAG)

    def ask_for(self, offset: int, size: int = 4096) -> int:
        return self.kernel.send(Opcode.READ, read_body(HANDLE, offset, size))

    def read(self, offset: int, size: int = 4096) -> bytes | None:
        """None: it came to Python."""
        unique = self.ask_for(offset, size)
        answered = self.kernel.receive()
        assert answered.unique == unique
        assert answered.error in (0, PYTHON)
        return answered.body if answered.error == 0 else None

    def ranges(self) -> list[bytes]:
        return [
            line.removeprefix(b"range: ")
            for request in self.server.requests
            for line in request.split(b"\r\n")
            if line.startswith(b"range: ")
        ]


@pytest.fixture
def store() -> Store:
    return Store(DATA)


@pytest.fixture
def volume(tables: Tables, store: Store) -> Iterator[Volume]:
    with ExitStack() as stack:
        server = stack.enter_context(raw_server(store.play))
        stack.callback(store.answering.set)
        stack.enter_context(couriers_to(tables, server.url, MemoryLedger(Bytes(64 * MIB))))
        yield Volume(tables, store, server)


def test_each_read_is_a_request_for_just_its_bytes(volume: Volume) -> None:
    volume.publish()

    found = [volume.read(place) for place in PLACES]

    assert found == [DATA[place : place + 4096] for place in PLACES]
    assert volume.ranges() == [f"bytes={place}-{place + 4095}".encode() for place in PLACES]
    assert {request.split()[1] for request in volume.server.requests} == {b"/bucket/data/large"}
    assert volume.tables.brought == []
    assert volume.answers.statistics().answered == {"read": len(PLACES)}
    until(lambda: volume.answers.fetching().jobs == 0)


def test_reads_under_way_at_the_same_time_get_their_own_bytes(volume: Volume) -> None:
    volume.store.answering.clear()
    volume.publish()
    asked = {volume.ask_for(place): place for place in PLACES}
    for _ in PLACES:
        assert volume.store.asked.acquire(timeout=20)
    volume.store.answering.set()

    answered = [volume.kernel.receive() for _ in PLACES]

    assert {each.unique: each.body for each in answered} == {
        unique: DATA[place : place + 4096] for unique, place in asked.items()
    }


def test_the_end_of_the_file_is_the_end_of_what_is_read(volume: Volume) -> None:
    volume.publish()

    assert volume.read(1_000_000) is not None
    assert volume.read(len(DATA) - 100) == DATA[-100:]
    assert volume.read(len(DATA)) == b""
    assert volume.ranges()[-1] == f"bytes={len(DATA) - 100}-{len(DATA) - 1}".encode()


def test_what_is_in_a_block_is_not_asked_for(volume: Volume) -> None:
    volume.publish()
    assert volume.answers.publish_block(CONTENT, 1 * MIB, DATA[MIB : 2 * MIB])

    assert volume.read(MIB + 5000) == DATA[MIB + 5000 : MIB + 9096]
    assert volume.read(2 * MIB - 100) == DATA[2 * MIB - 100 : 2 * MIB + 3996]
    assert len(volume.ranges()) == 1


@pytest.mark.parametrize("step", [0, 4096, 8192, -4096, 12_000])
def test_a_read_near_another_comes_to_python(volume: Volume, step: int) -> None:
    volume.publish()
    for place in PLACES:
        volume.read(place)

    assert volume.read(PLACES[1] + step) is None
    assert volume.read(PLACES[1] + 2 * step) is None, "and so does what follows it"


@pytest.mark.parametrize("differ", [0, 4096, -4096])
def test_reads_at_equal_distances_come_to_python(volume: Volume, differ: int) -> None:
    volume.publish()

    found = [volume.read(place) for place in (100_000, 300_000, 500_000 + differ, 700_000 + differ)]

    assert [one is None for one in found] == [False, False, True, True]


def test_a_large_read_comes_to_python(volume: Volume) -> None:
    volume.publish()

    assert volume.read(1_000_000, 256 * KIB) == DATA[1_000_000 : 1_000_000 + 256 * KIB]
    assert volume.read(2_000_000, 512 * KIB) is None


def test_reads_of_a_file_that_is_not_scattered_come_to_python(volume: Volume) -> None:
    volume.publish()
    assert volume.read(PLACES[0]) is not None

    volume.answers.retract_version(HANDLE)
    assert volume.read(PLACES[1]) is None
    assert volume.answers.publish_version(HANDLE, b"data/large", ETAG)
    assert volume.read(PLACES[2]) is not None
    volume.answers.withdraw_file(HANDLE)
    assert volume.read(PLACES[3]) is None


def test_a_file_withdrawn_under_a_read_leaves_it_its_answer(volume: Volume) -> None:
    volume.store.answering.clear()
    volume.publish()
    volume.ask_for(PLACES[0])
    assert volume.store.asked.acquire(timeout=20)

    volume.answers.withdraw_file(HANDLE)
    volume.store.answering.set()

    assert volume.kernel.receive().body == DATA[PLACES[0] : PLACES[0] + 4096]
    until(lambda: volume.answers.fetching().jobs == 0)


def test_another_version_comes_to_python(volume: Volume) -> None:
    assert volume.answers.publish_file(HANDLE, CONTENT, Bytes(len(DATA)))
    assert volume.answers.publish_version(HANDLE, b"data/large", '"other"')

    assert volume.read(PLACES[0]) is None


def test_what_is_refused_comes_to_python(volume: Volume) -> None:
    volume.store.refusing = True
    volume.publish()

    assert volume.read(PLACES[0]) is None
    until(lambda: volume.answers.fetching().jobs == 0)


def test_a_file_that_is_not_published_has_no_version(volume: Volume) -> None:
    assert not volume.answers.publish_version(HANDLE, b"data/large", ETAG)
    volume.answers.retract_version(HANDLE)
