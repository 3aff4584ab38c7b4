"""Listings that are asked for ahead; csi/fs/walks.py, csi/fs/pages.py."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from csi.data.workers import WorkerPool
from csi.fs.pages import Pages
from csi.fs.recent import RecentChanges
from csi.fs.types import ROOT_INODE, DirectoryEntry, DirectoryName, FileKind
from csi.fs.walks import MOST
from csi.volume.spec import MountArguments
from csi.volume.units import Seconds
from tests.support.filesystems import CONSISTENT, FAST, World
from tests.support.memory_store import MemoryStore
from tests.support.programs import Program


@pytest.fixture
def tree(world: World) -> World:
    """Forty directories of three files."""
    for number in range(40):
        for name in ("a", "b", "c"):
            world.store.seed(f"t/{number:02}/{name}", b"x")
    return world


def lists(world: World) -> int:
    return world.store.requests["ListObjectsV2"]


def settle(program: Program) -> None:
    """Until no listing is under way."""
    pages = program.filesystem._pages
    assert pages._workers.drain(Seconds(10.0))


@contextmanager
def top(tree: World, arguments: MountArguments = FAST) -> Iterator[tuple[Program, list[str]]]:
    """A program that holds the directory `t` open, as a walk does, and the names in it."""
    program = tree.mount(arguments)
    with program.walk("t"):
        yield program, program.list("t")


def test_a_walk_of_a_tree_costs_the_requests_of_its_directories(tree: World) -> None:
    with top(tree) as (program, names):
        before = lists(tree)
        assert [program.list(f"t/{name}") for name in names] == [["a", "b", "c"]] * 40
        settle(program)
        assert lists(tree) - before == 40
        assert program.filesystem.statistics().walks.used >= 30


def test_a_walk_that_leaves_costs_a_few_requests_more(tree: World) -> None:
    with top(tree) as (program, names):
        before = lists(tree)
        for name in (*names[:20], names[39]):
            program.list(f"t/{name}")
        settle(program)
        assert lists(tree) - before <= 21 + MOST
        assert program.filesystem.statistics().walks.waiting == 0


def test_directories_read_here_and_there_are_not_taken_for_a_walk(tree: World) -> None:
    with top(tree) as (program, names):
        before = lists(tree)
        for name in names[::-3]:
            program.list(f"t/{name}")
        settle(program)
        assert lists(tree) - before == len(names[::-3])
        assert program.filesystem.statistics().walks.fetched == 0


def test_nothing_is_fetched_ahead_where_names_are_asked_for_each_time(tree: World) -> None:
    with top(tree, CONSISTENT) as (program, names):
        for name in names:
            program.list(f"t/{name}")
        assert program.filesystem.statistics().walks.fetched == 0


def test_a_listing_fetched_ahead_does_not_hide_what_was_made_here_since(tree: World) -> None:
    with top(tree) as (program, names):
        for name in names[:6]:
            program.list(f"t/{name}")
        settle(program)
        assert program.filesystem.statistics().walks.waiting >= 2
        program.write(f"t/{names[6]}/new", b"x")
        program.unlink(f"t/{names[7]}/b")
        assert program.list(f"t/{names[6]}") == ["a", "b", "c", "new"]
        assert program.list(f"t/{names[7]}") == ["a", "c"]


def test_a_listing_fetched_ahead_too_long_ago_is_asked_for_again(tree: World) -> None:
    with top(tree) as (program, names):
        for name in names[:6]:
            program.list(f"t/{name}")
        settle(program)
        tree.store.seed(f"t/{names[6]}/other", b"x")
        assert program.list(f"t/{names[6]}") == ["a", "b", "c"]
        tree.store.seed(f"t/{names[7]}/other", b"x")
        tree.clock.advance(4.0)
        assert program.list(f"t/{names[7]}") == ["a", "b", "c", "other"]


def test_the_next_page_is_under_way_while_one_is_read() -> None:
    store = MemoryStore()
    for number in range(2_500):
        store.seed(f"d/{number:04}")
    workers = WorkerPool("list", 4)
    pages = Pages(store, itertools.count(1).__next__, lambda: 0.0, workers)
    listing = pages.following("d/", pages.ask("d/"))
    assert len(listing.next().page.objects) == 1_000
    listing.prepare()
    listing.prepare()
    assert pages._workers.drain(Seconds(10.0))
    assert store.requests["ListObjectsV2"] == 2
    assert [len(listing.next().page.objects) for _ in range(2)] == [1_000, 500]
    assert store.requests["ListObjectsV2"] == 3
    assert listing.next() is None
    workers.close(Seconds(5.0))


# --- scan: what a session that can tell names alone is given ---


@pytest.fixture
def opened(tree: World) -> Iterator[tuple[Program, int]]:
    tree.store.seed("t/file", b"x")
    program = tree.mount(FAST)
    with program.walk("t") as inode:
        handle = program.filesystem.opendir(inode)
        yield program, handle
        program.filesystem.releasedir(handle)


def test_names_alone_make_no_inodes(opened: tuple[Program, int]) -> None:
    program, handle = opened
    before = program.filesystem.statistics().inodes
    found = list(program.filesystem.scan(handle, 0, plus=False))
    assert len(found) == 41
    assert {entry.kind for entry in found} == {FileKind.FILE, FileKind.DIRECTORY}
    assert program.filesystem.statistics().inodes == before


def test_a_name_has_the_number_its_inode_will_have(opened: tuple[Program, int]) -> None:
    program, handle = opened
    found = {entry.name: entry.inode for entry in program.filesystem.scan(handle, 0, plus=False)}
    assert found[b"file"] == program.stat("t/file").inode
    assert found[b"07"] == program.stat("t/07").inode


def test_files_are_told_by_name_when_there_are_inodes_enough(
    opened: tuple[Program, int],
) -> None:
    program, handle = opened
    program.filesystem._memory.allowed_inodes = 2
    found = list(program.filesystem.scan(handle, 0, plus=True))
    told = [entry for entry in found if isinstance(entry, DirectoryEntry)]
    assert len(told) == 40  # directories always
    assert [entry.name for entry in found if isinstance(entry, DirectoryName)] == [b"file"]
    for entry in told:
        program.filesystem.forget(entry.entry.attributes.inode, 1)


def test_cookies_are_the_same_however_a_directory_is_read(opened: tuple[Program, int]) -> None:
    program, handle = opened
    names = list(program.filesystem.scan(handle, 0, plus=False))
    rest = list(program.filesystem.readdir(handle, names[20].cookie))
    assert [entry.name for entry in rest] == [entry.name for entry in names[21:]]
    for entry in rest:
        program.filesystem.forget(entry.entry.attributes.inode, 1)


def test_what_is_no_longer_remembered_counts_as_changed() -> None:
    recent = RecentChanges(most=2)
    for serial, prefix in enumerate(("a/", "b/", "a/", "c/"), start=1):
        recent.note(prefix, serial)
    assert [recent.last(prefix) for prefix in ("a/", "b/", "c/", "d/")] == [3, 2, 4, 2]
    recent.note_all(9)
    assert recent.last("a/") == 9


# --- ls -l: names are looked up while the directory is being read ---


def look_up_while_reading(program: Program) -> int:
    """As ls -l does where names are told without inodes: a LOOKUP for each, before the listing has come to its end."""
    filesystem = program.filesystem
    with program.walk("d") as inode:
        handle = filesystem.opendir(inode)
        seen = 0
        for name in filesystem.scan(handle, 0, plus=False):
            entry = filesystem.lookup_cached(inode, name.name) or filesystem.lookup(inode, name.name)
            filesystem.forget(entry.attributes.inode, 1)
            seen += 1
        filesystem.releasedir(handle)
    return seen


@pytest.mark.parametrize("most_names", [200_000, 2_000], ids=["kept", "more names than are kept"])
def test_a_name_looked_up_while_its_directory_is_read_costs_no_request(world: World, most_names: int) -> None:
    for number in range(3_500):
        world.store.seed(f"d/{number:05}")
    program = world.mount(FAST)
    program.filesystem._namespace.knowledge.listings._most = most_names
    program.stat("d")
    before = lists(world)
    assert look_up_while_reading(program) == 3_500
    assert lists(world) - before <= 4 + 1  # pages, and the directory itself


def test_a_reader_that_is_slower_than_the_timeouts_asks_by_the_page(world: World) -> None:
    for number in range(3_000):
        world.store.seed(f"d/{number:05}")
    program = world.mount(FAST)
    filesystem = program.filesystem
    with program.walk("d") as inode:
        handle = filesystem.opendir(inode)
        for number, name in enumerate(filesystem.scan(handle, 0, plus=False)):
            if number % 500 == 0:
                world.clock.advance(4.0)
            entry = filesystem.lookup_cached(inode, name.name) or filesystem.lookup(inode, name.name)
            filesystem.forget(entry.attributes.inode, 1)
        filesystem.releasedir(handle)
    assert lists(world) < 60


def test_a_name_made_elsewhere_while_a_directory_is_read_is_found(world: World) -> None:
    for number in range(1_500):
        world.store.seed(f"d/{number:05}")
    program = world.mount(FAST)
    filesystem = program.filesystem
    with program.walk("d") as inode:
        handle = filesystem.opendir(inode)
        entries = filesystem.scan(handle, 0, plus=False)
        next(entries)
        world.store.seed("d/00000x", b"new")
        entry = filesystem.lookup(inode, b"00000x")
        filesystem.forget(entry.attributes.inode, 1)
        filesystem.releasedir(handle)


def test_a_directory_that_is_being_read_is_there(world: World) -> None:
    for number in range(2_500):
        world.store.seed(f"d/{number:05}")
    program = world.mount(FAST)
    filesystem = program.filesystem
    with program.walk("d") as inode:
        handle = filesystem.opendir(inode)
        entries = filesystem.scan(handle, 0, plus=False)
        before = lists(world)
        for number, _ in enumerate(entries):
            if number in (800, 1_800):  # the next page is not under way yet, or has just been asked for
                world.clock.advance(2.0)
            if number in (1_400, 2_400):
                assert filesystem.lookup_cached(ROOT_INODE, b"d") is not None
                filesystem.forget(inode, 1)
        filesystem.releasedir(handle)
        assert lists(world) - before == 3
