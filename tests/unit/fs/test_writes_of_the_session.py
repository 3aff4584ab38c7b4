"""Writes that the kernel session puts where they belong: the filesystem says and does what it would have otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from csi.errors import FilesystemError, InvalidOperation
from csi.fs.types import AttributeChange
from csi.volume.units import KIB
from tests.support.filesystems import World, world
from tests.support.hand_tails import HandTails
from tests.support.programs import APPEND, WRITE, OpenedFile, Program


@pytest.fixture(name="world")
def bucket() -> Iterator[World]:
    with world("data") as made:
        yield made


@pytest.fixture
def program(world: World) -> Program:
    return world.mount()


def put(program: Program, file: OpenedFile, data: bytes) -> bool:
    """Whether a write was answered without the filesystem; else it is not made."""
    tails = program.tails
    assert isinstance(tails, HandTails)
    done = tails.put(file.handle, file.position, data)
    file.position += len(data) if done else 0
    return done


def test_a_new_file_is_written_without_the_filesystem(world: World, program: Program) -> None:
    file = program.open("a", WRITE)
    assert put(program, file, b"hello ")
    assert put(program, file, b"world")
    assert "a" not in world.store.objects
    file.close()
    assert world.store.data("a") == b"hello world"


def test_what_was_put_is_seen_by_stat_at_once(world: World, program: Program) -> None:
    file = program.open("a", WRITE)
    opened_at = program.stat("a").mtime_ns
    world.clock.advance(5)
    assert put(program, file, b"hello")
    for found in (program.stat("a"), program.entries()[0][1].attributes):
        assert found.size == 5
        assert found.mtime_ns == opened_at + 5 * 10**9
    world.clock.advance(5)
    assert program.stat("a").mtime_ns == opened_at + 5 * 10**9
    file.close()


def test_times_that_were_set_hold_until_the_next_write(world: World, program: Program) -> None:
    file = program.open("a", WRITE)
    assert put(program, file, b"one")
    program.filesystem.setattr(file.inode, AttributeChange(mtime_ns=10**18), file.handle)
    assert program.stat("a").mtime_ns == 10**18
    assert not put(program, file, b"two")  # the filesystem has to know
    world.clock.advance(5)
    file.write(b"two")
    assert program.stat("a").mtime_ns == int(world.clock() * 1e9)
    assert put(program, file, b"three")
    file.close()


def test_after_a_close_of_a_duplicate_the_filesystem_hears_of_the_next_write(world: World, program: Program) -> None:
    file = program.open("a", WRITE)
    assert put(program, file, b"one")
    file.flush()
    assert world.store.data("a") == b"one"
    assert not put(program, file, b"two")
    file.write(b"two")
    assert put(program, file, b"three")
    file.close()
    assert world.store.data("a") == b"onetwothree"


def test_a_shell_that_moves_the_descriptor_writes_to_the_same_file(world: World, program: Program) -> None:
    file = program.open("a", WRITE)
    file.fsync()
    file.write(b"echo")
    assert put(program, file, b"ed")
    file.fsync()
    assert world.store.data("a") == b"echoed"
    file.close()


def test_others_who_append_are_put_in_order(world: World, program: Program) -> None:
    first = program.open("log", APPEND)
    assert put(program, first, b"one ")
    second = program.open("log", APPEND)
    assert not put(program, second, b"two ")
    second.write(b"two ")
    first.position = second.position
    assert not put(program, first, b"three ")
    first.write(b"three ")
    assert not put(program, first, b"four")  # two programs write: both by the filesystem
    first.close()
    second.close()
    assert world.store.data("log") == b"one two three "


def test_who_writes_elsewhere_is_refused_and_nothing_more_is_put(world: World, program: Program) -> None:
    world.store.seed("a", b"old")
    file = program.open("a", WRITE)
    assert put(program, file, b"hello")
    with pytest.raises(InvalidOperation):
        file.pwrite(b"hole", 100)
    assert not put(program, file, b"more")
    with pytest.raises(InvalidOperation):
        file.close()
    assert world.store.data("a") == b"old"


def test_nothing_is_put_into_a_removed_file(world: World, program: Program) -> None:
    file = program.open("a", WRITE)
    assert put(program, file, b"hello")
    program.unlink("a")
    assert not put(program, file, b"more")
    file.write(b"more")
    file.close()
    assert world.store.objects == {}


def test_a_file_that_is_emptied_while_it_is_written_begins_again(world: World, program: Program) -> None:
    file = program.open("a", WRITE)
    assert put(program, file, b"hello")
    file.truncate(0)
    file.position = 0
    assert program.stat("a").size == 0
    assert put(program, file, b"bye")
    file.close()
    assert world.store.data("a") == b"bye"


def test_a_size_that_was_announced_is_owed(world: World, program: Program) -> None:
    file = program.open("a", WRITE)
    file.truncate(10)
    assert put(program, file, b"hello")
    assert program.stat("a").size == 10
    with pytest.raises(FilesystemError):
        file.flush()
    file.write(b"world")
    file.close()
    assert world.store.data("a") == b"helloworld"


def test_a_file_that_grows_in_oss_is_written_by_the_filesystem(world: World) -> None:
    program = world.mount(append=True)
    file = program.open("log", APPEND)
    assert not put(program, file, b"one")
    file.write(b"one")
    assert not put(program, file, b"two")
    file.close()


def test_a_file_opened_for_reading_too_is_put_to_as_well(world: World, program: Program) -> None:
    file = program.open("a", os.O_RDWR | os.O_CREAT)
    for _ in range(15):
        file.write(b"x" * 30 * KIB)
    file.close()
    assert world.store.data("a") == b"x" * 450 * KIB
    assert program.tails is not None
    assert program.tails.puts >= 8
