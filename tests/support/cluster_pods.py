"""Pods, claims and nodes as the API server has them, put into a stand-in cluster."""

from __future__ import annotations

from typing import Any

from csi.cluster.api import resource_path
from csi.handover.types import PodReference
from csi.volume.naming import SIDECAR_DIRECTORY, sidecar_name
from tests.support.stand_in_cluster import StandInCluster

POD = PodReference("uid-1", "train-0", "team", "trainer")
POD_PATH = "/api/v1/namespaces/team/pods/train-0"
EVENTS_PATH = "/api/v1/namespaces/team/events"


def sidecar_container(volume: str, *, memory: str = "512Mi") -> dict[str, Any]:
    """The container that the webhook adds for a pod's volume."""
    name = sidecar_name(volume)
    return {
        "name": name,
        "restartPolicy": "Always",
        "resources": {"limits": {"memory": memory}},
        "volumeMounts": [{"name": name, "mountPath": SIDECAR_DIRECTORY}],
    }


def tmpfs(volume: str) -> dict[str, Any]:
    return {"name": sidecar_name(volume), "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}


def pod_object(volumes: list[dict[str, Any]], *, injected: tuple[str, ...], **metadata: Any) -> dict[str, Any]:
    """`volumes` of POD; those named in `injected` have their sidecar."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD.name, "namespace": POD.namespace, "uid": POD.uid, **metadata},
        "spec": {
            "terminationGracePeriodSeconds": 45,
            "initContainers": [sidecar_container(name) for name in injected],
            "containers": [{"name": "app", "volumeMounts": [mount(volume["name"]) for volume in volumes]}],
            "volumes": [*volumes, *(tmpfs(name) for name in injected)],
        },
    }


def mount(volume: str, **more: Any) -> dict[str, Any]:
    return {"name": volume, "mountPath": f"/{volume}", "mountPropagation": "HostToContainer", **more}


def claimed(volume: str, claim: str) -> dict[str, Any]:
    return {"name": volume, "persistentVolumeClaim": {"claimName": claim}}


def put_claim(cluster: StandInCluster, name: str, volume: str) -> None:
    """A claim of POD's namespace, bound to PersistentVolume `volume` ('' for not yet)."""
    path = resource_path("v1", "persistentvolumeclaims", namespace=POD.namespace, name=name)
    cluster.put(path, {"metadata": {"name": name}, "spec": {"volumeName": volume} if volume else {}})


def status_of(volume: str, *, state: dict[str, Any], last: dict[str, Any] | None = None) -> dict[str, Any]:
    """The `status` of a pod whose sidecar for `volume` is in `state`."""
    one = {"name": sidecar_name(volume), "state": state, "lastState": last or {}}
    return {"initContainerStatuses": [one]}
