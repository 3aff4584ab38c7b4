"""The interface of a kernel session: an open /dev/fuse descriptor being served until the mount ends."""

from __future__ import annotations

from typing import Protocol

from csi.volume.units import InodeNumber


class KernelSession(Protocol):
    def serve(self) -> None:
        """Answer requests until the mount is gone, the connection is aborted, or `stop` is called."""

    def stop(self) -> None:
        """Make `serve` return soon; callable from any thread and from a signal handler, any number of times."""

    def invalidate_inode(self, inode: InodeNumber) -> None:
        """Ask the kernel to drop attributes and cached pages of `inode`; from any thread, never from a handler."""
