"""The node plugin ends and another one starts: sidecars go on, and what did not survive is cleaned up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from csi.errors import MountError
from tests.support.node import DEADLINE, STAND_IN, request_for, running_node


def until(condition, timeout=15.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def restarted(node):
    """A volume published by a node plugin that has ended since."""
    plugin = node.start()
    plugin.publish(request_for(node), DEADLINE)
    node.pid = plugin.condition("vol-1", node.target).sidecar_pid
    plugin.close()
    return node


def connected(plugin):
    return all(served.attendant.situation.connected for served in plugin._served.values()) and bool(plugin._served)


def test_the_mount_works_while_no_node_plugin_runs(restarted):
    assert (restarted.target / "hello.txt").read_bytes() == b"hello, world\n"
    assert restarted.sidecars() == [restarted.pid]
    restarted.start().unpublish("vol-1", restarted.target)


def test_the_next_node_plugin_finds_the_sidecar_and_it_reports_again(restarted):
    plugin = restarted.start()
    assert [volume.volume_id for volume in plugin.published()] == ["vol-1"]
    until(lambda: connected(plugin))
    until(lambda: next(iter(plugin._served.values())).attendant.situation.health is not None)
    condition = plugin.condition("vol-1", restarted.target)
    assert (condition.abnormal, condition.sidecar_pid) == (False, restarted.pid)
    plugin.unpublish("vol-1", restarted.target)
    assert "connected to the node plugin again" in restarted.log()


def test_publishing_again_after_the_restart_keeps_the_mount(restarted):
    minor = restarted.minor()
    plugin = restarted.start()
    plugin.publish(request_for(restarted), DEADLINE)
    assert restarted.minor() == minor
    assert restarted.sidecars() == [restarted.pid]
    plugin.unpublish("vol-1", restarted.target)


def test_unpublishing_after_the_restart_lets_the_sidecar_finish(restarted):
    plugin = restarted.start()
    plugin.unpublish("vol-1", restarted.target)
    assert "leaving: the mount is gone" in restarted.log()
    assert not restarted.target.exists()


def test_a_sidecar_that_died_meanwhile_is_cleaned_up_at_the_start(restarted):
    os.kill(restarted.pid, signal.SIGKILL)
    until(lambda: not restarted.sidecars())
    plugin = restarted.start()
    assert restarted.layers() == 0
    assert restarted.cgroups() == []
    assert plugin.published() == []
    plugin.publish(request_for(restarted), DEADLINE)
    assert (restarted.target / "hello.txt").exists()
    plugin.unpublish("vol-1", restarted.target)


def test_a_sidecar_whose_mount_vanished_is_cleaned_up_at_the_start(node):
    plugin = node.start()
    plugin.publish(request_for(node, "lingers"), DEADLINE)
    plugin.close()
    (pid,) = node.sidecars()
    os.kill(pid, signal.SIGSTOP)
    subprocess.run(["umount", "--lazy", str(node.target)], check=True)
    node.start()
    assert node.sidecars() == []
    assert node.cgroups() == []


def test_a_node_plugin_killed_in_the_middle_of_a_publish_leaves_what_the_next_one_removes(node):
    program = (
        "import sys; from pathlib import Path; from tests.support.node import *\n"
        "node = Node(Path(sys.argv[1])); plugin = node.start()\n"
        "plugin.publish(request_for(node, 'silent'), Seconds(60))\n"
    )
    root = Path(__file__).resolve().parents[3]
    doomed = subprocess.Popen([sys.executable, "-c", program, str(node.home)], cwd=root)
    until(lambda: node.layers() == 1 and node.sidecars() and _has_device(node.sidecars()[0]))
    doomed.kill()
    doomed.wait()
    plugin = node.start()
    # the sidecar got the descriptor and lives: whether it will serve is not known, so it is kept until asked for
    plugin.unpublish("vol-1", node.target)
    assert node.layers() == 0


def test_a_process_that_never_got_the_descriptor_does_not_count_as_a_sidecar(node):
    plugin = node.start()
    plugin.publish(request_for(node), DEADLINE)
    plugin.close()
    (pid,) = node.sidecars()
    (cgroup,) = node.cgroups()
    sleeper = subprocess.Popen(["sleep", "1000"])
    (cgroup / "cgroup.procs").write_text(str(sleeper.pid))
    os.kill(pid, signal.SIGKILL)
    until(lambda: not node.sidecars())
    node.start()
    assert sleeper.wait(10) == -signal.SIGKILL
    assert node.layers() == 0


def test_two_node_plugins_at_once_on_one_directory_are_refused(node):
    node.start()
    with pytest.raises(MountError, match="in use by another ossfuse process"):
        node.start()


def test_node_plugins_of_other_directories_are_left_alone(node, tmp_path_factory):
    with running_node(tmp_path_factory.mktemp("other")) as other:
        theirs = other.start()
        theirs.publish(request_for(other), DEADLINE)
        mine = node.start()
        assert mine.published() == []
        assert (other.target / "hello.txt").exists()
        theirs.unpublish("vol-1", other.target)


def _has_device(pid):
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    except FileNotFoundError:
        return False
    return "/dev/fuse" in links and os.fsencode(STAND_IN.name) in Path(f"/proc/{pid}/cmdline").read_bytes()
