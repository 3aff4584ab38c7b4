"""The cluster that the other tests of this lane stand on: a node that does what nodes do, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.handover.kernel import MNT_DETACH, LinuxKernel
from csi.handover.mountinfo import read_mountinfo
from tests.cluster.harness.api import Object
from tests.cluster.harness.client import Cluster, Namespace
from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.harness.leftovers import cgroups_left
from tests.cluster.harness.node import Node
from tests.cluster.harness.places import BUSYBOX_IMAGE, CHECKOUT, NODE, Places
from tests.cluster.harness.settings import COMPONENTS
from tests.support.emulator import RunningEmulator

_HOST_SETTINGS = ("kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory")
_RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _pod(name: str, script: str, **container: object) -> Object:
    running = {
        "name": "main",
        "image": BUSYBOX_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{**running, "securityContext": _RESTRICTED, **container}],
        },
    }


def test_the_node_is_ready(cluster: Cluster, node: Node) -> None:
    conditions = {each["type"]: each["status"] for each in cluster.list("nodes")[0]["status"]["conditions"]}

    assert cluster.list("nodes")[0]["metadata"]["name"] == NODE
    assert conditions["Ready"] == "True"
    assert [name for name in COMPONENTS if not node.running()[name]] == []


def test_objects_are_made_changed_listed_and_deleted_as_kubectl_would(namespace: Namespace) -> None:
    words = ("get", "configmap", "settings", f"--namespace={namespace.name}", "--output=json", "--show-managed-fields")
    labels = {"metadata": {"name": "settings", "labels": {"of": "test"}}}
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", **labels, "data": {"first": "1"}})
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", **labels, "data": {"second": "2"}})

    found = namespace.get("cm", "settings")

    assert found is not None
    assert found == json.loads(namespace.cluster.kubectl(*words))
    assert found["data"] == {"first": "1", "second": "2"}
    assert namespace.list("configmaps,sa", "of=test") == [found]
    namespace.delete("ConfigMap", "settings", "another")
    assert namespace.get("configmap", "settings") is None
    with pytest.raises(ClusterFailed, match='strict decoding error: unknown field "dta"'):
        namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", **labels, "dta": {}})


def test_a_pod_runs_to_its_end_and_its_log_is_read(namespace: Namespace) -> None:
    namespace.apply(_pod("speaker", "echo said by $(id -u)"))

    namespace.wait_pod("speaker", "Succeeded")

    assert namespace.logs("speaker").strip() == "said by 1000"


def test_exec_runs_in_the_container_with_its_input(namespace: Namespace) -> None:
    namespace.apply(_pod("listener", "sleep 600"))
    namespace.wait_pod("listener", "Ready")

    assert namespace.exec("listener", "sh", "-c", "hostname; cat", input="given\n").split() == ["listener", "given"]


def test_exec_tells_what_failed(namespace: Namespace) -> None:
    namespace.apply(_pod("listener", "sleep 600"))
    namespace.wait_pod("listener", "Ready")

    with pytest.raises(ClusterFailed, match="No such file or directory"):
        namespace.exec("listener", "cat", "/nothing-here")


def test_a_memory_limit_is_enforced_by_the_kernel(namespace: Namespace) -> None:
    # containerd begins to watch a container's memory when it has started it: who asks at once is killed unseen
    hungry = "sleep 1; exec dd if=/dev/zero of=/dev/null bs=200M count=1"
    namespace.apply(_pod("hungry", hungry, resources={"limits": {"memory": "32Mi"}}))

    pod = namespace.wait_pod("hungry", "Failed")

    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "OOMKilled"


def test_a_pod_that_is_not_restricted_is_refused(namespace: Namespace) -> None:
    with pytest.raises(ClusterFailed, match='violates PodSecurity "restricted:latest"'):
        namespace.apply(_pod("rooted", "true", securityContext={"runAsUser": 0}))


def test_a_pod_reaches_the_api_server_by_its_service(namespace: Namespace) -> None:
    script = 'nc -w 10 "$KUBERNETES_SERVICE_HOST" "$KUBERNETES_SERVICE_PORT" </dev/null && echo reached'
    namespace.apply(_pod("caller", script))

    namespace.wait_pod("caller", "Succeeded")

    assert namespace.logs("caller").strip() == "reached"


def test_a_pod_reads_an_object_from_the_emulator(namespace: Namespace, oss: RunningEmulator) -> None:
    bucket = oss.create_bucket(public=True)
    oss.seed("greeting", "from the bucket", bucket=bucket)
    namespace.apply(_pod("reader", f"wget -q -O - {oss.endpoint}/{bucket}/greeting"))

    namespace.wait_pod("reader", "Succeeded")

    assert namespace.logs("reader") == "from the bucket"
    assert oss.count("GetObject") == 1


def test_a_container_sees_what_a_pod_mounts_beside_it(cluster: Cluster, node: Node) -> None:
    """As a FUSE mount of the node plugin, with a tmpfs: it spreads from one pod through the node to another."""
    shared = {"name": "shared", "hostPath": {"path": "/run/spread", "type": "DirectoryOrCreate"}}
    with cluster.namespace({"pod-security.kubernetes.io/enforce": "privileged"}) as namespace:
        mounting = _pod(
            "mounter",
            "mkdir -p /shared/inner && mount -t tmpfs none /shared/inner && echo here >/shared/inner/file && sleep 600",
            securityContext={"privileged": True},
            volumeMounts=[{"name": "shared", "mountPath": "/shared", "mountPropagation": "Bidirectional"}],
        )
        looking = _pod(
            "looker",
            "until cat /shared/inner/file 2>/dev/null; do sleep 0.1; done",
            securityContext={},
            volumeMounts=[{"name": "shared", "mountPath": "/shared", "mountPropagation": "HostToContainer"}],
        )
        for pod in (looking, mounting):
            pod["spec"]["volumes"] = [shared]
            namespace.apply(pod)

        namespace.wait_pod("looker", "Succeeded")

        assert namespace.logs("looker").strip() == "here"
        node.run("umount", "/run/spread/inner")


def test_pods_go_on_while_kubelet_restarts(cluster: Cluster, node: Node, namespace: Namespace) -> None:
    namespace.apply(_pod("lasting", "echo once >>/tmp/starts; sleep 600"))
    before = namespace.wait_pod("lasting", "Ready")["status"]["containerStatuses"]

    cluster.restart_kubelet()

    after = namespace.wait_pod("lasting", "Ready")["status"]["containerStatuses"]
    assert [each["containerID"] for each in after] == [each["containerID"] for each in before]
    assert namespace.exec("lasting", "cat", "/tmp/starts").split() == ["once"]


def test_the_log_of_what_ended_is_told(cluster: Cluster, node: Node) -> None:
    node.start_program("short-lived", ["sh", "-c", "echo the reason >&2; exit 3"])

    cluster.wait_for(lambda: not node.running()["short-lived"], "the end of a program")

    assert "the reason" in node.log_tails()


def test_a_component_that_was_killed_is_started_again(cluster: Cluster, node: Node) -> None:
    cluster.kill("kube-scheduler")
    assert not node.running()["kube-scheduler"]

    cluster.start("kube-scheduler")

    assert node.running()["kube-scheduler"]


def _settings() -> list[str]:
    """Of the kernel of this machine, those that a kubelet sets."""
    return [Path("/proc/sys", name).read_text() for name in _HOST_SETTINGS]


def _outside(places: Places, link: str) -> list[str]:
    """What of a cluster can be seen outside it; other clusters may be running meanwhile."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if places.name in line]
    directories = [str(places.state), "/var/lib/kubelet", "/var/log/pods", "/run/cluster"]
    cgroups = [str(path) for path in cgroups_left(places.cgroup)]
    return [*mounts, *cgroups, *(name for name in (*directories, f"/sys/class/net/{link}") if os.path.exists(name))]


_UP_THEN = """
import sys
from tests.cluster.harness.images import cluster_images
from tests.cluster.harness.node import start_node
from tests.cluster.harness.places import Places
places = Places(sys.argv[1], sys.argv[2])
node = start_node(places, cluster_images(places)[:1])
print(node.pid, node.places.link, flush=True)
sys.stdin.read()
node.end()
"""


@pytest.fixture
def foreign_mount(tmp_path: Path) -> Iterator[str]:
    """A FUSE mount of somebody else's on this machine."""
    kernel, target = LinuxKernel(), tmp_path / "foreign"
    target.mkdir()
    device = kernel.open_fuse_device()
    kernel.mount("foreign", str(target), "fuse.foreign", 0, f"fd={device},rootmode=40000,user_id=0,group_id=0")
    yield str(target)
    kernel.umount2(str(target), MNT_DETACH)
    os.close(device)


@pytest.mark.parametrize("ending", ["ended", "killed"])
def test_nothing_is_left_of_a_cluster_and_it_holds_no_mount_of_others(
    ending: str, node: Node, foreign_mount: str
) -> None:
    settings = _settings()
    places = Places(f"short-{ending}-{os.getpid()}", node.places.version)
    command = [sys.executable, "-c", _UP_THEN, places.name, places.version]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as program:
        assert program.stdout is not None
        pid, link = program.stdout.readline().split()
        assert cgroups_left(places.cgroup)
        assert foreign_mount in {entry.target for entry in read_mountinfo()}
        assert foreign_mount not in {entry.target for entry in read_mountinfo(f"/proc/{pid}/mountinfo")}
        assert Path("/sys/class/net", link).exists()
        if ending == "killed":
            program.send_signal(signal.SIGKILL)

    if ending == "killed":  # the kernel ended what was inside; the next cluster removes the rest
        _wait_end(int(pid))
        _start_and_end(Places(f"next-{os.getpid()}", node.places.version))
    assert not Path(f"/proc/{pid}").exists()
    assert _outside(places, link) == []
    assert _settings() == settings


def _start_and_end(places: Places) -> None:
    subprocess.run(
        [sys.executable, "-c", _UP_THEN, places.name, places.version], input="", check=True, cwd=CHECKOUT, text=True
    )


def _wait_end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(descriptor):
        assert select.select([descriptor], [], [], 30)[0], "the cluster lives on without its program"
