"""Saying in one sentence how a pod's volume is, from what its sidecar said: no mount and no process is asked."""

from __future__ import annotations

from csi.handover.condition import served, trouble
from csi.handover.conversation import Situation
from csi.handover.pods.incidents import memory_limit, working_set
from csi.handover.types import SidecarPlace, VolumeCondition
from csi.volume.units import Seconds


def pod_condition(
    volume_id: str,
    place: SidecarPlace,
    situation: Situation,
    pid: int | None,
    now: float,
    silence: Seconds,
    *,
    waits: bool = False,
) -> VolumeCondition:
    """`pid` is the sidecar's when it is known to run; `now` is of the clock that `situation.heard` was taken from.
    `waits`: programs wait for another one that goes on."""
    limit = memory_limit(situation.health, place)
    silent = now - situation.heard
    problem = _problem(volume_id, place, situation, pid, silent, silence, "wait" if waits else "fail")
    if problem or pid is None or situation.health is None:
        message = problem or f"volume {volume_id} waits for its sidecar {place.container} to start"
        return VolumeCondition(bool(problem), message, pid, limit)
    used = working_set(situation.health)
    return VolumeCondition(False, served(volume_id, pid, used, limit), pid, limit, used)


def _problem(
    volume_id: str,
    place: SidecarPlace,
    situation: Situation,
    pid: int | None,
    silent: float,
    silence: Seconds,
    meanwhile: str,
) -> str:
    if pid is not None or situation.failure is not None:
        return trouble(volume_id, situation, pid or 0, silent, silence)
    if situation.farewell:
        return f"the sidecar {place.container} of volume {volume_id} has left ({situation.farewell}): the pod ends"
    if situation.ended:
        return (
            f"the sidecar {place.container} of volume {volume_id} ended: accesses {meanwhile} until kubelet has "
            "started it again; look at the container's last state"
        )
    if silent > silence:
        return (
            f"volume {volume_id} has waited for its sidecar {place.container} for {silent:.0f} s; "
            "look at the state of that container"
        )
    return ""
