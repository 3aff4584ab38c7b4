"""When a user of the pod is told something about its volume, and in which words."""

from __future__ import annotations

from typing import Final

from csi.handover.condition import in_mebibytes
from csi.handover.types import Incident, IncidentKind, SidecarPlace
from csi.handover.wire import Failed, Health
from csi.volume.units import Bytes, Seconds

START_LIMIT: Final = Seconds(120.0)
"""A sidecar that has the volume becomes ready in a moment; one that is not after this long waits for something."""
_LONGEST: Final = 700
"""Characters of a sidecar's own words; an event holds 1024."""
_HIGH: Final = 0.95
_WELL: Final = 0.85


class Incidents:
    """Of one volume. Remembers what was told, so that a state is told once and again only after it was better.

    Not thread-safe: used by the volume's own thread.
    """

    def __init__(self, volume_id: str, place: SidecarPlace) -> None:
        self._volume_id = volume_id
        self._place = place
        self._memory_told = False
        self._degraded_told = False

    def ended(self, *, waits: bool) -> Incident:
        """`waits`: programs notice a pause, if kubelet starts it again soon."""
        what = "wait" if waits else "fail"
        return self._incident(
            IncidentKind.SIDECAR_ENDED,
            f"the sidecar {self._place.container} of volume {self._volume_id} ended without a word: accesses to the "
            f"volume {what} until kubelet has started it again",
            lasting=waits,
        )

    def restarted(self, *, went_on: bool) -> Incident:
        """`went_on`: with what programs had open."""
        what = (
            "programs go on with what they have open; what was being written and neither synced nor closed is lost, "
            "and who wrote it is told so (EIO)"
            if went_on
            else "files that were open fail with ENOTCONN, files opened from now on work; a container that uses the "
            "volume by subPath or without mountPropagation: HostToContainer must be restarted"
        )
        return self._incident(
            IncidentKind.SIDECAR_RESTARTED,
            f"the sidecar {self._place.container} of volume {self._volume_id} was started again and serves: {what}",
            lasting=went_on,
        )

    def failed(self, failure: Failed) -> Incident:
        said = f"{failure.message}; {failure.hint}" if failure.hint else failure.message
        said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
        return self._incident(
            IncidentKind.SIDECAR_FAILED,
            f"the sidecar {self._place.container} cannot serve volume {self._volume_id}: {said}",
        )

    def not_mounted(self, reason: str) -> Incident:
        return self._incident(
            IncidentKind.SIDECAR_FAILED,
            f"volume {self._volume_id} cannot be mounted again for its restarted sidecar {self._place.container}: "
            f"{reason}; it is tried again",
        )

    def memory(self, health: Health) -> Incident | None:
        """MEMORY_HIGH once at 95 % of the limit, and again when it had been below 85 % in between."""
        used, limit = working_set(health), memory_limit(health, self._place)
        if used < limit * _WELL:
            self._memory_told = False
        if self._memory_told or limit <= 0 or used < limit * _HIGH:
            return None
        self._memory_told = True
        return self._incident(
            IncidentKind.MEMORY_HIGH,
            f"the sidecar {self._place.container} of volume {self._volume_id} uses {in_mebibytes(used)} of its limit "
            f"of {in_mebibytes(limit)}; if it is killed for memory, set fs.jindo.fuse.pod.mem.limit higher",
            limit,
        )

    def silent(self, pid: int, seconds: float, *, stopped: bool) -> Incident | None:
        """VOLUME_DEGRADED once, until `well`."""
        why = "it is stopped (SIGSTOP)" if stopped else "it may be starved of CPU"
        return self._degraded(
            f"the sidecar {self._place.container} (process {pid}) of volume {self._volume_id} has not answered for "
            f"{seconds:.0f} s, requests to the volume wait; {why}: look at its log, or restart the pod"
        )

    def not_ready(self, pid: int, seconds: float) -> Incident | None:
        """VOLUME_DEGRADED once, until `well`."""
        return self._degraded(
            f"the sidecar {self._place.container} (process {pid}) has had volume {self._volume_id} for {seconds:.0f} s "
            "and does not serve it; look at its log, or restart the pod"
        )

    def well(self) -> None:
        """It answers: being degraded would be news again."""
        self._degraded_told = False

    def _degraded(self, message: str) -> Incident | None:
        if self._degraded_told:
            return None
        self._degraded_told = True
        return self._incident(IncidentKind.VOLUME_DEGRADED, message)

    def _incident(
        self, kind: IncidentKind, message: str, limit: Bytes | None = None, *, lasting: bool = False
    ) -> Incident:
        limit = self._place.memory_limit if limit is None else limit
        return Incident(kind, self._volume_id, self._place.container, message, limit, lasting)


def working_set(health: Health) -> Bytes:
    """What the sidecar's container uses of its limit; of an older sidecar only the resident bytes are known."""
    return Bytes(health.working_set or health.memory)


def memory_limit(health: Health | None, place: SidecarPlace) -> Bytes:
    """What the container is limited to, by its own word if it has spoken."""
    return Bytes(health.memory_limit) if health is not None and health.memory_limit else place.memory_limit
