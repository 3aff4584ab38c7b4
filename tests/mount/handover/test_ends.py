"""Dead, hung, stacked, busy: every state a mount can be in ends in a bounded unpublish with nothing left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from csi.errors import EndpointUnreachable, MountError
from csi.handover.kernel import MS_NODEV, MS_NOSUID, LinuxKernel
from csi.handover.mountinfo import FSTYPE, layers_at, mount_source, read_mountinfo
from csi.handover.mounting import Mounter, MountOrder
from csi.handover.removal import Patience
from csi.volume.encode import spec_hash
from csi.volume.units import MIB, Seconds
from tests.support.fake_kernel import FailingKernel
from tests.support.node import DEADLINE, request_for, run_bounded


def pid_of(plugin, node):
    return plugin.condition("vol-1", node.target).sidecar_pid


def until(condition, timeout=15.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def kill(plugin, node):
    os.kill(pid_of(plugin, node), signal.SIGKILL)
    until(lambda: plugin.condition("vol-1", node.target).abnormal)


@pytest.fixture
def published(node):
    plugin = node.start()
    plugin.publish(request_for(node), DEADLINE)
    return plugin


def reader(path):
    """A process that opens the root of the mount and keeps it open."""
    program = "import os, sys, signal; os.open(sys.argv[1], os.O_RDONLY); print('open', flush=True); signal.pause()"
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"open\n"
    return process


def stuck_caller(path, connections, minor):
    """A process that waits inside the mount for an answer."""
    process = subprocess.Popen(["stat", str(path / "never-looked-up")], stderr=subprocess.PIPE)
    waiting = connections / str(minor) / "waiting"
    until(lambda: waiting.read_text().strip() != "0" or process.poll() is not None)
    assert process.poll() is None
    return process


def test_a_killed_sidecar_is_seen_and_callers_get_an_error(node, published):
    kill(published, node)
    condition = published.condition("vol-1", node.target)
    assert "ended, killed by signal 9; restart the pod" in condition.message
    assert condition.sidecar_pid is None
    assert "not connected" in run_bounded(["stat", str(node.target / "x")]).stderr
    published.unpublish("vol-1", node.target)
    assert not node.target.exists()


class Looking(threading.Thread):
    """Looks at the root of a mount over and over: which errors that had. An empty directory below it would be none."""

    def __init__(self, path):
        super().__init__()
        self._path = path
        self._over = threading.Event()
        self.seen = set()

    def run(self):
        while not self._over.is_set():
            try:
                self.seen.add("mounted" if "hello.txt" in os.listdir(self._path) else "the directory below")
            except OSError as error:
                self.seen.add(errno.errorcode[error.errno])

    def __enter__(self):
        self.start()
        return self.seen

    def __exit__(self, *_):
        self._over.set()
        self.join()


def test_publishing_over_a_dead_mount_makes_a_new_one(node, published):
    kill(published, node)
    with Looking(node.target) as seen:
        published.publish(request_for(node), DEADLINE)
    assert node.layers() == 1
    assert (node.target / "hello.txt").read_bytes() == b"hello, world\n"
    assert not published.condition("vol-1", node.target).abnormal
    assert seen <= {"mounted", "ENOTCONN", "ECONNABORTED"}
    published.unpublish("vol-1", node.target)


@pytest.mark.parametrize("read_only", [False, True])
def test_what_takes_the_place_of_a_dead_mount_is_mounted_as_that_was(node, read_only):
    plugin = node.start()
    plugin.publish(request_for(node, read_only=read_only), DEADLINE)
    first = layers_at(read_mountinfo(), str(node.target))[0]
    kill(plugin, node)
    plugin.publish(request_for(node, read_only=read_only), DEADLINE)
    (second,) = layers_at(read_mountinfo(), str(node.target))
    same = ("root", "target", "options", "fstype", "source", "super_options")
    assert [getattr(second, name) for name in same] == [getattr(first, name) for name in same]
    plugin.unpublish("vol-1", node.target)


def test_before_linux_6_5_there_is_a_moment_without_a_mount(node):
    plugin = node.start(kernel=FailingKernel("mount_beneath", number=errno.EINVAL))
    plugin.publish(request_for(node), DEADLINE)
    kill(plugin, node)
    plugin.publish(request_for(node), DEADLINE)
    assert node.layers() == 1
    assert (node.target / "hello.txt").exists()
    plugin.unpublish("vol-1", node.target)


def test_several_dead_mounts_have_one_in_their_place(node, published):
    kill(published, node)
    order = MountOrder(mount_source("vol-1", spec_hash(request_for(node).spec)), str(node.target), False, True)
    os.close(Mounter(published._tools.kernel, published._unmounter).mount(order).descriptor)
    assert node.layers() == 2
    published.publish(request_for(node), DEADLINE)
    assert node.layers() == 1
    assert (node.target / "hello.txt").exists()
    published.unpublish("vol-1", node.target)


def test_a_sidecar_that_cannot_take_over_leaves_a_dead_mount_and_not_the_directory_below(node):
    class Launching:
        broken = False

        def launch(self, *given):
            if self.broken:
                raise MountError("no process")
            return node.stand_in().launch(*given)

    launcher = Launching()
    plugin = node.start(launcher=launcher)
    plugin.publish(request_for(node), DEADLINE)
    kill(plugin, node)
    launcher.broken = True
    for _ in range(2):
        with pytest.raises(MountError, match="no process"):
            plugin.publish(request_for(node), DEADLINE)
        assert node.layers() == 1
        assert "not connected" in run_bounded(["stat", str(node.target / "x")]).stderr
    launcher.broken = False
    plugin.publish(request_for(node), DEADLINE)
    assert (node.target / "hello.txt").exists()
    plugin.unpublish("vol-1", node.target)


def test_a_dead_mount_stays_while_the_bucket_cannot_be_asked(node):
    """Who uses it is told so; with the directory below it he would go on there, and nobody would know."""
    answers = []

    def preflight(_request, _deadline):
        if answers:
            raise answers[0]

    plugin = node.start(preflight=preflight)
    plugin.publish(request_for(node), DEADLINE)
    kill(plugin, node)
    answers.append(EndpointUnreachable("nobody"))
    with pytest.raises(EndpointUnreachable):
        plugin.publish(request_for(node), DEADLINE)
    assert "not connected" in run_bounded(["stat", str(node.target / "x")]).stderr
    answers.clear()
    plugin.publish(request_for(node), DEADLINE)
    assert (node.target / "hello.txt").exists()
    plugin.unpublish("vol-1", node.target)


def test_a_sidecar_killed_for_memory_is_told_apart_with_limit_and_fix(node):
    plugin = node.start()
    plugin.publish(request_for(node, "swells", limit=64 * MIB), DEADLINE)
    run_bounded(["stat", str(node.target / "hello.txt")])
    until(lambda: plugin.condition("vol-1", node.target).abnormal)
    message = plugin.condition("vol-1", node.target).message
    assert "was killed for memory at its limit of 64Mi; raise fs.jindo.fuse.pod.mem.limit" in message
    plugin.unpublish("vol-1", node.target)


def test_a_stopped_sidecar_does_not_hold_up_unpublish_and_its_callers_are_freed(node, published):
    os.kill(pid_of(published, node), signal.SIGSTOP)
    caller = stuck_caller(node.target, published._connections._directory, node.minor())
    published.unpublish("vol-1", node.target)
    assert caller.wait(10) != 0
    caller.stderr.close()
    assert not node.target.exists()
    assert node.sidecars() == []


def test_publishing_again_on_a_stopped_sidecar_does_not_touch_it(node, published):
    pid = pid_of(published, node)
    os.kill(pid, signal.SIGSTOP)
    published.publish(request_for(node), DEADLINE)
    assert pid_of(published, node) == pid
    os.kill(pid, signal.SIGCONT)
    assert (node.target / "hello.txt").exists()
    published.unpublish("vol-1", node.target)


def test_a_mount_in_use_is_taken_away_after_the_sidecar_has_finished(node, published):
    user = reader(node.target)
    published.unpublish("vol-1", node.target)
    assert not node.target.exists()
    assert "flushed with 2 s" in node.log()
    user.kill()
    user.wait()
    user.stdout.close()


def test_a_sidecar_that_does_not_finish_in_time_is_ended(node):
    plugin = node.start(patience=Patience(grace=Seconds(0.5)))
    plugin.publish(request_for(node, "lingers"), DEADLINE)
    user = reader(node.target)
    plugin.unpublish("vol-1", node.target)
    assert not node.target.exists()
    assert node.sidecars() == []
    user.kill()
    user.wait()
    user.stdout.close()


def test_sigterm_finishes_open_files_and_ends_well(node, published):
    pid = pid_of(published, node)
    os.kill(pid, signal.SIGTERM)
    until(lambda: published.condition("vol-1", node.target).abnormal)
    assert "ended (SIGTERM)" in published.condition("vol-1", node.target).message
    assert "flushed with 2 s" in node.log()
    published.unpublish("vol-1", node.target)


def test_an_unmount_by_hand_ends_the_sidecar_well(node, published):
    pid = pid_of(published, node)
    LinuxKernel().umount2(str(node.target), 0)
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())
    assert published.condition("vol-1", node.target) is None
    assert "leaving: the mount is gone" in node.log()
    published.unpublish("vol-1", node.target)


def test_an_aborted_connection_ends_the_sidecar_well(node, published):
    published._connections.abort(node.minor())
    until(lambda: published.condition("vol-1", node.target).abnormal)
    assert "leaving: the mount is gone" in node.log()
    assert "flushed" not in node.log()
    published.unpublish("vol-1", node.target)


def test_a_mount_stacked_twice_is_taken_away_whole(node, published):
    kill(published, node)
    source = layers_at(read_mountinfo(), str(node.target))[-1].source
    kernel = LinuxKernel()
    device = kernel.open_fuse_device()
    data = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    kernel.mount(source, str(node.target), FSTYPE, MS_NODEV | MS_NOSUID, data)
    assert node.layers() == 2
    published.unpublish("vol-1", node.target)
    os.close(device)
    assert node.layers() == 0
    assert not node.target.exists()


def test_publishing_on_a_stack_of_mounts_ends_with_one(node, published):
    source = layers_at(read_mountinfo(), str(node.target))[-1].source
    kernel = LinuxKernel()
    device = kernel.open_fuse_device()
    data = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    kernel.mount(source, str(node.target), FSTYPE, MS_NODEV | MS_NOSUID, data)
    published.publish(request_for(node), DEADLINE)
    os.close(device)
    assert node.layers() == 1
    assert (node.target / "hello.txt").exists()
    published.unpublish("vol-1", node.target)


def test_unpublishing_what_was_never_published_succeeds(node):
    plugin = node.start()
    plugin.unpublish("vol-1", node.target)
    node.target.mkdir()
    plugin.unpublish("vol-1", node.target)
    plugin.unpublish("vol-1", node.target)
    assert not node.target.exists()
    assert plugin.condition("vol-1", node.target) is None


def test_a_target_can_be_kept(node, published):
    published.unpublish("vol-1", node.target, remove_target=False)
    assert node.target.is_dir()
    assert node.layers() == 0


def test_files_under_the_mount_point_are_never_deleted(node):
    node.target.mkdir()
    (node.target / "precious").write_text("data")
    plugin = node.start()
    plugin.publish(request_for(node), DEADLINE)
    with pytest.raises(MountError, match="cannot be removed"):
        plugin.unpublish("vol-1", node.target)
    assert (node.target / "precious").read_text() == "data"
    assert node.layers() == 0


def test_a_silent_sidecar_is_abnormal_but_not_declared_dead(node):
    plugin = node.start(patience=Patience(grace=Seconds(2.0), silence=Seconds(0.0)))
    plugin.publish(request_for(node), DEADLINE)
    pid = pid_of(plugin, node)
    condition = plugin.condition("vol-1", node.target)
    assert condition.abnormal
    assert f"sidecar {pid} of volume vol-1 has not answered for" in condition.message
    plugin.publish(request_for(node), DEADLINE)
    assert pid_of(plugin, node) == pid
    plugin.unpublish("vol-1", node.target)
