"""READDIR and READDIRPLUS: whole listings whatever the page, counted once, and given back when they do not arrive."""

from __future__ import annotations

import errno
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from csi.fs.types import DirectoryEntry, DirectoryName, FileKind
from csi.fuse.own.directories import KeptListings
from csi.fuse.protocol.constants import Opcode, OpenFlag
from csi.volume.units import FileHandle, InodeNumber, Seconds
from tests.support.kernel_end import open_body, read_body, release_body
from tests.support.tree_filesystem import TreeFilesystem
from tests.unit.fuse.own.conftest import Served

NAMES = [b"entry-%03d" % number for number in range(300)]


class Scanned(TreeFilesystem):
    """Tells of directories and of names only where it may."""

    def scan(self, handle: FileHandle, cookie: int, *, plus: bool) -> Iterator[DirectoryEntry | DirectoryName]:
        for entry in self.readdir(handle, cookie):
            if plus:
                yield entry
            else:
                inode = entry.entry.attributes.inode
                self.forget(inode, 1)
                yield DirectoryName(entry.name, inode, FileKind.FILE, entry.cookie)


@dataclass
class Record:
    name: bytes
    inode: int
    cookie: int
    kind: int
    told: int


def records(page: bytes, *, plus: bool) -> list[Record]:
    found = []
    at = 0
    while at < len(page):
        told = struct.unpack_from("<Q", page, at)[0] if plus else 0
        at += 128 if plus else 0
        inode, cookie, length, kind = struct.unpack_from("<QQII", page, at)
        found.append(Record(page[at + 24 : at + 24 + length], inode, cookie, kind << 12, told))
        at += 24 + length + -length % 8
    assert at == len(page)
    return found


@pytest.fixture(params=[TreeFilesystem, Scanned], ids=["readdir", "scan"])
def filesystem(request: pytest.FixtureRequest) -> TreeFilesystem:
    made: TreeFilesystem = request.param()
    for name in NAMES:
        made.add(name.decode(), b"")
    return made


@pytest.fixture
def served(filesystem: TreeFilesystem) -> Iterator[Served]:
    made = Served(filesystem)
    yield made
    made.lanes.close()


def open_root(served: Served) -> int:
    return int(struct.unpack("<QIxxxx", served.ask(Opcode.OPENDIR, open_body(0)).body)[0])


def read_all(served: Served, handle: int, size: int, *, plus: bool) -> list[Record]:
    opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
    found: list[Record] = []
    cookie = 0
    while page := records(served.ask(opcode, read_body(handle, cookie, size)).body, plus=plus):
        found += page
        cookie = page[-1].cookie
    return found


@pytest.mark.parametrize("size", [512, 4096, 1 << 20])
@pytest.mark.parametrize("plus", [False, True])
def test_every_name_is_listed_once(served: Served, filesystem: TreeFilesystem, size: int, plus: bool) -> None:
    found = read_all(served, open_root(served), size, plus=plus)

    assert [record.name for record in found] == [b".", b"..", *NAMES]
    assert {stat.S_IFMT(record.kind) for record in found[2:]} == {stat.S_IFREG}
    assert sum(filesystem.lookups.values()) == (len(NAMES) if plus else 0)


def test_dots_are_told_of_by_number_alone(served: Served) -> None:
    dots = read_all(served, open_root(served), 4096, plus=True)[:2]

    assert [(dot.name, dot.told, dot.kind) for dot in dots] == [(b".", 0, stat.S_IFDIR), (b"..", 0, stat.S_IFDIR)]


def test_the_kernel_may_change_its_mind_between_pages(served: Served, filesystem: TreeFilesystem) -> None:
    handle = open_root(served)
    first = records(served.ask(Opcode.READDIRPLUS, read_body(handle, 0, 4096)).body, plus=True)

    second = records(served.ask(Opcode.READDIR, read_body(handle, first[-1].cookie, 1 << 20)).body, plus=False)

    assert [record.name for record in first + second] == [b".", b"..", *NAMES]
    assert sum(filesystem.lookups.values()) == len(first) - 2


def test_what_a_page_has_no_room_for_is_given_back_at_the_end(served: Served, filesystem: TreeFilesystem) -> None:
    handle = open_root(served)
    page = records(served.ask(Opcode.READDIRPLUS, read_body(handle, 0, 4096)).body, plus=True)

    served.ask(Opcode.RELEASEDIR, release_body(handle))

    assert sum(filesystem.lookups.values()) == len(page) - 2


def test_a_page_that_nobody_gets_is_given_back(served: Served, filesystem: TreeFilesystem) -> None:
    handle = open_root(served)
    unique = served.next_unique()
    served.device.gone[unique] = errno.ENOENT

    served.send(Opcode.READDIRPLUS, read_body(handle, 0, 4096))
    served.device.wait_for_refusal(unique)
    served.ask(Opcode.READDIR, read_body(handle, 0, 64))  # after it, on the same thread or behind its lock
    served.ask(Opcode.RELEASEDIR, release_body(handle))

    assert sum(filesystem.lookups.values()) == 0


def test_a_directory_that_a_predecessor_opened_is_read_on(filesystem: TreeFilesystem) -> None:
    predecessor, successor = Served(filesystem), Served(filesystem, resumed=True)
    handle = open_root(predecessor)
    first = records(predecessor.ask(Opcode.READDIR, read_body(handle, 0, 4096)).body, plus=False)
    predecessor.lanes.close()

    rest = records(successor.ask(Opcode.READDIR, read_body(handle, first[-1].cookie, 1 << 20)).body, plus=False)
    unknown = successor.ask(Opcode.READDIR, read_body(handle + 1, first[-1].cookie, 4096)).error
    closed = successor.ask(Opcode.RELEASEDIR, release_body(handle)).error
    successor.lanes.close()

    assert [record.name for record in first + rest] == [b".", b"..", *NAMES]
    assert (unknown, closed) == (errno.EBADF, 0)
    assert filesystem.handles == {}


def test_listings_are_kept_for_as_long_as_names_may_be_believed() -> None:
    now = [100.0]
    kept = KeptListings(Seconds(10.0), lambda: now[0])

    first = kept.flags(InodeNumber(1))
    kept.read(InodeNumber(1), Seconds(0.0))
    now[0] += 9
    second = kept.flags(InodeNumber(1))
    now[0] += 2
    third = kept.flags(InodeNumber(1))

    assert (first, second, third) == (
        OpenFlag.CACHE_DIR,
        OpenFlag.CACHE_DIR | OpenFlag.KEEP_CACHE,
        OpenFlag.CACHE_DIR,
    )


def test_what_was_old_when_it_was_listed_is_kept_for_less_long() -> None:
    now = [100.0]
    kept = KeptListings(Seconds(10.0), lambda: now[0])
    kept.read(InodeNumber(1), Seconds(8.0))

    now[0] += 1
    first = kept.flags(InodeNumber(1))
    now[0] += 2
    second = kept.flags(InodeNumber(1))

    assert (first, second) == (OpenFlag.CACHE_DIR | OpenFlag.KEEP_CACHE, OpenFlag.CACHE_DIR)


class Remembered(TreeFilesystem):
    """What it lists was asked for half a minute ago."""

    def listing_age(self, handle: FileHandle) -> Seconds:
        return Seconds(30.0)


@pytest.mark.parametrize(("entry_timeout", "keeps"), [(20.0, False), (60.0, True)])
def test_how_old_a_listing_is_counts_from_when_the_filesystem_asked_for_it(entry_timeout: float, keeps: bool) -> None:
    served = Served(Remembered(), entry_timeout=Seconds(entry_timeout))
    handle = open_root(served)
    served.ask(Opcode.READDIRPLUS, read_body(handle, 0, 4096))

    again = struct.unpack("<QIxxxx", served.ask(Opcode.OPENDIR, open_body(0)).body)[1]
    served.lanes.close()

    assert bool(again & OpenFlag.KEEP_CACHE) == keeps


def test_listings_are_not_kept_when_names_are_not() -> None:
    assert KeptListings(Seconds(0.0), lambda: 0.0).flags(InodeNumber(1)) == 0
