"""Small files read ahead when a directory is read in the order it was listed, and only then."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable, Iterator

import pytest

from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger
from csi.fs.filesystem import Filesystem
from csi.fs.siblings import MOST_AHEAD
from csi.fs.types import ROOT_INODE
from csi.volume.spec import MountArguments, Ownership, ReadOptions, WriteOptions
from csi.volume.units import KIB, MIB, Bytes
from tests.support.engines import until
from tests.support.memory_engine import MemoryEngine
from tests.support.memory_store import MemoryStore

COUNT = 400


class Directory:
    """A listed directory of `COUNT` small files, and which of them are read ahead. `now` stands still by itself."""

    def __init__(self, *, size: int = 100, exact: bool = False) -> None:
        self.now = 1e9
        self.store = MemoryStore()
        for number in range(COUNT):
            self.store.seed(f"d/{number:04d}", bytes(size))
        self.engine = MemoryEngine(self.store)
        self.filesystem = Filesystem(
            self.store,
            self.engine,
            prefix="",
            arguments=MountArguments(random_read=exact),
            ownership=Ownership(),
            write=WriteOptions(),
            read_only=False,
            clock=lambda: self.now,
        )
        self.inode = self.filesystem.lookup(ROOT_INODE, b"d").attributes.inode
        self.list_again()

    def list_again(self) -> None:
        self.now += 3600.0
        handle = self.filesystem.opendir(self.inode)
        list(self.filesystem.readdir(handle, 0))
        self.filesystem.releasedir(handle)

    def read(self, numbers: Iterable[int], *, rest: float = 0.0) -> None:
        for number in numbers:
            self.now += rest
            inode = self.filesystem.lookup(self.inode, b"%04d" % number).attributes.inode
            handle = self.filesystem.open(inode, os.O_RDONLY).handle
            self.filesystem.read(handle, 0, 128 * KIB)
            self.filesystem.release(handle)

    @property
    def ahead(self) -> list[int]:
        return [int(version.key[2:]) for version in self.engine.prefetched]


@pytest.fixture
def directory() -> Iterator[Directory]:
    made = Directory()
    yield made
    made.filesystem.close()


def test_the_next_files_are_read_ahead_each_once(directory: Directory) -> None:
    directory.read(range(100))
    assert directory.ahead == list(range(min(directory.ahead), max(directory.ahead) + 1))
    assert 100 + MOST_AHEAD // 2 <= max(directory.ahead) < 100 + MOST_AHEAD
    assert min(directory.ahead) > 5, "not before an order is seen"


def test_never_more_than_half_of_what_was_read_is_ahead(directory: Directory) -> None:
    for number in range(40):
        directory.read([number])
        assert max(directory.ahead, default=0) <= number + (number + 1) // 2


@pytest.mark.parametrize(("rest", "most"), [(0.02, MOST_AHEAD), (0.1, 12), (1.0, 3), (60.0, 2)])
def test_no_more_is_ahead_than_will_be_read_in_a_moment(directory: Directory, rest: float, most: int) -> None:
    directory.read(range(12))  # as fast as can be, like any beginning
    for number in range(12, 40):
        directory.read([number], rest=rest)
    begun = len(directory.ahead)
    for number in range(40, 100):
        directory.read([number], rest=rest)
        assert max(directory.ahead) <= number + most
    assert begun < len(directory.ahead), "however slow he is"
    assert directory.ahead == list(range(directory.ahead[0], directory.ahead[-1] + 1))


def test_who_rests_once_is_soon_as_far_ahead_as_before(directory: Directory) -> None:
    directory.read(range(100))
    directory.read([100], rest=20.0)
    directory.read(range(101, 150))
    assert max(directory.ahead) >= 149 + MOST_AHEAD // 2


def test_a_clock_that_is_put_back_changes_nothing(directory: Directory) -> None:
    directory.read(range(100), rest=-3600.0)
    assert 100 + MOST_AHEAD // 2 <= max(directory.ahead) < 100 + MOST_AHEAD


def test_listing_again_does_not_end_the_order(directory: Directory) -> None:
    for step in range(6):
        directory.read(range(step * 60, step * 60 + 60))
        directory.list_again()
    assert directory.ahead == list(range(directory.ahead[0], directory.ahead[-1] + 1))
    assert directory.ahead[-1] >= 360


def test_the_end_of_the_directory_is_the_end(directory: Directory) -> None:
    directory.read(range(COUNT - 20, COUNT))
    assert max(directory.ahead) == COUNT - 1


def test_threads_that_share_the_order_are_one_run(directory: Directory) -> None:
    chance = random.Random(1)
    numbers = list(range(200))
    for begin in range(0, 200, 8):
        part = numbers[begin : begin + 8]
        chance.shuffle(part)
        numbers[begin : begin + 8] = part
    directory.read(numbers)
    assert len(directory.ahead) > 150
    assert len(set(directory.ahead)) == len(directory.ahead)


def test_several_readers_of_parts_share_what_is_read_ahead(directory: Directory) -> None:
    directory.read(number for step in range(50) for number in (step, 100 + step, 200 + step, 300 + step))
    for begin in range(0, 400, 100):
        ahead = [number for number in directory.ahead if begin <= number < begin + 100]
        assert begin + 50 < max(ahead) < begin + 50 + MOST_AHEAD // 4


@pytest.mark.parametrize("seed", range(5))
def test_a_shuffled_order_reads_nothing_ahead(directory: Directory, seed: int) -> None:
    numbers = list(range(COUNT))
    random.Random(seed).shuffle(numbers)
    directory.read(numbers)
    assert directory.ahead == []


def test_backwards_is_another_order(directory: Directory) -> None:
    directory.read(reversed(range(COUNT)))
    assert directory.ahead == []


def test_every_third_file_is_another_order(directory: Directory) -> None:
    directory.read(range(0, COUNT, 3))
    assert directory.ahead == []


def test_it_stops_when_the_order_ends(directory: Directory) -> None:
    directory.read(range(40))
    before = len(directory.ahead)
    directory.read([300, 100, 200, 350, 150, 250, 380, 120])
    assert len(directory.ahead) == before


def test_what_was_opened_before_is_not_read_ahead(directory: Directory) -> None:
    directory.read(range(100))
    directory.engine.prefetched.clear()
    directory.read(range(80))
    assert directory.ahead == []


def test_large_files_are_not_read_ahead() -> None:
    directory = Directory(size=1 * MIB + 1)
    directory.read(range(30))
    assert directory.ahead == []


def test_nothing_is_read_ahead_when_reads_are_exact() -> None:
    directory = Directory(exact=True)
    directory.read(range(30))
    assert directory.ahead == []


def test_nothing_is_read_ahead_of_a_store_that_answers_at_once(directory: Directory) -> None:
    directory.engine.answers_at_once = True
    directory.read(range(100))
    assert directory.ahead == []


def test_each_file_is_one_request_whether_it_was_read_ahead_or_not() -> None:
    store = MemoryStore()
    store.before = lambda operation, _key: time.sleep(0.006 if operation == "GetObject" else 0)
    for number in range(200):
        store.seed(f"d/{number:04d}", bytes([number]) * 1000)
    engine = DataEngine(store, read=ReadOptions(threads=4), write=WriteOptions(), ledger=MemoryLedger(Bytes(64 * MIB)))
    filesystem = Filesystem(
        store,
        engine,
        prefix="d/",
        arguments=MountArguments(),
        ownership=Ownership(),
        write=WriteOptions(),
        read_only=False,
    )
    listing = filesystem.opendir(ROOT_INODE)
    list(filesystem.readdir(listing, 0))
    filesystem.releasedir(listing)
    for number in range(200):
        inode = filesystem.lookup(ROOT_INODE, b"%04d" % number).attributes.inode
        handle = filesystem.open(inode, os.O_RDONLY).handle
        assert bytes(filesystem.read(handle, 0, 128 * KIB)) == bytes([number]) * 1000
        filesystem.release(handle)
    until(lambda: engine.statistics().cache.in_flight == 0)
    assert engine.statistics().cache.joined > 0, "some were read ahead"
    assert sorted(store.ranges) == [(f"d/{number:04d}", 0, 1000) for number in range(200)]
    filesystem.close()
    engine.close()
