"""`ossfuse node --sidecar pod` as a process, with an API server that answers, is silent, or is not there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from csi.cluster.taint import TAINT
from csi.v1 import csi_pb2, csi_pb2_grpc
from tests.support.cluster_pods import EVENTS_PATH, POD, POD_PATH, pod_object
from tests.support.csi_services import SECRETS, publish_request, refused
from tests.support.emulator import RunningEmulator
from tests.support.node import Node
from tests.support.published_volume import until
from tests.support.secret_watch import search_log
from tests.support.service_accounts import pod_context
from tests.support.stand_in_cluster import StandInCluster, kubeconfig, stand_in_cluster

NODE = "/api/v1/nodes/node-1"
CSI_NODE = "/apis/storage.k8s.io/v1/csinodes/node-1"
INLINE = {"name": "data", "csi": {}}


@dataclass
class Plugin:
    home: Path
    process: subprocess.Popen[bytes]
    channel: grpc.Channel

    def __post_init__(self) -> None:
        self.node = csi_pb2_grpc.NodeStub(self.channel)
        self.identity = csi_pb2_grpc.IdentityStub(self.channel)

    def ready(self) -> bool:
        try:
            return bool(self.identity.Probe(csi_pb2.ProbeRequest(), timeout=5, wait_for_ready=True).ready.value)
        except grpc.RpcError:
            return False

    def log(self) -> str:
        return (self.home / "node.log").read_text()


@contextlib.contextmanager
def plugin_of(cluster: StandInCluster, home: Path) -> Iterator[Plugin]:
    """The node plugin; it ends well and leaves nothing."""
    machine = Node(home)
    arguments = [
        *("--endpoint", f"unix://{home}/node.sock", "--node-id", "node-1", "--state-dir", str(machine.state)),
        *("--sidecar", "pod", "--kubelet-dir", str(home / "kubelet"), "--namespace", "ossfuse-csi"),
        *("--kubeconfig", str(kubeconfig(cluster, home))),
    ]
    command = [str(Path(sys.executable).with_name("ossfuse")), "node", *arguments]
    with (home / "node.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        with grpc.insecure_channel(f"unix:{home}/node.sock") as channel:
            yield Plugin(home, process, channel)
        process.terminate()
        assert process.wait(30) == 0, (home / "node.log").read_text()
    finally:
        process.kill()
        process.wait(10)
        machine.clean()
        search_log(home / "node.log")


@pytest.fixture
def cluster() -> Iterator[StandInCluster]:
    with stand_in_cluster() as running:
        running.put(
            NODE, {"metadata": {"name": "node-1"}, "spec": {"taints": [{"key": TAINT, "effect": "NoSchedule"}]}}
        )
        running.put(CSI_NODE, {"metadata": {"name": "node-1"}, "spec": {"drivers": [{"name": "ossfuse.csi.dev"}]}})
        running.put(POD_PATH, pod_object([INLINE], injected=()))
        yield running


@pytest.fixture
def plugin(cluster: StandInCluster, tmp_path: Path) -> Iterator[Plugin]:
    with plugin_of(cluster, tmp_path) as running:
        until(running.ready)
        yield running


def inline(plugin: Plugin, emulator: RunningEmulator, **context: str) -> csi_pb2.NodePublishVolumeRequest:
    """Kubelet's call for the inline volume of POD."""
    target = plugin.home / "kubelet" / "pods" / POD.uid / "volumes" / "kubernetes.io~csi" / "data" / "mount"
    target.parent.mkdir(parents=True, exist_ok=True)
    attributes = {"bucket": emulator.bucket, "url": emulator.endpoint, **pod_context(), **context}
    return publish_request(target, volume_id="csi-0123", attributes=attributes, secrets=SECRETS)


def test_the_start_up_taint_is_taken_off_once_volumes_can_be_published(cluster: StandInCluster, plugin: Plugin) -> None:
    until(lambda: not cluster.objects[NODE]["spec"].get("taints"))


def test_a_pod_without_sidecar_is_told_so_through_kubelet(plugin: Plugin, emulator: RunningEmulator) -> None:
    ephemeral = {"csi.storage.k8s.io/ephemeral": "true"}

    with refused(
        grpc.StatusCode.FAILED_PRECONDITION,
        "pod team/train-0 has no sidecar for volume 'data'",
        "the webhook did not see this pod",
    ):
        plugin.node.NodePublishVolume(inline(plugin, emulator, **ephemeral), timeout=30)

    assert not Path(inline(plugin, emulator).target_path).exists()


def test_a_call_without_a_pod_names_the_csidriver_object(plugin: Plugin, emulator: RunningEmulator) -> None:
    nameless = inline(plugin, emulator, **{"csi.storage.k8s.io/pod.name": ""})

    with refused(grpc.StatusCode.FAILED_PRECONDITION, "podInfoOnMount", "CSIDriver object ossfuse.csi.dev"):
        plugin.node.NodePublishVolume(nameless, timeout=30)


def test_a_silent_api_server_keeps_neither_the_start_nor_probe_nor_unmounting(
    cluster: StandInCluster, tmp_path: Path
) -> None:
    cluster.silent.set()

    with plugin_of(cluster, tmp_path) as plugin:
        until(plugin.ready)
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id="csi-0123", target_path=str(tmp_path / "nothing-there"))
        plugin.node.NodeUnpublishVolume(request, timeout=10)
        assert plugin.ready()


def test_a_silent_api_server_is_an_answer_to_a_publish(
    cluster: StandInCluster, plugin: Plugin, emulator: RunningEmulator
) -> None:
    cluster.silent.set()

    with refused(grpc.StatusCode.UNAVAILABLE, "no answer of the API server"):
        plugin.node.NodePublishVolume(inline(plugin, emulator), timeout=30)

    assert plugin.ready()
    assert not [path for path in cluster.objects if path.startswith(EVENTS_PATH)]


def test_outside_of_a_pod_it_says_what_is_missing(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KUBERNETES_")}
    command = [str(Path(sys.executable).with_name("ossfuse")), "node", "--sidecar", "pod"]

    done = subprocess.run(
        [*command, "--endpoint", f"unix://{tmp_path}/s", "--state-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )

    assert done.returncode == 1
    assert "no Kubernetes service account" in done.stderr


@pytest.mark.parametrize(
    "text", ["sts.aliyuncs.com", "ftp://sts", "https://", "https://key:word@sts", "https://s/?a=b"]
)
def test_an_sts_endpoint_that_is_none_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    command = [str(Path(sys.executable).with_name("ossfuse")), "node", "--sts-endpoint", text]

    done = subprocess.run(
        [*command, "--endpoint", f"unix://{tmp_path}/s", "--state-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "sts-endpoint" in done.stderr
    assert "key:word" not in done.stderr
