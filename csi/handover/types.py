"""What the node plugin asks of the hand-over, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from csi.volume.spec import VolumeSpec
from csi.volume.units import Bytes, Seconds


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """One volume for one pod. `credentials` maps CONTRACT §4 secret keys to values; it is never logged, never in a
    frame, and its repr is withheld."""

    volume_id: str
    target: Path
    spec: VolumeSpec
    read_only: bool
    mount_group: int | None
    credentials: Mapping[str, str]

    def __repr__(self) -> str:
        return f"PublishRequest(volume_id={self.volume_id!r}, target={str(self.target)!r})"


@dataclass(frozen=True, slots=True)
class VolumeCondition:
    """CSI VolumeCondition plus what the CLI shows. `abnormal` with a message that says what, value and fix."""

    abnormal: bool
    message: str
    sidecar_pid: int | None = None
    memory_limit: Bytes | None = None
    memory_used: Bytes | None = None


@dataclass(frozen=True, slots=True)
class PublishedVolume:
    """A mount of ours found in mountinfo."""

    volume_id: str
    spec_hash: str
    target: Path
    device_minor: int
    read_only: bool


class VolumeMounts(Protocol):
    """Publishing volumes on this node. Synchronous; the driver calls it on worker threads.

    Implemented by `csi/handover/mounts.py` (`SidecarMounts`).
    """

    def publish(self, request: PublishRequest, deadline: Seconds) -> None:
        """Idempotent. Raises TargetConflict, TargetNotUsable, MountError, SidecarFailed, StoreError (preflight),
        CredentialsMissing, OperationPending, DeadlineExceeded. After a failure nothing of it is left mounted."""

    def unpublish(self, volume_id: str, target: Path) -> None:
        """Idempotent; works on dead, hung and stacked mounts without ever touching them; removes `target`."""

    def published(self) -> list[PublishedVolume]:
        """Every mount of ours, from mountinfo."""

    def condition(self, volume_id: str, target: Path) -> VolumeCondition | None:
        """From memory and mountinfo, never from the mount; None when no such volume is published there."""

    def close(self) -> None:
        """Let go of sockets and threads; mounts and sidecars go on."""
