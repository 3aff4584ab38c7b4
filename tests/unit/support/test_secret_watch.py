"""The watch of the test run itself: what it must find, it finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.secret_watch import SecretWatch

SECRET = "planted-secret-of-a-test"


@pytest.fixture
def watch(tmp_path: Path) -> SecretWatch:
    found = SecretWatch(proc=tmp_path)
    found.watch(SECRET)
    return found


def process(proc: Path, pid: int, *, cmdline: bytes = b"program\0", environ: bytes = b"HOME=/\0") -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "cmdline").write_bytes(cmdline)
    (proc / str(pid) / "environ").write_bytes(environ)


def test_a_secret_in_a_command_line_is_found_and_the_program_named(watch):
    process(watch.proc, 12, cmdline=f"ossfuse\0--key={SECRET}\0".encode())

    watch.search_processes()

    assert list(watch.finds) == ["the command line of process 12 (ossfuse)"]


def test_a_secret_in_an_environment_is_found(watch):
    process(watch.proc, 13, environ=f"A=1\0KEY={SECRET}\0".encode())

    watch.search_processes()

    assert list(watch.finds) == ["the environment of process 13 (program)"]


def test_only_the_mount_command_may_be_given_a_secret_in_its_environment(watch):
    given = f"OSS_ACCESS_KEY_SECRET={SECRET}\0".encode()
    process(watch.proc, 17, cmdline=b"/usr/bin/python\0ossfuse\0mount\0oss://b\0", environ=given)
    process(watch.proc, 18, cmdline=b"/usr/bin/python\0sidecar\0", environ=given)

    watch.search_processes()

    assert list(watch.finds) == ["the environment of process 18 (python)"]


def test_a_secret_in_a_log_or_report_is_found(watch):
    watch.search("log of something", f"signing with {SECRET}\n")

    assert list(watch.finds) == ["log of something"]


def test_no_find_repeats_the_secret(watch):
    process(watch.proc, 14, cmdline=f"ossfuse\0{SECRET}\0".encode(), environ=SECRET.encode())
    watch.search_processes()
    watch.search("log", SECRET)

    assert SECRET not in watch.findings().summary()


def test_what_has_ended_and_what_is_no_process_is_passed_over(watch):
    (watch.proc / "15").mkdir()
    (watch.proc / "sys").mkdir()
    process(watch.proc, 16)

    watch.search_processes()

    assert watch.finds == {}
    assert watch.processes == {"16"}


def test_a_secret_too_short_to_be_told_from_words_is_refused(watch):
    with pytest.raises(AssertionError):
        watch.watch("wrong")


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_run_whose_tests_pass_fails_when_one_of_them_said_a_secret(tmp_path, processes):
    (tmp_path / "test_leak.py").write_text(
        "from tests.support.secret_watch import watch_secret\n"
        f"def test_it(): print(watch_secret({SECRET!r}))\n"
        "def test_other(): pass\n"
    )
    words = ["-p", "tests.support.secret_watch", "-p", "no:cacheprovider", "-n", processes, "--rootdir", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *words, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert "2 passed" in done.stdout
    assert "found in Captured stdout call of test_leak.py::test_it (call)" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
