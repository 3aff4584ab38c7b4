"""Processes by descriptors of their status, in the real /proc."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from csi.handover.fates import open_status
from csi.sidecar.watches import Watches


@pytest.fixture
def watches():
    made = Watches(most=3)
    yield made
    made.close()


def started(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def watch(watches, pid, since=None):
    since = started(pid) if since is None else since
    descriptor = open_status(pid, started(pid))
    assert descriptor is not None
    watches.keep(pid, since, descriptor)
    return since


def test_a_process_that_lives_is_seen_to_and_one_that_is_gone_is_not_seen(watches):
    with subprocess.Popen(["sleep", "60"]) as process:
        since = watch(watches, process.pid)
        assert watches.is_ending(process.pid, since) is False
        process.kill()
    assert watches.is_ending(process.pid, since) is None


def test_a_process_that_has_ended_and_is_not_waited_for_is_ending(watches):
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        since = watch(watches, process.pid)
        assert process.stdout is not None
        process.stdout.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert watches.is_ending(process.pid, since) is True


def test_a_status_of_another_process_with_that_number_says_nothing(watches):
    watch(watches, os.getpid(), since=1)
    assert watches.is_ending(os.getpid(), 1) is None
    assert open_status(os.getpid(), 1) is None


def test_without_a_descriptor_it_is_looked_for(watches):
    assert watches.is_ending(os.getpid(), started(os.getpid())) is False


def test_as_many_descriptors_are_kept_as_may_be():
    watches = Watches(most=2)
    descriptors = [open_status(os.getpid(), started(os.getpid())) for _ in range(4)]
    for since, descriptor in zip((1, 2, 3, 3), descriptors, strict=True):
        watches.keep(os.getpid(), since, descriptor)
    assert [is_open(descriptor) for descriptor in descriptors] == [False, True, False, True]
    watches.close()
    assert not any(map(is_open, descriptors))


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
