"""What the kernel session may say by itself is what the filesystem would say: csi/fs/inodes.py, csi/fs/knowledge.py."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import csi.fs
from csi.errors import NoSuchEntry, OssFuseError, StaleFile
from csi.fs.types import ROOT_INODE, AttributeChange
from csi.volume.spec import MountArguments
from csi.volume.units import InodeNumber, ObjectKey, Seconds
from tests.support.filesystems import FAST, World
from tests.support.programs import WRITE, OpenedFile, Program
from tests.support.published_names import PublishedNames

SHOWN = {"facts", "checked_at", "detached", "parent", "name", "kind", "inode"}
"""Fields of `Node` that an answer depends on, set by `InodeTable` alone."""

SHOWN_LOCALLY = {"draft", "times", "times_of", "target", "changed_ns"}
"""Those of `LocalState`."""

OTHERS = {
    ("handles.py", "facts"),  # of an OpenHandle
    ("reading.py", "facts"),
    ("knowledge.py", "facts"),  # of a node that nobody was told of yet
    ("knowledge.py", "checked_at"),
}

NAMES = st.sampled_from(["a", "b", "d/a", "d/b", "d"])
TIMEOUTS = st.sampled_from([(0.0, 0.0, 0.0), (3.0, 0.0, 0.0), (2.0, 5.0, 1.0), (50.0, 50.0, 50.0)])
CHECKED = [pytest.param(path, id=path.name) for path in sorted(Path(csi.fs.__file__).parent.glob("*.py"))]


@pytest.mark.parametrize("path", CHECKED)
def test_what_an_answer_depends_on_is_set_by_the_table_of_inodes_alone(path: Path) -> None:
    fields = {(path.name, field.attr) for field in assigned(path) if field.attr in SHOWN | SHOWN_LOCALLY}
    assert path.name == "inodes.py" or fields <= OTHERS


def assigned(path: Path) -> Iterator[ast.Attribute]:
    """The fields of other objects that a module assigns to."""
    for found in ast.walk(ast.parse(path.read_text())):
        targets = found.targets if isinstance(found, ast.Assign) else []
        if isinstance(found, ast.AugAssign | ast.AnnAssign):
            targets = [found.target]
        for target in targets:
            for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(each, ast.Attribute) and not is_own(each):
                    yield each


def is_own(field: ast.Attribute) -> bool:
    return isinstance(field.value, ast.Name) and field.value.id == "self"


@pytest.fixture
def told() -> Iterator[tuple[Program, PublishedNames, InodeNumber]]:
    """A mount that believes what it knows for long, and the inode of `a`, which its kernel was told of."""
    world = World("memory")
    world.store.seed("a", b"there")
    published = PublishedNames(world.clock)
    program = world.mount(MountArguments(Seconds(50.0), Seconds(50.0), Seconds(50.0)), published=published)
    yield program, published, program.filesystem.lookup(ROOT_INODE, b"a").attributes.inode
    world.close()


def test_what_was_looked_up_is_said_by_the_session(told: tuple[Program, PublishedNames, InodeNumber]) -> None:
    program, published, inode = told
    said = published.getattr(inode)
    assert said is not None and said.what == program.filesystem.getattr(inode).attributes
    assert published.answer_lookup(ROOT_INODE, b"a") == inode
    with pytest.raises(NoSuchEntry):
        program.filesystem.lookup(ROOT_INODE, b"no")
    with pytest.raises(NoSuchEntry):
        program.filesystem.lookup(ROOT_INODE, b"no")
    absent = published.lookup(ROOT_INODE, b"no")
    assert absent is not None and absent.what is None
    program.write("no", b"but now")
    assert published.lookup(ROOT_INODE, b"no") is None or program.stat("no").size == 7


def test_the_kernel_need_not_ask_for_the_root_again_and_again() -> None:
    """It is on the way to every file, and ages by nothing but our own changes."""
    world = World("memory")
    published = PublishedNames(world.clock)
    program = world.mount(MountArguments(attr_timeout=Seconds(3.0)), published=published)
    program.filesystem.getattr(ROOT_INODE)
    world.clock.advance(100.0)
    said = published.getattr(ROOT_INODE)
    assert said is not None
    assert said.told > world.clock()
    program.mkdir("new")
    changed = published.getattr(ROOT_INODE)
    assert changed is not None
    assert changed.what.mtime_ns == int(world.clock() * 1e9)
    world.close()


def test_a_directory_that_was_said_is_said_anew_when_a_name_is_made_in_it() -> None:
    world = World("memory")
    published = PublishedNames(world.clock)
    program = world.mount(FAST, published=published)
    program.mkdir("known")
    world.clock.advance(10.0)
    with program.walk("known") as known:
        program.filesystem.getattr(known)
        world.clock.advance(1.0)
        program.write("known/a", b"a")
        said = published.getattr(known)
        assert said is not None
        assert said.what == program.stat("known")
        assert said.what.mtime_ns == int(world.clock() * 1e9)
        program.unlink("known/a")
        world.clock.advance(3.0)
        assert published.getattr(known) is None, "as old as what OSS said"
    world.close()


def test_the_old_name_of_what_was_renamed_is_said_no_longer(
    told: tuple[Program, PublishedNames, InodeNumber],
) -> None:
    program, published, inode = told
    program.rename("a", "b")
    assert program.filesystem.getattr(inode).attributes.inode == inode
    assert published.getattr(inode) is not None
    assert published.lookup(ROOT_INODE, b"a") is None


def test_nothing_is_said_of_what_is_being_written(told: tuple[Program, PublishedNames, InodeNumber]) -> None:
    program, published, inode = told
    file = program.open("a", WRITE)
    program.filesystem.getattr(inode)
    assert published.getattr(inode) is None
    file.write(b"more")
    program.filesystem.getattr(inode)
    assert published.getattr(inode) is None
    file.close()


def test_an_inode_that_the_session_told_the_kernel_of_outlives_the_filesystems_own_count(
    told: tuple[Program, PublishedNames, InodeNumber],
) -> None:
    program, published, inode = told
    file = program.open("a")
    assert published.answer_lookup(ROOT_INODE, b"a") == inode
    file.close()
    program.filesystem.forget(inode, 1)  # all that the filesystem knows of
    assert program.filesystem.getattr(inode).attributes.size == 5
    assert published.statistics().lookups == 0
    program.filesystem.forget(inode, 1)
    with pytest.raises(StaleFile):
        program.filesystem.getattr(inode)


def test_a_session_without_room_is_asked_no_less(told: tuple[Program, PublishedNames, InodeNumber]) -> None:
    program, published, inode = told
    published.full = True
    program.append("a", b"!")
    assert program.filesystem.getattr(inode).attributes.size == 6
    assert published.getattr(inode) is None


def test_in_a_removed_directory_nothing_is_said_to_be_there(told: tuple[Program, PublishedNames, InodeNumber]) -> None:
    program, published, _ = told
    program.mkdir("d")
    program.write("d/x", b"there")
    with program.walk("d") as directory:
        with program.walk("d/x"):
            assert published.lookup(directory, b"x") is not None
            program.filesystem._namespace._store.delete(ObjectKey("d/x"))  # by another client
            program.rmdir("d")
            assert published.lookup(directory, b"x") is None


class PublishedMachine(RuleBasedStateMachine):
    """Programs, other clients, a kernel that keeps and forgets what it was told, and time."""

    @initialize(timeouts=TIMEOUTS)
    def begin(self, timeouts: tuple[float, float, float]) -> None:
        attr, entry, negative = timeouts
        self.world = World("memory")
        for key in ("a", "d/a"):
            self.world.store.seed(key, b"there")
        self.published = PublishedNames(self.world.clock)
        arguments = MountArguments(Seconds(attr), Seconds(entry), Seconds(negative))
        self.program = self.world.mount(arguments, published=self.published)
        self.filesystem = self.program.filesystem
        self.open: list[OpenedFile] = []
        self.told: list[InodeNumber] = []

    def teardown(self) -> None:
        if hasattr(self, "world"):
            for file in self.open:
                self.attempt(file.close)
            for inode in self.told:
                self.forgotten(inode)
            self.filesystem._offers.take_back(everything=True)
            assert self.filesystem.statistics().inodes == 1
            assert not self.published.offered
            assert self.published.statistics().lookups == 0
            self.world.close()

    # --- programs ---

    @rule(path=NAMES, data=st.binary(max_size=8))
    def write(self, path: str, data: bytes) -> None:
        self.attempt(lambda: self.program.write(path, data))

    @rule(path=NAMES, data=st.binary(max_size=8))
    def append(self, path: str, data: bytes) -> None:
        self.attempt(lambda: self.program.append(path, data))

    @rule(path=NAMES)
    def unlink(self, path: str) -> None:
        self.attempt(lambda: self.program.unlink(path))

    @rule(path=NAMES)
    def mkdir(self, path: str) -> None:
        self.attempt(lambda: self.program.mkdir(path))

    @rule(path=NAMES)
    def rmdir(self, path: str) -> None:
        self.attempt(lambda: self.program.rmdir(path))

    @rule(old=NAMES, new=NAMES)
    def rename(self, old: str, new: str) -> None:
        self.attempt(lambda: self.program.rename(old, new))

    @rule(path=NAMES, leads_to=st.sampled_from(["x", "some/where"]))
    def link(self, path: str, leads_to: str) -> None:
        def make() -> None:
            with self.program.parent(path) as (parent, name):
                inode = self.filesystem.symlink(parent, name, leads_to.encode()).attributes.inode
                self.told.append(inode)

        self.attempt(make)

    @rule(path=NAMES)
    def stat(self, path: str) -> None:
        self.attempt(lambda: self.program.stat(path))

    @rule(path=st.sampled_from(["", "d"]))
    def read_directory(self, path: str) -> None:
        self.attempt(lambda: self.program.list(path))

    @rule(path=NAMES, when=st.integers(1, 10**9))
    def touch(self, path: str, when: int) -> None:
        def set_time() -> None:
            with self.program.walk(path) as inode:
                self.filesystem.setattr(inode, AttributeChange(mtime_ns=when), None)

        self.attempt(set_time)

    @rule(path=NAMES)
    def start(self, path: str) -> None:
        self.attempt(lambda: self.open.append(self.program.open(path, WRITE)))

    @rule(path=NAMES)
    def start_reading(self, path: str) -> None:
        self.attempt(lambda: self.open.append(self.program.open(path)))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9), data=st.binary(min_size=1, max_size=8))
    def go_on(self, which: int, data: bytes) -> None:
        self.attempt(lambda: self.open[which % len(self.open)].write(data))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9))
    def fsync(self, which: int) -> None:
        self.attempt(self.open[which % len(self.open)].fsync)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9))
    def finish(self, which: int) -> None:
        self.attempt(self.open.pop(which % len(self.open)).close)

    # --- the kernel ---

    @rule(path=NAMES)
    def keep(self, path: str) -> None:
        """Names are looked up, by the session alone if it can, and kept."""

        def walk() -> None:
            inode = ROOT_INODE
            for name in path.encode().split(b"/"):
                answered = self.published.answer_lookup(inode, name)
                inode = answered or self.filesystem.lookup(inode, name).attributes.inode
                self.told.append(inode)

        self.attempt(walk)

    @precondition(lambda self: self.told)
    @rule(which=st.integers(0, 99))
    def forget(self, which: int) -> None:
        self.forgotten(self.told.pop(which % len(self.told)))

    @rule(full=st.sampled_from([False, False, False, True]))
    def fill(self, full: bool) -> None:
        self.published.full = full

    # --- the rest of the world ---

    @rule(path=NAMES, data=st.binary(max_size=8))
    def put_elsewhere(self, path: str, data: bytes) -> None:
        self.world.store.seed(path, data)

    @rule(path=NAMES)
    def delete_elsewhere(self, path: str) -> None:
        self.world.store.objects.pop(path, None)

    @rule(seconds=st.sampled_from([0.4, 1.5, 10.0]))
    def wait(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    # --- what must hold ---

    @invariant()
    def attributes_are_what_the_filesystem_would_say(self) -> None:
        for inode in list(getattr(self, "published", PublishedNames(float)).inodes):
            said = self.published.getattr(inode)
            if said is None:
                continue
            try:
                entry = self.filesystem.getattr_cached(inode)
            except StaleFile:
                raise AssertionError(f"{inode} is published and not known") from None
            assert entry is not None
            assert entry.attributes == said.what
            assert abs(said.told - self.world.clock() - entry.attr_timeout) < 0.001 or said.told <= self.world.clock()

    @invariant()
    def names_are_what_the_filesystem_would_say(self) -> None:
        for parent, name in list(getattr(self, "published", PublishedNames(float)).names):
            said = self.published.lookup(parent, name)
            if said is None:
                continue
            try:
                entry = self.filesystem.lookup_cached(parent, name)
            except NoSuchEntry:
                assert said.what is None
                continue
            except StaleFile:
                continue  # the directory was forgotten: the kernel does not ask for names in it
            if entry is None:
                assert said.what is None  # an absence of a listing that is not kept any more
                continue
            self.filesystem.forget(entry.attributes.inode, 1)
            assert entry.attributes.inode == said.what

    # --- private ---

    def attempt(self, operation: Callable[[], object]) -> None:
        with contextlib.suppress(OssFuseError):
            operation()

    def forgotten(self, inode: InodeNumber) -> None:
        left = self.published.forget(inode, 1)
        if left:
            self.filesystem.forget(inode, left)


TestPublished = PublishedMachine.TestCase
TestPublished.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
