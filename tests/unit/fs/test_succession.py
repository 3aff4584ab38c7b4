"""A process is killed, and another one goes on with its journal: what programs had open goes on too."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from csi.errors import BadHandle, FilesystemError, OssFuseError, StaleFile
from csi.fs.filesystem import Filesystem
from csi.fs.inodes import stable_hash
from csi.fs.journal import LEAST, SIZE, Journal, make
from csi.fs.light_opens import SLOT
from csi.fs.published import LIGHT
from csi.fs.types import ROOT_INODE
from csi.fuse.errno_map import errno_of
from csi.fuse.native.answers import Answers
from csi.volume.units import MIB, FileHandle, InodeNumber
from tests.support.filesystems import FAST, World, world
from tests.support.programs import OpenedFile, Program


class Fetching(Answers):
    """Tables of a session that could fetch files by itself."""

    fetches = True


class Line:
    """One process after the other on one journal; `program` speaks to the one that lives."""

    def __init__(self, made: World, size: int = SIZE, spare: int = 0, **mount: Any) -> None:
        """`spare` is for what the kernel session opens by itself, which is a new one in each process."""
        self._world = made
        self._mount = mount
        self._spare = spare
        self._ending = ExitStack()
        self._descriptor = make(size + spare)
        self._ending.callback(os.close, self._descriptor)
        self.program = self._begin()

    @property
    def filesystem(self) -> Filesystem:
        return self.program.filesystem

    def succeed(self) -> None:
        """SIGKILL, and a successor."""
        self._world.kill(self.program)
        self.journal.close()
        self.program = self._begin()

    def close(self) -> None:
        self.journal.close()
        self._ending.close()

    def inode(self, *names: str) -> InodeNumber:
        """Of a path, counted for good."""
        inode = ROOT_INODE
        for name in names:
            inode = self.filesystem.lookup(inode, name.encode()).attributes.inode
        return inode

    def of_successor(self, file: OpenedFile) -> OpenedFile:
        """The file as it was opened, asked of who lives."""
        return OpenedFile(self.filesystem, file.inode, file.opened, file.position)

    def last_read(self, file: OpenedFile) -> bytes:
        """What who lives gives of it, which is closed then."""
        again = self.of_successor(file)
        found = again.pread()
        again.close()
        return found

    def copy_slot(self) -> None:
        """What was closed, and is not known to be yet, and opened again has two."""
        descriptor, start, _ = self.journal.tail
        os.pwrite(descriptor, os.pread(descriptor, SLOT, start), start + SLOT)

    def _begin(self) -> Program:
        self.journal = Journal(self._descriptor, self._spare)
        published = {"published": self.start_session()} if self._spare else {}
        return self._world.mount(journal=self.journal, **self._mount, **published)

    def start_session(self) -> Answers:
        session = Fetching()
        session.start_fetching(4, MIB)
        return session


Lines = Callable[..., Line]


@pytest.fixture
def lines(world: World) -> Iterator[Lines]:
    made: list[Line] = []

    def begin(**mount: Any) -> Line:
        made.append(Line(world, **mount))
        return made[-1]

    yield begin
    for line in made:
        forget_all(line)
        line.close()


@pytest.fixture
def line(lines: Lines) -> Line:
    return lines()


# --- reading ---


@pytest.mark.parametrize("path", ["a", "d/e/a", b"d/\xff\xfe"])
def test_an_open_file_is_read_on(world: World, line: Line, path: str | bytes) -> None:
    name = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    world.store.seed(name, b"0123456789")
    file = line.program.open(path)
    assert file.pread(4) == b"0123"

    line.succeed()

    again = line.of_successor(file)
    assert again.pread(100, 4) == b"456789"
    assert again.size() == 10
    again.close()


def test_it_is_the_version_that_was_open(world: World, line: Line) -> None:
    world.store.seed("a", b"of one version")
    file = line.program.open("a")

    line.succeed()
    world.store.seed("a", b"of another one")
    again = line.of_successor(file)

    with pytest.raises(StaleFile):
        again.pread(4)
    assert line.program.read("a") == b"of another one"
    again.close()


def test_several_that_have_it_open_close_it_one_after_the_other(world: World, line: Line) -> None:
    world.store.seed("a", b"content")
    files = [line.program.open("a") for _ in range(3)]
    files[0].close()

    line.succeed()

    for file in files[1:]:
        assert line.last_read(file) == b"content"


def test_a_file_that_was_closed_is_not_open(world: World, line: Line) -> None:
    world.store.seed("a", b"content")
    file = line.program.open("a")
    file.close()

    line.succeed()

    with pytest.raises(BadHandle):
        line.filesystem.read(file.handle, 0, 1)
    assert line.filesystem.open_files() == []


def test_a_file_that_is_closed_takes_no_room_even_if_the_kernel_knows_it(world: World, line: Line) -> None:
    world.store.seed("a", b"content")
    inode = line.inode("a")
    file = line.program.open("a")
    assert line.journal.statistics().records == 2

    file.close()

    assert line.journal.statistics().records == 0
    line.filesystem.forget(inode, 1)


def test_a_successor_of_a_successor_reads_on(world: World, line: Line) -> None:
    world.store.seed("a", b"content")
    file = line.program.open("a")

    line.succeed()
    line.succeed()

    assert line.last_read(file) == b"content"


def test_no_number_is_given_out_again(world: World, line: Line) -> None:
    world.store.seed("a", b"a")
    world.store.seed("b", b"b")
    open_all_along, closed = line.program.open("a"), line.program.open("b")
    directory = line.filesystem.opendir(ROOT_INODE)
    closed.close()

    line.succeed()
    files = [line.program.open("b") for _ in range(3)]
    directories = [line.filesystem.opendir(ROOT_INODE) for _ in range(3)]

    numbers = [file.handle for file in (open_all_along, closed, *files)] + [directory, *directories]
    assert len(set(numbers)) == len(numbers)
    for each in (directory, *directories):
        line.filesystem.releasedir(each)
    for file in (open_all_along, *files):
        line.of_successor(file).close()


def test_an_inode_number_that_is_taken_is_not_given_to_another_file(world: World, line: Line) -> None:
    world.store.seed("a", b"first")
    file = line.program.open("a")
    line.program.rename("a", "b")  # the number is that of the name `a` still

    line.succeed()
    world.store.seed("a", b"second")

    assert file.inode == stable_hash(b"file:a")
    assert line.program.stat("a").inode != file.inode
    again = line.of_successor(file)
    assert again.pread() == b"first"
    assert line.program.read("a") == b"second"
    again.close()


def test_a_file_that_is_open_can_be_moved_with_the_directories_above_it(world: World, line: Line) -> None:
    world.store.seed("d/e/a", b"content")
    file = line.program.open("d/e/a")
    line.program.rename("d", "f")
    line.program.rename("f/e/a", "f/b")

    line.succeed()

    assert [report.path for report in line.filesystem.open_files()] == ["f/b"]
    assert line.last_read(file) == b"content"


def test_a_removed_file_is_still_open_and_its_bytes_are_gone(world: World, line: Line) -> None:
    world.store.seed("a", b"content")
    file = line.program.open("a")
    line.program.unlink("a")

    line.succeed()

    again = line.of_successor(file)
    assert line.filesystem.getattr(file.inode).attributes.nlink == 0
    assert not line.program.exists("a")
    with pytest.raises(StaleFile):
        again.pread()
    again.close()


def test_a_reader_that_followed_a_growing_file_follows_it_on(world: World, lines: Lines) -> None:
    line = lines(append=True)
    line.program.write("log", b"one")
    file = line.program.open("log")
    line.program.append("log", b", two")
    assert file.pread() == b"one, two"

    line.succeed()
    line.program.append("log", b", three")

    assert line.last_read(file) == b"one, two, three"


def test_a_reader_of_a_version_that_was_continued_here_reads_the_whole(world: World, line: Line) -> None:
    line.program.write("a", b"one")
    file = line.program.open("a")
    line.program.append("a", b", two")
    assert file.pread() == b"one, two"

    line.succeed()

    assert line.last_read(file) == b"one, two"


# --- directories ---


def told(line: Line, handle: FileHandle, cookie: int, most: int = 1000) -> tuple[list[bytes], int]:
    names = []
    for entry in line.filesystem.readdir(handle, cookie):
        names.append(entry.name)
        cookie = entry.cookie
        line.filesystem.forget(entry.entry.attributes.inode, 1)
        if len(names) == most:
            break
    return names, cookie


@pytest.mark.parametrize("read", [0, 1, 7, 149, 150])
def test_a_directory_that_was_half_read_is_read_on(world: World, line: Line, read: int) -> None:
    names = [f"{number:03}".encode() for number in range(150)]
    for name in names:
        world.store.seed(f"d/{name.decode()}", b"")
    handle = line.filesystem.opendir(line.inode("d"))
    first, cookie = told(line, handle, 0, read) if read else ([], 0)

    line.succeed()

    rest, _ = told(line, handle, cookie)
    assert first + rest == names
    line.filesystem.releasedir(handle)


def test_a_working_directory_is_known(world: World, line: Line) -> None:
    world.store.seed("d/e/a", b"content")
    inode = line.inode("d", "e")

    line.succeed()

    entry = line.filesystem.lookup(inode, b"a")
    assert entry.attributes.size == 7
    line.filesystem.forget(entry.attributes.inode, 1)


def test_a_directory_that_another_client_emptied_is_gone(world: World, line: Line) -> None:
    world.store.seed("d/a", b"content")
    handle = line.filesystem.opendir(line.inode("d"))

    line.succeed()
    del world.store.objects["d/a"]

    assert not line.program.exists("d")
    line.filesystem.releasedir(handle)


def test_what_the_kernel_lets_go_of_is_let_go_of_at_once_and_what_nobody_knows_does_no_harm(
    world: World, line: Line
) -> None:
    world.store.seed("d/a", b"content")
    for _ in range(5):
        inode = line.inode("d")

    line.succeed()
    assert line.inode("d") == inode
    line.filesystem.forget(InodeNumber(12345), 7)
    line.filesystem.forget(inode, 6)

    assert line.filesystem.statistics().inodes == 1
    assert line.journal.statistics().records == 0


# --- writing ---


@pytest.mark.parametrize("before", [None, b"what was there"])
@pytest.mark.parametrize("size", [10, 300_000])
def test_what_was_being_written_is_lost_and_its_program_is_told(
    world: World, line: Line, caplog: pytest.LogCaptureFixture, before: bytes | None, size: int
) -> None:
    if before is not None:
        world.store.seed("d/a", before)
    world.store.seed("d/other", b"content")
    file = line.program.open("d/a", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    file.write(b"x" * size)
    reader = line.program.open("d/other")

    with caplog.at_level(logging.ERROR):
        line.succeed()

    assert any("d/a was not written" in record.message for record in caplog.records)
    again = line.of_successor(file)
    for attempt in (lambda: again.write(b"more"), again.fsync, again.flush, lambda: again.truncate(0)):
        with pytest.raises(FilesystemError, match="d/a was not written") as refused:
            attempt()
        assert errno_of(refused.value) == 5
    with pytest.raises(FilesystemError, match="d/a was not written"):
        again.close()
    assert (world.store.data("d/a") if before is not None else "d/a" not in world.store.objects) == (before or True)
    assert line.program.exists("d/a") == (before is not None)
    assert line.of_successor(reader).pread() == b"content"
    line.of_successor(reader).close()
    world.store.uploads.clear()  # of the dead: OSS has a lifecycle rule for them


def test_it_is_told_by_every_successor(world: World, line: Line) -> None:
    file = line.program.open("a", os.O_WRONLY | os.O_CREAT)
    file.write(b"lost")
    line.succeed()
    line.program.write("a", b"of another program")

    line.succeed()

    with pytest.raises(FilesystemError, match="a was not written"):
        line.of_successor(file).close()
    assert world.store.data("a") == b"of another program"


def test_all_who_append_to_one_file_are_told(world: World, lines: Lines) -> None:
    line = lines()
    files = [line.program.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2)]
    files[0].write(b"one")
    files[1].pwrite(b"two", 3)

    line.succeed()

    for file in files:
        with pytest.raises(FilesystemError, match="log was not written"):
            line.of_successor(file).close()


@pytest.mark.parametrize("append", [False, True])
def test_what_was_synced_is_no_loss_but_nothing_is_written_after_it(world: World, lines: Lines, append: bool) -> None:
    line = lines(append=append)
    file = line.program.open("a", os.O_RDWR | os.O_CREAT)
    file.write(b"synced")
    file.flush()
    idle = line.program.open("a", os.O_RDWR)

    line.succeed()

    line.of_successor(idle).close()
    again = line.of_successor(file)
    again.fsync()
    assert again.pread() == b"synced"
    with pytest.raises(FilesystemError, match="open it again"):
        again.write(b" and more")
    with pytest.raises(FilesystemError, match="open it again"):
        again.close()
    assert world.store.data("a") == b"synced"


def test_who_has_replaced_a_file_and_synced_it_reads_the_new_one(world: World, line: Line) -> None:
    world.store.seed("a", b"what was there")
    file = line.program.open("a", os.O_RDWR | os.O_TRUNC)
    file.write(b"new")
    file.fsync()

    line.succeed()

    assert line.last_read(file) == b"new"


def test_a_file_that_is_written_anew_by_a_successor_is_an_object(world: World, line: Line) -> None:
    lost = line.program.open("a", os.O_WRONLY | os.O_CREAT)
    lost.write(b"lost")
    line.succeed()

    line.program.write("a", b"written again")

    assert line.program.read("a") == b"written again"
    with pytest.raises(FilesystemError):
        line.of_successor(lost).close()
    assert world.store.data("a") == b"written again"


def test_a_create_that_was_not_answered_is_done_again(world: World, line: Line) -> None:
    line.filesystem.create(ROOT_INODE, b"a", 0o644, os.O_WRONLY, line.program.caller)
    line.succeed()

    entry, opened = line.filesystem.create(ROOT_INODE, b"a", 0o644, os.O_WRONLY, line.program.caller)

    file = OpenedFile(line.filesystem, entry.attributes.inode, opened)
    file.write(b"content")
    file.close()
    assert world.store.data("a") == b"content"
    for report in line.filesystem.open_files():  # of the first, which nobody knows of
        line.filesystem.release(report.handle)


# --- room ---


def test_what_found_no_room_is_said_once_and_everything_else_goes_on(
    world: World, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    line = lines(size=LEAST)
    for number in range(40):
        world.store.seed(f"{number:02}" + "x" * 100, b"content")
    files = [line.program.open(f"{number:02}" + "x" * 100) for number in range(40)]
    assert sum("should this process be killed" in record.message for record in caplog.records) == 1
    assert [file.pread() for file in files] == [b"content"] * 40

    line.succeed()

    known = {report.handle for report in line.filesystem.open_files()}
    assert 0 < len(known) < 40
    for file in files:
        if file.handle in known:
            assert line.of_successor(file).pread() == b"content"
            line.of_successor(file).close()


def test_directories_above_an_open_file_are_noted_even_where_others_are_not(world: World, lines: Lines) -> None:
    line = lines(size=LEAST)
    for number in range(40):
        world.store.seed(f"{number:02}" + "x" * 100 + "/a", b"content")
    inodes = [line.inode(f"{number:02}" + "x" * 100) for number in range(40)]
    file = line.program.open("39" + "x" * 100 + "/a")

    line.succeed()

    assert line.of_successor(file).pread() == b"content"
    assert line.filesystem.getattr(inodes[39]).attributes.nlink == 1
    with pytest.raises(StaleFile):
        line.filesystem.getattr(inodes[38])
    line.of_successor(file).close()


# --- what the kernel session does by itself ---


@pytest.mark.parametrize(("journalled", "spare"), [(False, 0), (True, 0), (True, SLOT)])
def test_the_kernel_session_opens_no_files_that_nobody_notes(
    world: World, lines: Lines, journalled: bool, spare: int
) -> None:
    world.store.seed("a", b"content")
    program = lines(arguments=FAST, spare=spare).program if journalled else world.mount(FAST, published=Fetching())
    knowledge = program.filesystem._namespace.knowledge

    assert knowledge.publishes is bool(spare or not journalled)
    assert knowledge.plans is knowledge.publishes


@pytest.fixture
def bucket() -> Iterator[World]:
    with world("data") as made:
        yield made


@pytest.fixture
def light(bucket: World) -> Iterator[Line]:
    """Small files are opened by the kernel session."""
    for name in ("a", "b", "d/e/a"):
        bucket.store.seed(name, name.encode() * 1000)
    line = Line(bucket, arguments=FAST, spare=8 * SLOT)
    yield line
    forget_all(line)
    line.close()


def open_light(line: Line, path: str) -> OpenedFile:
    file = line.program.open(path)
    assert file.handle == LIGHT | file.inode
    return file


@pytest.mark.parametrize("path", ["a", "d/e/a"])
def test_a_file_that_the_session_opened_goes_on_as_often_as_it_was_opened(light: Line, path: str) -> None:
    files = [open_light(light, path), open_light(light, path)]
    open_light(light, "b").close()

    light.succeed()

    assert [light.last_read(file) for file in files] == [path.encode() * 1000] * 2
    with pytest.raises(BadHandle):
        light.of_successor(files[0]).pread()
    light.succeed()
    with pytest.raises(BadHandle):
        light.of_successor(files[0]).pread()


def test_a_file_that_was_noted_in_two_places_goes_on_as_often_as_in_both(light: Line) -> None:
    file = open_light(light, "a")
    light.copy_slot()

    light.succeed()

    assert [light.last_read(file), light.last_read(file)] == [b"a" * 1000] * 2


def test_it_goes_on_with_one_death_after_the_other(light: Line) -> None:
    file = open_light(light, "a")

    for _ in range(3):
        light.succeed()

    assert light.last_read(file) == b"a" * 1000
    assert light.journal.statistics().records == 0


def test_it_never_reads_another_version(light: Line, bucket: World) -> None:
    file = open_light(light, "a")
    light.succeed()

    bucket.store.seed("a", b"another")

    with pytest.raises(StaleFile):
        light.of_successor(file).pread()
    assert light.program.read("a") == b"another"
    light.of_successor(file).close()


def test_a_file_of_the_session_that_is_this_process_own_since_goes_on(light: Line) -> None:
    files = [open_light(light, "a"), open_light(light, "a")]
    assert files[0].pread(10) == b"a" * 10  # in a kernel, one that the session cannot answer

    light.succeed()

    assert [light.last_read(file) for file in files] == [b"a" * 1000] * 2
    assert light.journal.statistics().records == 0


def test_what_was_replaced_under_its_name_is_read_as_it_was_opened_or_not_at_all(light: Line) -> None:
    file = open_light(light, "a")
    light.program.write("a", b"new")

    light.succeed()

    with pytest.raises(StaleFile):
        light.of_successor(file).pread()
    assert light.program.read("a") == b"new"
    light.of_successor(file).close()


def test_what_finds_no_room_in_the_notes_is_opened_by_this_process_and_goes_on_too(light: Line, bucket: World) -> None:
    names = [f"n{number}" for number in range(12)]
    for name in names:
        bucket.store.seed(name, name.encode())
    files = [light.program.open(name) for name in names]
    assert sum(bool(file.handle & LIGHT) for file in files) == 8

    light.succeed()

    assert [light.last_read(file) for file in files] == [name.encode() for name in names]


@pytest.mark.parametrize("deaths", [1, 2, 3])
def test_opens_for_which_the_journal_has_no_room_go_on_too(bucket: World, deaths: int) -> None:
    names = [f"{number:03}{'x' * 240}" for number in range(100)]
    for name in names:
        bucket.store.seed(name, name.encode())
    line = Line(bucket, size=LEAST, arguments=FAST, spare=128 * SLOT)
    files = [open_light(line, name) for name in names]

    for _ in range(deaths):
        line.succeed()

    assert [line.last_read(file) for file in files] == [name.encode() for name in names]
    line.close()


def test_a_key_that_is_too_long_for_a_slot_is_opened_by_this_process(light: Line, bucket: World) -> None:
    path = "/".join(["x" * 200] * 3)
    bucket.store.seed(path, b"deep")
    file = light.program.open(path)
    assert not file.handle & LIGHT

    light.succeed()

    assert light.last_read(file) == b"deep"


# --- whatever programs do ---


def forget_all(line: Line) -> None:
    """A kernel lets go of directories after what is open in them; the programs of these tests did so before."""
    for node in line.filesystem._table.nodes():
        line.filesystem.forget(node.inode, node.lookups)


NAMES = st.sampled_from(["a", "b", "d/a", "d/b", "e/a"])


@dataclass
class Writing:
    """`name` is where its bytes will be an object, None if there are none."""

    file: OpenedFile
    name: str | None
    data: bytes
    lost: bool = False


class Successions(RuleBasedStateMachine):
    """Programs read, write, move and remove while the process is killed again and again: open files have the bytes
    they had, or ESTALE if those are gone, and what was written is there or its close has said that it is not."""

    def __init__(self) -> None:
        super().__init__()
        self.ending = ExitStack()
        self.world = self.ending.enter_context(world("memory"))
        self.line = Line(self.world)
        self.ending.callback(self.line.close)
        self.readers: list[tuple[OpenedFile, bytes]] = []
        self.writers: list[Writing] = []
        self.count = 0

    @rule(name=NAMES)
    def seed(self, name: str) -> None:
        self.count += 1
        self.world.store.seed(name, b"content %d" % self.count)

    @rule(name=NAMES)
    def read(self, name: str) -> None:
        try:
            file = self.line.program.open(name)
        except OssFuseError:
            return
        self.readers.append((file, file.pread()))

    @rule(name=NAMES)
    def write(self, name: str) -> None:
        self.count += 1
        data = b"written %d" % self.count
        try:
            file = self.line.program.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        except OssFuseError:
            return
        file.write(data)
        self.writers.append(Writing(file, name, data))

    @rule(old=NAMES, new=NAMES)
    def move(self, old: str, new: str) -> None:
        try:
            self.line.program.rename(old, new)
        except OssFuseError:
            return
        if old == new:
            return
        self.settle(old)  # it is an object before it is moved
        self.settle(new)  # it is replaced

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        try:
            self.line.program.unlink(name)
        except OssFuseError:
            return
        self.settle(name)

    @rule()
    def kill(self) -> None:
        self.line.succeed()
        for writing in self.writers:
            writing.lost = writing.lost or writing.name is not None

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def close_a_reader(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.readers) - 1))
        self.line.of_successor(self.readers.pop(number)[0]).close()

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def close_a_writer(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.writers) - 1))
        writing = self.writers.pop(number)
        if writing.lost:
            with pytest.raises(FilesystemError, match="was not written"):
                self.line.of_successor(writing.file).close()
            assert writing.data not in [stored.data for stored in self.world.store.objects.values()]
        else:
            self.line.of_successor(writing.file).close()

    @invariant()
    def what_is_open_is_the_version_that_was_opened(self) -> None:
        for file, content in self.readers:
            try:
                assert self.line.of_successor(file).pread() == content
            except OssFuseError as error:
                assert errno_of(error) in (116, 16)  # gone, or being written

    def teardown(self) -> None:
        for file, _ in self.readers:
            self.line.of_successor(file).close()
        for writing in self.writers:
            with suppress(FilesystemError):
                self.line.of_successor(writing.file).close()
        forget_all(self.line)
        assert self.line.journal.statistics().records == 0
        self.ending.close()

    def settle(self, name: str) -> None:
        """Of what was being written under this name nothing is left to be written."""
        for writing in self.writers:
            if writing.name == name and not writing.lost:
                writing.name = None


Successions.TestCase.settings = settings(max_examples=100, stateful_step_count=25)
TestSuccessions = Successions.TestCase
