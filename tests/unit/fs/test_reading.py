"""Which version a handle sees; csi/fs/reading.py and the cache policies of csi/fs/files.py."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from csi.errors import BadHandle, EntryExists, FileBusy, NoSuchEntry, ReadOnlyVolume, StaleFile
from csi.fs.types import ROOT_INODE, AttributeChange, Caller
from csi.volume.spec import CachePolicy, MountArguments
from csi.volume.units import Seconds
from tests.support.filesystems import CONSISTENT, FAST, READONLY, World
from tests.support.programs import APPEND, WRITE, Program


def test_a_file_is_read_as_it_is(world: World, consistent: Program) -> None:
    data = os.urandom(300_000)
    world.store.seed("dir/a", data)
    assert consistent.read("dir/a") == data


def test_reading_past_the_end_gives_nothing(world: World, consistent: Program) -> None:
    world.store.seed("a", b"hello")
    file = consistent.open("a")
    assert (file.pread(10, 5), file.pread(10, 99), file.pread(10, 3)) == (b"", b"", b"lo")
    file.close()


def test_a_reader_that_was_there_first_is_told_that_the_file_is_being_written(
    world: World, consistent: Program
) -> None:
    world.store.seed("a", b"old")
    reader = consistent.open("a")
    writer = consistent.open("a", WRITE)
    writer.write(b"new")
    with pytest.raises(FileBusy):
        reader.pread()
    writer.close()
    with pytest.raises(StaleFile):
        reader.pread()
    reader.close()


def test_a_handle_for_both_reads_what_it_wrote(consistent: Program) -> None:
    file = consistent.open("a", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    assert file.pread() == b""
    file.write(b"hello")
    assert file.pread() == b"hello"
    assert file.pread(10, 5) == b""
    file.fsync()
    assert file.pread() == b"hello"
    file.close()


def test_a_handle_that_only_writes_cannot_read(world: World, consistent: Program) -> None:
    world.store.seed("a", b"x")
    file = consistent.open("a", os.O_WRONLY)
    with pytest.raises(BadHandle):
        file.pread()
    file.close()


def test_a_reader_goes_on_when_this_mount_appends(world: World, consistent: Program) -> None:
    world.store.seed("log", b"one ")
    reader = consistent.open("log")
    assert reader.pread() == b"one "
    consistent.append("log", b"two")
    assert reader.pread() == b"one two"
    reader.close()


def test_a_reader_of_an_overwritten_object_is_told_and_a_new_open_sees_the_new_one(
    world: World, consistent: Program
) -> None:
    world.store.seed("a", b"x" * 3_000_000)
    reader = consistent.open("a")
    reader.pread(10)
    world.store.seed("a", b"y" * 3_000_000)
    with pytest.raises(StaleFile):
        reader.pread(10, 2_900_000)
    assert consistent.read("a")[:3] == b"yyy"
    with pytest.raises(StaleFile):
        reader.pread(10, 2_900_000)
    reader.close()


def test_a_reader_of_a_removed_object_is_told(world: World, consistent: Program) -> None:
    world.store.seed("a", b"x" * 3_000_000)
    reader = consistent.open("a")
    del world.store.objects["a"]
    with pytest.raises(StaleFile):
        reader.pread(10, 2_900_000)
    reader.close()
    assert not consistent.exists("a")


@pytest.mark.parametrize("newer", [b"y", b"y" * 60_000], ids=["shorter", "longer"])
def test_an_open_file_keeps_the_size_of_its_version_and_the_newer_one_gets_another_inode(
    world: World, consistent: Program, newer: bytes
) -> None:
    # the kernel has one size and one page cache for an inode
    world.store.seed("a", b"x" * 5_000)
    reader = consistent.open("a")
    assert reader.pread() == b"x" * 5_000
    world.store.seed("a", newer)
    other = consistent.open("a")
    assert other.inode != reader.inode
    assert (reader.size(), other.size()) == (5_000, len(newer))
    assert other.pread(3) == newer[:3]
    other.close()
    reader.close()
    assert consistent.read("a") == newer


def test_a_file_that_grew_by_appends_keeps_its_inode(world: World, consistent: Program) -> None:
    world.store.append("a", 0, [b"one "])
    reader = consistent.open("a")
    world.store.append("a", 4, [b"two"])
    other = consistent.open("a")
    assert other.inode == reader.inode
    assert reader.pread() == other.pread() == b"one two"
    other.close()
    reader.close()


@pytest.mark.parametrize("cache", [CachePolicy.AUTO, CachePolicy.NONE, CachePolicy.DIRECT])
def test_a_newer_version_of_a_file_the_kernel_knows_gets_another_inode(world: World, cache: CachePolicy) -> None:
    # of two answers under way the kernel may keep the size of the older one, and then end the newer version there
    program = world.mount(replace(CONSISTENT, cache=cache))
    world.store.seed("a", b"old")
    with program.walk("a") as old:
        world.store.seed("a", b"newer and longer")
        world.clock.advance(10)
        with program.walk("a") as new:
            assert new != old
            assert program.filesystem.getattr(new).attributes.size == len(b"newer and longer")
        assert program.filesystem.getattr(old).attributes.size == len(b"old")
        with pytest.raises(StaleFile):  # the kernel looks the name up again
            program.filesystem.open(old, os.O_RDONLY, Caller())


def test_opening_a_file_by_an_old_entry_finds_that_another_client_replaced_it(world: World) -> None:
    program = world.mount(CONSISTENT)
    world.store.seed("a", b"old")
    with program.walk("a") as old:
        world.store.seed("a", b"newer and longer")
        world.clock.advance(10)
        with pytest.raises(StaleFile):
            program.filesystem.open(old, os.O_RDONLY, Caller())
    assert program.read("a") == b"newer and longer"


def test_kernel_cache_keeps_the_inode_of_a_file_that_another_client_replaced(world: World) -> None:
    program = world.mount(replace(CONSISTENT, cache=CachePolicy.KERNEL))
    world.store.seed("a", b"old")
    with program.walk("a") as old:
        world.store.seed("a", b"newer")
        world.clock.advance(10)
        with program.walk("a") as new:
            assert new == old


def test_a_newer_version_of_a_file_nobody_knows_keeps_the_inode(world: World, consistent: Program) -> None:
    world.store.seed("a", b"old")
    first = consistent.open("a")
    first.close()
    world.store.seed("a", b"newer")
    second = consistent.open("a")
    assert second.inode == first.inode
    second.close()


def test_what_one_client_closes_the_next_open_sees(world: World) -> None:
    one, other = world.mount(), world.mount()
    one.write("a", b"first")
    assert other.read("a") == b"first"
    one.write("a", b"second!")
    assert other.read("a") == b"second!"
    assert other.stat("a").size == 7


def test_in_fast_mode_an_open_may_be_as_old_as_the_attribute_timeout(world: World) -> None:
    program = world.mount(FAST)
    world.store.seed("a", b"old")
    with program.walk("a"):
        assert program.read("a") == b"old"
        world.store.seed("a", b"newer")
        world.clock.advance(2.9)
        assert program.stat("a").size == 3
        world.clock.advance(0.2)
        assert program.read("a") == b"newer"


def test_after_a_reader_was_told_of_another_version_a_listing_that_is_older_is_not_believed(world: World) -> None:
    program = world.mount(replace(FAST, entry_timeout=Seconds(3.0)))
    for name in ("d/a", "d/b"):
        world.store.seed(name, b"x" * 3_000_000)
    with program.walk("d"):
        assert program.list("d") == ["a", "b"]
        reader = program.open("d/a")
        world.store.seed("d/a", b"y" * 3_000_000)
        with pytest.raises(StaleFile):
            reader.pread(10, 2_900_000)
        reader.close()
        assert program.read("d/a")[:3] == b"yyy"


def test_what_was_learned_of_a_name_is_not_forgotten_for_what_an_older_listing_told(world: World) -> None:
    program = world.mount(replace(FAST, entry_timeout=Seconds(3.0)))
    for name in ("d/a", "d/b"):
        world.store.seed(name, b"old")
    with program.walk("d"):
        assert program.list("d") == ["a", "b"]
        with program.walk("d/a") as inode:
            world.store.seed("d/a", b"newer")
            with pytest.raises(StaleFile):
                program.filesystem.open(inode, os.O_RDONLY | os.O_DIRECT, Caller())  # asks OSS
        asked = world.store.requests["ListObjectsV2"]
        assert [program.stat("d/a").size, program.stat("d/b").size] == [5, 3]
        assert world.store.requests["ListObjectsV2"] == asked


def test_a_name_that_was_in_the_way_is_there(world: World) -> None:
    program = world.mount(MountArguments(Seconds(3.0), Seconds(3.0), Seconds(3.0)))
    world.store.seed("d/a", b"old")
    with program.walk("d"):
        assert program.list("d") == ["a"]
        world.clock.advance(2)
        assert not program.exists("d/b")
        world.store.seed("d/b", b"new")
        with pytest.raises(EntryExists):
            program.mkdir("d/b")  # asks OSS
        assert program.read("d/b") == b"new"


def test_open_without_a_lookup_asks_again_when_timeouts_are_zero(world: World) -> None:
    world.store.seed("a", b"old")
    program = world.mount()
    with program.walk("a") as inode:
        first = program.filesystem.open(inode, os.O_RDONLY)
        asked = world.store.requests["ListObjectsV2"]
        second = program.filesystem.open(inode, os.O_RDONLY)
        assert world.store.requests["ListObjectsV2"] == asked + 1
        program.filesystem.release(first.handle)
        program.filesystem.release(second.handle)


def test_o_direct_asks_again_and_bypasses_the_page_cache(world: World) -> None:
    world.store.seed("a", b"old")
    program = world.mount(FAST)
    program.stat("a")
    world.store.seed("a", b"newer")
    file = program.open("a", os.O_RDONLY | os.O_DIRECT)
    assert file.opened.direct_io
    assert file.pread() == b"newer"
    file.close()


def test_after_a_listing_reading_a_small_file_is_one_get_and_no_head(world: World) -> None:
    for number in range(5):
        world.store.seed(f"dir/{number}", b"data")
    program = world.mount(FAST)
    program.stat("dir")
    with program.walk("dir") as inode:
        handle = program.filesystem.opendir(inode)
        told = list(program.filesystem.readdir(handle, 0))
        world.store.requests.clear()
        for entry in told:
            assert program.read(b"dir/" + entry.name) == b"data"
        assert world.store.requests == {"GetObject": 5}
        for entry in told:
            program.filesystem.forget(entry.entry.attributes.inode, 1)
        program.filesystem.releasedir(handle)


def test_with_all_timeouts_zero_opening_and_reading_is_one_list_and_one_get(world: World) -> None:
    world.store.seed("a", b"data")
    program = world.mount()
    program.read("a")
    assert world.store.requests == {"ListObjectsV2": 1, "GetObject": 1}


@pytest.mark.parametrize(
    ("policy", "keeps"),
    [
        (CachePolicy.AUTO, [False, True, False]),
        (CachePolicy.KERNEL, [True, True, True]),
        (CachePolicy.NONE, [False, False, False]),
        (CachePolicy.DIRECT, [False, False, False]),
    ],
)
def test_the_page_cache_is_kept_as_the_policy_says(world: World, policy: CachePolicy, keeps: list[bool]) -> None:
    world.store.seed("a", b"one")
    program = world.mount(replace(CONSISTENT, cache=policy))
    seen = []
    with program.walk("a"):
        for version in (None, None, b"two"):
            if version is not None:
                world.store.seed("a", version)
            file = program.open("a")
            seen.append(file.opened.keep_cache)
            assert file.opened.direct_io is (policy is CachePolicy.DIRECT)
            file.close()
    assert seen == keeps


def test_two_versions_of_one_second_have_different_times(world: World, consistent: Program) -> None:
    world.store.seed("a", b"one")
    first = consistent.stat("a")
    world.store.seed("a", b"two")
    second = consistent.stat("a")
    assert first.size == second.size
    assert first.mtime_ns != second.mtime_ns
    assert first.mtime_ns // 10**9 == second.mtime_ns // 10**9


@pytest.mark.parametrize("by", ["arguments", "volume"])
def test_nothing_can_be_changed_on_a_read_only_volume(world: World, by: str) -> None:
    world.store.seed("a", b"x")
    world.store.seed("dir/b", b"x")
    program = world.mount(READONLY) if by == "arguments" else world.mount(read_only=True)
    filesystem = program.filesystem
    with program.walk("a") as inode:
        for attempt in (
            lambda: filesystem.open(inode, os.O_WRONLY),
            lambda: filesystem.open(inode, os.O_RDWR),
            lambda: filesystem.setattr(inode, AttributeChange(size=0), None),
            lambda: filesystem.setattr(inode, AttributeChange(mode=0o600), None),
            lambda: filesystem.create(ROOT_INODE, b"new", 0o644, os.O_WRONLY),
            lambda: filesystem.mkdir(ROOT_INODE, b"new", 0o755),
            lambda: filesystem.symlink(ROOT_INODE, b"new", b"a"),
            lambda: filesystem.unlink(ROOT_INODE, b"a"),
            lambda: filesystem.rmdir(ROOT_INODE, b"dir"),
            lambda: filesystem.rename(ROOT_INODE, b"a", ROOT_INODE, b"b"),
            lambda: filesystem.setxattr(inode, b"user.a", b"b"),
            lambda: filesystem.removexattr(inode, b"user.a"),
            lambda: filesystem.access(inode, os.W_OK),
        ):
            with pytest.raises(ReadOnlyVolume):
                attempt()
        filesystem.access(inode, os.R_OK)
    assert program.read("a") == b"x"
    assert set(world.store.requests) <= {"ListObjectsV2", "GetObject"}


def test_an_unlinked_file_is_not_brought_back_by_its_writer(world: World, consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    file.write(b"one")
    consistent.unlink("a")
    file.write(b"two")
    assert file.size() == 6
    with pytest.raises(BadHandle):
        file.pread()
    file.close()
    assert world.store.objects == {}
    assert not consistent.exists("a")


def test_an_unlinked_appendable_file_is_not_brought_back_by_its_writer(world: World) -> None:
    program = world.mount(append=True)
    file = program.open("a", APPEND)
    file.write(b"one")
    program.unlink("a")
    file.write(b"two")
    file.close()
    assert world.store.objects == {}


def test_in_append_mode_a_reader_is_not_stale_for_what_is_pushed_while_it_asks(world: World) -> None:
    program = world.mount(append=True)
    program.write("log", b"first, ")
    reader, writer = program.open("log"), program.open("log", APPEND)
    writer.write(b"second, ")
    pushes = iter([b"third, ", b"fourth"])

    def push_meanwhile(operation: str, _key: str) -> None:
        if operation == "GetObject" and (more := next(pushes, None)) is not None:
            writer.write(more)
            writer.fsync()

    world.store.before = push_meanwhile
    assert reader.pread() == b"first, second, third, fourth"
    world.store.before = None
    for file in (reader, writer):
        file.close()


def test_in_append_mode_a_reader_is_stale_when_another_client_replaced_what_it_reads(world: World) -> None:
    program = world.mount(append=True)
    program.write("log", b"first, ")
    reader, writer = program.open("log"), program.open("log", APPEND)
    writer.write(b"second")
    writer.fsync()
    world.store.seed("log", b"by another")
    with pytest.raises(StaleFile):
        reader.pread()
    for file in (reader, writer):
        file.close()


def test_in_append_mode_what_may_grow_has_no_pages(world: World) -> None:
    program = world.mount(append=True)
    world.store.append("log", 0, [b"one"])
    world.store.seed("data", b"two")
    kernel_cache = world.mount(replace(CONSISTENT, cache=CachePolicy.KERNEL), append=True)
    reads_only = world.mount(READONLY, append=True)
    for by, path, direct in (
        (program, "log", True),
        (program, "data", False),
        (kernel_cache, "log", False),
        (reads_only, "log", False),
        (world.mount(), "log", False),
    ):
        file = by.open(path)
        assert file.opened.direct_io is direct
        assert file.pread() in (b"one", b"two")
        file.close()


def test_an_unlinked_file_is_read_for_as_long_as_its_bytes_are_at_hand(world: World, consistent: Program) -> None:
    world.store.seed("a", b"x" * 9_000_000)
    file = consistent.open("a")
    consistent.unlink("a")
    with pytest.raises(StaleFile):
        file.pread(10, 8_900_000)
    assert consistent.filesystem.getattr(file.inode).attributes.nlink == 0
    file.close()


def test_a_name_that_is_made_again_is_another_file(world: World, consistent: Program) -> None:
    world.store.seed("a", b"old")
    reader = consistent.open("a")
    consistent.unlink("a")
    consistent.write("a", b"new")
    assert consistent.stat("a").inode != reader.inode
    assert consistent.read("a") == b"new"
    reader.close()


def test_a_file_that_became_a_directory_is_another_inode(world: World, consistent: Program) -> None:
    world.store.seed("a", b"file")
    file = consistent.open("a")
    world.store.seed("a/b", b"below")
    assert consistent.list("a") == ["b"]
    assert consistent.stat("a").inode != file.inode
    with pytest.raises(StaleFile):
        consistent.filesystem.open(file.inode, os.O_RDONLY)
    file.close()


def test_a_handle_that_is_not_open_is_refused(consistent: Program) -> None:
    for call in (
        lambda: consistent.filesystem.read(77, 0, 1),
        lambda: consistent.filesystem.write(77, 0, b"x"),
        lambda: consistent.filesystem.flush(77),
        lambda: consistent.filesystem.release(77),
        lambda: consistent.filesystem.readdir(77, 0),
        lambda: consistent.filesystem.releasedir(77),
    ):
        with pytest.raises(BadHandle):
            call()


def test_open_files_are_reported(consistent: Program) -> None:
    consistent.mkdir("dir")
    file = consistent.open("dir/a", WRITE)
    file.write(b"12345")
    (report,) = consistent.filesystem.open_files()
    assert (report.path, report.writing, report.size) == ("dir/a", True, 5)
    assert consistent.filesystem.statistics().writing == 1
    file.close()
    assert consistent.filesystem.open_files() == []


def test_a_name_that_is_not_there_is_absent(consistent: Program) -> None:
    with pytest.raises(NoSuchEntry):
        consistent.open("nothing")
