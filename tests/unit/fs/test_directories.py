"""Listing, making and removing directories; csi/fs/directories.py, csi/fs/tree.py, csi/fs/metadata.py."""

from __future__ import annotations

import itertools
import os
import random
from dataclasses import replace

import pytest

from csi.errors import (
    DirectoryNotEmpty,
    EntryExists,
    InvalidOperation,
    IsADirectory,
    NameNotAllowed,
    NameTooLong,
    NoSuchEntry,
    NotADirectory,
    ServerFailure,
)
from csi.fs.directories import _KEPT
from csi.fs.types import ROOT_INODE, FileKind
from csi.volume.units import Seconds
from tests.support.filesystems import CONSISTENT, FAST, READONLY, World
from tests.support.programs import WRITE, Program


def names_from(program: Program, handle: int, cookie: int, count: int | None = None) -> list[tuple[bytes, int]]:
    found = []
    for entry in itertools.islice(program.filesystem.readdir(handle, cookie), count):
        program.filesystem.forget(entry.entry.attributes.inode, 1)
        found.append((entry.name, entry.cookie))
    return found


def test_a_directory_is_a_marker_or_anything_below_its_name(world: World, consistent: Program) -> None:
    world.store.seed("marked/")
    world.store.seed("implied/deep/file", b"x")
    assert consistent.list() == ["implied", "marked"]
    assert consistent.list("implied") == ["deep"]
    assert consistent.list("marked") == []
    assert consistent.stat("implied/deep").kind is FileKind.DIRECTORY


def test_the_volume_shows_what_is_below_its_prefix(world: World) -> None:
    world.store.seed("team/data/a", b"x")
    world.store.seed("team/data/")
    world.store.seed("team/database", b"x")
    program = world.mount(prefix="team/data/")
    assert program.list() == ["a"]
    program.mkdir("new")
    program.write("new/b", b"y")
    assert world.store.data("team/data/new/b") == b"y"


def test_an_empty_bucket_is_an_empty_directory(consistent: Program) -> None:
    assert consistent.list() == []
    assert consistent.stat("").kind is FileKind.DIRECTORY


def test_a_listing_carries_attributes_without_further_requests(world: World, consistent: Program) -> None:
    for number in range(2_500):
        world.store.seed(f"d/{number:04}", b"x" * number)
    world.store.requests.clear()
    sizes = {name: entry.attributes.size for name, entry in consistent.entries("d")}
    assert sizes == {f"{number:04}".encode(): number for number in range(2_500)}
    assert world.store.requests == {"ListObjectsV2": 1 + 3}


def test_a_directory_hides_the_file_of_its_name(world: World, consistent: Program) -> None:
    world.store.seed("both", b"file")
    world.store.seed("both/inside", b"x")
    world.store.seed("both-not", b"")
    world.store.seed("both.txt", b"")
    assert consistent.list() == ["both", "both-not", "both.txt"]
    assert consistent.stat("both").kind is FileKind.DIRECTORY
    assert len(consistent.entries()) == 3


def test_a_directory_wins_also_when_thousands_of_names_sort_before_it(world: World, consistent: Program) -> None:
    world.store.seed("both", b"file")
    for number in range(1_200):
        world.store.seed(f"both-{number}", b"")
    world.store.seed("both/inside", b"x")
    assert consistent.stat("both").kind is FileKind.DIRECTORY
    kinds = {name: entry.attributes.kind for name, entry in consistent.entries()}
    assert len(kinds) == 1_201
    assert kinds[b"both"] is FileKind.DIRECTORY


def test_a_file_is_found_when_thousands_of_names_sort_after_it(world: World, consistent: Program) -> None:
    world.store.seed("one", b"file")
    for number in range(100):
        world.store.seed(f"one-{number}", b"")
    world.store.requests.clear()
    assert consistent.stat("one").size == 4
    assert world.store.requests == {"ListObjectsV2": 2}


@pytest.mark.parametrize("key", ["d//x", "d/./x", "d/../x", "d/" + "n" * 256, "d/nul\0byte", "d/a//"])
def test_keys_that_no_file_system_can_show_are_hidden_and_keep_the_directory(
    world: World, consistent: Program, key: str
) -> None:
    world.store.seed(key, b"x")
    world.store.seed("d/seen", b"x")
    assert set(consistent.list("d")) - {"a"} == {"seen"}
    consistent.unlink("d/seen")
    with pytest.raises(DirectoryNotEmpty):
        consistent.rmdir("d")
    assert key in world.store.objects


def test_names_that_are_not_utf8_are_shown_and_read(world: World, consistent: Program) -> None:
    name = b"caf\xe9"
    world.store.seed(name.decode("utf-8", "surrogateescape"), b"x")
    assert [found for found, _ in consistent.entries()] == [name]
    assert consistent.read(name) == b"x"


@pytest.mark.parametrize("name", [b"caf\xe9", b"\\leading"])
def test_names_that_oss_cannot_hold_are_refused(consistent: Program, name: bytes) -> None:
    with pytest.raises(NameNotAllowed):
        consistent.open(name, WRITE)
    with pytest.raises(NameNotAllowed):
        consistent.mkdir(name)


@pytest.mark.parametrize("name", ["n" * 256, "é" * 128])
def test_names_over_255_bytes_are_too_long(consistent: Program, name: str) -> None:
    with pytest.raises(NameTooLong):
        consistent.stat(name)
    with pytest.raises(NameTooLong):
        consistent.filesystem.create(ROOT_INODE, name.encode(), 0o644, os.O_WRONLY)


def test_a_name_of_255_bytes_works(consistent: Program) -> None:
    consistent.write("n" * 255, b"x")
    assert consistent.read("n" * 255) == b"x"


def test_a_key_of_1023_bytes_works_and_one_more_is_too_long(consistent: Program) -> None:
    parts = ["d" * 200] * 5
    for depth in range(1, 6):
        consistent.mkdir("/".join(parts[:depth]))
    deep = "/".join(parts)
    consistent.write(f"{deep}/{'f' * 18}", b"x")
    assert consistent.read(f"{deep}/{'f' * 18}") == b"x"
    with pytest.raises(NameTooLong):
        consistent.open(f"{deep}/{'f' * 19}", WRITE)
    with pytest.raises(NameTooLong):
        consistent.mkdir(f"{deep}/{'f' * 18}x")


@pytest.mark.parametrize(
    "name", ["with space", "per%20cent", "plus+", "日本語", "new\nline", "q?x=1&y", "#", "emoji😀"]
)
def test_unusual_names_work(world: World, consistent: Program, name: str) -> None:
    consistent.write(name, b"x")
    assert consistent.list() == [name]
    assert consistent.read(name) == b"x"
    consistent.unlink(name)
    assert world.store.objects == {}


# --- positions ---


def test_reading_a_directory_in_pieces_gives_every_name_once(world: World, consistent: Program) -> None:
    expected = {f"{number}".encode() for number in range(3_000)}
    for name in expected:
        world.store.seed(f"d/{name.decode()}")
    pieces = random.Random(7)
    with consistent.walk("d") as inode:
        handle = consistent.filesystem.opendir(inode)
        seen: list[bytes] = []
        cookie = 0
        while found := names_from(consistent, handle, cookie, pieces.randint(1, 400)):
            seen.extend(name for name, _ in found)
            cookie = found[-1][1]
        consistent.filesystem.releasedir(handle)
    assert len(seen) == len(expected)
    assert set(seen) == expected


def test_rewinding_shows_what_is_new(world: World, consistent: Program) -> None:
    world.store.seed("d/one")
    with consistent.walk("d") as inode:
        handle = consistent.filesystem.opendir(inode)
        assert [name for name, _ in names_from(consistent, handle, 0)] == [b"one"]
        world.store.seed("d/two")
        assert [name for name, _ in names_from(consistent, handle, 0)] == [b"one", b"two"]
        consistent.filesystem.releasedir(handle)


def test_any_position_can_be_gone_back_to(world: World, consistent: Program) -> None:
    count = 3 * _KEPT + 50
    for number in range(count):
        world.store.seed(f"d/{number:05}")
    with consistent.walk("d") as inode:
        handle = consistent.filesystem.opendir(inode)
        everything = names_from(consistent, handle, 0)
        for index in (count - 2, count // 2, 10, 0):
            again = names_from(consistent, handle, everything[index][1])
            assert again == everything[index + 1 :]
        consistent.filesystem.releasedir(handle)


def test_a_position_survives_the_removal_of_its_name(world: World, consistent: Program) -> None:
    for number in range(10):
        world.store.seed(f"d/{number}")
    with consistent.walk("d") as inode:
        handle = consistent.filesystem.opendir(inode)
        first = names_from(consistent, handle, 0, 4)
        for name, _ in first:
            consistent.unlink(b"d/" + name)
        rest = names_from(consistent, handle, first[-1][1])
        consistent.filesystem.releasedir(handle)
    assert [name for name, _ in first + rest] == [b"%d" % number for number in range(10)]


def test_a_position_of_another_process_is_found_again(world: World) -> None:
    for number in range(100):
        world.store.seed(f"d/{number:03}")
    one, other = world.mount(), world.mount()
    with one.walk("d") as inode:
        handle = one.filesystem.opendir(inode)
        entries = names_from(one, handle, 0)
        one.filesystem.releasedir(handle)
    with other.walk("d") as inode:
        handle = other.filesystem.opendir(inode)
        assert names_from(other, handle, entries[59][1]) == entries[60:]
        other.filesystem.releasedir(handle)


def test_a_listing_that_failed_is_not_taken_for_the_end(world: World, consistent: Program) -> None:
    for number in range(2_500):
        world.store.seed(f"d/{number:04}")
    with consistent.walk("d") as inode:
        handle = consistent.filesystem.opendir(inode)
        first = names_from(consistent, handle, 0, 900)
        world.store.before = lambda operation, key: (_ for _ in ()).throw(ServerFailure("busy", status=503))
        with pytest.raises(ServerFailure):
            names_from(consistent, handle, first[-1][1])  # the page that was on its way may have arrived
        world.store.before = None
        rest = names_from(consistent, handle, first[-1][1])
        consistent.filesystem.releasedir(handle)
    assert len({name for name, _ in first + rest}) == 2_500
    assert len(first + rest) == 2_500


def test_the_same_file_has_the_same_number_in_another_process(world: World) -> None:
    world.store.seed("d/a", b"x")
    one, other = world.mount(), world.mount()
    assert one.stat("d/a").inode == other.stat("d/a").inode
    assert one.stat("d").inode == other.stat("d").inode


# --- making and removing ---


def test_mkdir_writes_a_marker(world: World, consistent: Program) -> None:
    consistent.mkdir("d")
    assert list(world.store.objects) == ["d/"]
    assert consistent.list() == ["d"]


@pytest.mark.parametrize("seeded", ["d", "d/", "d/file"])
def test_mkdir_refuses_a_name_that_is_there(world: World, consistent: Program, seeded: str) -> None:
    world.store.seed(seeded)
    with pytest.raises(EntryExists):
        consistent.mkdir("d")


def test_of_two_clients_that_make_a_directory_one_is_told_it_exists(world: World, consistent: Program) -> None:
    assert not consistent.exists("d")
    world.store.seed("d/")
    with pytest.raises(EntryExists):
        consistent.filesystem.mkdir(ROOT_INODE, b"d", 0o755)
    assert consistent.exists("d")


def test_rmdir_removes_an_empty_directory(world: World, consistent: Program) -> None:
    consistent.mkdir("d")
    consistent.rmdir("d")
    assert world.store.objects == {}
    assert not consistent.exists("d")


def test_rmdir_refuses_a_directory_with_files(world: World, consistent: Program) -> None:
    world.store.seed("d/x")
    with pytest.raises(DirectoryNotEmpty):
        consistent.rmdir("d")


def test_a_marker_with_bytes_in_it_is_nothing_to_lose(world: World, consistent: Program) -> None:
    world.store.seed("d/", b"somebody's data")
    consistent.mkdir("other")
    assert consistent.list("d") == []
    with pytest.raises(DirectoryNotEmpty):
        consistent.rmdir("d")
    with pytest.raises(DirectoryNotEmpty):
        consistent.rename("other", "d")
    assert world.store.data("d/") == b"somebody's data"


def test_rmdir_refuses_a_directory_in_which_a_file_is_being_written(consistent: Program) -> None:
    consistent.mkdir("d")
    file = consistent.open("d/a", WRITE)
    with pytest.raises(DirectoryNotEmpty):
        consistent.rmdir("d")
    file.close()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda p: p.rmdir("file"), NotADirectory),
        (lambda p: p.unlink("dir"), IsADirectory),
        (lambda p: p.open("dir", os.O_RDONLY), IsADirectory),
        (lambda p: p.rmdir("nothing"), NoSuchEntry),
        (lambda p: p.unlink("nothing"), NoSuchEntry),
        (lambda p: p.stat("file/below"), NotADirectory),
        (lambda p: p.filesystem.rmdir(ROOT_INODE, b"."), InvalidOperation),
        (lambda p: p.filesystem.rmdir(ROOT_INODE, b".."), DirectoryNotEmpty),
    ],
)
def test_wrong_kinds_are_refused(world: World, consistent: Program, call, error) -> None:
    world.store.seed("file", b"x")
    world.store.seed("dir/x", b"x")
    with pytest.raises(error):
        call(consistent)


def test_a_directory_does_not_vanish_with_its_last_file(world: World, consistent: Program) -> None:
    world.store.seed("implied/only", b"x")
    consistent.unlink("implied/only")
    assert consistent.list("implied") == []
    assert list(world.store.objects) == ["implied/"]


def test_a_directory_does_not_vanish_with_its_last_directory(world: World, consistent: Program) -> None:
    world.store.seed("outer/inner/")
    consistent.rmdir("outer/inner")
    assert consistent.list("outer") == []


def test_a_directory_is_there_while_something_is_written_below_it(world: World, consistent: Program) -> None:
    world.store.seed("a/b/others", b"x")
    writer = consistent.open("a/b/ours", WRITE)
    del world.store.objects["a/b/others"]
    assert (consistent.list(), consistent.list("a"), consistent.list("a/b")) == (["a"], ["b"], ["ours"])
    with pytest.raises(DirectoryNotEmpty):
        consistent.rmdir("a")
    writer.close()
    assert list(world.store.objects) == ["a/b/ours"]


def test_the_marker_is_made_once_for_many_files(world: World, consistent: Program) -> None:
    for number in range(20):
        world.store.seed(f"d/{number}")
    with consistent.walk("d"):
        for number in range(20):
            consistent.unlink(f"d/{number}")
    assert world.store.requests["PutObject"] == 1
    assert list(world.store.objects) == ["d/"]


def test_a_removed_directory_takes_no_new_files(consistent: Program) -> None:
    consistent.mkdir("d")
    with consistent.walk("d") as inode:
        consistent.rmdir("d")
        with pytest.raises(NoSuchEntry):
            consistent.filesystem.create(inode, b"a", 0o644, os.O_WRONLY)
        with pytest.raises(NoSuchEntry):
            consistent.filesystem.mkdir(inode, b"a", 0o755)


def test_a_directory_with_only_an_unfinished_file_exists(world: World, consistent: Program) -> None:
    world.store.seed("implied/seed", b"x")
    file = consistent.open("implied/new", WRITE)
    del world.store.objects["implied/seed"]
    assert consistent.list("implied") == ["new"]
    file.close()
    assert list(world.store.objects) == ["implied/new"]


# --- knowledge and its age ---


def test_changes_of_other_clients_are_seen_at_once_when_timeouts_are_zero(world: World, consistent: Program) -> None:
    world.store.seed("a", b"one")
    assert consistent.stat("a").size == 3
    world.store.seed("a", b"three")
    assert consistent.stat("a").size == 5
    del world.store.objects["a"]
    assert not consistent.exists("a")
    world.store.seed("a", b"")
    assert consistent.stat("a").size == 0


def test_a_fresh_answer_is_not_asked_for_twice(world: World) -> None:
    world.store.seed("a", b"x")
    program = world.mount(FAST)
    with program.walk("a") as inode:
        for _ in range(5):
            program.stat("a")
            assert program.filesystem.getattr_cached(inode) is not None
    assert world.store.requests == {"ListObjectsV2": 1}


@pytest.mark.parametrize(("entry_timeout", "told"), [(0.0, 1.5), (2.0, 1.5), (5.0, 3.5)])
def test_user_space_and_kernel_together_keep_the_timeout(world: World, entry_timeout: float, told: float) -> None:
    """That a name is there is believed for the larger of the two, also by the kernel."""
    world.store.seed("a", b"x")
    program = world.mount(replace(FAST, entry_timeout=Seconds(entry_timeout)))
    with program.walk("a"):
        world.clock.advance(1.5)
        entry = program.filesystem.lookup(ROOT_INODE, b"a")
        program.filesystem.forget(entry.attributes.inode, 1)
    assert (entry.attr_timeout, entry.entry_timeout) == (1.5, told)


def test_where_nothing_is_believed_the_kernel_believes_no_name(world: World) -> None:
    world.store.seed("a", b"x")
    program = world.mount(CONSISTENT)
    with program.walk("a") as inode:
        entry = program.filesystem.getattr(inode)
    assert (entry.attr_timeout, entry.entry_timeout) == (0.0, 0.0)


def test_absence_is_remembered_for_the_negative_timeout(world: World) -> None:
    program = world.mount(replace(CONSISTENT, negative_timeout=Seconds(10.0)))
    assert not program.exists("a")
    world.store.seed("a", b"x")
    world.clock.advance(9)
    assert not program.exists("a")
    world.clock.advance(2)
    assert program.exists("a")


@pytest.mark.parametrize("listed", ["with their attributes", "by name alone"])
def test_a_name_that_was_listed_since_is_not_taken_to_be_absent(world: World, listed: str) -> None:
    program = world.mount(replace(CONSISTENT, negative_timeout=Seconds(10.0)))
    assert not program.exists("a")
    world.store.seed("a", b"x")
    if listed == "by name alone":
        handle = program.filesystem.opendir(ROOT_INODE)
        names = [entry.name for entry in program.filesystem.scan(handle, 0, plus=False)]
        program.filesystem.releasedir(handle)
    else:
        names = [name for name, _ in program.entries()]
    assert names == [b"a"]
    assert program.exists("a")


def test_a_kernel_is_told_how_old_an_absence_and_a_listing_are(world: World) -> None:
    ten = Seconds(10.0)
    program = world.mount(replace(CONSISTENT, entry_timeout=ten, negative_timeout=ten))
    filesystem = program.filesystem
    program.list()
    world.clock.advance(8)
    handle = filesystem.opendir(ROOT_INODE)
    unread = filesystem.listing_age(handle)
    list(filesystem.readdir(handle, 0))
    read = filesystem.listing_age(handle)
    filesystem.releasedir(handle)
    with pytest.raises(NoSuchEntry) as known:
        filesystem.lookup(ROOT_INODE, b"a")
    world.clock.advance(8)
    with pytest.raises(NoSuchEntry) as asked:
        filesystem.lookup(ROOT_INODE, b"a")
    assert (unread, read, known.value.age, asked.value.age) == (0.0, 8.0, 8.0, 0.0)


def test_a_listed_directory_answers_for_names_that_are_not_there(world: World) -> None:
    world.store.seed("d/a", b"x")
    program = world.mount(READONLY)
    with program.walk("d"):
        program.list("d")
        world.store.requests.clear()
        assert not program.exists("d/b")
        assert program.stat("d/a").size == 1
        assert program.list("d") == ["a"]
    assert world.store.requests == {}


def test_our_own_changes_are_seen_at_once_whatever_the_timeouts(world: World) -> None:
    minute = Seconds(60.0)
    program = world.mount(replace(CONSISTENT, attr_timeout=minute, entry_timeout=minute, negative_timeout=minute))
    program.mkdir("d")
    assert program.list("d") == []
    assert not program.exists("d/a")
    program.write("d/a", b"one")
    assert program.list("d") == ["a"]
    assert program.read("d/a") == b"one"
    program.write("d/a", b"three")
    assert program.stat("d/a").size == 5
    program.rename("d/a", "d/b")
    assert (program.list("d"), program.exists("d/a")) == (["b"], False)
    program.unlink("d/b")
    assert (program.list("d"), program.exists("d/b")) == ([], False)
    program.rmdir("d")
    assert not program.exists("d")


def test_a_slow_listing_does_not_bring_back_a_removed_file(world: World) -> None:
    world.store.seed("d/a", b"x")
    world.store.seed("d/b", b"x")
    program = world.mount(FAST)
    with program.walk("d") as inode:
        handle = program.filesystem.opendir(inode)
        entries = program.filesystem.readdir(handle, 0)
        first = next(entries)  # the page with both names is here
        program.unlink("d/b")
        rest = list(entries)
        program.filesystem.forget(first.entry.attributes.inode, 1)
        program.filesystem.releasedir(handle)
        assert rest == []
        assert not program.exists("d/b")


def test_the_time_of_a_directory_moves_when_a_name_in_it_is_made_or_removed(world: World, consistent: Program) -> None:
    consistent.mkdir("d")
    with consistent.walk("d"):
        before = consistent.stat("d").mtime_ns
        world.clock.advance(5)
        consistent.write("d/a", b"")
        made = consistent.stat("d").mtime_ns
        world.clock.advance(5)
        consistent.unlink("d/a")
        removed = consistent.stat("d").mtime_ns
    assert (made - before, removed - made) == (5_000_000_000, 5_000_000_000)


def test_a_directory_that_was_just_made_has_the_time_of_that(world: World, consistent: Program) -> None:
    world.clock.advance(100)
    made = consistent.filesystem.mkdir(ROOT_INODE, b"d", 0o755).attributes
    found = consistent.stat("d")
    consistent.filesystem.forget(made.inode, 1)
    assert made == found
    assert (found.mtime_ns // 10**9, found.ctime_ns // 10**9) == (int(world.clock.now), int(world.clock.now))


def test_what_the_kernel_forgets_is_not_kept(world: World, consistent: Program) -> None:
    for number in range(50):
        world.store.seed(f"d/e/{number}")
    consistent.list("d/e")
    assert consistent.filesystem.statistics().inodes == 1


def test_there_is_always_room(consistent: Program) -> None:
    statistics = consistent.filesystem.statfs()
    assert statistics.blocks_free * statistics.block_size >= 1 << 50
    assert statistics.name_max == 255
