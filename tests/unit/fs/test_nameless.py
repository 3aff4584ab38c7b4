"""Files that lost their name while they were open: what is written to them can be read back, and is never an object."""

from __future__ import annotations

import os

import pytest

from csi.errors import FileBusy, OperationNotSupported, PermissionDenied, StaleFile
from tests.support.filesystems import World
from tests.support.programs import APPEND, WRITE, Program

BOTH = os.O_RDWR | os.O_CREAT
NEW = BOTH | os.O_EXCL
PART = 100 * 1024
"""Of the mounts of these tests."""
ROOM = 4 << 20
"""For one of these files, on the same."""


@pytest.mark.parametrize("append", [False, True])
def test_a_temporary_file_is_read_back(world: World, append: bool) -> None:
    program = world.mount(append=append)
    file = program.open("a", NEW)
    program.unlink("a")
    assert file.size() == 0
    assert file.pwrite(b"Hello,_World!", 0) == 13
    assert (file.pread(), file.pread(5, 7), file.pread(9, 13)) == (b"Hello,_World!", b"World", b"")
    assert program.filesystem.getattr(file.inode).attributes.nlink == 0
    file.flush()
    file.fsync()
    assert file.pread() == b"Hello,_World!"
    file.close()
    assert world.store.objects == {}


def test_what_was_written_before_is_there_too(world: World, consistent: Program) -> None:
    file = consistent.open("a", NEW)
    file.write(b"before, ")
    consistent.unlink("a")
    file.write(b"after")
    assert file.pread() == b"before, after"
    file.close()
    assert world.store.objects == {}


def test_it_can_be_written_anywhere(world: World, consistent: Program) -> None:
    file = consistent.open("a", NEW)
    file.write(b"0123456789")
    consistent.unlink("a")
    file.pwrite(b"ab", 3)
    file.pwrite(b"end", 12)
    assert file.size() == 15
    assert file.pread() == b"012ab56789\0\0end"
    file.truncate(4)
    file.truncate(6)
    assert file.pread() == b"012a\0\0"
    file.truncate(0)
    assert (file.size(), file.pread()) == (0, b"")
    file.pwrite(b"again", 0)
    assert file.pread() == b"again"
    file.close()


def test_a_size_announced_before_the_name_went_is_kept(world: World, consistent: Program) -> None:
    file = consistent.open("a", NEW)
    file.write(b"ab")
    file.truncate(4)
    consistent.unlink("a")
    assert (file.size(), file.pread()) == (4, b"ab\0\0")
    file.close()


@pytest.mark.parametrize("old", [None, b"old"])
def test_those_who_opened_what_was_being_written_read_it_until_the_last_is_gone(
    world: World, consistent: Program, old: bytes | None
) -> None:
    if old is not None:
        world.store.seed("a", old)
    writer = consistent.open("a", BOTH | os.O_TRUNC)
    writer.write(b"never")
    reader, opened = consistent.open("a"), consistent.open("a")
    assert reader.pread() == b"never"
    consistent.unlink("a")
    writer.close()
    for file in (reader, opened):
        assert file.pread() == b"never"
        file.close()
    assert world.store.objects == {}


def test_what_replaces_it_by_a_rename_is_another_file(world: World, consistent: Program) -> None:
    file = consistent.open("a", NEW)
    file.write(b"never")
    consistent.write("b", b"new")
    consistent.rename("b", "a")
    file.write(b" mind")
    assert file.pread() == b"never mind"
    file.close()
    assert consistent.read("a") == b"new"


def test_who_was_there_before_reads_nothing_of_it(world: World, consistent: Program) -> None:
    world.store.seed("a", b"old")
    reader = consistent.open("a")
    writer = consistent.open("a", BOTH | os.O_TRUNC)
    writer.write(b"never")
    consistent.unlink("a")
    assert writer.pread() == b"never"
    with pytest.raises(StaleFile):
        reader.pread()
    for file in (writer, reader):
        file.close()


def test_who_read_of_another_version_that_never_was_reads_nothing_of_it(world: World, consistent: Program) -> None:
    first = consistent.open("a", BOTH | os.O_TRUNC)
    first.write(b"first")
    reader = consistent.open("a")
    assert reader.pread() == b"first"
    first.truncate(0)
    first.pwrite(b"second", 0)
    consistent.unlink("a")
    assert first.pread() == b"second"
    with pytest.raises(StaleFile):
        reader.pread()
    for file in (first, reader):
        file.close()


LITTLE, MUCH = 3_000_000, 9_000_000
"""What is fetched of an object that is removed while it is open, and what is not."""


def test_of_what_was_stored_and_is_large_only_what_is_written_after_it_is_emptied(
    world: World, consistent: Program
) -> None:
    world.store.seed("a", b"x" * MUCH)
    file, other = consistent.open("a", os.O_RDWR), consistent.open("a", os.O_RDWR)
    consistent.unlink("a")
    file.pwrite(b"more", MUCH)
    assert file.size() == MUCH + 4
    with pytest.raises(StaleFile):
        file.pread(10, MUCH - 10)
    with pytest.raises(OperationNotSupported):
        file.truncate(10)
    file.truncate(0)
    file.pwrite(b"new", 0)
    assert (file.size(), file.pread()) == (3, b"new")
    with pytest.raises(StaleFile):
        other.pread()
    other.pwrite(b"er", 3)
    assert consistent.filesystem.read(other.handle, 0, 10, for_pages=False) == b"newer"
    for each in (file, other):
        each.close()


@pytest.mark.parametrize("how", ["unlinked", "replaced"])
def test_what_was_stored_and_is_little_goes_on_for_who_has_it_open(world: World, consistent: Program, how: str) -> None:
    world.store.seed("a", b"x" * LITTLE)
    consistent.write("b", b"another")
    reader, writer = consistent.open("a"), consistent.open("a", os.O_RDWR)
    if how == "unlinked":
        consistent.unlink("a")
    else:
        consistent.rename("b", "a")
    for file in (reader, writer):
        assert file.pread(10, LITTLE - 5) == b"xxxxx"  # also for pages
    writer.pwrite(b"more", LITTLE)
    writer.pwrite(b"y", 0)
    assert writer.pread(2) == b"yx"
    assert consistent.filesystem.read(reader.handle, LITTLE, 10, for_pages=False) == b"more"
    for file in (reader, writer):
        file.close()
    assert sorted(world.store.objects) == (["b"] if how == "unlinked" else ["a"])


def test_what_was_just_written_is_read_by_who_opened_it_before_that(world: World, consistent: Program) -> None:
    """As bash does with a here-document."""
    writer = consistent.open("a", NEW)
    writer.write(b"x" * 300_000)
    reader = consistent.open("a")
    writer.close()
    consistent.unlink("a")
    assert reader.pread() == b"x" * 300_000
    reader.close()


def test_nothing_is_fetched_of_what_nobody_reads(world: World, consistent: Program) -> None:
    consistent.write("a", b"x" * 1000)
    writer, appender = consistent.open("a", os.O_RDWR), consistent.open("a", APPEND)
    writer.pwrite(b"more", 1000)
    writer.flush()
    before = world.store.requests["GetObject"]
    consistent.unlink("a")
    assert world.store.requests["GetObject"] == before
    for file in (writer, appender):
        file.release()


def test_a_removal_that_is_refused_changes_nothing_for_who_has_it_open(world: World, consistent: Program) -> None:
    world.store.seed("a", b"old")
    reader = consistent.open("a")

    def refuse(operation: str, _key: str) -> None:
        if operation == "DeleteObject":
            raise PermissionDenied("DeleteObject a: AccessDenied", status=403, key="a")

    world.store.before = refuse
    with pytest.raises(PermissionDenied):
        consistent.unlink("a")
    assert reader.pread() == b"old"
    consistent.append("a", b", new")
    assert reader.pread() == b"old, new"
    reader.close()


@pytest.mark.parametrize("new", [b"new", b"n" * MUCH])
@pytest.mark.parametrize("read_before", [True, False])
def test_who_opened_what_was_overwritten_reads_nothing_of_either_once_the_name_is_gone(
    world: World, consistent: Program, new: bytes, read_before: bool
) -> None:
    world.store.seed("a", b"old")
    reader = consistent.open("a")
    if read_before:
        assert reader.pread() == b"old"
    consistent.write("a", new)
    current = consistent.open("a")
    assert current.pread(3) == new[:3]
    consistent.unlink("a")
    with pytest.raises(StaleFile):
        reader.pread()
    if len(new) < MUCH:
        assert current.pread() == new
    for file in (reader, current):
        file.close()


@pytest.mark.parametrize("read_first", [True, False])
@pytest.mark.parametrize("append", [True, False])
@pytest.mark.parametrize("old", [b"", b"old"])
def test_who_opened_what_was_continued_reads_all_of_it_once_the_name_is_gone(
    world: World, append: bool, read_first: bool, old: bytes
) -> None:
    program = world.mount(append=append)
    program.write("a", old)
    reader = program.open("a")
    program.append("a", b"more")
    if read_first:
        assert reader.pread() == old + b"more"
    program.unlink("a")
    assert reader.size() == len(old) + 4
    assert reader.pread() == old + b"more"
    reader.close()


def test_a_file_without_a_name_that_is_extended_first_is_read_by_who_does_it(world: World, consistent: Program) -> None:
    consistent.write("a", b"")
    file = consistent.open("a", os.O_RDWR)
    consistent.unlink("a")
    file.truncate(10)
    assert consistent.filesystem.read(file.handle, 0, 4096, for_pages=True) == bytes(10)
    file.pwrite(b"abc", 0)
    assert consistent.filesystem.read(file.handle, 0, 4096, for_pages=True) == b"abc" + bytes(7)
    file.close()


def test_what_is_too_much_is_dropped_and_reading_says_so(real: World, program: Program) -> None:
    file = program.open("a", NEW)
    program.unlink("a")
    file.write(b"x" * ROOM)
    assert file.pread(1, ROOM - 1) == b"x"
    file.write(b"y" * PART)
    assert file.size() == ROOM + PART
    with pytest.raises(StaleFile, match=r"removed.*not in memory"):
        file.pread()
    file.truncate(0)
    file.pwrite(b"more", 0)
    assert file.pread() == b"more"
    file.close()
    assert real.store.objects == {}


@pytest.mark.parametrize(("flags", "stays"), [(NEW, True), (WRITE, False)])
def test_of_what_was_sent_all_is_there_or_nothing(real: World, program: Program, flags: int, stays: bool) -> None:
    file = program.open("a", flags)
    file.write(b"x" * 3 * PART)
    reader = program.open("a") if stays else None
    program.unlink("a")
    if reader is not None:
        assert reader.pread() == file.pread() == b"x" * 3 * PART
        reader.close()
    file.write(b"more")
    assert file.size() == 3 * PART + 4
    file.close()
    assert real.store.objects == {}


@pytest.mark.parametrize("both", [os.O_RDWR, os.O_RDWR | os.O_APPEND])
def test_pages_are_made_of_it_only_where_all_that_is_written_goes_through_them(
    world: World, consistent: Program, both: int
) -> None:
    consistent.write("a", b"")
    file = consistent.open("a", both)
    consistent.unlink("a")
    file.write(b"Hello")
    if both & os.O_APPEND:
        with pytest.raises(FileBusy):
            consistent.filesystem.read(file.handle, 0, 4096, for_pages=True)
        assert consistent.filesystem.read(file.handle, 0, 4096, for_pages=False) == b"Hello"
    else:
        assert consistent.filesystem.read(file.handle, 0, 4096, for_pages=True) == b"Hello"
    file.close()


def test_two_who_write_to_it_both_read_all_of_it(world: World, consistent: Program) -> None:
    first = consistent.open("a", NEW | os.O_APPEND)
    first.write(b"one, ")
    second = consistent.open("a", APPEND | os.O_RDWR)
    consistent.unlink("a")
    second.pwrite(b"two", 5)
    with pytest.raises(FileBusy):
        consistent.filesystem.read(second.handle, 0, 4096, for_pages=True)
    first.close()
    assert consistent.filesystem.read(second.handle, 0, 4096, for_pages=False) == b"one, two"
    second.close()


@pytest.mark.parametrize("append", [False, True])
def test_a_removal_that_is_refused_leaves_what_is_being_written(world: World, append: bool) -> None:
    world.store.seed("a", b"old")
    program = world.mount(append=append)
    file = program.open("a", WRITE | os.O_TRUNC)
    file.write(b"new")

    def refuse(operation: str, _key: str) -> None:
        if operation == "DeleteObject":
            raise PermissionDenied("DeleteObject a: AccessDenied", status=403, key="a")

    world.store.before = refuse
    with pytest.raises(PermissionDenied):
        program.unlink("a")
    world.store.before = None
    if append:  # its bytes are part of the object, or would have been
        with pytest.raises(StaleFile, match="removed while it was written"):
            file.close()
    else:
        file.write(b", all of it")
        file.close()
        assert program.read("a") == b"new, all of it"
