"""A program that is killed while it writes leaves the file as it was, or none; every other end is a close."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from csi.handover.cgroup import CgroupRoom
from csi.handover.local import this_hierarchy
from csi.handover.process import start_in_cgroup
from csi.volume.units import MIB, Bytes, Seconds
from tests.mount.conftest import MountVolume
from tests.support.emulator import RunningEmulator
from tests.support.ending_programs import BEGINNING, CLOSED, KILLED, WRITTEN
from tests.support.volumes import MountedVolume, mounted_volume

PART = MIB


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory, emulator_process: RunningEmulator) -> Iterator[MountedVolume]:
    own = replace(emulator_process, bucket=emulator_process.create_bucket())
    options = {"fs.oss.blocklet.size.mb": "1"}
    with mounted_volume(tmp_path_factory.mktemp("killed"), own, attributes=options) as mounted:
        yield mounted


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex[:8]


def program(path: Path, code: str) -> subprocess.Popen[bytes]:
    """Runs `code` after BEGINNING, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{BEGINNING}\n{code}", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def killed(path: Path, code: str, number: int = signal.SIGKILL) -> None:
    """Runs `code`, and kills it as soon as it says that it has written."""
    with program(path, code) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"written\n"
        running.send_signal(number)


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.01)


def gone(path: Path) -> None:
    """The kernel tells of the last close after the process has ended."""
    until(lambda: not path.exists(), f"{path} is given up")


@pytest.mark.parametrize("how", KILLED)
def test_a_killed_program_leaves_no_half_object(volume: MountedVolume, name: str, how: str) -> None:
    killed(volume.path / name, KILLED[how])
    gone(volume.path / name)
    assert name not in volume.stored_names()
    assert f"'{name}' was not written: its program was killed" in volume.served.log()


def test_the_last_of_those_that_share_a_file_was_killed_too(volume: MountedVolume, name: str) -> None:
    """As in a container, where the first process is killed before all others."""
    with program(volume.path / name, "write(); forked(wait); time.sleep(60)") as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.kill()
        running.wait()
        assert (volume.path / name).exists()
        os.killpg(running.pid, signal.SIGKILL)
    gone(volume.path / name)
    assert name not in volume.stored_names()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSEGV, signal.SIGABRT])
def test_a_signal_of_any_kind_that_nobody_handles_kills(volume: MountedVolume, name: str, number: int) -> None:
    default = f"signal.signal({int(number)}, signal.SIG_DFL); write(); wait()"
    killed(volume.path / name, default, number)
    gone(volume.path / name)
    assert name not in volume.stored_names()


def test_a_program_killed_for_memory_leaves_no_half_object(volume: MountedVolume, name: str) -> None:
    room = CgroupRoom(this_hierarchy, f"test-{name}")
    memory = room.create(name, Bytes(64 * MIB))
    try:
        code = f"{BEGINNING}\nwrite()\nhoard = []\nwhile True: hoard.append(b'y' * (1 << 20))"
        command = [sys.executable, "-c", code, str(volume.path / name)]
        hungry = start_in_cgroup(command, memory, environment={})
        assert hungry.wait(Seconds(60.0))
        hungry.close()
        assert memory.oom_kills() > 0
    finally:
        memory.remove()
    gone(volume.path / name)
    assert name not in volume.stored_names()


@pytest.mark.parametrize("how", CLOSED)
def test_any_other_end_is_a_close(volume: MountedVolume, name: str, how: str) -> None:
    with program(volume.path / name, CLOSED[how]) as running:
        running.wait(60)
        running.communicate(b"go on\n")
    until(lambda: name in volume.stored_names(), f"the object {name}")
    until(lambda: volume.get(name) == WRITTEN, f"all of {name}")


def test_what_was_there_stays(volume: MountedVolume, name: str) -> None:
    (volume.path / name).write_bytes(b"old")
    killed(volume.path / name, "write(); wait()")
    assert (volume.path / name).read_bytes() == b"old"
    assert volume.get(name) == b"old"


def refused(file: int) -> None:
    os.pwrite(file, b"x", 100)


def unfilled(file: int) -> None:
    os.ftruncate(file, 100)
    os.close(file)


@pytest.mark.parametrize("write", [refused, unfilled])
def test_a_name_that_came_to_nothing_is_not_there(
    mount_volume: MountVolume, name: str, write: Callable[[int], None]
) -> None:
    volume = mount_volume(mode="custom", attributes={"fs.jindo.args": "-oentry_timeout=60 -oattr_timeout=60"})
    file = os.open(volume.path / name, os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="Invalid argument"):
        write(file)
    with contextlib.suppress(OSError):
        os.close(file)
    gone(volume.path / name)
    assert os.listdir(volume.path) == []


def test_what_was_synced_stays(volume: MountedVolume, name: str) -> None:
    killed(volume.path / name, "write(); os.fsync(file); os.write(file, b'more'); wait()")
    until(lambda: (volume.path / name).stat().st_size == len(WRITTEN), "the synced content")
    assert volume.get(name) == WRITTEN


def test_parts_that_were_uploaded_are_not_kept(volume: MountedVolume, name: str) -> None:
    killed(volume.path / name, f"write(b'x' * {4 * PART}); wait()")
    gone(volume.path / name)
    until(lambda: volume.uploads() == [], "the end of the upload")
    assert name not in volume.stored_names()


def test_a_log_in_append_mode_keeps_all_that_was_written(mount_volume: MountVolume, name: str) -> None:
    volume = mount_volume(attributes={"fs.oss.append.enable": "true"})
    killed(volume.path / name, "write(); wait()")
    assert volume.get(name) == WRITTEN


def test_the_name_can_be_written_again(volume: MountedVolume, name: str) -> None:
    killed(volume.path / name, "write(); wait()")
    gone(volume.path / name)
    (volume.path / name).write_bytes(b"again")
    assert volume.get(name) == b"again"


def test_a_mount_that_ends_finishes_what_a_living_program_writes(mount_volume: MountVolume, name: str) -> None:
    volume = mount_volume()
    with program(volume.path / name, "write(); wait()") as running:
        assert running.stdout is not None
        running.stdout.readline()
        assert volume.served.terminate() == 0
        running.kill()
    assert volume.stored_names() == {name}
