"""The mounts of one pod volume, one upon another: a fresh one for every sidecar that comes after one that died.

A new mount reaches the containers of the pod only where it lies on a mount that they have a copy of. So the first mount
is never taken off while the volume is published, dead as it may be, and every later one is mounted on top and
propagates from there; dead ones in between are taken off before the next one comes, unless a container was started on
them. That makes two layers, and one more for each running container that was started after a sidecar had died.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Final

from csi.handover.connections import FuseConnections
from csi.handover.mountinfo import published_volume
from csi.handover.mounting import KernelSession, Mounter, MountOrder
from csi.handover.unmount import Unmounter

_log = logging.getLogger(__name__)

_MANY: Final = 8


class Layers:
    """Stateless; one thread per target at a time. `followed` is `has_followers`."""

    def __init__(
        self,
        mounter: Mounter,
        unmounter: Unmounter,
        connections: FuseConnections,
        followed: Callable[[int, Collection[int]], bool],
    ) -> None:
        self._connections = connections
        self._mounter = mounter
        self._unmounter = unmounter
        self._followed = followed

    def renew(self, order: MountOrder) -> KernelSession:
        """End what was there and mount a fresh session for a new sidecar. Raises MountError."""
        self.end(order.target)
        while True:
            minors = self.minors(order.target)
            if len(minors) < 2 or self._followed(minors[-1], minors):
                break
            self._unmounter.take_off(order.target)
        if len(minors) >= _MANY:
            _log.warning("%s has %d mounts one upon another: restart the pod", order.target, len(minors))
        return self._mounter.mount(order)

    def end(self, target: str) -> None:
        """Abort every connection of ours on `target`: nobody serves them any more, and nobody shall wait for them.

        The mounts stay. By fusectl only: MNT_FORCE would take them away under the containers, which would then write
        into the directories below them. Where there is no fusectl, the kernel aborts as the dead sidecar's descriptors
        are closed.
        """
        for minor in self.minors(target):
            self._connections.abort(minor)

    def minors(self, target: str) -> list[int]:
        """The connections of ours on `target`, the lowest first."""
        return [entry.minor for entry in self._unmounter.layers(target) if published_volume(entry) is not None]
