"""The mounts of a node plugin that has only just started: calls are told to come back until the real ones are there.

The socket must answer before an earlier process's mounts have been found, or node-driver-registrar gives up; what
those calls may not do is touch mounts that nobody has looked at yet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from csi.errors import OperationPending
from csi.handover.types import PublishedVolume, PublishRequest, VolumeCondition, VolumeMounts
from csi.volume.units import Seconds

MountsFactory = Callable[[], VolumeMounts]


class StartingMounts:
    """Implements `VolumeMounts` by what `started` was given; raises OperationPending before that."""

    def __init__(self) -> None:
        self._mounts: VolumeMounts | None = None

    def started(self, mounts: VolumeMounts) -> None:
        self._mounts = mounts

    def publish(self, request: PublishRequest, deadline: Seconds) -> None:
        self._ready().publish(request, deadline)

    def unpublish(self, volume_id: str, target: Path) -> None:
        self._ready().unpublish(volume_id, target)

    def published(self) -> list[PublishedVolume]:
        return self._ready().published()

    def condition(self, volume_id: str, target: Path) -> VolumeCondition | None:
        return self._ready().condition(volume_id, target)

    def given(self, volume_id: str, target: Path) -> str | None:
        return self._ready().given(volume_id, target)

    def close(self) -> None:
        if self._mounts is not None:
            self._mounts.close()

    def _ready(self) -> VolumeMounts:
        if self._mounts is None:
            raise OperationPending(
                "the node plugin is still starting: it is looking for the volumes of its predecessor",
                hint="it will be tried again; no action is needed",
            )
        return self._mounts
