"""A TreeFilesystem that has no memory for what the kernel was told of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from csi.fs.types import FilesystemStatistics, KnownName
from csi.volume.units import Seconds
from tests.support.tree_filesystem import TreeFilesystem


class ForgetfulTree(TreeFilesystem):
    """Implements csi.fuse.served.Overflowing. statvfs(3) shows as files how many inodes the kernel knows."""

    def surplus(self, within: Seconds) -> Sequence[KnownName]:
        time.sleep(min(within, 0.1))
        with self.lock:
            return [
                KnownName(parent.inode, name, inode, bool(self.nodes[inode].children))
                for parent in self.nodes.values()
                for name, inode in parent.children.items()
                if self.lookups[inode] > 0
            ]

    def statfs(self) -> FilesystemStatistics:
        with self.lock:
            return replace(super().statfs(), files=sum(count > 0 for count in self.lookups.values()))
