"""ossfuse-csi in a cluster: its image and its chart, installed as an administrator would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness.api import Objects
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.harness.places import CHECKOUT, DRIVER_TAR, LIVENESS_IMAGE, REGISTRAR_IMAGE

CHART = CHECKOUT / "charts" / "ossfuse-csi"
NAMESPACE = "ossfuse-csi"
RELEASE = "ossfuse-csi"
CACHES = Path("/var/cache/ossfuse-tests")
"""Below it the volumes of tests may have disk caches on the node."""
_PATIENCE = "180s"


@dataclass(frozen=True)
class Driver:
    """The installed release."""

    cluster: Cluster
    chart: Path = CHART
    namespace: str = NAMESPACE
    release: str = RELEASE
    settings: tuple[str, ...] = ()

    def upgrade(self, *words: str) -> None:
        """Install or upgrade, until all pods are ready; `words` are for helm, such as "--set", "logLevel=debug"."""
        given = [word for setting in (*values(self.cluster), *self.settings) for word in ("--set", setting)]
        self.cluster.helm(
            *("upgrade", "--install", self.release, str(self.chart), f"--namespace={self.namespace}"),
            *("--create-namespace", "--wait", f"--timeout={_PATIENCE}", *given, *words),
        )

    def rollback(self) -> None:
        """To the revision before."""
        self.cluster.helm(
            *("rollback", self.release, f"--namespace={self.namespace}", "--wait", f"--timeout={_PATIENCE}")
        )

    def uninstall(self) -> None:
        self.cluster.helm(
            *("uninstall", self.release, f"--namespace={self.namespace}", "--ignore-not-found"),
            *("--wait", f"--timeout={_PATIENCE}"),
        )
        self.cluster.delete("namespace", self.namespace)

    def pods(self, component: str) -> Objects:
        """Of `node` or `controller`, those that are not being deleted."""
        found = self.cluster.list("pods", self.namespace, f"app.kubernetes.io/component={component}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def node_pod(self) -> str:
        """The name of the node plugin's pod, on the first node."""
        found = self.cluster.wait_for(lambda: self.pods("node") or None, "a pod of the node plugin")
        return str(found[0]["metadata"]["name"])

    def restarts(self, pod: str, container: str = "node") -> int:
        found = self.cluster.get("pod", pod, self.namespace) or {"status": {}}
        statuses = found["status"].get("containerStatuses", [])
        return next((int(each["restartCount"]) for each in statuses if each["name"] == container), 0)

    def wait_ready(self) -> None:
        """All pods of the release are as many as wanted, of the newest revision, and ready."""
        for workload in ("daemonset/ossfuse-csi-node", "deployment/ossfuse-csi-controller"):
            self.cluster.kubectl(
                *("rollout", "status", workload, f"--namespace={self.namespace}", f"--timeout={_PATIENCE}")
            )


def values(cluster: Cluster) -> tuple[str, ...]:
    """Settings that a cluster needs: in this package's own there is one node, and stand-ins for two of the images."""
    if cluster.node is None:
        return ()
    return (
        *_image("registrar", REGISTRAR_IMAGE),
        *_image("livenessProbe", LIVENESS_IMAGE),
        "controller.replicas=1",
    )


def install(cluster: Cluster, *settings: str) -> Driver:
    """The driver with values of its own, ready. In a foreign cluster its image must be there already."""
    if cluster.node is not None:
        if not DRIVER_TAR.exists():
            raise ClusterFailed(f"{DRIVER_TAR} is missing; `tools/image.sh` makes it")
        cluster.load_image(DRIVER_TAR)
    driver = Driver(cluster, settings=settings)
    driver.upgrade()
    return driver


def objects_of_ours(cluster: Cluster) -> list[str]:
    """Everything the chart or its programs made, as "kind namespace name"; events pass by themselves, and what tests
    have in namespaces of their own is theirs."""
    return sorted(
        " ".join((kind, namespace or "<none>", name))
        for kind, namespace, name in cluster.api.names(but=("events", "namespaces"))
        if "ossfuse" in name and not namespace.startswith("test-")
    )


def _image(part: str, reference: str) -> tuple[str, str]:
    repository, _, tag = reference.rpartition(":")
    return f"{part}.image.repository={repository}", f"{part}.image.tag={tag}"
