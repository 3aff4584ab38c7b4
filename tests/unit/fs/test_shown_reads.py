"""Reads the kernel session may answer by itself: what is published when, and taken back before it is wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger
from csi.fs.filesystem import Filesystem
from csi.fs.published import NothingPublished
from csi.fs.types import ROOT_INODE
from csi.oss.store import Buffer
from csi.volume.spec import MountArguments, Ownership, ReadOptions, WriteOptions
from csi.volume.units import KIB, MIB, Bytes, FileHandle
from tests.support.engines import content, until
from tests.support.memory_store import MemoryStore


class Tables(NothingPublished):
    """Keeps what is published, as a session would, and answers reads from it."""

    def __init__(self) -> None:
        self.files: dict[int, tuple[int, int]] = {}
        self.blocks: dict[tuple[int, int], Buffer] = {}
        self.notices: dict[int, int] = {}
        self.versions: dict[int, tuple[bytes, str]] = {}
        self.fetching = False

    @property
    def fetches(self) -> bool:
        return self.fetching

    def publish_plan(self, *_arguments: object, **_named: object) -> bool:
        return False

    def publish_version(self, handle: FileHandle, key: bytes, etag: str) -> bool:
        assert handle in self.files
        assert handle not in self.versions, "published twice"
        self.versions[handle] = key, etag
        return True

    def retract_version(self, handle: FileHandle) -> None:
        del self.versions[handle]

    def publish_file(self, handle: FileHandle, content: int, size: Bytes) -> bool:
        self.files[handle] = (content, size)
        return True

    def withdraw_file(self, handle: FileHandle) -> int:
        self.files.pop(handle, None)
        self.notices.pop(handle, None)
        self.versions.pop(handle, None)
        return 0

    def publish_block(self, content: int, start: int, data: Buffer) -> bool:
        assert (content, start) not in self.blocks, "published twice"
        self.blocks[content, start] = data
        return True

    def retract_block(self, content: int, start: int) -> None:
        del self.blocks[content, start]

    def retract_content(self, content: int) -> None:
        for key in [key for key in self.blocks if key[0] == content]:
            del self.blocks[key]

    def tell_at(self, handle: FileHandle, offset: int) -> None:
        self.notices[handle] = offset

    def read(self, handle: int, offset: int, size: int) -> bytes | None:
        if handle not in self.files:
            return None
        content_number, length = self.files[handle]
        end = min(offset + size, length)
        for (number, start), data in self.blocks.items():
            if number == content_number and start <= offset and end <= start + len(data):
                return bytes(data[offset - start : end - start])
        return None


class Mount:
    """A filesystem whose session answers by itself what it can."""

    def __init__(self, *, fetching: bool = False) -> None:
        self.store = MemoryStore()
        self.tables = Tables()
        self.tables.fetching = fetching
        self.engine = DataEngine(
            self.store,
            read=ReadOptions(threads=4),
            write=WriteOptions(),
            ledger=MemoryLedger(Bytes(64 * MIB)),
            published=self.tables,
        )
        self.filesystem = Filesystem(
            self.store,
            self.engine,
            prefix="",
            arguments=MountArguments(),
            ownership=Ownership(),
            write=WriteOptions(),
            read_only=False,
            published=self.tables,
        )
        self.asked = 0

    def open(self, name: bytes, flags: int = os.O_RDONLY) -> FileHandle:
        entry = self.filesystem.lookup(ROOT_INODE, name)
        return self.filesystem.open(entry.attributes.inode, flags).handle

    def read(self, handle: FileHandle, offset: int, size: int) -> bytes:
        found = self.tables.read(handle, offset, size)
        if found is None:
            self.asked += 1
            return bytes(self.filesystem.read(handle, offset, size))
        notice = self.tables.notices.get(handle)
        if notice is not None and offset + size > notice:
            del self.tables.notices[handle]
            self.filesystem.read_reached(handle, offset, offset + size)
        return found

    def settle(self) -> None:
        until(lambda: self.engine.statistics().cache.in_flight == 0)

    def close(self) -> None:
        self.filesystem.close()
        self.engine.close()


@pytest.fixture
def mount() -> Iterator[Mount]:
    yield from clean_mount()


@pytest.fixture
def fetching() -> Iterator[Mount]:
    """One whose session makes requests by itself."""
    yield from clean_mount(fetching=True)


def clean_mount(*, fetching: bool = False) -> Iterator[Mount]:
    made = Mount(fetching=fetching)
    yield made
    made.close()
    assert made.tables.files == {}
    assert made.tables.blocks == {}


def scatter(mount: Mount, handle: FileHandle, seed: int = 5) -> None:
    for place in random.Random(seed).sample(range(12 * MIB, 23 * MIB, 64 * KIB), 20):
        mount.read(handle, place, 4 * KIB)


def test_a_file_read_from_start_to_end_is_answered_from_blocks_once_they_are_ahead(mount: Mount) -> None:
    data = content(24 * MIB)
    mount.store.seed("large", data)
    handle = mount.open(b"large")
    for offset in range(0, len(data), 128 * KIB):
        assert mount.read(handle, offset, 128 * KIB) == data[offset : offset + 128 * KIB]
        mount.settle()
    assert mount.asked < 8, "the rest came from what was published"
    ranges = sorted((start, length) for _, start, length in mount.store.ranges)
    assert sum(length for _, length in ranges) == len(data), "each byte was fetched once"
    assert max(length for _, length in ranges) == 4 * MIB, "and in as large requests as ever"


def test_a_small_file_read_at_once_is_not_published(mount: Mount) -> None:
    mount.store.seed("small", content(100 * KIB))
    handle = mount.open(b"small")
    assert len(mount.read(handle, 0, 128 * KIB)) == 100 * KIB
    assert mount.tables.files == {}
    assert mount.tables.blocks == {}


def test_the_rest_of_a_small_file_is_published_when_its_first_bytes_were_read(mount: Mount) -> None:
    data = content(300 * KIB)
    mount.store.seed("small", data)
    handle = mount.open(b"small")
    for offset in range(0, 300 * KIB, 100 * KIB):
        assert mount.read(handle, offset, 100 * KIB) == data[offset : offset + 100 * KIB]
    assert mount.asked == 1


def test_random_reads_are_not_published(mount: Mount) -> None:
    mount.store.seed("large", content(24 * MIB))
    scatter(mount, mount.open(b"large"))
    assert mount.tables.files == {}


def test_the_version_of_a_file_read_at_random_places_is_published_to_a_session_that_can_ask_for_it(
    fetching: Mount,
) -> None:
    etag = fetching.store.seed("large", content(24 * MIB))
    handle = fetching.open(b"large")
    scatter(fetching, handle)
    assert fetching.tables.versions == {handle: (b"large", etag)}
    for offset in range(0, 1 * MIB, 128 * KIB):
        fetching.read(handle, offset, 128 * KIB)
    assert fetching.tables.versions == {}, "it is read from the start now"
    scatter(fetching, handle, 6)
    assert fetching.tables.versions == {handle: (b"large", etag)}
    fetching.filesystem.release(handle)
    assert fetching.tables.versions == {}


def test_a_file_that_is_replaced_is_asked_for_by_the_session_no_more(fetching: Mount) -> None:
    fetching.store.seed("large", content(24 * MIB))
    handle = fetching.open(b"large")
    scatter(fetching, handle)
    assert fetching.tables.versions
    writer = fetching.open(b"large", os.O_WRONLY | os.O_TRUNC)
    assert fetching.tables.versions == {}
    fetching.filesystem.release(writer)


def test_what_is_read_and_given_up_is_taken_back(mount: Mount) -> None:
    mount.store.seed("large", content(24 * MIB))
    handle = mount.open(b"large")
    for offset in range(0, 20 * MIB, 128 * KIB):
        mount.read(handle, offset, 128 * KIB)
        mount.settle()
        held = sum(len(data) for data in mount.tables.blocks.values())
        assert held <= mount.engine.statistics().buffers.lent


def test_closing_takes_everything_back(mount: Mount) -> None:
    mount.store.seed("large", content(24 * MIB))
    handle = mount.open(b"large")
    for offset in range(0, 4 * MIB, 128 * KIB):
        mount.read(handle, offset, 128 * KIB)
    assert mount.tables.files
    mount.settle()
    mount.filesystem.release(handle)
    assert mount.tables.files == {}
    assert mount.tables.blocks == {}


def test_two_handles_share_published_blocks_until_the_last_is_closed(mount: Mount) -> None:
    mount.store.seed("large", content(24 * MIB))
    first, second = mount.open(b"large"), mount.open(b"large")
    for handle in (first, second):
        for offset in range(0, 4 * MIB, 128 * KIB):
            mount.read(handle, offset, 128 * KIB)
    mount.settle()
    mount.filesystem.release(first)
    assert set(mount.tables.files) == {second}
    assert mount.tables.blocks


def test_a_file_that_is_being_written_is_not_answered_from_blocks(mount: Mount) -> None:
    mount.store.seed("large", content(24 * MIB))
    handle = mount.open(b"large")
    for offset in range(0, 4 * MIB, 128 * KIB):
        mount.read(handle, offset, 128 * KIB)
    assert mount.tables.files
    writer = mount.open(b"large", os.O_WRONLY | os.O_TRUNC)
    assert mount.tables.files == {}
    mount.filesystem.release(writer)


def test_a_handle_that_may_write_is_never_answered_from_blocks(mount: Mount) -> None:
    mount.store.seed("large", content(24 * MIB))
    handle = mount.open(b"large", os.O_RDWR)
    for offset in range(0, 4 * MIB, 128 * KIB):
        mount.read(handle, offset, 128 * KIB)
    assert mount.tables.files == {}
