"""How a process ends, in a /proc of the test's own and in the real one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from csi.handover.fates import Answerer, is_ending
from csi.handover.wire import Answer, Question

EXITING, SIGNALED = 0x4, 0x400


class Proc:
    """A directory in the form of /proc."""

    def __init__(self, directory):
        self.path = directory

    def process(self, pid, *, state="D", flags=0, exit_code=0, threads=1, started=99, name="a) D 0 (", tgid=None):
        directory = self.path / str(pid)
        directory.mkdir(exist_ok=True)
        fields = ["0"] * 50
        fields[0], fields[6], fields[17], fields[19], fields[49] = map(str, (state, flags, threads, started, exit_code))
        (directory / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
        (directory / "status").write_text(f"Name:\tTgid: 1\nUmask:\t0022\nTgid:\t{tgid or pid}\nNgid:\t0\n")


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


@pytest.fixture
def answerer(proc):
    return Answerer(lambda pid: pid < 1000, proc.path)


KILLED = {"flags": EXITING | SIGNALED, "exit_code": 9}


@pytest.mark.parametrize(
    ("process", "killed"),
    [
        (KILLED, True),
        ({"flags": EXITING | SIGNALED, "exit_code": 0x80 | 11}, True),  # and a core is written
        ({"flags": EXITING, "exit_code": 15}, True),
        ({**KILLED, "state": "Z", "threads": 2}, True),  # its first thread has ended, another one closes the files
        ({"state": "S"}, False),
        ({"state": "t", "exit_code": 5}, False),  # stopped by a debugger
        ({"flags": EXITING, "exit_code": 3 << 8}, False),
        ({"flags": EXITING, "exit_code": 0}, False),
        ({"flags": EXITING | SIGNALED, "exit_code": 0}, False),  # another thread called exit_group(2)
        ({**KILLED, "state": "Z"}, False),  # it has closed its files
        ({**KILLED, "started": 98}, False),  # another process with its number
    ],
)
def test_a_process_is_killed_while_it_is_exiting_of_a_signal(proc, answerer, process, killed):
    proc.process(7, **process)
    assert answerer.answer(Question(1, 7, 99)) == Answer(1, killed=killed)


@pytest.mark.parametrize(
    ("process", "ending"),
    [({"state": "S"}, False), ({"flags": EXITING}, True), (KILLED, True), ({**KILLED, "started": 98}, None)],
)
def test_that_a_process_is_exiting_is_seen_without_rights(proc, process, ending):
    proc.process(7, **process)
    assert is_ending(7, 99, proc.path) is ending
    assert is_ending(8, 99, proc.path) is None


def test_a_process_that_is_gone_or_cannot_be_read_is_not_killed(proc, answerer):
    assert answerer.answer(Question(1, 7, 99)) == Answer(1)
    proc.process(7, **KILLED)
    (proc.path / "7/stat").write_text("7 (cut off) D 1")
    assert answerer.answer(Question(1, 7, 99)) == Answer(1)


def test_a_thread_belongs_to_a_process(proc, answerer):
    proc.process(7, started=4)
    proc.process(8, tgid=7, started=5)
    assert answerer.answer(Question(1, 8, 0)) == Answer(1, 7, 4)
    assert answerer.answer(Question(2, 9, 0)) == Answer(2)


def test_nothing_is_told_of_processes_of_others(proc, answerer):
    proc.process(1000, **KILLED)
    assert answerer.answer(Question(1, 1000, 0)) == Answer(1)
    assert answerer.answer(Question(2, 1000, 99)) == Answer(2)
    assert answerer.answer(Question(3, 0, 0)) == Answer(3)


def test_a_process_that_was_told_of_while_it_lived_is_told_of_when_its_group_is_not_shown_any_more(proc):
    groups = {7: "ours"}
    answerer = Answerer(lambda pid: groups.get(pid) == "ours", proc.path)
    proc.process(7)
    assert answerer.answer(Question(1, 7, 0)) == Answer(1, 7, 99)
    groups.clear()
    proc.process(7, **KILLED)
    assert answerer.answer(Question(2, 7, 99)) == Answer(2, killed=True)
    proc.process(7, **{**KILLED, "started": 98})
    assert answerer.answer(Question(3, 7, 98)) == Answer(3)


def test_any_process_that_is_killed_is_found(proc, answerer):
    (proc.path / "self").mkdir()
    proc.process(7)
    assert answerer.answer(Question(1, 0, 0)) == Answer(1)
    proc.process(8, **KILLED)
    assert answerer.answer(Question(2, 0, 0)) == Answer(2, killed=True)


def test_a_process_that_ends_while_it_is_looked_at_is_not_told_of(proc):
    def gone(_pid):
        raise FileNotFoundError

    proc.process(7, **KILLED)
    answerer = Answerer(gone, proc.path)
    assert answerer.answer(Question(1, 7, 0)) == Answer(1)
    assert answerer.answer(Question(2, 7, 99)) == Answer(2)


def test_a_process_holds_what_it_has_open_for_writing(tmp_path):
    answerer = Answerer(lambda pid: True)
    told = answerer.answer(Question(1, os.getpid(), 0))
    path = tmp_path / "file"
    with path.open("wb"):
        inode = path.stat().st_ino
        assert answerer.answer(Question(2, told.process, told.started, inode)) == Answer(2, holds=True)
        later = Answerer(lambda pid: True)  # of a node plugin that has told nothing yet
        assert later.answer(Question(3, told.process, told.started, inode)) == Answer(3, holds=True)
        of_another_pod = Answerer(lambda pid: False)
        assert of_another_pod.answer(Question(3, told.process, told.started, inode)) == Answer(3)
    with path.open("rb"):
        assert answerer.answer(Question(4, told.process, told.started, inode)) == Answer(4)


def test_the_real_proc_has_this_form():
    answerer = Answerer(lambda pid: True)
    found = answerer.answer(Question(1, os.getpid(), 0))
    assert found.process == os.getpid()
    assert not answerer.answer(Question(2, found.process, found.started)).killed
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        begun = answerer.answer(Question(3, child.pid, 0))
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert begun.started > 0
        assert not answerer.answer(Question(4, child.pid, begun.started)).killed  # its files are closed
