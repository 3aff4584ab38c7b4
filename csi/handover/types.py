"""What the node plugin asks of the hand-over, as plain data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from csi.volume.spec import VolumeSpec
from csi.volume.units import Bytes, Seconds


@dataclass(frozen=True, slots=True)
class PodReference:
    """The pod a volume is published for, as kubelet tells it (`podInfoOnMount`). `ephemeral`: the volume stands in the
    pod itself (inline), not in a PersistentVolume."""

    uid: str
    name: str
    namespace: str
    service_account: str = ""
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """One volume for one pod. `credentials` maps CONTRACT §4 secret keys to values; it is never logged, never in a
    frame, and its repr is withheld. None leaves in force what a published volume has.

    `pod` is None where kubelet is not the caller. `given` is a digest of what was asked for, word by word: equal for
    every repetition of one call, also when a newer version of the driver reads other defaults out of it.
    """

    volume_id: str
    target: Path
    spec: VolumeSpec
    read_only: bool
    mount_group: int | None
    credentials: Mapping[str, str] | None
    pod: PodReference | None = None
    given: str = ""

    def __repr__(self) -> str:
        return f"PublishRequest(volume_id={self.volume_id!r}, target={str(self.target)!r})"


@dataclass(frozen=True, slots=True)
class VolumeCondition:
    """CSI VolumeCondition plus what the CLI shows. `abnormal` with a message that says what, value and fix. `went_on`:
    the sidecar goes on with what programs opened through one that died."""

    abnormal: bool
    message: str
    sidecar_pid: int | None = None
    memory_limit: Bytes | None = None
    memory_used: Bytes | None = None
    went_on: bool = False


@dataclass(frozen=True, slots=True)
class PublishedVolume:
    """A mount of ours found in mountinfo."""

    volume_id: str
    spec_hash: str
    target: Path
    device_minor: int
    read_only: bool


@dataclass(frozen=True, slots=True)
class SidecarPlace:
    """Where the sidecar of one volume of one pod runs: `container` is its name, `directory` the node's path of the
    tmpfs it shares with the node plugin, `memory_limit` the container's, `grace` how long the pod may take to end."""

    container: str
    directory: Path
    memory_limit: Bytes
    grace: Seconds


class SidecarLocator(Protocol):
    """Implemented by `csi/cluster` (it asks the API server); a stand-in in tests. Safe from any thread."""

    def locate(self, pod: PodReference, volume_id: str, target: Path) -> SidecarPlace:
        """Raises SidecarNotInjected with the exact cause, PluginNotHealthy when the API server does not answer."""


class IncidentKind(enum.Enum):
    """What happened to a published volume that a user of the pod should read; the value is an event's `reason`."""

    SIDECAR_ENDED = "SidecarEnded"  # without having said goodbye; who reports adds whether for memory
    SIDECAR_RESTARTED = "SidecarRestarted"
    SIDECAR_FAILED = "SidecarFailed"  # it answered FAILED
    MEMORY_HIGH = "SidecarMemoryHigh"  # 95 % of the limit
    CREDENTIALS_NOT_RENEWED = "CredentialsNotRenewed"
    VOLUME_DEGRADED = "VolumeDegraded"  # requests wait, the sidecar is silent


@dataclass(frozen=True, slots=True)
class Incident:
    """`message` says what, with which value, and what to do next. `container` is the sidecar's name. `lasting`: of a
    sidecar that ended or was started again, whether programs go on with what they have open."""

    kind: IncidentKind
    volume_id: str
    container: str
    message: str
    memory_limit: Bytes | None = None
    lasting: bool = False


class IncidentReporter(Protocol):
    """Implemented by `csi/cluster` (an event on the pod). Safe from any thread."""

    def report(self, pod: PodReference, incident: Incident) -> None:
        """Returns at once and never raises: the work is done elsewhere, and what cannot be told is logged."""


class VolumeMounts(Protocol):
    """Publishing volumes on this node. Synchronous; the driver calls it on worker threads.

    Implemented by `csi/handover/mounts.py` (`SidecarMounts`) and `csi/handover/pods/pod_mounts.py` (`PodMounts`).
    """

    def publish(self, request: PublishRequest, deadline: Seconds) -> None:
        """Idempotent. Raises TargetConflict, TargetNotUsable, MountError, SidecarFailed, StoreError (preflight),
        CredentialsMissing, OperationPending, DeadlineExceeded. After a failure nothing of it is left mounted; where
        a dead mount was there is one, so that nobody who uses it finds the directory below."""

    def unpublish(self, volume_id: str, target: Path) -> None:
        """Idempotent; works on dead, hung and stacked mounts without ever touching them; removes `target`."""

    def published(self) -> list[PublishedVolume]:
        """Every mount of ours, from mountinfo."""

    def condition(self, volume_id: str, target: Path) -> VolumeCondition | None:
        """From memory and mountinfo, never from the mount; None when no such volume is published there."""

    def given(self, volume_id: str, target: Path) -> str | None:
        """`PublishRequest.given` of what is published there for a pod; None when nothing is, or it is not known."""

    def close(self) -> None:
        """Let go of sockets and threads; mounts and sidecars go on."""
