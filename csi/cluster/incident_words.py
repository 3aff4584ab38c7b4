"""What a pod's event says about an incident: the words, from what the node plugin saw and what the pod's status tells.

Pure functions of plain data. Only the API server knows why a container ended and which containers can see a mount made
anew; with that the text says what happened, with which value, and what to do next.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from csi.cluster.api import JsonObject
from csi.handover.types import Incident, IncidentKind
from csi.volume.naming import DRIVER_NAME, sidecar_name
from csi.volume.quantity import format_bytes

OUT_OF_MEMORY: Final = "SidecarOutOfMemory"

_LONGEST: Final = 1000
"""Characters; the API server takes 1024."""
_LONGEST_WORDS: Final = 300
_SIGNALS: Final = {134: "SIGABRT", 135: "SIGBUS", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}
_OPEN_FILES: Final = (
    "Files that were open answer ENOTCONN (Transport endpoint is not connected), what is opened anew works"
)
_WAITING: Final = "Programs wait until kubelet has started it again, and go on if that is soon"
_COMPLAINTS: Final = ("warning", "error", "critical")
_PROPAGATING: Final = ("HostToContainer", "Bidirectional")


@dataclass(frozen=True, slots=True)
class Told:
    """An event's `reason` and `message`."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Termination:
    """How a container ended, as kubelet reports it; `identity` differs for every run of it. `words` are its last."""

    identity: str
    exit_code: int
    reason: str
    finished: str
    words: str

    @property
    def out_of_memory(self) -> bool:
        return self.reason == "OOMKilled"


def termination_of(pod: JsonObject, container: str) -> Termination | None:
    """The last end of `container` that the pod's status tells of."""
    for status in (pod.get("status") or {}).get("initContainerStatuses") or []:
        if status.get("name") != container:
            continue
        for state in ("state", "lastState"):
            ended = (status.get(state) or {}).get("terminated")
            if ended:
                return Termination(
                    identity=str(ended.get("containerID") or ended.get("finishedAt") or ""),
                    exit_code=int(ended.get("exitCode") or 0),
                    reason=str(ended.get("reason") or ""),
                    finished=str(ended.get("finishedAt") or ""),
                    words=str(ended.get("message") or "").strip(),
                )
    return None


def told(incident: Incident, pod: JsonObject | None, ended: Termination | None) -> Told:
    """The event for `incident`; `pod` as the API server has it and how its sidecar `ended`, None when not known."""
    if incident.kind is IncidentKind.SIDECAR_ENDED and ended is not None:
        if ended.out_of_memory:
            return Told(OUT_OF_MEMORY, _cut(_killed_for_memory(incident)))
        return Told(incident.kind.value, _cut(_ended(incident, pod, ended)))
    if incident.kind is IncidentKind.SIDECAR_RESTARTED and pod is not None:
        return Told(incident.kind.value, _cut(_restarted(incident, pod)))
    return Told(incident.kind.value, _cut(incident.message))


def _killed_for_memory(incident: Incident) -> str:
    limit = f", limit {format_bytes(incident.memory_limit)}" if incident.memory_limit else ""
    return (
        f"the sidecar {incident.container} of volume {incident.volume_id} was killed for memory{limit}; "
        f"set fs.jindo.fuse.pod.mem.limit of the volume to more (or the pod's annotation {DRIVER_NAME}/memory-limit) "
        f"and recreate the pod. {_WAITING if incident.lasting else _OPEN_FILES}"
    )


def _ended(incident: Incident, pod: JsonObject | None, ended: Termination) -> str:
    signal = f", {_SIGNALS[ended.exit_code]}" if ended.exit_code in _SIGNALS else ""
    last = _last_words(ended.words)
    words = f": {last}" if last else ""
    name = (pod or {}).get("metadata", {}).get("name", "POD")
    return (
        f"{incident.message}; exit code {ended.exit_code}{signal}{words}. Kubelet starts it again; "
        f"kubectl logs {name} -c {incident.container} --previous shows what it said"
    )


def _last_words(text: str) -> str:
    """Of a container's log, which kubelet gives when it ends by an error: what it complained of last. What went well
    before a sudden end says nothing about it."""
    line = text.rstrip().rpartition("\n")[2]
    with contextlib.suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict):
            text = str(entry.get("message", "")) if entry.get("level") in _COMPLAINTS else ""
    return " ".join(text.split())[-_LONGEST_WORDS:]


def _restarted(incident: Incident, pod: JsonObject) -> str:
    if incident.lasting:
        return incident.message
    blind = sorted(set(_blind_containers(pod, incident.container)))
    again = (
        f". Containers that cannot see the new mount: {', '.join(blind)} (subPath, or no mountPropagation: "
        f"HostToContainer): delete the pod so that it is made again"
        if blind
        else ""
    )
    known = "" if "ENOTCONN" in incident.message else f". {_OPEN_FILES}"
    return f"{incident.message}{known}{again}"


def _blind_containers(pod: JsonObject, sidecar: str) -> Iterator[str]:
    spec = pod.get("spec") or {}
    volumes = {v.get("name") for v in spec.get("volumes") or [] if sidecar_name(str(v.get("name"))) == sidecar}
    lasting = [one for one in spec.get("initContainers") or [] if one.get("restartPolicy") == "Always"]
    for container in [*lasting, *(spec.get("containers") or [])]:
        for mount in container.get("volumeMounts") or []:
            if mount.get("name") not in volumes:
                continue
            nested = mount.get("subPath") or mount.get("subPathExpr")
            if nested or mount.get("mountPropagation") not in _PROPAGATING:
                yield str(container.get("name"))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
