"""Volumes of pods on real mounts: what a publish does, what its many repetitions do, and what is left when it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from csi.errors import AuthenticationFailed, MountError, SidecarNotInjected, TargetConflict
from csi.handover.channel import Channel
from csi.handover.kernel import LinuxKernel
from csi.handover.mountinfo import layers_at, read_mountinfo
from csi.handover.types import IncidentKind
from csi.handover.wire import Bye, Hello
from csi.volume.units import Seconds
from tests.support.descriptors import open_files
from tests.support.fake_kernel import FailingKernel
from tests.support.node import DEADLINE
from tests.support.pods import is_served, request_for, serve
from tests.support.published_volume import until


def test_a_publish_returns_before_there_is_a_sidecar_and_the_volume_works_once_it_is_there(pods):
    plugin, pod = pods.start(), pods.pod()
    plugin.publish(request_for(pod), DEADLINE)
    assert pod.layers() == 1
    condition = plugin.condition("vol-pod", pod.target)
    assert (condition.abnormal, condition.sidecar_pid) == (False, None)
    assert "waits for its sidecar ossfuse-data to start" in condition.message
    pod.start_sidecar()
    until(pod.is_ready)
    assert pod.start_application().ask("read", "hello.txt") == "hello, world"


def test_the_containers_own_memory_and_limit_are_in_its_condition(pods):
    plugin, pod = pods.start(), pods.pod()
    sidecar = serve(plugin, pod)
    condition = plugin.condition("vol-pod", pod.target)
    assert (condition.abnormal, condition.sidecar_pid, condition.memory_limit) == (False, sidecar.pid, pod.limit)
    assert 1 << 20 < condition.memory_used < pod.limit
    assert plugin.condition("vol-other", pod.target) is None


@pytest.mark.parametrize("secret", ["environ", "root/", "fd/", "mem", "maps"])
def test_another_process_of_its_user_sees_nothing_of_the_sidecar(pods, secret):
    """In a pod that shares its process namespace, or another volume's sidecar."""
    plugin, pod = pods.start(), pods.pod()
    sidecar = serve(plugin, pod)
    look = "ls" if secret.endswith("/") else "head -c 1"
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c")
    for whose, refused in ((str(sidecar.pid), True), ("$$", False)):
        seen = subprocess.run([*nobody, f"{look} /proc/{whose}/{secret}"], capture_output=True, check=False)
        # nothing of a process can be read at address 0, also not by itself
        assert (b"Permission denied" in seen.stderr) is refused, (whose, seen)


def test_the_sidecar_is_nobody_and_finds_its_credentials(pods):
    plugin, pod = pods.start(), pods.pod()
    sidecar = serve(plugin, pod)
    status = Path(f"/proc/{sidecar.pid}/status").read_text()
    assert "\nUid:\t65534\t65534\t65534\t65534\n" in status
    assert "credentials ['akId', 'akSecret'] of" in pods.log()
    files = pod.shared / "credentials"
    assert (files.stat().st_uid, files.stat().st_mode & 0o777) == (65534, 0o500)
    assert ((files / "akSecret").stat().st_uid, (files / "akSecret").stat().st_mode & 0o777) == (65534, 0o400)


def test_a_group_that_kubelet_gives_the_directory_does_no_harm(pods):
    plugin, pod = pods.start(), pods.pod()
    os.chown(pod.shared, -1, 4321)
    pod.shared.chmod(0o2777)  # an emptyDir of a pod with fsGroup
    serve(plugin, pod)
    assert (pod.shared / "credentials" / "akSecret").stat().st_gid == 65534


@pytest.mark.parametrize("what", ["connected", "hung", "dead", "gone with BYE", "not there yet"])
def test_publishing_again_is_fine_and_touches_no_mount_whatever_became_of_the_sidecar(pods, what):
    plugin, pod = pods.start(), pods.pod()
    if what == "not there yet":
        plugin.publish(request_for(pod), DEADLINE)
    else:
        sidecar = serve(plugin, pod)
        if what == "hung":
            sidecar.signal(19)
        elif what == "dead":
            sidecar.kill()
            until(lambda: plugin.condition("vol-pod", pod.target).abnormal)
        elif what == "gone with BYE":
            sidecar.signal(15)
            assert sidecar.wait() == 0
            until(lambda: "has left (SIGTERM)" in plugin.condition("vol-pod", pod.target).message)
    before, located = pod.minors(), pods.located
    for _ in range(5):
        plugin.publish(request_for(pod), DEADLINE)
    assert (pod.minors(), pods.located) == (before, located)


def test_publishing_again_brings_new_credentials_to_the_sidecar(pods):
    plugin, pod = pods.start(), pods.pod()
    serve(plugin, pod)
    plugin.publish(request_for(pod, credentials={"akId": "LTAI-new", "akSecret": "another"}), DEADLINE)
    assert (pod.shared / "credentials" / "akSecret").read_text() == "another"
    plugin.publish(replace(request_for(pod), credentials=None), DEADLINE)
    assert (pod.shared / "credentials" / "akSecret").read_text() == "another"


def test_publishing_again_is_fine_when_kubelet_has_taken_the_tmpfs_and_no_secret_reaches_the_disk(pods):
    plugin, pod = pods.start(), pods.pod()
    serve(plugin, pod)
    pod.end_containers()
    pod.unmount_shared()
    plugin.publish(request_for(pod, credentials={"akId": "LTAI-late", "akSecret": "too-late"}), DEADLINE)
    assert os.listdir(pod.shared) == []


def test_something_else_asked_for_on_the_same_target_is_a_conflict(pods):
    plugin, pod = pods.start(), pods.pod()
    plugin.publish(request_for(pod), DEADLINE)
    with pytest.raises(TargetConflict, match="different options"):
        plugin.publish(request_for(pod, given="other words"), DEADLINE)
    with pytest.raises(TargetConflict, match="different volume"):
        plugin.publish(replace(request_for(pod), volume_id="vol-2"), DEADLINE)
    with pytest.raises(TargetConflict, match="not volume vol-2"):
        plugin.unpublish("vol-2", pod.target)
    assert pod.layers() == 1


def test_the_same_words_are_no_conflict_when_another_version_reads_them_otherwise(pods):
    plugin, pod = pods.start(), pods.pod()
    plugin.publish(request_for(pod), DEADLINE)
    plugin.publish(request_for(pod, "read-otherwise"), DEADLINE)
    assert pod.layers() == 1


def test_what_was_asked_for_is_known_until_it_is_unpublished_also_to_another_plugin(pods):
    plugin, pod = pods.start(), pods.pod()
    plugin.publish(request_for(pod, given="these words"), DEADLINE)
    assert plugin.given("vol-pod", pod.target) == "these words"
    plugin.close()
    plugin = pods.start()
    assert plugin.given("vol-pod", pod.target) == "these words"
    assert plugin.given("vol-other", pod.target) is None
    plugin.unpublish("vol-pod", pod.target)
    assert plugin.given("vol-pod", pod.target) is None


def test_a_pod_without_a_sidecar_is_refused_and_nothing_is_left(pods):
    plugin, pod = pods.start(), pods.pod()
    pods.not_injected.add(pod.reference.uid)
    with pytest.raises(SidecarNotInjected, match="has no container ossfuse-data; create it again"):
        plugin.publish(request_for(pod), DEADLINE)
    assert (pod.layers(), pod.target.exists(), os.listdir(pod.shared)) == (0, False, [])


def test_a_call_without_a_pod_says_what_is_missing(pods):
    plugin, pod = pods.start(), pods.pod()
    with pytest.raises(SidecarNotInjected, match=r"names no pod whose sidecar.*podInfoOnMount: true"):
        plugin.publish(replace(request_for(pod), pod=None), DEADLINE)


def test_a_wrong_key_is_told_before_anything_is_mounted_and_the_retry_works_once_it_is_mended(pods):
    wrong = [AuthenticationFailed("no such key", hint="correct the Secret")]

    def preflight(_request, _deadline):
        if wrong:
            raise wrong[0]

    plugin, pod = pods.start(preflight=preflight), pods.pod()
    for _ in range(3):
        with pytest.raises(AuthenticationFailed, match="correct the Secret"):
            plugin.publish(request_for(pod), DEADLINE)
    assert (pod.layers(), os.listdir(pod.shared)) == (0, [])
    wrong.clear()
    serve(plugin, pod)


def test_a_tmpfs_that_comes_late_is_waited_for(pods):
    plugin, pod = pods.start(), pods.pod()
    pod.unmount_shared()
    publishing = threading.Thread(target=plugin.publish, args=(request_for(pod), DEADLINE))
    publishing.start()
    until(lambda: pods.located == 1)
    pod.mount_shared()
    publishing.join(20)
    assert (pod.shared / "s").is_socket()
    pod.start_sidecar()
    until(pod.is_ready)


def test_a_tmpfs_that_does_not_come_is_named(pods):
    plugin, pod = pods.start(), pods.pod()
    pod.unmount_shared()
    with pytest.raises(MountError, match=r"tmpfs of container ossfuse-data is not mounted at .*medium: Memory"):
        plugin.publish(request_for(pod), Seconds(0.1))
    assert os.listdir(pod.shared) == []
    pod.mount_shared()


@pytest.mark.parametrize("call", ["open_fuse_device", "mount fuse.ossfuse"])
def test_a_publish_that_fails_leaves_nothing_mounted_and_the_next_one_works(pods, call):
    plugin, pod = pods.start(kernel=FailingKernel(call)), pods.pod()
    with pytest.raises(MountError):
        plugin.publish(request_for(pod), DEADLINE)
    assert (pod.layers(), pod.target.exists()) == (0, False)
    serve(plugin, pod)


def test_the_socket_keeps_nothing_of_kubelets_busy(pods):
    """Trap 1: a socket bound in the emptyDir made umount fail with EBUSY, and the pod stayed Terminating."""
    plugin, pod = pods.start(), pods.pod()
    serve(plugin, pod)
    pod.end_containers()
    assert (pod.shared / "s").is_socket()
    pod.unmount_shared()  # raises when it is busy
    with pytest.raises(FileNotFoundError):
        os.lstat(pod.shared / "s")


def test_a_socket_path_may_be_longer_than_a_socket_address(pods):
    pod = pods.pod()
    assert len(str(pod.shared / "s")) > 107
    serve(pods.start(), pod)


def test_the_tmpfs_may_go_before_or_after_the_volume(pods):
    plugin = pods.start()
    for order in ("tmpfs first", "volume first"):
        pod = pods.pod(order[:6].strip())
        serve(plugin, pod)
        pod.end_containers()
        if order == "tmpfs first":
            pod.unmount_shared()
        plugin.unpublish(f"vol-{pod.reference.name}", pod.target)
        pod.remove()  # with rmdir alone
        assert not pod.directory.exists()


def test_the_node_plugin_keeps_no_descriptor_of_a_volume_it_gave_away(pods):
    """Trap 2: with a copy of it a dead sidecar means callers that wait for ever."""
    plugin, pod = pods.start(), pods.pod()
    before = _fuse_descriptors()
    plugin.publish(request_for(pod), DEADLINE)
    assert _fuse_descriptors() == before + 1
    pod.start_sidecar()
    until(lambda: is_served(plugin, pod))
    assert _fuse_descriptors() == before


def test_a_process_outside_the_pod_gets_nothing(pods):
    plugin, pod = pods.start(), pods.pod()
    plugin.publish(request_for(pod), DEADLINE)
    sock = socket.socket(socket.AF_UNIX)
    where = os.open(pod.shared, os.O_PATH)
    sock.connect(f"/proc/self/fd/{where}/s")
    os.close(where)
    stranger = Channel(sock)
    with contextlib.suppress(OSError):
        stranger.send(Hello(1, os.getpid()))
    said = stranger.receive(Seconds(10))
    assert said.message == Bye(f"process {os.getpid()} does not belong to pod {pod.reference.uid}")
    stranger.close()
    pod.start_sidecar()
    until(lambda: is_served(plugin, pod))


def test_a_sidecar_of_another_pod_gets_nothing(pods):
    plugin, mine, theirs = pods.start(), pods.pod("mine"), pods.pod("theirs")
    plugin.publish(request_for(mine), DEADLINE)
    theirs.shared, shared = mine.shared, theirs.shared  # it mounts what is not its own
    intruder = theirs.start_sidecar()
    assert intruder.wait() == 1
    theirs.shared = shared
    assert f"does not belong to pod {mine.reference.uid}" in pods.log()
    assert plugin.condition("vol-mine", mine.target).sidecar_pid is None


def test_a_refusal_of_the_sidecar_is_told_to_the_pod_and_a_restart_gets_a_chance(pods):
    plugin, pod = pods.start(), pods.pod()
    plugin.publish(request_for(pod, "refuses"), DEADLINE)
    assert pod.start_sidecar().wait() == 1
    until(lambda: pods.reporter.kinds() == [IncidentKind.SIDECAR_FAILED])
    (incident,) = pods.reporter.of(IncidentKind.SIDECAR_FAILED)
    assert incident.message == (
        "the sidecar ossfuse-data cannot serve volume vol-pod: the stand-in has no credentials; give it some"
    )
    last = pods.log().rstrip().splitlines()[-1]
    assert "the volume cannot be served: the stand-in has no credentials; give it some" in last
    assert not pod.is_ready()
    assert pod.start_sidecar().wait() == 1
    until(lambda: len(pods.reporter.of(IncidentKind.SIDECAR_FAILED)) == 2)
    assert IncidentKind.SIDECAR_ENDED not in pods.reporter.kinds()
    assert pod.layers() == 2


def test_unpublishing_removes_everything_and_can_be_repeated(pods):
    plugin, pod = pods.start(), pods.pod()
    serve(plugin, pod)
    pod.end_containers()
    for _ in range(2):
        plugin.unpublish("vol-pod", pod.target)
        assert (pod.layers(), pod.target.exists(), plugin.published()) == (0, False, [])
    assert plugin.condition("vol-pod", pod.target) is None


def test_a_mount_that_somebody_took_away_is_made_again(pods):
    plugin, pod = pods.start(), pods.pod()
    plugin.publish(request_for(pod), DEADLINE)
    LinuxKernel().umount2(str(pod.target), 2)
    serve(plugin, pod)
    assert pod.layers() == 1


def test_a_finished_pod_is_never_mounted_again_even_when_aborting_it_took_the_mount(pods):
    """Trap 3: after BYE a republish found no mount and made one on a pod that had ended."""
    plugin, pod = pods.start(), pods.pod()
    sidecar = serve(plugin, pod)
    sidecar.signal(15)
    assert sidecar.wait() == 0
    until(lambda: "has left" in plugin.condition("vol-pod", pod.target).message)
    LinuxKernel().umount2(str(pod.target), 2)  # as MNT_FORCE does where there is no fusectl
    plugin.publish(request_for(pod), DEADLINE)
    assert pod.layers() == 0


def test_thirty_pods_at_once(pods):
    plugin = pods.start()
    made = [pods.pod(f"p{number}", limit=64 << 20) for number in range(30)]
    with ThreadPoolExecutor(30) as pool:
        list(pool.map(lambda pod: plugin.publish(request_for(pod), DEADLINE), made))
        list(pool.map(lambda pod: [plugin.publish(request_for(pod), DEADLINE) for _ in range(5)], made))
        assert [pod.layers() for pod in made] == [1] * 30
        assert len(plugin.published()) == 30
        list(pool.map(lambda pod: plugin.unpublish(f"vol-{pod.reference.name}", pod.target), made))
    assert plugin.published() == []


def test_a_published_volume_is_mounted_as_it_should_be(pods):
    plugin, pod = pods.start(), pods.pod()
    plugin.publish(request_for(pod, read_only=True), DEADLINE)
    (entry,) = layers_at(read_mountinfo(), str(pod.target))
    assert {"ro", "nosuid", "nodev"} <= set(entry.options)
    assert {"default_permissions", "allow_other"} <= set(entry.super_options)
    pod.start_sidecar()
    until(pod.is_ready)
    assert pod.start_application().ask("write", "new", "x") == errno.errorcode[errno.EROFS]


def test_read_ahead_is_raised_once_the_volume_is_served(pods):
    plugin, pod = pods.start(), pods.pod()
    serve(plugin, pod)
    setting = Path(f"/sys/class/bdi/0:{pod.minors()[0]}/read_ahead_kb")
    until(lambda: setting.read_text() == "1024\n")


def _fuse_descriptors() -> int:
    names = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            names.append(os.readlink(f"/proc/self/fd/{name}"))
    return names.count("/dev/fuse")


def test_a_quarter_of_an_hour_of_republishing_costs_little(pods):
    """kubelet publishes again every 90 s, and in bursts: no descriptor, thread or file may be left by each."""
    plugin, pod = pods.start(), pods.pod()
    serve(plugin, pod)
    keys = [{"akId": f"LTAI-{number}", "akSecret": f"number-{number}"} for number in range(200)]
    plugin.publish(request_for(pod, credentials=keys[0]), DEADLINE)
    before = (open_files(), threading.active_count(), _files(pod.shared))
    for key in keys:
        plugin.publish(request_for(pod, credentials=key), DEADLINE)
    assert (open_files(), threading.active_count(), _files(pod.shared)) == before
    assert (pod.shared / "credentials" / "akSecret").read_text() == "number-199"


def _files(directory: Path) -> int:
    return sum(1 for _ in directory.rglob("*"))
