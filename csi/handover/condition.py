"""Saying in one sentence how a published volume is, from what its attendant heard and what its cgroup counted.

Nothing here asks the mount or the sidecar: the answer is ready at once, also when both are dead.
"""

from __future__ import annotations

from typing import Final

from csi.handover.cgroup import MemoryCgroup
from csi.handover.conversation import Situation
from csi.handover.types import VolumeCondition
from csi.volume.units import Seconds

SILENCE: Final = Seconds(15.0)
"""A sidecar reports every two seconds; one silent for this long is hung, stopped or starved."""
STUCK: Final = Seconds(120.0)
"""No request may take this long: every operation has a deadline below it."""


def without_sidecar(volume_id: str) -> VolumeCondition:
    """A mount of ours that no sidecar serves."""
    return VolumeCondition(
        abnormal=True,
        message=f"volume {volume_id} has no sidecar any more: every access fails; publish it again (restart the pod)",
    )


def condition_of(
    volume_id: str,
    situation: Situation,
    memory: MemoryCgroup,
    pid: int,
    last_words: str,
    now: float,
    silence: Seconds = SILENCE,
) -> VolumeCondition:
    """`now` is the monotonic clock that `situation.heard` was taken from; more than `silence` since is abnormal."""
    limit, used = memory.limit(), memory.usage()
    problem = _problem(volume_id, situation, memory, pid, last_words, now - situation.heard, silence)
    if problem:
        return VolumeCondition(True, problem, None if situation.ended else pid, limit, used)
    return VolumeCondition(False, served(volume_id, pid, used, limit), pid, limit, used)


def served(volume_id: str, pid: int, used: int, limit: int) -> str:
    """For a volume that is well; `used` and `limit` are bytes."""
    return f"sidecar {pid} serves volume {volume_id}, using {in_mebibytes(used)} of {in_mebibytes(limit)}"


def trouble(volume_id: str, situation: Situation, pid: int, silent: float, silence: Seconds) -> str:
    """What is wrong with a sidecar that runs, or ran until it said FAILED; '' when nothing is."""
    if situation.failure is not None:
        return f"the sidecar of volume {volume_id} failed: {situation.failure.message}; {situation.failure.hint}"
    if silent > silence:
        return (
            f"sidecar {pid} of volume {volume_id} has not answered for {silent:.0f} s; it may be stopped or starved of "
            "CPU: look at its process and log, or restart the pod"
        )
    health = situation.health
    if health is not None and health.oldest_request > STUCK:
        return (
            f"a request to volume {volume_id} has waited for {health.oldest_request:.0f} s, {health.inflight} under "
            f"way; last error: {health.last_error or 'none'}; check that the endpoint answers"
        )
    return ""


def in_mebibytes(count: int) -> str:
    """'256Mi', in the unit people write limits in."""
    return f"{count / (1 << 20):.0f}Mi"


def _problem(
    volume_id: str,
    situation: Situation,
    memory: MemoryCgroup,
    pid: int,
    last_words: str,
    silent: float,
    silence: Seconds,
) -> str:
    if situation.ended and memory.oom_kills():
        limit = in_mebibytes(memory.limit())
        return (
            f"the sidecar of volume {volume_id} was killed for memory at its limit of {limit}; "
            "raise fs.jindo.fuse.pod.mem.limit and restart the pod"
        )
    if situation.ended:
        said = situation.farewell or (situation.failure.message if situation.failure else "")
        why = f" ({said})" if said else ""
        return f"the sidecar of volume {volume_id} ended{last_words}{why}; restart the pod to mount it again"
    return trouble(volume_id, situation, pid, silent, silence)
