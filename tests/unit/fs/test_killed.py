"""Files whose program is killed: the kernel's close for it makes no object; csi/fs/openers.py says what is asked."""

from __future__ import annotations

import os
import threading
from collections import Counter
from dataclasses import dataclass, field

import pytest

from csi.errors import FileBusy
from tests.support.filesystems import World
from tests.support.programs import APPEND, WRITE, OpenedFile, Program


@dataclass
class Life:
    """What may be asked about one program."""

    killed: bool = False
    sharer_killed: bool = False
    identified: int = 0
    holding: bool = False
    asked: Counter[str] = field(default_factory=Counter)

    def identify(self) -> None:
        self.identified += 1

    def is_killed(self) -> bool:
        self.asked["opener"] += 1
        return self.killed

    def holds(self, inode: int) -> bool:
        self.asked["holds"] += 1
        return self.holding

    def sharer_is_killed(self) -> bool:
        self.asked["sharer"] += 1
        return self.sharer_killed


class Lives(dict[int, Life]):
    """Programs by pid; nothing can be told of others."""

    def opener(self, pid: int) -> Life | None:
        return self.get(pid)


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.fixture
def program(world: World, life: Life) -> Program:
    return world.mount(openers=Lives({1: life}))


def closed_by_a_kill(program: Program, life: Life, data: bytes) -> OpenedFile:
    """A file that was being written, as it is between the kernel's close for a killed program and the release."""
    file = program.open("a", WRITE)
    file.write(data)
    life.killed = True
    file.flush()
    return file


def test_a_killed_program_leaves_no_object_and_no_upload(
    world: World, program: Program, life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    file = program.open("a", WRITE)
    file.write(b"x" * 300_000)
    life.killed = True
    file.close()
    assert world.store.objects == {}
    assert world.store.uploads == {}
    assert not program.exists("a")
    assert "'a' was not written: its program was killed 300000 bytes into it" in caplog.text
    assert len(caplog.records) == 1


def test_the_old_version_stays_when_a_program_is_killed(world: World, program: Program, life: Life) -> None:
    program.write("a", b"old")
    file = program.open("a", WRITE)
    file.write(b"new")
    life.killed = True
    file.close()
    assert world.store.data("a") == b"old"
    life.killed = False
    assert program.read("a") == b"old"


@pytest.mark.parametrize("flags", [os.O_RDONLY, WRITE, APPEND])
def test_who_opens_before_the_kernel_has_released_what_was_killed_waits_for_that(
    world: World, program: Program, life: Life, flags: int
) -> None:
    other = Program(program.filesystem, pid=2, tails=program.tails)
    program.write("a", b"old")
    file = closed_by_a_kill(program, life, b"new")
    glances: list[None] = []

    def meanwhile() -> None:
        glances.append(None)
        if len(glances) == 3:
            file.release()

    world.meanwhile = meanwhile
    opened = other.open("a", flags)
    assert len(glances) == 3
    assert opened.size() == (0 if flags & os.O_TRUNC else 3)
    opened.close()


def test_who_opens_what_a_child_of_a_killed_program_still_has_is_told_so(
    world: World, program: Program, life: Life
) -> None:
    file = closed_by_a_kill(program, life, b"new")
    with pytest.raises(FileBusy):
        program.open("a", os.O_RDONLY)
    life.killed = False
    file.write(b", and more")
    file.close()
    assert program.read("a") == b"new, and more"


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_lock_file_of_a_killed_program_that_others_have_open_stays(
    world: World, program: Program, life: Life, old: bytes | None
) -> None:
    if old is not None:
        world.store.seed("lock", old)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    killed, other = program.open("lock", flags), program.open("lock", flags)
    life.killed = True
    killed.close()
    assert world.store.data("lock") == (old or b"")
    life.killed = False
    if old is None:
        other.write(b"pid")
    other.close()
    assert world.store.data("lock") == (old or b"pid")


def test_a_file_that_a_killed_program_wrote_to_goes_although_others_opened_it_when_it_was_empty(
    world: World, program: Program, life: Life
) -> None:
    killed = program.open("a", WRITE)
    other = program.open("a", os.O_WRONLY | os.O_TRUNC)
    killed.write(b"half")
    life.killed = True
    killed.close()
    life.killed = False
    other.close()
    assert world.store.objects == {}


def test_what_was_synced_or_appended_to_stays_when_a_program_is_killed(
    world: World, program: Program, life: Life
) -> None:
    file = program.open("a", WRITE)
    file.write(b"synced")
    file.fsync()
    file.write(b", not synced")
    life.killed = True
    file.close()
    assert world.store.data("a") == b"synced"


def test_a_program_that_closes_is_asked_about_once_and_one_that_wrote_nothing_never(
    world: World, program: Program, life: Life
) -> None:
    program.write("a", b"x")
    assert life.asked == {"opener": 1}
    program.read("a")
    program.open("a", os.O_WRONLY).close()
    assert life.asked == {"opener": 1}
    assert world.store.data("a") == b"x"


def test_a_program_is_identified_when_it_opens_for_writing(program: Program, life: Life) -> None:
    program.write("a", b"x")
    program.write("a", b"x")
    program.append("a", b"x")
    assert life.identified == 3
    program.read("a")
    assert life.identified == 3


def test_a_program_nothing_is_known_of_closes(world: World, program: Program, life: Life) -> None:
    other = Program(program.filesystem, pid=2, tails=program.tails)
    life.killed = True
    other.write("a", b"x")
    assert world.store.data("a") == b"x"


def test_a_killed_program_that_shares_the_file_leaves_it_to_the_others(
    world: World, program: Program, life: Life
) -> None:
    file = closed_by_a_kill(program, life, b"one, ")
    assert world.store.objects == {}
    life.killed = False  # it is gone, and no longer seen
    file.write(b"two")
    file.flush()
    assert world.store.data("a") == b"one, two"
    file.close()


def test_a_child_that_only_closes_makes_the_object(world: World, program: Program, life: Life) -> None:
    file = closed_by_a_kill(program, life, b"one")
    life.killed = False
    file.close()
    assert life.asked == {"opener": 2, "sharer": 1}
    assert world.store.data("a") == b"one"


def test_the_last_that_shares_the_file_is_killed_too(world: World, program: Program, life: Life) -> None:
    file = closed_by_a_kill(program, life, b"one")
    life.killed, life.sharer_killed = False, True
    file.close()
    assert world.store.objects == {}


def test_a_killed_program_keeps_what_others_appended_to_its_file(world: World, program: Program, life: Life) -> None:
    other = Program(program.filesystem, pid=2, tails=program.tails)
    first, second = program.open("log", APPEND), other.open("log", APPEND)
    first.write(b"one,")
    second.position = 4
    second.write(b"two")
    life.killed = True
    first.close()
    assert world.store.data("log") == b"one,two"
    second.close()


def test_in_append_mode_all_that_a_killed_program_wrote_is_pushed(world: World, life: Life) -> None:
    program = world.mount(append=True, openers=Lives({1: life}))
    file = program.open("log", APPEND)
    file.write(b"one")
    life.killed = True
    file.close()
    assert life.asked == {}
    assert world.store.data("log") == b"one"


def test_a_file_removed_while_its_program_is_killed_stays_removed(world: World, program: Program, life: Life) -> None:
    file = program.open("a", WRITE)
    file.write(b"one")
    program.unlink("a")
    life.killed = True
    file.close()
    assert world.store.objects == {}


def test_the_name_of_a_killed_writer_can_be_written_again(world: World, program: Program, life: Life) -> None:
    file = program.open("a", WRITE)
    file.write(b"one")
    life.killed = True
    file.close()
    life.killed = False
    program.write("a", b"two")
    assert world.store.data("a") == b"two"


def test_a_shell_that_moves_the_descriptor_does_not_empty_the_object(
    world: World, program: Program, life: Life
) -> None:
    program.write("a", b"old")
    file = program.open("a", WRITE)
    life.holding = True
    file.flush()
    assert world.store.data("a") == b"old"
    life.holding = False
    file.write(b"new")
    file.close()
    assert world.store.data("a") == b"new"


def test_an_empty_file_is_made_by_its_last_close(world: World, program: Program, life: Life) -> None:
    file = program.open("a", WRITE)
    life.holding = True
    file.flush()
    assert world.store.objects == {}
    life.holding = False
    file.close()
    assert world.store.data("a") == b""
    assert life.asked == {"opener": 2, "holds": 2}


def test_at_the_end_of_the_mount_what_a_killed_program_writes_becomes_no_object(
    world: World, program: Program, life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    file = program.open("a", WRITE)
    file.write(b"half")
    life.killed = True  # and has not come to close its files yet
    assert [type(failure) for failure in program.filesystem.flush_all(10.0)] == [FileBusy]
    assert "'a' was being written by a program that is killed" in caplog.text
    assert world.store.objects == {}
    file.close()
    assert world.store.objects == {}


def test_at_the_end_of_the_mount_programs_have_a_moment_to_be_killed_in(
    world: World, program: Program, life: Life
) -> None:
    file = program.open("a", WRITE)
    file.write(b"half")

    def kill() -> None:
        life.killed = True
        file.close()

    threading.Timer(0.05, kill).start()
    assert program.filesystem.flush_all(10.0) == []
    assert world.store.objects == {}


def test_at_the_end_of_the_mount_what_a_living_program_writes_is_finished(world: World, program: Program) -> None:
    file = program.open("a", WRITE)
    file.write(b"so far")
    assert program.filesystem.flush_all(10.0) == []
    assert world.store.data("a") == b"so far"
    file.close()


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_program_killed_in_open_leaves_what_was_there(world: World, program: Program, before: bytes | None) -> None:
    """The kernel releases such a file without a flush, while nothing says yet that the program is being killed."""
    if before is not None:
        program.write("a", before)
    file = program.open("a", WRITE)
    file.release()
    assert world.store.objects.keys() == ({"a"} if before is not None else set())
    assert not program.exists("a") if before is None else program.read("a") == before


@pytest.mark.parametrize("killed", [True, False])
def test_what_is_released_without_being_closed_is_an_object_unless_its_program_is_killed(
    world: World, program: Program, life: Life, killed: bool
) -> None:
    file = program.open("a", WRITE)
    file.write(b"x")
    life.killed = killed
    file.release()
    assert world.store.objects.keys() == (set() if killed else {"a"})
