"""Finds the sidecar of a published volume in its pod, and says exactly why there is none.

Kubelet names the pod and the target path; which of the pod's volumes that is, only the API server knows, because a
target is named after the PersistentVolume and the pod after its claim. What was found once is remembered for as long
as the pod can live, so that republishing costs no call. It changes nothing in the cluster.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from csi.cluster.api import JsonObject, KubernetesApi, resource_path
from csi.cluster.not_injected import why_not_injected
from csi.errors import InvalidOption, SidecarNotInjected
from csi.handover.types import PodReference, SidecarPlace
from csi.volume.naming import SIDECAR_DIRECTORY, sidecar_name
from csi.volume.quantity import parse_bytes
from csi.volume.units import Bytes, Seconds

_REMEMBERED: Final = 1024
"""Places; a node runs a tenth of that many pods."""
_DEFAULT_GRACE: Final = 30
_ALTERED: Final = (
    "something changed the sidecar after the webhook: find the admission webhook or policy that does, "
    "then delete the pod so that its controller recreates it"
)


class PodSidecars:
    """Implements `SidecarLocator`. `_lock` guards `_places`; it is not held during a call.

    `kubelet_directory` is kubelet's root as this node sees it; `excluded` are the namespaces the webhook leaves alone.
    """

    def __init__(self, api: KubernetesApi, kubelet_directory: Path, *, excluded: Iterable[str] = ()) -> None:
        self._api = api
        self._kubelet_directory = kubelet_directory
        self._excluded = frozenset(excluded)
        self._lock = threading.Lock()
        self._places: OrderedDict[tuple[str, Path], SidecarPlace] = OrderedDict()

    def locate(self, pod: PodReference, volume_id: str, target: Path) -> SidecarPlace:
        with self._lock:
            known = self._places.get((pod.uid, target))
        if known is not None:
            return known
        found = self._api.get(resource_path("v1", "pods", namespace=pod.namespace, name=pod.name))
        if found is None or found["metadata"].get("uid") != pod.uid:
            raise SidecarNotInjected(
                f"pod {pod.namespace}/{pod.name} with UID {pod.uid} is gone"
                + (", another of its name is there" if found is not None else ""),
                hint="no action is needed: kubelet will stop asking",
            )
        place = self._place(pod, found, self._pod_volume(pod, found, target))
        with self._lock:
            self._places[pod.uid, target] = place
            while len(self._places) > _REMEMBERED:
                self._places.popitem(last=False)
        return place

    def _pod_volume(self, pod: PodReference, found: JsonObject, target: Path) -> str:
        """The name in `spec.volumes` of what kubelet publishes at `target`."""
        directory = target.parent.name  # …/volumes/kubernetes.io~csi/<PersistentVolume or inline volume>/mount
        volumes = found["spec"].get("volumes") or []
        if pod.ephemeral:
            return directory
        containers = _named(found["spec"].get("initContainers"))
        candidates = [volume for volume in volumes if _claim_of(pod, volume)]
        candidates.sort(key=lambda volume: sidecar_name(volume["name"]) not in containers)
        bound = {}
        for volume in candidates:
            name = _claim_of(pod, volume)
            if name not in bound:
                path = resource_path("v1", "persistentvolumeclaims", namespace=pod.namespace, name=name)
                claim = self._api.get(path) or {}
                bound[name] = str((claim.get("spec") or {}).get("volumeName") or "")
            if bound[name] == directory:
                return str(volume["name"])
        raise SidecarNotInjected(
            f"no volume of pod {pod.namespace}/{pod.name} is bound to PersistentVolume {directory}: its claims are "
            + (", ".join(f"{name} ({volume or 'unbound'})" for name, volume in bound.items()) or "none"),
            hint="look at them with kubectl get pvc; a claim that was deleted and made again binds another volume",
        )

    def _place(self, pod: PodReference, found: JsonObject, volume: str) -> SidecarPlace:
        name = sidecar_name(volume)
        container = _named(found["spec"].get("initContainers")).get(name)
        if container is None:
            raise why_not_injected(pod, found, volume, self._excluded)
        what = f"sidecar {name} of pod {pod.namespace}/{pod.name}"
        if container.get("restartPolicy") != "Always":
            raise SidecarNotInjected(f"{what} has no restartPolicy: Always, so it cannot serve a volume", hint=_ALTERED)
        mounts = container.get("volumeMounts") or []
        if not any(mount.get("name") == name and mount.get("mountPath") == SIDECAR_DIRECTORY for mount in mounts):
            raise SidecarNotInjected(f"{what} does not mount volume {name} at {SIDECAR_DIRECTORY}", hint=_ALTERED)
        if not any(v.get("name") == name and "emptyDir" in v for v in found["spec"].get("volumes") or []):
            raise SidecarNotInjected(f"{what} lacks its emptyDir volume {name}", hint=_ALTERED)
        pod_directory = self._kubelet_directory / "pods" / pod.uid
        return SidecarPlace(
            container=name,
            directory=pod_directory / "volumes" / "kubernetes.io~empty-dir" / name,
            memory_limit=_memory_limit(container, what),
            grace=Seconds(float(found["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE))),
        )


def _claim_of(pod: PodReference, volume: JsonObject) -> str:
    """The claim a pod's volume stands for, '' when it is none."""
    if "ephemeral" in volume:
        return f"{pod.name}-{volume['name']}"
    return str((volume.get("persistentVolumeClaim") or {}).get("claimName") or "")


def _memory_limit(container: JsonObject, what: str) -> Bytes:
    text = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    try:
        limit = parse_bytes("memory", str(text)) if text is not None else Bytes(0)
    except InvalidOption:
        limit = Bytes(0)
    if limit <= 0:
        raise SidecarNotInjected(f"{what} has no memory limit, so its buffers have no measure", hint=_ALTERED)
    return limit


def _named(containers: Any) -> dict[str, JsonObject]:
    return {str(container.get("name")): container for container in containers or []}
