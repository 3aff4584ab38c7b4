"""Taking mounts of ours off a target, whatever state they are in: busy, dead, hung, stacked.

Nothing here looks at the mount itself; the mount table and fusectl say all that is needed. umount2(2) can wait for a
server that does not answer (it writes back what is dirty), so the polite unmount runs on a thread of its own with a
time limit, and what frees that thread if the limit passes is the abort of the connection that follows.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from csi.errors import MountError
from csi.handover.connections import FuseConnections
from csi.handover.kernel import MNT_DETACH, MNT_FORCE, UMOUNT_NOFOLLOW, Kernel
from csi.handover.mountinfo import MountEntry, layers_at, published_volume
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

_LOOK: Final = Seconds(0.2)
_MOST_LAYERS: Final = 64
_GONE: Final = (errno.EINVAL, errno.ENOENT)


class Unmounter:
    """Stateless; safe from any thread, one thread per target at a time."""

    def __init__(
        self,
        kernel: Kernel,
        connections: FuseConnections,
        entries: Callable[[], Sequence[MountEntry]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kernel = kernel
        self._connections = connections
        self._entries = entries
        self._clock = clock

    def layers(self, target: str) -> Sequence[MountEntry]:
        """What is mounted on `target`, the lowest first."""
        return layers_at(self._entries(), target)

    def ask(self, target: str, limit: Seconds, answering: Callable[[], bool]) -> bool:
        """The polite way: the kernel writes back what is dirty first. False when it is in use, takes over `limit`, or
        the sidecar stops `answering`."""
        outcome: list[MountError | None] = []

        def unmount() -> None:
            try:
                self._kernel.umount2(target, UMOUNT_NOFOLLOW)
                outcome.append(None)
            except MountError as error:
                outcome.append(error)

        thread = threading.Thread(target=unmount, name=f"umount {target}", daemon=True)
        thread.start()
        end = self._clock() + limit
        while not outcome and self._clock() < end and answering():
            thread.join(_LOOK)
        if not outcome:  # a sidecar that has just ended does so because it is unmounted
            thread.join(_LOOK)
        if not outcome:
            _log.warning("unmounting %s takes too long: its sidecar does not answer", target)
            return False
        if outcome[0] is not None:
            _log.info("%s is not unmounted yet: %s", target, outcome[0])
            return False
        return True

    def force(self, target: str) -> None:
        """Abort every connection of ours on `target` and detach until no mount of ours is left there. Callers that
        wait inside the mount get an error. Raises MountError."""
        for _ in range(_MOST_LAYERS):
            layers = self.layers(target)
            ours = [entry for entry in layers if published_volume(entry) is not None]
            if not ours:
                return
            for entry in ours:
                self.abort(entry)
            try:
                self._kernel.umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW)
            except MountError as error:
                if error.errno not in _GONE:
                    raise
        raise MountError(
            f"{target} still holds mounts after {_MOST_LAYERS} unmounts",
            errno=errno.EBUSY,
            hint="something mounts there again and again: look at /proc/self/mountinfo",
        )

    def take_off(self, target: str) -> None:
        """Detach the topmost mount and leave those below it. Raises MountError."""
        try:
            self._kernel.umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW)
        except MountError as error:
            if error.errno not in _GONE:
                raise

    def abort(self, entry: MountEntry) -> None:
        """End the FUSE connection of one mount; with MNT_FORCE (which unmounts too) only if fusectl is out of reach."""
        if self._connections.abort(entry.minor) or not self._connections.unreachable:
            return
        try:
            self._kernel.umount2(entry.target, MNT_FORCE | UMOUNT_NOFOLLOW)
        except MountError as error:
            if error.errno not in (*_GONE, errno.EBUSY):  # EBUSY: in use, but aborted all the same
                raise
