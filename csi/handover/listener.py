"""The node plugin's end of the hand-over before anybody has connected: a Unix socket in the runtime directory.

It is bound through a detached clone of the directory (open_tree(2)), so a path of any length works (sun_path holds 108
bytes) and the socket pins neither the tmpfs it lies on nor kubelet's view of it. The socket belongs to the sidecar's
user, 0600. A connection from any other user is closed unheard, except where users are not what tells a sidecar from
others (in a pod, whose users may be shifted: there it is the cgroup).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
from pathlib import Path

from csi.errors import MountError
from csi.handover.channel import Channel
from csi.handover.kernel import Kernel

_log = logging.getLogger(__name__)


class SidecarListener:
    """A listening socket `<directory>/<name>` that belongs to the user `uid`. A stale socket of that name is replaced.

    `any_user`: whoever can open it is let in, and the caller looks at `Channel.peer`.
    """

    def __init__(
        self, directory: Path, name: str, *, uid: int, gid: int, kernel: Kernel, any_user: bool = False
    ) -> None:
        """Binds. Raises MountError."""
        self.path = directory / name
        self._uid = uid
        self._any_user = any_user
        try:
            self._socket = _bind(directory, name, uid, gid, kernel)
        except OSError as error:
            raise MountError(
                f"cannot listen on {self.path}: {error.strerror or error}",
                errno=error.errno or 0,
                hint="check that the directory is a writable local file system",
            ) from error

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> Channel | None:
        """The next connection of the right user, without waiting; None when there is none (any more)."""
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return None
        channel = Channel(connection)
        peer = channel.peer
        if peer.uid != self._uid and not self._any_user:
            _log.warning(
                "connection to %s from uid %d (pid %d) refused, expected uid %d",
                self.path,
                peer.uid,
                peer.pid,
                self._uid,
            )
            channel.close()
            return None
        return channel

    def close(self) -> None:
        """Stop listening and remove the socket's name. Idempotent."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            with contextlib.suppress(OSError):
                self.path.unlink()


def _bind(directory: Path, name: str, uid: int, gid: int, kernel: Kernel) -> socket.socket:
    where = detached_directory(directory, kernel)
    try:
        short = f"/proc/self/fd/{where}/{name}"
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(short).st_mode):
                os.unlink(short)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.setblocking(False)
            listener.bind(short)
            os.chmod(short, 0o600)
            os.chown(short, uid, gid, follow_symlinks=False)
            listener.listen(8)
        except OSError:
            listener.close()
            raise
        return listener
    finally:
        os.close(where)


def detached_directory(directory: Path, kernel: Kernel) -> int:
    """A descriptor of `directory` in a detached clone of its mount, through which names can be made without pinning
    the mount; of the directory itself where the kernel has no such clones. Raises OSError."""
    try:
        return kernel.clone_tree(str(directory))
    except MountError as error:  # Linux before 5.2, or a seccomp filter that does not know open_tree
        _log.debug("using the directory itself: %s", error)
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
