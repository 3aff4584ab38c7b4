"""What is being written can be read until a part of it has been sent, and never becomes bytes of two versions."""

from __future__ import annotations

import os

import pytest

from csi.errors import FileBusy, InvalidOperation, PreconditionFailed, StaleFile
from csi.fs.journal import SIZE, Journal, make
from csi.volume.spec import CachePolicy, MountArguments
from csi.volume.units import Seconds
from tests.support.filesystems import World
from tests.support.programs import APPEND, WRITE, OpenedFile, Program

BOTH = os.O_RDWR | os.O_CREAT
PART = 100 * 1024
"""Of the mounts of these tests; what is larger is sent while it is written."""


def test_it_is_read_as_far_as_it_was_written(consistent: Program) -> None:
    writer = consistent.open("a", WRITE)
    writer.write(b"first, ")
    reader = consistent.open("a")
    assert reader.pread() == b"first, "
    writer.write(b"second")
    assert (reader.pread(), reader.pread(3, 5), reader.pread(9, 13)) == (b"first, second", b", s", b"")
    writer.close()
    assert reader.pread() == b"first, second"
    reader.close()


def test_who_writes_it_reads_it(consistent: Program) -> None:
    writer = consistent.open("a", BOTH | os.O_EXCL)
    writer.write(b"header")
    assert writer.pread() == b"header"
    writer.write(b", body")
    assert writer.pread(10, 6) == b", body"
    writer.close()
    assert consistent.read("a") == b"header, body"


def test_only_who_was_there_before_has_pages_of_it(world: World, consistent: Program) -> None:
    world.store.seed("a", b"old")
    before = consistent.open("a")
    writer = consistent.open("a", BOTH | os.O_TRUNC)
    writer.write(b"new")
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY):
        other = consistent.open("a", flags)
        assert other.opened.direct_io
        other.close()
    assert not writer.opened.direct_io
    with pytest.raises(FileBusy):
        before.pread()
    writer.close()
    before.close()


def test_who_opens_what_may_be_written_on_has_no_pages_of_it(consistent: Program) -> None:
    writer = consistent.open("a", WRITE)
    writer.write(b"one")
    writer.fsync()
    between = consistent.open("a")
    assert between.opened.direct_io
    writer.write(b", two")
    assert between.pread() == b"one, two"
    writer.flush()
    closed = consistent.open("a")
    assert not closed.opened.direct_io
    for file in (between, closed):
        assert file.pread() == b"one, two"
        file.close()
    writer.release()


@pytest.mark.parametrize("cache", [CachePolicy.AUTO, CachePolicy.KERNEL])
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR])
def test_no_pages_are_made_of_what_may_grow(world: World, cache: CachePolicy, flags: int) -> None:
    program = world.mount(MountArguments(Seconds(0.0), Seconds(0.0), Seconds(0.0), cache=cache))
    world.store.seed("a", b"old")
    before, writer = program.open("a"), program.open("a", flags)
    assert before.pread() == b"old"
    writer.pwrite(b"new", 3)
    reader = program.open("a")
    assert reader.opened.direct_io
    assert reader.pread() == b"oldnew"
    if flags == os.O_RDWR:  # all that is written goes through the pages
        assert writer.pread() == b"oldnew"
    with pytest.raises(FileBusy):
        before.pread()
    with pytest.raises(FileBusy):
        program.filesystem.read(reader.handle, 0, 4096, for_pages=True)  # of a mapping
    writer.close()
    for file in (before, reader):
        assert file.pread() == b"oldnew"
        file.close()


@pytest.mark.parametrize("old", [None, bytes(range(10)) * PART])
def test_what_was_sent_can_be_read_where_the_writer_reads_it_back(
    real: World, program: Program, old: bytes | None
) -> None:
    if old is not None:
        real.store.seed("a", old)
    writer = program.open("a", BOTH | (os.O_APPEND if old else os.O_EXCL))
    content = old or b""
    for letter in b"abcdefgh":
        added = bytes([letter]) * PART
        assert writer.pwrite(added, len(content)) == PART
        content += added
    reader = program.open("a")
    for offset in (0, PART // 2, len(content) - 10):
        assert reader.pread(2 * PART, offset) == writer.pread(2 * PART, offset) == content[offset : offset + 2 * PART]
    writer.close()
    assert reader.pread(len(content)) == content
    reader.close()


def test_what_was_sent_cannot_be_read_until_it_is_finished_where_nobody_was_to_read_it(program: Program) -> None:
    writer = program.open("a", WRITE)
    writer.write(b"x" * 1000)
    writer.write(b"y" * 2 * PART)
    with pytest.raises(FileBusy):
        program.open("a")
    writer.close()
    assert program.read("a") == b"x" * 1000 + b"y" * 2 * PART


def test_what_is_sent_can_be_read_once_somebody_has_opened_it_for_reading(program: Program) -> None:
    writer = program.open("a", WRITE)
    writer.write(b"x" * 1000)
    reader = program.open("a")
    writer.write(b"y" * 5 * PART)
    late = program.open("a")
    for file in (reader, late):
        assert file.pread() == b"x" * 1000 + b"y" * 5 * PART
    writer.close()
    for file in (reader, late):
        assert file.pread(10, 995) == b"xxxxxyyyyy"
        file.close()


@pytest.mark.parametrize("size", [10, 3 * PART])
@pytest.mark.parametrize("flags", [APPEND, os.O_RDWR | os.O_APPEND])
def test_what_is_continued_is_read_from_its_beginning(real: World, program: Program, size: int, flags: int) -> None:
    old = bytes(range(10)) * (size // 10)
    real.store.seed("a", old)
    writer = program.open("a", flags)
    writer.pwrite(b"new", size)
    reader = program.open("a")
    assert reader.pread() == old + b"new"
    assert reader.pread(5, size - 3) == old[-3:] + b"ne"
    assert reader.pread(3, 1) == old[1:4]
    if flags & os.O_RDWR:
        assert writer.pread(5, size - 3) == old[-3:] + b"ne"
    writer.pwrite(b"er", size + 3)
    assert reader.pread(9, size - 1) == old[-1:] + b"newer"
    writer.close()
    assert reader.pread() == old + b"newer"
    reader.close()


def test_a_continued_object_that_another_client_replaced_is_not_mixed_with_what_is_written(
    real: World, program: Program
) -> None:
    real.store.seed("a", b"old" * PART)
    writer = program.open("a", APPEND)
    writer.pwrite(b"new", 3 * PART)
    reader = program.open("a")
    real.store.seed("a", b"other")
    with pytest.raises(StaleFile):
        reader.pread()
    reader.close()
    with pytest.raises(PreconditionFailed):
        writer.close()


def test_who_reads_past_the_page_cache_reads_on_when_it_is_continued(world: World, consistent: Program) -> None:
    world.store.seed("a", b"one ")
    uncached, cached = consistent.open("a", os.O_DIRECT), consistent.open("a")
    assert uncached.pread() == cached.pread() == b"one "
    writer = consistent.open("a", APPEND)
    for offset, more in [(4, b"two "), (8, b"three ")]:
        writer.pwrite(more, offset)
        assert uncached.pread(99, offset) == more
        with pytest.raises(FileBusy):
            cached.pread(99, offset)
        writer.fsync()
        assert cached.pread(99, offset) == more
    writer.close()
    uncached.close()
    cached.close()


def test_what_was_promised_and_not_written_is_not_padded(consistent: Program) -> None:
    writer = consistent.open("a", BOTH)
    writer.write(b"abc")
    writer.truncate(6)
    assert (writer.pread(3), writer.pread(9, 6)) == (b"abc", b"")
    for offset in (0, 4):
        with pytest.raises(FileBusy):
            writer.pread(6, offset)
    writer.write(b"def")
    assert writer.pread() == b"abcdef"
    writer.close()


def failed(writer: OpenedFile, program: Program) -> None:
    with pytest.raises(InvalidOperation):
        writer.pwrite(b"x", 99)


def truncated(writer: OpenedFile, program: Program) -> None:
    writer.truncate(0)


@pytest.mark.parametrize("end", [failed, truncated])
@pytest.mark.parametrize("old", [None, b"old and long"])
def test_who_read_of_what_never_came_to_be_is_told_so(
    world: World, consistent: Program, end: object, old: bytes | None
) -> None:
    if old is not None:
        world.store.seed("a", old)
    writer = consistent.open("a", BOTH | os.O_TRUNC)
    writer.write(b"never")
    reader, opened = consistent.open("a"), consistent.open("a")
    assert reader.pread() == writer.pread() == b"never"
    end(writer, consistent)  # type: ignore[operator]
    if end is failed:
        for file in (reader, opened, writer):
            with pytest.raises(FileBusy):
                file.pread()
        with pytest.raises(InvalidOperation):
            writer.close()
    else:
        writer.pwrite(b"other", 0)
        assert writer.pread() == b"other"
        with pytest.raises(FileBusy):
            reader.pread()
        writer.close()
    for file in (reader, opened):
        with pytest.raises(StaleFile):
            file.pread()
        file.close()


def test_a_handle_for_both_does_not_show_the_old_file_after_its_own_that_failed(
    world: World, consistent: Program
) -> None:
    world.store.seed("a", b"old")
    writer = consistent.open("a", BOTH | os.O_TRUNC)
    writer.write(b"never")
    assert writer.pread() == b"never"
    failed(writer, consistent)
    with pytest.raises(InvalidOperation):
        writer.flush()
    with pytest.raises(StaleFile):
        writer.pread()
    writer.release()
    assert consistent.read("a") == b"old"


def test_who_read_of_what_failed_does_not_read_the_old_file_when_that_is_removed(
    world: World, consistent: Program
) -> None:
    world.store.seed("a", b"old")
    writer = consistent.open("a", WRITE)
    writer.write(b"never")
    reader = consistent.open("a")
    failed(writer, consistent)
    with pytest.raises(InvalidOperation):
        writer.close()
    consistent.unlink("a")
    with pytest.raises(StaleFile):
        reader.pread()
    reader.close()


def test_readers_go_on_over_fsync_and_rename(consistent: Program) -> None:
    writer = consistent.open("a", BOTH)
    writer.write(b"1")
    reader = consistent.open("a")
    for turn, between in enumerate([writer.fsync, lambda: consistent.rename("a", "b"), writer.fsync], 2):
        between()
        assert reader.pread() == b"123"[: turn - 1]
        writer.write(str(turn).encode())
        assert reader.pread() == writer.pread() == b"1234"[:turn]
    writer.close()
    assert reader.pread() == b"1234"
    reader.close()


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_DIRECT])
def test_who_reads_what_this_mount_is_just_replacing_reads_on(real: World, program: Program, flags: int) -> None:
    """Both finished and unfinished: OSS says that the version is gone before this mount knows what there is instead."""
    size = 3 * PART
    real.store.seed("a", b"x" * size)
    writer, written = program.open("a", APPEND), size

    def replace(operation: str, key: str) -> None:
        if operation == "GetObject":
            real.store.before = None
            writer.pwrite(b"y" * 10, written)
            writer.fsync()

    reader = program.open("a", flags)
    real.store.before = replace
    assert reader.pread(10, 5) == b"x" * 10
    written += 10
    if flags & os.O_DIRECT:
        writer.pwrite(b"z" * 10, written)
        written += 10
        real.store.before = replace
        assert reader.pread(30, size - 10) == b"x" * 10 + b"y" * 10 + b"z" * 10
    writer.close()
    reader.close()


def test_an_empty_file_that_is_being_made_is_empty(consistent: Program) -> None:
    writer = consistent.open("a", WRITE)
    reader = consistent.open("a")
    assert reader.pread() == b""
    writer.write(b"x")
    assert reader.pread() == b"x"
    writer.close()
    reader.close()


def test_a_successor_does_not_show_the_old_file_to_who_read_the_new(world: World) -> None:
    world.store.seed("a", b"old!")
    descriptor = make(SIZE)
    try:
        journal = Journal(descriptor)
        program = world.mount(journal=journal)
        writer = program.open("a", WRITE)
        writer.write(b"new")
        reader = program.open("a")
        assert reader.pread() == b"new"
        world.kill(program)
        journal.close()

        journal = Journal(descriptor)
        successor = world.mount(journal=journal)
        again = OpenedFile(successor.filesystem, reader.inode, reader.opened)
        with pytest.raises(StaleFile):
            again.pread()
        again.close()
        left = OpenedFile(successor.filesystem, writer.inode, writer.opened)
        left.release()
        journal.close()
    finally:
        os.close(descriptor)
