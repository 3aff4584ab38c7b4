"""setattr(2): what of an inode can be set, and what is accepted without effect.

Size: to nothing, to the size it has, or announced before it is written. Times are kept by this mount until the file, or
a name in the directory, is changed. Mode and owner are the mount's (`uid`, `gid`, `umask`, …) and stay what they are.
"""

from __future__ import annotations

from csi.errors import IsADirectory
from csi.fs.files import Files
from csi.fs.inodes import InodeTable
from csi.fs.metadata import DIRECTORY
from csi.fs.names import shown
from csi.fs.nodes import Node
from csi.fs.types import AttributeChange
from csi.volume.units import FileHandle


class AttributeChanges:
    def __init__(self, table: InodeTable, files: Files) -> None:
        self._table = table
        self._files = files

    def apply(self, node: Node, change: AttributeChange, handle: FileHandle | None) -> None:
        """Raises IsADirectory and what `Files.truncate` raises."""
        if change.size is not None:
            if node.is_directory:
                raise IsADirectory(f"{shown(node.name)} is a directory")
            self._files.truncate(node, change.size, handle)
        if change.mtime_ns is not None or change.atime_ns is not None:
            self._set_times(node, change)

    def _set_times(self, node: Node, change: AttributeChange) -> None:
        self._files.recall(node)  # what is written after this has the time of then
        with self._table.lock:
            before = self._table.local(node).times or (None, None)
            times = (
                change.mtime_ns if change.mtime_ns is not None else before[0],
                change.atime_ns if change.atime_ns is not None else before[1],
            )
            facts = DIRECTORY if node.is_directory else node.facts
            self._table.set_times(node, times, facts.etag if node.draft is None and facts is not None else None)
