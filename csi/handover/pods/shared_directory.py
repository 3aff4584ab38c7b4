"""The tmpfs that a sidecar container shares with the node plugin, as kubelet mounts it for the pod.

It is kubelet's mount: it appears some time after the pod, it goes when kubelet wants it to go, and nothing here keeps
it busy. What is written goes through a detached clone of the mount, after the clone was seen to be that tmpfs: a
directory of the same name that lies on the node's disk never gets a secret.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from csi.errors import MountError
from csi.handover.credentials_files import CredentialFiles
from csi.handover.kernel import Kernel
from csi.handover.listener import SidecarListener, detached_directory
from csi.handover.mountinfo import MountEntry, layers_at
from csi.handover.process import SIDECAR_GID, SIDECAR_UID
from csi.handover.state import CREDENTIALS_NAME, SOCKET_NAME
from csi.handover.types import SidecarPlace
from csi.volume.units import Seconds

_PAUSE: Final = Seconds(0.02)


class SharedDirectory:
    """Of one sidecar. Stateless but for its collaborators; one thread per volume at a time."""

    def __init__(
        self,
        place: SidecarPlace,
        kernel: Kernel,
        entries: Callable[[], Sequence[MountEntry]],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._container = place.container
        self._path = Path(os.path.realpath(place.directory))
        self._kernel = kernel
        self._entries = entries
        self._clock = clock
        self._sleep = sleep

    @property
    def mounted(self) -> bool:
        return self._mount() is not None

    def wait(self, limit: Seconds) -> None:
        """Until kubelet has mounted it. Raises MountError after `limit`."""
        end = self._clock() + limit
        while not self.mounted:
            if self._clock() > end:
                raise self._missing()
            self._sleep(_PAUSE)

    def write_credentials(self, credentials: Mapping[str, str]) -> bool:
        """As `CredentialFiles.write`. Raises MountError also when the tmpfs is not there (any more)."""
        with self._inside() as inside:
            shown = str(self._path / CREDENTIALS_NAME)
            files = CredentialFiles(inside / CREDENTIALS_NAME, SIDECAR_UID, SIDECAR_GID, shown=shown)
            return files.write(credentials)

    def listen(self) -> SidecarListener:
        """The socket a sidecar connects to; whoever connects must be looked at. Raises MountError."""
        if not self.mounted:
            raise self._missing()
        return SidecarListener(
            self._path, SOCKET_NAME, uid=SIDECAR_UID, gid=SIDECAR_GID, kernel=self._kernel, any_user=True
        )

    @contextlib.contextmanager
    def _inside(self) -> Iterator[Path]:
        mount = self._mount()
        if mount is None:
            raise self._missing()
        try:
            descriptor = detached_directory(self._path, self._kernel)
        except OSError as error:
            raise self._missing() from error
        try:
            if os.fstat(descriptor).st_dev != os.makedev(mount.major, mount.minor):
                raise self._missing()  # unmounted at this very moment
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def _mount(self) -> MountEntry | None:
        layers = layers_at(self._entries(), str(self._path))
        return layers[-1] if layers and layers[-1].fstype == "tmpfs" else None

    def _missing(self) -> MountError:
        return MountError(
            f"the tmpfs of container {self._container} is not mounted at {self._path}",
            hint="kubelet mounts it with the pod and takes it away with it; its emptyDir must have medium: Memory",
        )
