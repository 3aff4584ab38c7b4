"""How an inode looks to the kernel: struct stat, and for how long name and attributes may be believed.

A file being written here has the size it has reached; a directory has the time this mount last changed a name in it,
or started; owner and mode are the mount's. The kernel may believe a name for as long as a LOOKUP would be answered
from what is known (`freshness`), whatever the name's own timeout: it would ask for each file of `ls -l` otherwise, to
be told what it was just told. Nothing is asked of OSS.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

from csi.fs.inodes import InodeTable
from csi.fs.metadata import DIRECTORY, Facts
from csi.fs.nodes import Node
from csi.fs.types import Attributes, Entry, FileKind
from csi.volume.spec import MountArguments, Ownership
from csi.volume.units import Seconds


class Appearance:
    """Reads nodes under `InodeTable.lock`."""

    def __init__(
        self, table: InodeTable, arguments: MountArguments, ownership: Ownership, clock: Callable[[], float]
    ) -> None:
        self.table = table
        self.clock = clock
        self._arguments = arguments
        self._name_timeout = max(arguments.attr_timeout, arguments.entry_timeout)
        self._ownership = ownership
        self._file_mode = stat.S_IFREG | ownership.file_mode
        self._directory_mode = stat.S_IFDIR | ownership.dir_mode
        self._start_ns = int(clock() * 1e9)

    def entry(self, node: Node, *, count: bool = False) -> Entry:
        """Attributes and timeouts of `node`. `count`: the kernel is told of it once more."""
        with self.table.lock:
            node.lookups += count
            attributes = self._attributes(node)
            entry_timeout, attr_timeout = self._arguments.entry_timeout, self._arguments.attr_timeout
            if node is self.table.root:
                return Entry(attributes, entry_timeout, attr_timeout)
            if node.draft is not None:
                is_new = node.facts is None  # the name goes away if it fails, or its program is killed
                return Entry(attributes, Seconds(0.0) if is_new else entry_timeout, Seconds(0.0))
            age = max(0.0, self.clock() - node.checked_at)
            name_timeout = self._name_timeout  # a LOOKUP would be told for as long that the name is there
            entry_timeout = Seconds(name_timeout - age if age < name_timeout else 0.0)
            attr_timeout = Seconds(attr_timeout - age if age < attr_timeout else 0.0)
            if node.kind is FileKind.SYMLINK and self.symlink_target(node) is None:
                attr_timeout = Seconds(0.0)  # its length is not known yet
            return Entry(attributes, entry_timeout, attr_timeout)

    def symlink_target(self, node: Node) -> bytes | None:
        """The target of a symlink, if it has been read."""
        target = node.local.target if node.local is not None else None
        if target is None or node.facts is None or target[0] != node.facts.etag:
            return None
        return target[1]

    def _attributes(self, node: Node) -> Attributes:
        facts, local = node.facts, node.local
        if local is None and facts is not None and node.kind is FileKind.FILE:  # nearly all of a listing
            links, mtime = 0 if node.detached else 1, facts.mtime_ns
            owner = self._ownership
            return Attributes(
                node.inode, node.kind, self._file_mode, links, owner.uid, owner.gid, facts.size, mtime, mtime, mtime
            )
        facts = facts or (DIRECTORY if node.is_directory else Facts(node.kind))
        draft = node.draft
        size, mtime, mode = facts.size, facts.mtime_ns, self._file_mode
        if node.is_directory:
            mode = self._directory_mode
            size, mtime = 0, (local.changed_ns if local is not None else 0) or self._start_ns
        elif draft is not None:
            size, mtime = draft.shown_size, draft.mtime_ns
        elif node.kind is FileKind.SYMLINK:
            mode = stat.S_IFLNK | 0o777
            size = len(self.symlink_target(node) or b"") or size
        atime = changed = mtime
        if local is not None and local.times is not None and local.times_of == (None if draft else facts.etag):
            mtime = local.times[0] if local.times[0] is not None else mtime
            atime = local.times[1] if local.times[1] is not None else atime
        links = 0 if node.detached else 1  # 2 would say that no directory is in this one; 1: they are not counted
        return Attributes(
            inode=node.inode,
            kind=node.kind,
            mode=mode,
            nlink=links,
            uid=self._ownership.uid,
            gid=self._ownership.gid,
            size=size,
            mtime_ns=mtime,
            ctime_ns=changed,
            atime_ns=atime,
        )
