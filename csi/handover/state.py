"""The node plugin's state directory: one runtime directory per published volume, on a tmpfs, for one owner at a time.

A runtime directory holds the socket, the credential files, and small notes that let a restarted node plugin find what
it left (the mount table stays the truth). The state directory is 0700: sidecars reach their runtime directory through
a descriptor opened before they drop their rights, so one sidecar can never walk into another's. When the directory is
not on a tmpfs, a small private one is mounted on it (secrets never reach a disk) and removed again at the end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from csi.errors import MountError
from csi.handover.credentials_files import CredentialFiles
from csi.handover.kernel import MS_NODEV, MS_NOEXEC, MS_NOSUID, UMOUNT_NOFOLLOW, Kernel
from csi.handover.mountinfo import MountEntry, filesystem_at, layers_at

_log = logging.getLogger(__name__)

_TMPFS_SOURCE: Final = "ossfuse-state"
_TMPFS_OPTIONS: Final = "size=64m,nr_inodes=65536,mode=0700"
_NAME: Final = re.compile("[0-9a-f]{24}")
SOCKET_NAME: Final = "s"
CREDENTIALS_NAME: Final = "credentials"


def runtime_name(volume_id: str, target: str) -> str:
    """The name of the runtime directory (and cgroup) of a volume at a target; the same after every restart."""
    return hashlib.sha256(os.fsencode(f"{volume_id}\0{target}")).hexdigest()[:24]


def state_identity(path: Path) -> str:
    """Eight hexadecimal digits that tell a state directory's cgroups from those of others; `path` has no symlinks."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


class RuntimeDirectory:
    """`path`: 0710, owned by root and the sidecar's group, so that the sidecar may pass through but not plant names."""

    def __init__(self, path: Path, uid: int, gid: int) -> None:
        self.path = path
        self.uid = uid
        self.gid = gid
        self.credentials = CredentialFiles(path / CREDENTIALS_NAME, uid, gid)

    def create(self) -> None:
        self.path.mkdir(mode=0o710, exist_ok=True)
        os.chmod(self.path, 0o710)  # noqa: S103 - to be passed through, whatever the umask is
        os.chown(self.path, -1, self.gid)

    def note(self, name: str, value: str) -> None:
        """Remember `value` under `name`, whole or not at all."""
        new = self.path / f".{name}.new"
        new.write_text(value, encoding="utf-8", errors="surrogateescape")
        new.rename(self.path / name)

    def noted(self, name: str) -> str:
        """What was remembered, '' when nothing was."""
        try:
            return (self.path / name).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""

    def remove(self) -> None:
        """All of it (removal goes by descriptors: a planted symlink is removed, never followed). Raises MountError."""
        try:
            shutil.rmtree(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise MountError(
                f"runtime directory {self.path} cannot be removed: {error.strerror}",
                errno=error.errno or 0,
                hint="look at what is mounted or open there",
            ) from error


class StateDirectory:
    """Opened by `open`, let go by `close`. The lock on the directory is what keeps two node plugins apart.

    `secret`: credentials will lie in it, so it must be on a tmpfs.
    """

    def __init__(
        self,
        path: Path,
        kernel: Kernel,
        entries: Callable[[], Sequence[MountEntry]],
        *,
        uid: int,
        gid: int,
        secret: bool = True,
    ) -> None:
        self._secret = secret
        self.path = Path(os.path.realpath(path))
        self._kernel = kernel
        self._entries = entries
        self._uid = uid
        self._gid = gid
        self._locks: list[int] = []
        self._created = False

    @property
    def identity(self) -> str:
        """What the names of this state directory's cgroups start with."""
        return state_identity(self.path)

    def open(self) -> None:
        """Make, mount and lock it. Raises MountError."""
        try:
            self._created = not self.path.exists()
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock()
            if self._secret and self._filesystem() != "tmpfs":
                self._mount_tmpfs()
                self._lock()
            os.chmod(self.path, 0o700)
        except OSError as error:
            self.close()
            raise MountError(
                f"state directory {self.path} cannot be used: {error.strerror or error}",
                errno=error.errno or 0,
                hint="give a directory of its own that root may write, such as /run/ossfuse",
            ) from error
        except MountError:
            self.close()
            raise

    def runtime(self, name: str) -> RuntimeDirectory:
        return RuntimeDirectory(self.path / name, self._uid, self._gid)

    def names(self) -> list[str]:
        """The runtime directories there are."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self.path) if _NAME.fullmatch(name))
        return []

    def close(self) -> None:
        """Unlock; unmount and remove the directory when nothing is left in it. Idempotent."""
        if not self._locks:
            return
        ours = self._mounted_by_us()
        left = self.names()
        if ours and not left:
            os.close(self._locks.pop())
            try:
                self._kernel.umount2(str(self.path), UMOUNT_NOFOLLOW)
            except MountError as error:
                _log.warning("the tmpfs on the state directory stays: %s", error)
        while self._locks:
            os.close(self._locks.pop())
        if self._created and not left:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def _lock(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if any(os.path.sameopenfile(descriptor, held) for held in self._locks):
            os.close(descriptor)
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise MountError(
                f"state directory {self.path} is in use by another ossfuse process",
                errno=errno.EWOULDBLOCK,
                hint="stop that one, or give this one its own directory with --state-dir",
            ) from None
        self._locks.append(descriptor)

    def _filesystem(self) -> str:
        found = filesystem_at(self._entries(), str(self.path))
        return found.fstype if found is not None else ""

    def _mounted_by_us(self) -> bool:
        layers = layers_at(self._entries(), str(self.path))
        return bool(layers) and layers[-1].source == _TMPFS_SOURCE

    def _mount_tmpfs(self) -> None:
        flags = MS_NODEV | MS_NOSUID | MS_NOEXEC
        try:
            self._kernel.mount(_TMPFS_SOURCE, str(self.path), "tmpfs", flags, f"{_TMPFS_OPTIONS},noswap")
        except MountError:  # noswap came with Linux 6.4
            self._kernel.mount(_TMPFS_SOURCE, str(self.path), "tmpfs", flags, _TMPFS_OPTIONS)
