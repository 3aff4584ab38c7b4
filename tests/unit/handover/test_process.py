from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from csi.errors import SidecarFailed
from csi.handover.cgroup import MemoryCgroup
from csi.handover.process import LocalProcess, reap, sidecar_environment, start_in_cgroup
from csi.volume.units import GIB, MIB, Bytes, Seconds

SOON = Seconds(10.0)
SLEEPER = [sys.executable, "-I", "-c", "import signal; signal.pause()"]


@pytest.fixture
def memory(tmp_path):
    (tmp_path / "cgroup.procs").write_text("")
    return MemoryCgroup(tmp_path, 2, sleep=lambda _: None)


@pytest.fixture
def start(memory):
    started = []

    def run(command, **options):
        process = start_in_cgroup(command, memory, environment=sidecar_environment(Bytes(GIB)), **options)
        started.append(process)
        return process

    yield run
    for process in started:
        process.signal(signal.SIGKILL)
        process.wait(SOON)
        process.close()


def test_the_process_enters_its_cgroup_before_its_program_runs(start, memory):
    process = start([sys.executable, "-I", "-c", f"assert open('{memory.path}/cgroup.procs').read() == '0\\n'"])
    assert process.wait(SOON)
    assert process.poll() == 0


def test_a_cgroup_that_refuses_means_that_the_program_never_runs(tmp_path, start, memory):
    (memory.path / "cgroup.procs").unlink()
    (memory.path / "cgroup.procs").mkdir()
    process = start([sys.executable, "-I", "-c", f"open('{tmp_path}/ran', 'w')"], stderr=subprocess.DEVNULL)
    assert process.wait(SOON)
    assert process.poll() != 0
    assert not (tmp_path / "ran").exists()


def test_the_environment_is_clean_and_the_session_its_own(start, tmp_path, monkeypatch):
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "hidden")
    program = f"import os; open('{tmp_path}/said', 'w').write(repr((sorted(os.environ), os.getsid(0) == os.getpid())))"
    process = start([sys.executable, "-I", "-c", program])
    assert process.wait(SOON)
    names, leader = eval((tmp_path / "said").read_text())
    assert leader
    assert set(names) - {"PWD", "LC_CTYPE"} == set(sidecar_environment(Bytes(GIB)))


def test_a_process_that_does_not_exist_cannot_be_taken_over():
    with pytest.raises(ProcessLookupError):
        LocalProcess(2**22 - 1)


def test_a_running_process_can_be_taken_over_by_its_pid(start):
    child = start(SLEEPER)
    found = LocalProcess(child.pid)
    assert found.poll() is None
    assert not found.wait(Seconds(0))
    child.signal(signal.SIGKILL)
    assert found.wait(SOON)
    assert found.poll() == 0
    found.close()
    found.close()


def test_a_stopped_process_is_seen_to_be_stopped(start):
    process = start(SLEEPER)
    assert not process.stopped()
    process.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert process.stopped()


def test_a_killed_process_has_the_signal_as_status(start):
    process = start(SLEEPER)
    process.signal(signal.SIGKILL)
    assert process.wait(SOON)
    assert process.poll() == -9
    process.signal(signal.SIGTERM)


def test_reaping_ends_a_process_that_its_cgroup_does_not_list(start, memory):
    process = start(SLEEPER)
    (memory.path / "cgroup.procs").write_text("")
    reap(process, memory)
    assert not os.path.exists(f"/proc/{process.pid}")


def test_only_a_process_with_the_device_open_holds_it(start):
    holder = [
        sys.executable,
        "-I",
        "-c",
        "import os, signal; os.open('/dev/fuse', os.O_RDWR); os.write(2, b'.'); signal.pause()",
    ]
    read, write = os.pipe()
    process = start(holder, stderr=write)
    os.close(write)
    other = start(SLEEPER)
    assert os.read(read, 1) == b"."
    os.close(read)
    assert process.holds_device()
    assert not other.holds_device()


def test_what_cannot_be_started_is_a_sidecar_failure(memory, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(SidecarFailed, match="could not be started: Resource temporarily unavailable"):
        start_in_cgroup(SLEEPER, memory, environment={})


@pytest.mark.parametrize(("limit", "keep"), [(256 * MIB, 16 * MIB), (GIB, 64 * MIB), (64 * GIB, 64 * MIB)])
def test_the_allocator_keeps_a_share_of_the_limit_that_is_small_where_the_limit_is(limit, keep):
    assert sidecar_environment(Bytes(limit))["MALLOC_TRIM_THRESHOLD_"] == str(keep)
