"""The container and the tmpfs that a pod gets for one volume of ours. Pure: names and numbers in, JSON out.

The container runs under Pod Security "restricted", starts before everything else in the pod and ends after it (a native
sidecar), and holds nothing but the tmpfs through which the node plugin hands it the volume, and a directory for the
disk cache of a volume that asks for one. Its postStart gate lets
the next container start once the volume is served; nothing but speed depends on that gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from csi.cluster.api import JsonObject
from csi.cluster.webhook.resources import ContainerResources, container_resources
from csi.handover.process import SIDECAR_GID, SIDECAR_UID, allocator_environment
from csi.volume.naming import CACHE_DIRECTORY, READY_FILE, READY_PIPE, SIDECAR_DIRECTORY

TOKEN_DIRECTORY: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
"""Where the API server would mount the pod's token into every container that has nothing mounted there yet."""

_GATE: Final = 120
"""Seconds after which kubelet starts the sidecar again; the pod's events say what the volume waits for."""
_DIGEST: Final = "@"


@dataclass(frozen=True, slots=True)
class SidecarSettings:
    """`image` of every sidecar whose volume names no tag; `pull_policy` as of a container; below `cache_host_paths`
    volumes may have disk caches."""

    image: str
    pull_policy: str = "IfNotPresent"
    cache_host_paths: tuple[str, ...] = ()


def sidecar_container(
    name: str, resources: ContainerResources, settings: SidecarSettings, *, cache: str = ""
) -> JsonObject:
    """The container `name`, whose tmpfs is the volume of the same name; `cache` is the volume of its disk cache."""
    image = image_with_tag(settings.image, resources.image_tag) if resources.image_tag else settings.image
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": settings.pull_policy,
        "restartPolicy": "Always",
        "args": ["sidecar", "--socket", SIDECAR_DIRECTORY, *(["--cache", CACHE_DIRECTORY] if cache else [])],
        "env": _environment(resources),
        "resources": container_resources(resources),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": SIDECAR_UID,
            "runAsGroup": SIDECAR_GID,
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", _gate()]}}},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": name, "mountPath": SIDECAR_DIRECTORY},
            # what is mounted here keeps the pod's own API token out of a container that has no use for it
            {"name": name, "mountPath": TOKEN_DIRECTORY, "readOnly": True},
            *([{"name": cache, "mountPath": CACHE_DIRECTORY}] if cache else []),
        ],
    }


def sidecar_volume(name: str) -> JsonObject:
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}


def image_with_tag(image: str, tag: str) -> str:
    """`image` with `tag` in place of its own tag and digest."""
    repository = image.partition(_DIGEST)[0]
    head, colon, tail = repository.rpartition(":")
    if colon and "/" not in tail:  # else it is a registry's port
        repository = head
    return f"{repository}:{tag}"


def _environment(resources: ContainerResources) -> list[JsonObject]:
    """What the allocator is told; the image knows its own paths."""
    variables = allocator_environment(resources.memory_limit)
    return [{"name": key, "value": value} for key, value in variables.items()]


def _gate() -> str:
    """Sleeps on a pipe that the sidecar writes to: a program started every few milliseconds in each of many pods would
    take the processor from what they wait for. A look a second is for a sidecar of another version that knows no pipe.
    """
    ready, pipe = f"{SIDECAR_DIRECTORY}/{READY_FILE}", f"{SIDECAR_DIRECTORY}/{READY_PIPE}"
    return (
        f"mkfifo {pipe} 2>/dev/null; i=0; until [ -e {ready} ]; do i=$((i+1)); "
        f"if [ $i -gt {_GATE} ]; then "
        f"echo 'the volume was not served within {_GATE} s; the events of the pod say why' >&2; exit 1; fi; "
        f"if [ -p {pipe} ]; then timeout 1 head -c 1 {pipe} >/dev/null; else sleep 1; fi; done"
    )
