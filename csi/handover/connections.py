"""fusectl: aborting a FUSE connection and tuning it, by its number, without touching the mount.

The number is the minor of the mount's device in mountinfo. fusectl is normally mounted on /sys/fs/fuse/connections;
where it is not (minimal machines, containers), a private mount of it in the state directory is used.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from csi.errors import MountError
from csi.handover.kernel import MS_NODEV, MS_NOEXEC, MS_NOSUID, UMOUNT_NOFOLLOW, Kernel
from csi.handover.mountinfo import MountEntry, layers_at

_log = logging.getLogger(__name__)

_SYSTEM: Final = "/sys/fs/fuse/connections"
READ_AHEAD_KB: Final = 1024
"""Read-ahead of a mount. The kernel's own 128 KiB costs a third of the sequential throughput; 4 MiB adds nothing."""
MAX_BACKGROUND: Final = 64
CONGESTION_THRESHOLD: Final = 48


class FuseConnections:
    """`private` is where fusectl is mounted if nobody else has it. Safe from any thread after `open`."""

    def __init__(self, kernel: Kernel, entries: Callable[[], Sequence[MountEntry]], private: Path) -> None:
        self._kernel = kernel
        self._entries = entries
        self._private = private
        self._directory = Path(_SYSTEM)

    def open(self) -> None:
        """Find or mount fusectl. Without it, unmounting falls back on MNT_FORCE; that is logged, not an error."""
        if self._mounted_at(_SYSTEM):
            return
        self._directory = self._private
        if self._mounted_at(str(self._private)):
            return
        try:
            self._private.mkdir(mode=0o700, exist_ok=True)
            self._kernel.mount("fusectl", str(self._private), "fusectl", MS_NODEV | MS_NOSUID | MS_NOEXEC, "")
        except (MountError, OSError) as error:
            _log.warning("fusectl cannot be mounted, hung mounts will be ended with MNT_FORCE: %s", error)
            with contextlib.suppress(OSError):
                self._private.rmdir()

    def close(self) -> None:
        """Unmount a private fusectl."""
        if self._mounted_at(str(self._private)):
            try:
                self._kernel.umount2(str(self._private), UMOUNT_NOFOLLOW)
            except MountError as error:
                _log.warning("the private fusectl stays mounted: %s", error)
                return
        with contextlib.suppress(OSError):
            self._private.rmdir()

    @property
    def unreachable(self) -> bool:
        """Whether there is no fusectl at all."""
        return not self._mounted_at(str(self._directory))

    def alive(self, minor: int) -> bool:
        """Whether the kernel still has this connection: somebody has it mounted or open."""
        return (self._directory / str(minor)).is_dir()

    def abort(self, minor: int) -> bool:
        """End the connection: every waiting caller gets an error at once. False when it cannot be reached."""
        if not self.alive(minor):
            return False
        try:
            self._kernel.write_control(str(self._directory / str(minor) / "abort"), "1")
        except MountError as error:
            _log.warning("FUSE connection %d could not be aborted: %s", minor, error)
            return False
        return True

    def tune(self, minor: int) -> None:
        """Raise read-ahead and the number of requests under way. Failures cost speed only and are logged."""
        connection = self._directory / str(minor)
        settings = (
            (f"/sys/class/bdi/0:{minor}/read_ahead_kb", READ_AHEAD_KB),
            (str(connection / "max_background"), MAX_BACKGROUND),
            (str(connection / "congestion_threshold"), CONGESTION_THRESHOLD),
        )
        for path, value in settings:
            try:
                self._kernel.write_control(path, str(value))
            except MountError as error:
                _log.warning("the mount stays slower than it could be: %s", error)

    def _mounted_at(self, path: str) -> bool:
        layers = layers_at(self._entries(), path)
        return bool(layers) and layers[-1].fstype == "fusectl"
