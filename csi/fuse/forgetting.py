"""The kernel is asked to forget names that the filesystem has no memory for.

Linux 6.18 takes numbers of inodes and forgets those that nothing uses. Before, names can be declared invalid, one by
one: the kernel then forgets a file when nothing uses it, and for who does use it its path ends in "(deleted)". So that
is not said of directories, which may be somebody's working directory. It waits while a name in the same directory is
being made or removed, and a thread that waits so keeps its process from ending: only where memory is short is it done.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Protocol

from csi.fs.types import KnownName
from csi.fuse.protocol import replies
from csi.fuse.served import Overflowing
from csi.volume.units import Seconds

_ROUND = Seconds(1.0)


class Notified(Protocol):
    def notify(self, message: bytes) -> int:
        """Send a notification: 0, or the errno with which the kernel refused it."""


class Forgetting:
    """For one thread."""

    def __init__(self, kernel: Notified) -> None:
        self._kernel = kernel
        self._prunes = True

    def run(self, filesystem: Overflowing, is_over: Callable[[], bool]) -> None:
        while not is_over():
            self.ask(filesystem.surplus(_ROUND))

    def ask(self, names: Sequence[KnownName]) -> None:
        """What the kernel refuses stays known: it was forgotten meanwhile, or the mount is gone."""
        if self._prunes and names:
            failure = self._kernel.notify(replies.prune([known.inode for known in names]))
            self._prunes = failure != errno.EINVAL
        if not self._prunes:
            for known in names:
                if not known.is_directory:
                    self._kernel.notify(replies.invalidate_entry(known.parent, known.name))
