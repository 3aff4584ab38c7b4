from __future__ import annotations

import pytest

from csi.handover.cgroup import MemoryCgroup
from csi.handover.condition import condition_of, without_sidecar
from csi.handover.conversation import Situation
from csi.handover.wire import Failed, Health


@pytest.fixture
def memory(tmp_path):
    (tmp_path / "memory.max").write_text(str(256 << 20))
    (tmp_path / "memory.current").write_text(str(50 << 20))
    return MemoryCgroup(tmp_path, 2)


def condition(memory, situation, now=100.0, last_words=""):
    return condition_of("vol", situation, memory, 4711, last_words, now)


def health(oldest=0.0, last_error=""):
    return Health(memory=1, open_files=0, inflight=3, oldest_request=oldest, last_error=last_error)


def test_a_sidecar_that_answers_is_well(memory):
    found = condition(memory, Situation(ready=True, heard=99.0, health=health()))
    assert not found.abnormal
    assert found.message == "sidecar 4711 serves volume vol, using 50Mi of 256Mi"
    assert (found.sidecar_pid, found.memory_limit, found.memory_used) == (4711, 256 << 20, 50 << 20)


def test_one_killed_for_memory_names_the_limit_and_the_key_to_raise(memory, tmp_path):
    (tmp_path / "memory.events").write_text("oom_kill 1\n")
    found = condition(memory, Situation(ready=True, ended=True, exit_status=-9))
    assert found.abnormal
    assert "killed for memory at its limit of 256Mi; raise fs.jindo.fuse.pod.mem.limit" in found.message
    assert found.sidecar_pid is None


def test_one_that_died_says_how_and_what_to_do(memory):
    found = condition(memory, Situation(ready=True, ended=True, exit_status=-9), last_words=", killed by signal 9")
    assert found.message == "the sidecar of volume vol ended, killed by signal 9; restart the pod to mount it again"


def test_one_that_said_why_it_left_is_quoted(memory):
    found = condition(memory, Situation(ended=True, exit_status=0, farewell="SIGTERM"))
    assert "(SIGTERM)" in found.message


def test_one_that_is_silent_is_abnormal_with_the_time(memory):
    found = condition(memory, Situation(ready=True, heard=60.0))
    assert found.abnormal
    assert "has not answered for 40 s" in found.message
    assert found.sidecar_pid == 4711


def test_a_request_that_never_ends_is_abnormal_with_the_last_error(memory):
    found = condition(memory, Situation(ready=True, heard=99.0, health=health(300.0, "GetObject: timeout")))
    assert found.abnormal
    assert "has waited for 300 s, 3 under way; last error: GetObject: timeout" in found.message


def test_one_that_failed_later_is_abnormal(memory):
    found = condition(memory, Situation(ready=True, heard=99.0, failure=Failed("X", "lost its mind", "restart it")))
    assert "failed: lost its mind; restart it" in found.message


def test_a_mount_without_any_sidecar_says_what_to_do():
    found = without_sidecar("vol")
    assert found.abnormal
    assert "publish it again" in found.message
