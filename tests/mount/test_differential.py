"""The same operations on a mount and on tmpfs: for what the mount claims of POSIX, results and errnos are the same."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support.emulator import RunningEmulator
from tests.support.volumes import mounted_volume

NAMES = st.sampled_from(["a", "b", "c", "a.b", "ä"])
SPOTS = st.tuples(st.sampled_from(["there", "there", "there", "below", "below", "anywhere"]), st.integers(0, 99), NAMES)
"""Where to act: on something that is there, on a name in a directory that is there, or just somewhere."""
Spot = tuple[str, int, str]
CONTENTS = st.one_of(
    st.binary(max_size=20),
    st.integers(0, 255).map(lambda byte: bytes([byte]) * 140_000),
)


class Differential(RuleBasedStateMachine):
    """`roots` are set by the test: the mount first, tmpfs second. `busy`: it does not show what is being written."""

    roots: tuple[Path, Path]
    busy: bool

    def __init__(self) -> None:
        super().__init__()
        folder = uuid.uuid4().hex
        self.homes = [root / folder for root in self.roots]
        for home in self.homes:
            home.mkdir()
        self.writers: list[int] | None = None
        self.stored = False  # what the writers have written, or some of it, is or was an object

    def teardown(self) -> None:
        for descriptor in self.writers or ():
            os.close(descriptor)
        shutil.rmtree(self.homes[1])

    @rule(spot=SPOTS, data=CONTENTS)
    def write(self, spot: Spot, data: bytes) -> None:
        path = self.at(spot)
        if self.is_being_written(path):
            return

        self.both(lambda home: (home / path).write_bytes(data))

    @rule(spot=SPOTS, data=CONTENTS)
    def append(self, spot: Spot, data: bytes) -> None:
        path = self.at(spot)
        if self.is_being_written(path):
            return

        def append(home: Path) -> int:
            with (home / path).open("ab", buffering=0) as file:
                return file.write(data)

        self.both(append)

    @rule(spot=SPOTS, data=st.binary(max_size=10))
    def create_exclusively(self, spot: Spot, data: bytes) -> None:
        path = self.at(spot)
        if self.is_being_written(path):
            return

        def create(home: Path) -> int:
            with (home / path).open("xb", buffering=0) as file:
                return file.write(data)

        self.both(create)

    @rule(spot=SPOTS, offset=st.integers(0, 150_000), size=st.integers(0, 150_000))
    def read(self, spot: Spot, offset: int, size: int) -> None:
        path = self.at(spot)

        def read(home: Path) -> bytes:
            descriptor = os.open(home / path, os.O_RDONLY)
            try:
                return os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)

        if not (self.busy and self.is_being_written(path)):
            self.both(read)

    @rule(spot=SPOTS)
    def truncate(self, spot: Spot) -> None:
        path = self.at(spot)
        if self.is_being_written(path):
            return
        self.both(lambda home: os.truncate(home / path, 0))

    @rule(spot=SPOTS)
    def unlink(self, spot: Spot) -> None:
        path = self.at(spot)
        self.both(lambda home: os.unlink(home / path))

    @rule(spot=SPOTS)
    def mkdir(self, spot: Spot) -> None:
        path = self.at(spot)
        self.both(lambda home: os.mkdir(home / path))

    @rule(spot=SPOTS)
    def rmdir(self, spot: Spot) -> None:
        path = self.at(spot)
        self.both(lambda home: os.rmdir(home / path))

    @rule(old=SPOTS, new=SPOTS)
    def rename(self, old: Spot, new: Spot) -> None:
        source, target = self.at(old), self.at(new)
        self.both(lambda home: os.rename(home / source, home / target))

    @rule(spot=SPOTS, when=st.integers(1, 2_000_000_000))
    def set_time(self, spot: Spot, when: int) -> None:
        path = self.at(spot)

        def touch(home: Path) -> int | None:
            os.utime(home / path, (when, when))
            return None if (home / path).is_dir() else (home / path).stat().st_mtime_ns

        self.both(touch)

    @rule(spot=SPOTS)
    def stat(self, spot: Spot) -> None:
        path = self.at(spot)

        def stat(home: Path) -> tuple[bool, int]:
            found = os.stat(home / path)
            directory = os.path.isdir(home / path)
            return directory, 0 if directory else found.st_size

        self.both(stat)

    # --- a file that is held open for writing while everything else goes on ---

    @precondition(lambda self: self.writers is None)
    @rule(spot=SPOTS, append=st.booleans())
    def open_writer(self, spot: Spot, append: bool) -> None:
        path = self.at(spot)
        flags = os.O_CREAT | os.O_RDWR | (os.O_APPEND if append else os.O_TRUNC)
        opened = [outcome(lambda home: os.open(home / path, flags, 0o644), home) for home in self.homes]
        if isinstance(opened[0], int) and isinstance(opened[1], int):
            self.writers = [opened[0], opened[1]]
            self.stored = os.fstat(opened[1]).st_size > 0
        else:
            assert opened[0] == opened[1]

    @precondition(lambda self: self.writers is not None)
    @rule(data=CONTENTS)
    def write_more(self, data: bytes) -> None:
        self.on_writers(lambda descriptor: os.write(descriptor, data))

    @precondition(lambda self: self.writers is not None and not self.busy)
    @rule(offset=st.integers(0, 300_000), size=st.integers(0, 150_000))
    def read_back(self, offset: int, size: int) -> None:
        """Never more than a part in all; of what was stored when its name went some may be lost, as documented."""
        assert self.writers is not None
        lost = (errno.ESTALE,) if self.stored and not os.fstat(self.writers[1]).st_nlink else ()
        self.on_writers(lambda descriptor: os.pread(descriptor, size, offset), but=lost)

    @precondition(lambda self: self.writers is not None)
    @rule()
    def sync_writer(self) -> None:
        self.on_writers(os.fsync)
        self.stored = True

    @precondition(lambda self: self.writers is not None)
    @rule()
    def close_duplicate(self) -> None:
        self.on_writers(lambda descriptor: os.close(os.dup(descriptor)))
        self.stored = True

    @precondition(lambda self: self.writers is not None)
    @rule()
    def close_writer(self) -> None:
        self.on_writers(os.close)
        self.writers = None

    def on_writers(self, call: Callable[[int], Any], but: Collection[int] = ()) -> None:
        assert self.writers is not None
        mounted, local = (outcome(call, descriptor) for descriptor in self.writers)
        assert mounted == local or mounted in [errno.errorcode[number] for number in but]

    def is_being_written(self, path: str) -> bool:
        """Writing it a second time is EBUSY on the mount: documented, and not compared."""
        if self.writers is None:
            return False
        try:
            return os.path.samestat(os.stat(self.homes[1] / path), os.fstat(self.writers[1]))
        except OSError:
            return False

    @invariant()
    def the_trees_are_the_same(self) -> None:
        mounted, local = (tree(home) for home in self.homes)
        assert mounted == local

    def at(self, spot: Spot) -> str:
        how, choice, name = spot
        if how == "anywhere":
            return "/".join((name, "b", "a")[: choice % 3 + 1])
        names = tree(self.homes[1])
        if how == "there" and names:
            return sorted(names)[choice % len(names)]
        directories = [".", *sorted(path for path, size in names.items() if size is None)]
        return f"{directories[choice % len(directories)]}/{name}"

    def both(self, call: Callable[[Path], Any]) -> None:
        mounted, local = (outcome(call, home) for home in self.homes)
        assert mounted == local


def outcome(call: Callable[[Any], Any], home: Any) -> object:
    try:
        return call(home)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def tree(home: Path) -> dict[str, int | None]:
    """Every name below `home`, with the size of files."""
    found: dict[str, int | None] = {}
    for directory, directories, files in os.walk(home, onerror=_raise):
        where = os.path.relpath(directory, home)
        found.update({f"{where}/{name}": None for name in directories})
        found.update({f"{where}/{name}": os.stat(os.path.join(directory, name)).st_size for name in files})
    return found


def _raise(error: OSError) -> None:
    raise error


@pytest.mark.parametrize(
    ("mode", "arguments", "session"),
    [
        ("fast", "", "own"),
        ("consistent", "", "own"),
        ("consistent", "-odirect_io", "own"),
        ("custom", "", "own"),
        ("fast", "", "pyfuse3"),
        ("consistent", "-odirect_io", "pyfuse3"),
    ],
    ids=["fast", "consistent", "consistent-direct", "custom", "fast-pyfuse3", "consistent-direct-pyfuse3"],
)
def test_operations_have_the_results_they_have_on_a_local_disk(
    tmp_path: Path, emulator_process: RunningEmulator, tmpfs: Path, mode: str, arguments: str, session: str
) -> None:
    own = replace(emulator_process, bucket=emulator_process.create_bucket())
    with mounted_volume(tmp_path, own, mode=mode, arguments=arguments, session=session) as volume:
        machine = type("Machine", (Differential,), {"roots": (volume.path, tmpfs), "busy": session == "pyfuse3"})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=20,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
