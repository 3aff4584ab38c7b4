"""Publishing for real: /dev/fuse, cgroups, processes. The sidecar is the product's, serving a small tree in memory."""

from __future__ import annotations

import errno
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from csi.errors import (
    BucketNotFound,
    CredentialsMissing,
    DeadlineExceeded,
    MountError,
    OperationPending,
    SidecarFailed,
    TargetConflict,
    TargetNotUsable,
)
from csi.handover.kernel import MNT_DETACH, LinuxKernel
from csi.handover.mountinfo import filesystem_at, layers_at, read_mountinfo
from csi.volume.units import MIB, Seconds
from tests.support.descriptors import open_files
from tests.support.fake_kernel import FailingKernel
from tests.support.node import DEADLINE, request_for, run_bounded


def test_a_published_volume_can_be_read_and_is_gone_after_unpublish(node):
    plugin = node.start()
    request = request_for(node)
    plugin.publish(request, DEADLINE)
    assert (node.target / "hello.txt").read_bytes() == b"hello, world\n"
    plugin.unpublish(request.volume_id, node.target)
    assert not node.target.exists()
    assert node.sidecars() == []


def test_the_mount_is_nosuid_nodev_and_named_after_the_volume(node):
    plugin = node.start()
    plugin.publish(request_for(node, volume_id="pv/with space#1"), DEADLINE)
    entry = layers_at(read_mountinfo(), str(node.target))[-1]
    assert {"nosuid", "nodev", "rw"} <= set(entry.options)
    assert {"default_permissions", "allow_other", "user_id=0", "group_id=0"} <= set(entry.super_options)
    published = plugin.published()
    assert [(volume.volume_id, volume.target) for volume in published] == [("pv/with space#1", node.target)]
    plugin.unpublish("pv/with space#1", node.target)
    assert plugin.published() == []


def test_the_sidecar_has_no_rights(node):
    plugin = node.start()
    request = request_for(node)
    plugin.publish(request, DEADLINE)
    pid = plugin.condition(request.volume_id, node.target).sidecar_pid
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Gid"].split() == ["65534"] * 4
    assert status["Groups"].strip() == ""
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    for thread in os.listdir(f"/proc/{pid}/task"):
        text = Path(f"/proc/{pid}/task/{thread}/status").read_text()
        assert "CapBnd:\t0000000000000000" in text
        assert "NoNewPrivs:\t1" in text
    assert os.getsid(pid) == pid
    plugin.unpublish(request.volume_id, node.target)


def test_the_sidecar_runs_in_a_memory_cgroup_of_its_own(node):
    plugin = node.start()
    request = request_for(node, limit=160 * MIB)
    plugin.publish(request, DEADLINE)
    condition = plugin.condition(request.volume_id, node.target)
    assert (condition.abnormal, condition.memory_limit) == (False, 160 * MIB)
    assert 5 * MIB < condition.memory_used < 100 * MIB
    (cgroup,) = node.cgroups()
    assert (cgroup / "cgroup.procs").read_text().split() == [str(condition.sidecar_pid)]
    plugin.unpublish(request.volume_id, node.target)
    assert node.cgroups() == []


def test_no_secret_is_in_the_sidecars_arguments_environment_or_log(node):
    plugin = node.start()
    request = request_for(node, credentials={"akId": "LTAI-visible", "akSecret": "VerySecretValue"})
    plugin.publish(request, DEADLINE)
    pid = plugin.condition(request.volume_id, node.target).sidecar_pid
    seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    plugin.unpublish(request.volume_id, node.target)
    assert b"VerySecretValue" not in seen
    assert "VerySecretValue" not in node.log()
    assert "credentials ['akId', 'akSecret'] of 27 bytes" in node.log()


def test_credential_files_are_on_tmpfs_for_the_sidecar_alone(node):
    plugin = node.start()
    request = request_for(node)
    plugin.publish(request, DEADLINE)
    (secret,) = node.state.glob("*/credentials/akSecret")
    found = secret.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o400, 65534, 65534)
    assert stat.S_IMODE(node.state.stat().st_mode) == 0o700
    filesystem = filesystem_at(read_mountinfo(), str(node.state))  # its own, or that of a /tmp in memory
    assert filesystem is not None and filesystem.fstype == "tmpfs"
    plugin.unpublish(request.volume_id, node.target)
    assert list(node.state.glob("*/credentials")) == []


def test_publishing_again_succeeds_and_only_replaces_the_credentials(node):
    plugin = node.start()
    request = request_for(node)
    plugin.publish(request, DEADLINE)
    before = plugin.condition(request.volume_id, node.target).sidecar_pid, node.minor()
    plugin.publish(replace(request, credentials={"akId": "LTAI-2", "akSecret": "rotated"}), DEADLINE)
    assert (plugin.condition(request.volume_id, node.target).sidecar_pid, node.minor()) == before
    (secret,) = node.state.glob("*/credentials/akSecret")
    assert secret.read_text() == "rotated"
    plugin.unpublish(request.volume_id, node.target)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda node: request_for(node, "other"), "published already with different options"),
        (lambda node: request_for(node, volume_id="vol-2"), "published already with different volume"),
        (lambda node: replace(request_for(node), read_only=True), "published already with different options"),
    ],
    ids=["other options", "other volume", "other access"],
)
def test_something_else_on_a_published_target_is_a_conflict(node, change, words):
    plugin = node.start()
    plugin.publish(request_for(node), DEADLINE)
    with pytest.raises(TargetConflict, match=words):
        plugin.publish(change(node), DEADLINE)
    assert (node.target / "hello.txt").exists()
    plugin.unpublish("vol-1", node.target)


def test_a_foreign_mount_on_the_target_is_a_conflict_and_stays(node):
    plugin = node.start()
    node.target.mkdir()
    LinuxKernel().mount("foreign", str(node.target), "tmpfs", 0, "")
    with pytest.raises(TargetConflict, match="already holds a mount of type tmpfs from foreign"):
        plugin.publish(request_for(node), DEADLINE)
    with pytest.raises(TargetConflict, match="not volume vol-1"):
        plugin.unpublish("vol-1", node.target)
    assert node.layers() == 1
    LinuxKernel().umount2(str(node.target), MNT_DETACH)


def test_a_target_that_is_a_file_is_refused_and_left_alone(node):
    plugin = node.start()
    node.target.write_text("precious")
    with pytest.raises(TargetNotUsable):
        plugin.publish(request_for(node), DEADLINE)
    assert node.target.read_text() == "precious"


def test_two_volumes_at_two_targets_have_a_sidecar_each(node):
    plugin = node.start()
    first, second = (request_for(node, target=node.home / name) for name in ("one", "two"))
    plugin.publish(first, DEADLINE)
    plugin.publish(second, DEADLINE)
    pids = {plugin.condition("vol-1", request.target).sidecar_pid for request in (first, second)}
    assert len(pids) == 2
    plugin.unpublish("vol-1", first.target)
    assert (second.target / "hello.txt").exists()
    plugin.unpublish("vol-1", second.target)


def test_a_call_for_a_target_that_is_being_published_is_told_to_wait(node):
    begun, go_on = threading.Event(), threading.Event()

    def preflight(_request, _deadline):
        begun.set()
        assert go_on.wait(DEADLINE)

    plugin = node.start(preflight=preflight)
    thread = threading.Thread(target=plugin.publish, args=(request_for(node), DEADLINE))
    thread.start()
    assert begun.wait(DEADLINE)
    try:
        with pytest.raises(OperationPending, match="under way"):
            plugin.publish(request_for(node), DEADLINE)
        with pytest.raises(OperationPending):
            plugin.unpublish("vol-1", node.target)
    finally:
        go_on.set()
        thread.join()
    plugin.unpublish("vol-1", node.target)


def test_a_read_only_volume_is_read_only_for_the_kernel(node):
    plugin = node.start()
    plugin.publish(request_for(node, read_only=True), DEADLINE)
    assert run_bounded(["touch", str(node.target / "x")]).stderr.strip().endswith("Read-only file system")
    assert plugin.published()[0].read_only
    plugin.unpublish("vol-1", node.target)


def test_a_socket_path_of_200_characters_is_no_obstacle(node):
    deep = node.home / ("p" * 90) / ("q" * 90)
    deep.mkdir(parents=True)
    node.state = deep / "state"
    plugin = node.start()
    plugin.publish(request_for(node), DEADLINE)
    (socket_path,) = node.state.glob("*/s")
    assert len(str(socket_path)) > 200
    assert (node.target / "hello.txt").exists()
    plugin.unpublish("vol-1", node.target)


def test_the_target_may_be_reached_through_a_symlink_in_its_parents(node):
    (node.home / "real").mkdir()
    (node.home / "alias").symlink_to("real")
    plugin = node.start()
    through = node.home / "alias" / "target"
    plugin.publish(request_for(node, target=through), DEADLINE)
    plugin.publish(request_for(node, target=node.home / "real" / "target"), DEADLINE)
    assert plugin.condition("vol-1", through) is not None
    plugin.unpublish("vol-1", through)
    assert not (node.home / "real" / "target").exists()


# --- failures leave nothing ---


@pytest.mark.parametrize(
    ("behaviour", "error", "words"),
    [
        ("refuses", SidecarFailed, "refused the volume: the stand-in has no credentials; give it some"),
        ("crashes", SidecarFailed, "ended before it was ready with exit status 7"),
        ("hoards", SidecarFailed, r"killed for memory at its limit of 64Mi; raise fs\.jindo\.fuse\.pod\.mem\.limit"),
        ("silent", DeadlineExceeded, "was not ready after 2 s"),
    ],
)
def test_a_sidecar_that_does_not_get_ready_is_an_error_and_nothing_is_left(node, behaviour, error, words):
    plugin = node.start()
    with pytest.raises(error, match=words):
        plugin.publish(request_for(node, behaviour, limit=64 * MIB), Seconds(2.0 if behaviour == "silent" else 20.0))
    assert not node.target.exists()
    assert node.layers() == 0
    assert node.sidecars() == []
    assert node.cgroups() == []
    assert plugin.published() == []


@pytest.mark.parametrize(
    "error", [CredentialsMissing("the Secret lacks akSecret"), BucketNotFound("no bucket named x")], ids=repr
)
def test_a_failed_preflight_comes_before_anything_is_made(node, error):
    def preflight(_request, _deadline):
        raise error

    kernel = FailingKernel("none")
    plugin = node.start(kernel=kernel, preflight=preflight)
    with pytest.raises(type(error)):
        plugin.publish(request_for(node), DEADLINE)
    assert kernel.seen["open_fuse_device"] == 0
    assert not node.target.exists()


@pytest.mark.parametrize("call", ["open_fuse_device", "mount fuse.ossfuse"])
def test_a_system_call_that_fails_is_an_error_and_nothing_is_left(node, call):
    plugin = node.start(kernel=FailingKernel(call, number=errno.ENODEV))
    before = len(open_files())
    with pytest.raises(MountError, match="modprobe fuse"):
        plugin.publish(request_for(node), DEADLINE)
    assert len(open_files()) == before
    assert not node.target.exists()
    plugin.publish(request_for(node), DEADLINE)  # the fault is over: nothing stands in the way
    plugin.unpublish("vol-1", node.target)


def test_a_sidecar_that_cannot_be_started_is_an_error_and_nothing_is_left(node):
    class NoLauncher:
        def launch(self, _runtime, _memory, _limit):
            raise SidecarFailed("no more processes")

    plugin = node.start(launcher=NoLauncher())
    before = len(open_files())
    with pytest.raises(SidecarFailed, match="no more processes"):
        plugin.publish(request_for(node), DEADLINE)
    assert len(open_files()) == before
    assert node.layers() == 0
    assert not node.target.exists()


def test_a_failed_publish_leaves_a_directory_that_was_there_before(node):
    node.target.mkdir()
    plugin = node.start()
    with pytest.raises(SidecarFailed):
        plugin.publish(request_for(node, "refuses"), DEADLINE)
    assert node.target.is_dir()


@pytest.mark.parametrize("call", ["clone_tree", "write_control"])
def test_a_refused_nicety_costs_nothing_but_itself(node, call):
    plugin = node.start(kernel=FailingKernel(call, number=errno.EACCES))
    plugin.publish(request_for(node), DEADLINE)
    assert (node.target / "hello.txt").exists()
    plugin.unpublish("vol-1", node.target)


def test_publishing_and_unpublishing_again_and_again_leaks_nothing(node):
    plugin = node.start()
    request = request_for(node)
    plugin.publish(request, DEADLINE)
    plugin.unpublish(request.volume_id, node.target)
    descriptors, threads = len(open_files()), threading.active_count()
    for _ in range(5):
        plugin.publish(request, DEADLINE)
        plugin.unpublish(request.volume_id, node.target)
    assert (len(open_files()), threading.active_count()) == (descriptors, threads)


def test_read_ahead_is_raised_on_the_mount(node):
    plugin = node.start()
    plugin.publish(request_for(node), DEADLINE)
    assert Path(f"/sys/class/bdi/0:{node.minor()}/read_ahead_kb").read_text().strip() == "1024"
    plugin.unpublish("vol-1", node.target)
