from __future__ import annotations

import errno
import threading

import pytest

from csi.errors import MountError
from csi.handover.connections import FuseConnections
from csi.handover.mountinfo import FSTYPE, mount_source
from csi.handover.unmount import Unmounter
from csi.volume.units import Seconds
from tests.support.fake_kernel import FakeKernel, entry_at

T = "/pods/mount"


@pytest.fixture
def kernel():
    return FakeKernel()


@pytest.fixture
def fusectl(kernel, tmp_path):
    kernel.table.append(entry_at(str(tmp_path), "fusectl", "fusectl", 2, 1))
    connections = FuseConnections(kernel, kernel.entries, tmp_path)
    kernel.table.append(entry_at("/sys/fs/fuse/connections", "sysfs", "sysfs", 3, 1))
    connections.open()
    return connections


@pytest.fixture
def unmounter(kernel, fusectl):
    return Unmounter(kernel, fusectl, kernel.entries)


def connect(tmp_path, minor):
    (tmp_path / str(minor)).mkdir()


def test_every_layer_of_ours_is_aborted_and_detached(kernel, unmounter, tmp_path):
    for _ in range(3):
        kernel.mount(mount_source("v", "h"), T, FSTYPE, 0, "")
        connect(tmp_path, kernel.table[-1].minor)
    minors = [entry.minor for entry in kernel.table if entry.target == T]
    unmounter.force(T)
    assert unmounter.layers(T) == []
    aborted = {path for path, _ in kernel.controls}
    assert aborted == {f"{tmp_path}/{minor}/abort" for minor in minors}


def test_nothing_mounted_is_nothing_to_do(kernel, unmounter):
    unmounter.force(T)
    assert kernel.calls == []


def test_a_mount_that_is_not_ours_stays(kernel, unmounter):
    kernel.mount("tmpfs", T, "tmpfs", 0, "")
    unmounter.force(T)
    assert [entry.fstype for entry in unmounter.layers(T)] == ["tmpfs"]


def test_a_foreign_layer_on_top_of_ours_goes_with_it_but_not_one_below(kernel, unmounter):
    kernel.mount("below", T, "tmpfs", 0, "")
    kernel.mount(mount_source("v", "h"), T, FSTYPE, 0, "")
    kernel.mount("above", T, "tmpfs", 0, "")
    unmounter.force(T)
    assert [entry.source for entry in unmounter.layers(T)] == ["below"]


def test_a_mount_that_somebody_else_removed_meanwhile_is_no_error(kernel, unmounter):
    kernel.mount(mount_source("v", "h"), T, FSTYPE, 0, "")
    kernel.refuse["umount2"] = [errno.EINVAL]
    unmounter.force(T)
    assert unmounter.layers(T) == []


def test_a_refused_unmount_is_an_error(kernel, unmounter):
    kernel.mount(mount_source("v", "h"), T, FSTYPE, 0, "")
    kernel.refuse["umount2"] = [errno.EPERM]
    with pytest.raises(MountError, match="EPERM"):
        unmounter.force(T)


def test_a_mount_that_comes_back_for_ever_ends_in_an_error(kernel, unmounter):
    class Again(FakeKernel):
        def umount2(self, target, flags):
            super().umount2(target, flags)
            self.mount(mount_source("v", "h"), T, FSTYPE, 0, "")

    again = Again()
    again.mount(mount_source("v", "h"), T, FSTYPE, 0, "")
    loop = Unmounter(again, FuseConnections(again, again.entries, "/nowhere"), again.entries)
    with pytest.raises(MountError, match="still holds mounts after 64"):
        loop.force(T)


def test_without_fusectl_the_connection_is_ended_by_force(kernel, tmp_path):
    kernel.mount(mount_source("v", "h"), T, FSTYPE, 0, "")
    kernel.refuse["mount"] = [errno.EPERM]
    connections = FuseConnections(kernel, kernel.entries, tmp_path / "private")
    connections.open()
    Unmounter(kernel, connections, kernel.entries).force(T)
    assert kernel.calls.count(("umount2", T)) == 2  # MNT_FORCE took it, MNT_DETACH found nothing left


def test_a_polite_unmount_of_a_free_mount_succeeds(kernel, unmounter):
    kernel.mount(mount_source("v", "h"), T, FSTYPE, 0, "")
    assert unmounter.ask(T, Seconds(5), lambda: True)
    assert unmounter.layers(T) == []


def test_a_polite_unmount_of_a_busy_mount_fails_and_changes_nothing(kernel, unmounter):
    kernel.mount(mount_source("v", "h"), T, FSTYPE, 0, "")
    kernel.busy.add(T)
    assert not unmounter.ask(T, Seconds(5), lambda: True)
    assert len(unmounter.layers(T)) == 1


def test_a_polite_unmount_that_hangs_is_given_up_when_the_sidecar_stops_answering(kernel, unmounter):
    kernel.mount(mount_source("v", "h"), T, FSTYPE, 0, "")
    kernel.hung[T] = threading.Event()
    answers = iter([True, False])
    try:
        assert not unmounter.ask(T, Seconds(60), lambda: next(answers))
    finally:
        kernel.hung[T].set()


def test_tuning_writes_read_ahead_and_background_and_survives_refusal(kernel, fusectl, tmp_path):
    kernel.refuse["write_control"] = [errno.EACCES]
    fusectl.tune(42)
    assert kernel.controls == [(f"{tmp_path}/42/max_background", "64"), (f"{tmp_path}/42/congestion_threshold", "48")]
    assert ("write_control", "/sys/class/bdi/0:42/read_ahead_kb") in kernel.calls
