"""The same system calls on a mount and on a folder beside it: results, errnos and trees are the same.

Behind the mount is a local folder too (tests/support/folder_filesystem.py), so whatever differs is the kernel session's
doing: nothing is limited to what an object store can do, which test_differential.py compares through the whole stack.
Several files are open at once, read and written anywhere, truncated, mapped, locked, copied, renamed and removed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from csi.volume.naming import SESSIONS
from tests.support.mounts import served_mount

EXAMPLES, STEPS = 12, 50
_libc = ctypes.CDLL(None, use_errno=True)

NAMES = st.sampled_from(["a", "b", "c", "ä", "-x"])
SPOTS = st.tuples(st.sampled_from(["there", "there", "below", "below", "anywhere"]), st.integers(0, 99), NAMES)
"""Where to act: on something that is there, on a name in a directory that is there, or just somewhere."""
Spot = tuple[str, int, str]
WHICH = st.integers(0, 3)
"""Which of the open files, counted round."""
OFFSETS = st.one_of(st.integers(0, 40), st.integers(4000, 9000), st.integers(100_000, 300_000))
SIZES = st.one_of(st.integers(0, 30), st.integers(4000, 9000), st.just(131_072))
CONTENTS = st.one_of(
    st.binary(max_size=20), st.tuples(st.integers(1, 255), SIZES).map(lambda given: bytes([given[0]]) * given[1])
)
ACCESS = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR])
EXTRAS = st.sets(
    st.sampled_from([os.O_CREAT, os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_NOFOLLOW]), max_size=3
)
LOCKS = st.sampled_from([fcntl.LOCK_SH | fcntl.LOCK_NB, fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN])
_SETTABLE = 0o1777
_NOREPLACE, _EXCHANGE = 1, 2


class Session(RuleBasedStateMachine):
    """`roots` are set by the test: the mount first, the local folder second."""

    roots: tuple[Path, Path]

    def __init__(self) -> None:
        super().__init__()
        folder = uuid.uuid4().hex
        self.homes = [root / folder for root in self.roots]
        for home in self.homes:
            home.mkdir()
        self.open: list[list[int]] = []

    @initialize()
    def begin_with_something(self) -> None:
        for home in self.homes:
            (home / "d").mkdir()
            (home / "d/f").write_bytes(b"0123456789" * 30_000)

    def teardown(self) -> None:
        for pair in self.open:
            for descriptor in pair:
                os.close(descriptor)
        for home in self.homes:
            shutil.rmtree(home)

    # --- names ---

    @rule(spot=SPOTS, mode=st.integers(0, 0o777))
    def mkdir(self, spot: Spot, mode: int) -> None:
        path = self.at(spot)
        self.both(lambda home: os.mkdir(home / path, mode | 0o700))

    @rule(spot=SPOTS)
    def rmdir(self, spot: Spot) -> None:
        path = self.at(spot)
        self.both(lambda home: os.rmdir(home / path))

    @rule(spot=SPOTS)
    def unlink(self, spot: Spot) -> None:
        path = self.at(spot)
        self.both(lambda home: os.unlink(home / path))

    @rule(spot=SPOTS, leads=st.sampled_from(["a", "d/f", "nowhere", "..", "d"]))
    def symlink(self, spot: Spot, leads: str) -> None:
        path = self.at(spot)
        self.both(lambda home: os.symlink(leads, home / path))

    @rule(spot=SPOTS)
    def readlink(self, spot: Spot) -> None:
        path = self.at(spot)
        self.both(lambda home: os.readlink(home / path))

    @rule(old=SPOTS, new=SPOTS, flags=st.sampled_from([0, 0, _NOREPLACE, _EXCHANGE]))
    def rename(self, old: Spot, new: Spot, flags: int) -> None:
        source, target = self.at(old), self.at(new)
        self.both(lambda home: renameat2(home / source, home / target, flags))

    # --- attributes ---

    @rule(spot=SPOTS)
    def stat(self, spot: Spot) -> None:
        path = self.at(spot)
        self.both(lambda home: shown(os.stat(home / path)))

    @rule(spot=SPOTS, mode=st.integers(0, _SETTABLE))
    def chmod(self, spot: Spot, mode: int) -> None:
        path = self.at(spot)

        def chmod(home: Path) -> object:
            os.chmod(home / path, mode | 0o700)
            return shown(os.stat(home / path))

        self.both(chmod)

    @rule(spot=SPOTS, owner=st.integers(-1, 3), group=st.integers(-1, 3))
    def chown(self, spot: Spot, owner: int, group: int) -> None:
        path = self.at(spot)

        def chown(home: Path) -> object:
            os.chown(home / path, owner, group)
            return shown(os.stat(home / path))

        self.both(chown)

    @rule(spot=SPOTS, access=st.integers(0, 1 << 62), modification=st.integers(0, 1 << 62))
    def set_times(self, spot: Spot, access: int, modification: int) -> None:
        path = self.at(spot)

        def utime(home: Path) -> tuple[int, int]:
            os.utime(home / path, ns=(access, modification))
            found = os.stat(home / path)
            return found.st_mtime_ns, 0 if stat.S_ISDIR(found.st_mode) else found.st_atime_ns

        self.both(utime)

    @rule(spot=SPOTS, size=st.one_of(OFFSETS, st.just(-1)))
    def truncate(self, spot: Spot, size: int) -> None:
        path = self.at(spot)
        self.both(lambda home: os.truncate(home / path, size))

    @rule(spot=SPOTS, name=st.sampled_from(["user.a", "user.b"]), value=st.binary(max_size=40))
    def set_attribute(self, spot: Spot, name: str, value: bytes) -> None:
        path = self.at(spot)
        self.both(lambda home: os.setxattr(home / path, name, value))

    @rule(spot=SPOTS, name=st.sampled_from(["user.a", "user.b"]))
    def get_attribute(self, spot: Spot, name: str) -> None:
        path = self.at(spot)
        self.both(lambda home: os.getxattr(home / path, name))

    @rule(spot=SPOTS, name=st.sampled_from(["user.a", "user.b"]))
    def remove_attribute(self, spot: Spot, name: str) -> None:
        path = self.at(spot)
        self.both(lambda home: os.removexattr(home / path, name))

    @rule(spot=SPOTS)
    def list_attributes(self, spot: Spot) -> None:
        path = self.at(spot)
        self.both(lambda home: sorted(os.listxattr(home / path)))

    # --- open files ---

    @rule(spot=SPOTS)
    def read_whole(self, spot: Spot) -> None:
        path = self.at(spot)
        self.both(lambda home: (home / path).read_bytes())

    @precondition(lambda self: len(self.open) < 4)
    @rule(spot=SPOTS, access=ACCESS, extras=EXTRAS)
    def open_file(self, spot: Spot, access: int, extras: set[int]) -> None:
        path = self.at(spot)
        flags = access | sum(extras)
        if os.O_TRUNC in extras and access == os.O_RDONLY:
            return  # unspecified, open(2)
        opened = [outcome(lambda home: os.open(home / path, flags, 0o640), home) for home in self.homes]
        if all(isinstance(found, int) for found in opened):
            self.open.append([int(str(found)) for found in opened])
        else:
            assert opened[0] == opened[1]

    @precondition(lambda self: self.open)
    @rule(which=WHICH)
    def close(self, which: int) -> None:
        pair = self.open.pop(which % len(self.open))
        mounted, local = (outcome(os.close, descriptor) for descriptor in pair)
        assert mounted == local

    @precondition(lambda self: self.open)
    @rule(which=WHICH, offset=OFFSETS, size=SIZES)
    def pread(self, which: int, offset: int, size: int) -> None:
        self.on(which, lambda descriptor: os.pread(descriptor, size, offset))

    @precondition(lambda self: self.open)
    @rule(which=WHICH, offset=OFFSETS, data=CONTENTS)
    def pwrite(self, which: int, offset: int, data: bytes) -> None:
        self.on(which, lambda descriptor: os.pwrite(descriptor, data, offset))

    @precondition(lambda self: self.open)
    @rule(which=WHICH, size=SIZES)
    def read(self, which: int, size: int) -> None:
        self.on(which, lambda descriptor: os.read(descriptor, size))

    @precondition(lambda self: self.open)
    @rule(which=WHICH, data=CONTENTS)
    def write(self, which: int, data: bytes) -> None:
        self.on(which, lambda descriptor: os.write(descriptor, data))

    @precondition(lambda self: self.open)
    @rule(
        which=WHICH, offset=st.integers(-20, 200_000), whence=st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
    )
    def seek(self, which: int, offset: int, whence: int) -> None:
        self.on(which, lambda descriptor: os.lseek(descriptor, offset, whence))

    @precondition(lambda self: self.open)
    @rule(which=WHICH, size=OFFSETS)
    def ftruncate(self, which: int, size: int) -> None:
        self.on(which, lambda descriptor: os.ftruncate(descriptor, size))

    @precondition(lambda self: self.open)
    @rule(which=WHICH)
    def fsync(self, which: int) -> None:
        self.on(which, os.fsync)

    @precondition(lambda self: self.open)
    @rule(which=WHICH)
    def close_a_duplicate(self, which: int) -> None:
        self.on(which, lambda descriptor: os.close(os.dup(descriptor)))

    @precondition(lambda self: self.open)
    @rule(which=WHICH)
    def fstat(self, which: int) -> None:
        self.on(which, lambda descriptor: shown(os.fstat(descriptor)))

    @precondition(lambda self: self.open)
    @rule(which=WHICH, offset=OFFSETS)
    def read_through_a_mapping(self, which: int, offset: int) -> None:
        def read(descriptor: int) -> bytes:
            size = os.fstat(descriptor).st_size
            if not size:
                return b""
            with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapped:
                return mapped[offset % size :][:5000]

        self.on(which, read)

    @precondition(lambda self: self.open)
    @rule(which=WHICH, offset=OFFSETS, data=st.binary(min_size=1, max_size=10))
    def write_through_a_mapping(self, which: int, offset: int, data: bytes) -> None:
        def write(descriptor: int) -> None:
            size = os.fstat(descriptor).st_size
            if size < len(data):
                return
            with mmap.mmap(descriptor, size) as mapped:
                begin = offset % (size - len(data) + 1)
                mapped[begin : begin + len(data)] = data
                mapped.flush()

        self.on(which, write)

    @precondition(lambda self: self.open)
    @rule(source=WHICH, destination=WHICH, begin=OFFSETS, to=OFFSETS, size=SIZES)
    def copy_range(self, source: int, destination: int, begin: int, to: int, size: int) -> None:
        first, second = (self.open[which % len(self.open)] for which in (source, destination))
        mounted, local = (
            outcome(lambda pair: os.copy_file_range(pair[0], pair[1], size, begin, to), pair)
            for pair in zip(first, second, strict=True)
        )
        assert mounted == local

    @precondition(lambda self: self.open)
    @rule(which=WHICH, offset=OFFSETS, size=st.integers(1, 9000))
    def allocate(self, which: int, offset: int, size: int) -> None:
        flags = fcntl.fcntl(self.open[which % len(self.open)][1], fcntl.F_GETFL)
        if flags & os.O_ACCMODE == os.O_RDWR and not flags & os.O_APPEND:  # else libc does it in a way of its own
            self.on(which, lambda descriptor: os.posix_fallocate(descriptor, offset, size))

    @precondition(lambda self: self.open)
    @rule(which=WHICH, kind=LOCKS)
    def flock(self, which: int, kind: int) -> None:
        self.on(which, lambda descriptor: fcntl.flock(descriptor, kind))

    @precondition(lambda self: self.open)
    @rule(which=WHICH, kind=LOCKS, begin=OFFSETS, size=SIZES)
    def lock(self, which: int, kind: int, begin: int, size: int) -> None:
        self.on(which, lambda descriptor: fcntl.lockf(descriptor, kind, size, begin))

    # --- what must hold at any time ---

    @invariant()
    def the_trees_are_the_same(self) -> None:
        mounted, local = (tree(home) for home in self.homes)
        assert mounted == local

    def at(self, spot: Spot) -> str:
        how, choice, name = spot
        if how == "anywhere":
            return "/".join((name, "b", "a")[: choice % 3 + 1])
        known = tree(self.homes[1])
        if how == "there" and known:
            return sorted(known)[choice % len(known)]
        directories = [".", *sorted(path for path, (kind, *_) in known.items() if kind == stat.S_IFDIR)]
        return f"{directories[choice % len(directories)]}/{name}"

    def both(self, call: Callable[[Path], Any]) -> None:
        mounted, local = (outcome(call, home) for home in self.homes)
        assert mounted == local

    def on(self, which: int, call: Callable[[int], Any]) -> None:
        mounted, local = (outcome(call, descriptor) for descriptor in self.open[which % len(self.open)])
        assert mounted == local


def outcome(call: Callable[[Any], Any], given: Any) -> object:
    try:
        return call(given)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def renameat2(old: Path, new: Path, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def shown(found: os.stat_result) -> tuple[int, ...]:
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return found.st_mode, found.st_uid, found.st_gid, size, found.st_nlink if stat.S_ISREG(found.st_mode) else 0


def tree(home: Path) -> dict[str, tuple[int, int, str]]:
    """Every name below `home`: what it is, its size, where it leads."""
    found: dict[str, tuple[int, int, str]] = {}
    for directory, directories, files in os.walk(home, onerror=_raise):
        where = os.path.relpath(directory, home)
        for name in directories + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            leads = os.readlink(path) if kind == stat.S_IFLNK else ""
            found[f"{where}/{name}"] = (kind, 0 if kind == stat.S_IFDIR else status.st_size, leads)
    return found


def _raise(error: OSError) -> None:
    raise error


@pytest.mark.parametrize("timeout", [0.0, 1.0], ids=["asked-every-time", "trusted"])
@pytest.mark.parametrize(
    ("session", "way"),
    [(session, way) for session in SESSIONS for way in ("inline", "threads")] + [("own", "published")],
)
def test_system_calls_have_the_results_they_have_on_a_local_folder(
    tmp_path: Path, tmpfs: Path, session: str, way: str, timeout: float
) -> None:
    behind, beside = (tmpfs / f"{uuid.uuid4().hex}" for _ in range(2))
    behind.mkdir()
    beside.mkdir()
    held = tmp_path / "held.json"
    command = ["tests.support.folder_server", "--folder", str(behind), "--session", session, "--held", str(held)]
    command += ["--timeout", str(timeout), "--way", way]
    with served_mount(tmp_path / "m", command) as served:
        machine = type("Machine", (Session,), {"roots": (served.path, beside)})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],  # looking for a shorter way to a failure can take longer than a test may
                suppress_health_check=list(HealthCheck),
            ),
        )
        assert served.unmount() == 0

    told = json.loads(held.read_text())
    assert told["handles"] == 0
    if way == "published":
        assert {"lookup", "getattr", "read"} <= told["tables"].keys()
