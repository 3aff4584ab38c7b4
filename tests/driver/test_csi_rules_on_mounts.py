"""The rules of CSI that only a real mount can show: dead, hung, stacked mounts, the kernel's EROFS, republishing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from csi.handover.mountinfo import layers_at, read_mountinfo
from csi.v1 import csi_pb2
from tests.support.csi_processes import CsiProcesses, csi_processes, restarted
from tests.support.csi_services import publish_request, unpublish_request
from tests.support.emulator import RunningEmulator


@dataclass
class Pod:
    """One volume for one pod, as kubelet sees it."""

    processes: CsiProcesses
    emulator: RunningEmulator
    target: Path

    def publish(self, attributes: dict[str, str] | None = None, **changes: object) -> None:
        place = {"bucket": self.emulator.bucket, "url": self.emulator.endpoint}
        request = publish_request(
            self.target,
            attributes={**place, "fs.jindo.fuse.pod.mem.limit": "256Mi", **(attributes or {})},
            secrets={"akId": self.emulator.access_key_id, "akSecret": self.emulator.access_key_secret},
            **changes,
        )
        self.processes.node.NodePublishVolume(request, timeout=60)

    def unpublish(self) -> None:
        self.processes.node.NodeUnpublishVolume(unpublish_request(self.target), timeout=60)

    def layers(self) -> int:
        return len(layers_at(read_mountinfo(), str(self.target)))

    def sidecar(self) -> int:
        [found] = self.processes.machine.sidecars()
        return found


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CsiProcesses]:
    with csi_processes(tmp_path_factory.mktemp("rules")) as running:
        yield running


@pytest.fixture
def pod(processes: CsiProcesses, emulator: RunningEmulator, tmp_path: Path) -> Iterator[Pod]:
    made = Pod(processes, emulator, tmp_path / "target")
    yield made
    made.unpublish()
    assert made.layers() == 0
    assert processes.machine.sidecars() == []


def test_rule_02_a_second_publish_mounts_nothing_more(pod):
    pod.publish()
    sidecar = pod.sidecar()

    pod.publish()

    assert (pod.layers(), pod.sidecar()) == (1, sidecar)


def test_rule_05_unpublishing_removes_mount_target_and_sidecar(pod):
    pod.publish()
    (pod.target / "file").write_text("kept in the bucket")

    pod.unpublish()

    assert not pod.target.exists()
    assert pod.layers() == 0
    assert pod.processes.machine.sidecars() == []


def test_rule_05_files_below_a_target_that_is_not_mounted_are_never_deleted(pod):
    pod.target.mkdir()
    (pod.target / "precious").write_text("not in any bucket")

    with pytest.raises(Exception, match=r"not empty"):
        pod.unpublish()

    assert (pod.target / "precious").read_text() == "not in any bucket"
    (pod.target / "precious").unlink()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "hung"])
def test_rule_06_a_dead_or_hung_mount_is_taken_away_also_while_a_program_waits_in_it(pod, blow):
    pod.publish()
    os.kill(pod.sidecar(), blow)
    waiting = subprocess.Popen(["ls", str(pod.target / "never-looked-up")], stderr=subprocess.DEVNULL)

    pod.unpublish()

    assert waiting.wait(20) != 0
    assert not pod.target.exists()
    assert pod.layers() == 0


def test_rule_06_a_stack_of_mounts_is_taken_away_whole(pod):
    pod.publish()
    subprocess.run(["mount", "--bind", str(pod.target), str(pod.target)], check=True)

    pod.unpublish()

    assert pod.layers() == 0
    assert not pod.target.exists()


def test_rule_08_a_target_that_kubelet_made_already_is_used(pod):
    pod.target.mkdir(mode=0o750)

    pod.publish()

    assert pod.layers() == 1


@pytest.mark.parametrize(
    "how",
    [{"readonly": True}, {"mode": "MULTI_NODE_READER_ONLY"}, {"attributes": {"mode": "readonly"}}],
    ids=["readonly flag", "access mode", "mode of mounting"],
)
def test_rule_09_read_only_is_enforced_by_the_kernel(pod, how):
    pod.publish(**how)

    [entry] = layers_at(read_mountinfo(), str(pod.target))
    with pytest.raises(OSError) as raised:
        (pod.target / "file").write_text("x")

    assert entry.read_only
    assert raised.value.errno == errno.EROFS


def test_rule_17_statistics_are_told_while_the_sidecar_is_stopped(pod):
    pod.publish()
    os.kill(pod.sidecar(), signal.SIGSTOP)

    answer = pod.processes.node.NodeGetVolumeStats(
        csi_pb2.NodeGetVolumeStatsRequest(volume_id="pv-1", volume_path=str(pod.target)), timeout=10
    )

    assert len(answer.usage) == 1


def test_rule_22_probe_answers_while_the_only_mount_is_hung(pod):
    pod.publish()
    os.kill(pod.sidecar(), signal.SIGSTOP)

    assert pod.processes.identity.Probe(csi_pb2.ProbeRequest(), timeout=5).ready.value


def test_rule_24_a_republish_of_a_slow_volume_is_ok_and_does_not_touch_it(pod):
    pod.publish()
    sidecar = pod.sidecar()
    os.kill(sidecar, signal.SIGSTOP)
    pod.emulator.reset_counters()

    pod.publish()

    os.kill(sidecar, signal.SIGCONT)
    assert (pod.layers(), pod.sidecar()) == (1, sidecar)
    assert pod.emulator.counters()["requests"] == 0


def test_rule_25_the_pods_group_owns_what_the_mount_shows(pod):
    pod.publish(volume_mount_group="2000")
    (pod.target / "file").write_text("x")

    assert (pod.target / "file").stat().st_gid == 2000


def test_rule_24_a_volume_outlives_the_node_plugin_that_published_it(emulator, tmp_path):
    with csi_processes(tmp_path) as first:
        pod = Pod(first, emulator, tmp_path / "target")
        pod.publish()
        sidecar = pod.sidecar()
        assert first.node_process.end() == 0
        (pod.target / "written").write_text("while no node plugin was there")

        with restarted(first) as again:
            pod = Pod(again, emulator, tmp_path / "target")
            pod.publish()
            served_by = pod.sidecar()
            pod.unpublish()

    assert served_by == sidecar
    assert not pod.target.exists()
