"""Why a pod has no sidecar for one of its volumes: the causes in the order in which they exclude each other.

A pure function of the pod; the answer is an error whose message is the cause and whose hint is what to do next,
which depends on who will make the pod again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from csi.cluster.api import JsonObject
from csi.errors import SidecarNotInjected
from csi.handover.types import PodReference
from csi.volume.naming import DRIVER_NAME, INJECT_ANNOTATION

NOT_INJECTED_ANNOTATION: Final = f"{DRIVER_NAME}/not-injected"
"""Left by the webhook on a pod it saw and did not inject, with its reason."""

_MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"


def why_not_injected(
    pod: PodReference, found: JsonObject, volume: str, excluded: Collection[str]
) -> SidecarNotInjected:
    """`found` is the pod as the API server has it, `volume` the name in its `spec.volumes`; `excluded` are the
    namespaces that the webhook leaves alone."""
    metadata = found["metadata"]
    annotations = metadata.get("annotations") or {}
    again = _again(metadata)
    what = f"pod {pod.namespace}/{pod.name} has no sidecar for volume {volume!r}"
    if str(annotations.get(INJECT_ANNOTATION, "")).casefold() == "false":
        return SidecarNotInjected(
            f'{what}: its annotation {INJECT_ANNOTATION}: "false" keeps it away',
            hint=f"remove the annotation where the pod is defined, then {again}",
        )
    if reason := annotations.get(NOT_INJECTED_ANNOTATION):
        return SidecarNotInjected(f"{what}: the webhook did not add one: {reason}", hint=f"mend that, then {again}")
    if pod.namespace in excluded:
        return SidecarNotInjected(
            f"{what}: namespace {pod.namespace} is excluded from injection", hint="run the pod in another namespace"
        )
    if _MIRROR_ANNOTATION in annotations:
        return SidecarNotInjected(
            f"{what}: static pods do not pass the API server, so no webhook sees them",
            hint="run it as a DaemonSet, Deployment or Job",
        )
    return SidecarNotInjected(
        f"{what}: the webhook did not see this pod: it was created before the driver was installed, while the "
        f"webhook was unavailable, or before its claim was bound",
        hint=f"check that the Deployment ossfuse-csi-controller is ready, then {again}",
    )


def _again(metadata: JsonObject) -> str:
    owner = next((owner for owner in metadata.get("ownerReferences") or [] if owner.get("controller")), None)
    if owner is None:
        return "delete the pod and create it again: no controller will"
    return f"delete the pod so that its {owner.get('kind')} {owner.get('name')} recreates it"
