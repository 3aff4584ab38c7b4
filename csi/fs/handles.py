"""The table of open files: which node and which version each handle is bound to."""

from __future__ import annotations

import itertools
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi.data.streams import Reader
from csi.errors import BadHandle, FilesystemError, OssFuseError
from csi.fs.inodes import InodeTable
from csi.fs.metadata import Facts
from csi.fs.names import shown
from csi.fs.nodes import Node
from csi.fs.openers import Opener
from csi.fs.published import LIGHT
from csi.fs.succession import NotedHandle
from csi.oss.store import ObjectVersion
from csi.volume.units import FileHandle, InodeNumber

if TYPE_CHECKING:
    from csi.fs.drafts import Draft

NOBODY = FileHandle(0)
"""In the place of an open file where there is none: truncate(2) by path, what nobody has written to yet."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class OpenHandle:
    """One open(2). `facts` are those of the node when `version` was taken from it; the same value means that
    nothing was learned since. `shown`: the kernel session may answer reads by itself (`InodeTable.show`);
    `scattered`: it may make requests for them too. `caches`: what it writes goes through the page cache. `failed`
    is why what was written through this handle will never be an object. `deserted`: whether the last to close it
    was a program that was being killed; None when nobody has closed it since something was written. `wrote`: it
    began a version since it was last closed. `follows`: the unfinished version that it has read bytes of. `opens`:
    releases still to come, more than one for a handle that the kernel session gave out by itself. `inherited`: why
    nothing is written through it, which a predecessor opened."""

    id: FileHandle
    node: Node
    readable: bool
    writable: bool
    appends: bool
    facts: Facts | None = None
    version: ObjectVersion | None = None
    reader: Reader | None = None
    failed: OssFuseError | None = None
    opener: Opener | None = None
    deserted: bool | None = None
    wrote: bool = False
    follows: Draft | None = None
    shown: bool = False
    scattered: bool = False
    caches: bool = False
    opens: int = 1
    inherited: OssFuseError | None = None

    @property
    def goes_to_end(self) -> bool:
        """Whether what it writes belongs at the end, wherever the kernel believes that to be: there are no pages of it
        that would be somewhere else."""
        return self.appends and not self.caches

    def require_writable(self) -> None:
        """Raises BadHandle, or why nothing is written through it any more, which close(2) says too."""
        if self.inherited is not None:
            if self.failed is None:
                self.failed = self.inherited
                _log.warning("%s", self.inherited)
            raise self.inherited
        if not self.writable:
            raise BadHandle(f"{shown(self.node.name)} is not open for writing")


class Handles:
    """`InodeTable.lock` guards the table and the fields of its handles."""

    def __init__(self, table: InodeTable) -> None:
        self._table = table
        self._succession = table.succession
        self._handles: dict[int, OpenHandle] = {}
        self._numbers = itertools.count(1 + (self._succession.first if self._succession is not None else 0))
        table.adopt = self._adopt

    def add(self, node: Node, flags: int, opener: Opener | None = None) -> OpenHandle:
        mode = flags & os.O_ACCMODE
        with self._table.lock:
            handle = OpenHandle(
                FileHandle(next(self._numbers)),
                node,
                readable=mode != os.O_WRONLY,
                writable=mode != os.O_RDONLY,
                appends=bool(flags & os.O_APPEND),
                opener=opener,
            )
            self._keep(handle)
        return handle

    def drop(self, handle: OpenHandle) -> None:
        with self._table.lock:
            handle.opens -= 1
            if handle.opens > 0 or self._handles.pop(handle.id, None) is None:
                return
            self._table.conceal(handle)
            reader, handle.reader = handle.reader, None
            self.rest(handle)
            local = self._table.local(handle.node)
            local.handles -= 1
            nameless = local.nameless if not local.handles else None
            if self._succession is not None:
                self._succession.closed(handle.id, handle.node)
            self._table.drop_unused(handle.node)
        if reader is not None:
            reader.close()
        if nameless is not None:
            nameless.scratch.close()

    def get(self, number: FileHandle) -> OpenHandle:
        handle = self.adopted(number)
        if handle is None:
            raise BadHandle(f"file handle {number} is not open")
        return handle

    def all(self) -> list[OpenHandle]:
        with self._table.lock:
            return list(self._handles.values())

    def find(self, number: FileHandle) -> OpenHandle | None:
        return self._handles.get(number)

    def adopted(self, number: FileHandle) -> OpenHandle | None:
        """`find`, also of a handle that the kernel session gave out by itself: it is this table's from now on."""
        handle = self._handles.get(number)
        if handle is None and number & LIGHT:
            self._table.take_over(InodeNumber(number ^ LIGHT))
            handle = self._handles.get(number)
        return handle

    def _adopt(self, node: Node, opens: int) -> bool:
        """The kernel session has opened `node` for reading `opens` times; `InodeTable.lock` is held. False: there was
        no room to note it."""
        number = FileHandle(LIGHT | node.inode)
        return self._keep(OpenHandle(number, node, readable=True, writable=False, appends=False, opens=opens))

    def _keep(self, handle: OpenHandle) -> bool:
        """A file was opened; `InodeTable.lock` is held. False: there was no room to note it."""
        node = handle.node
        if node.facts is not None and (node.draft is None or node.draft.appendable):
            handle.facts, handle.version = node.facts, node.facts.version(self._table.key(node))
        self._handles[handle.id] = handle
        self._table.local(node).handles += 1
        return self._succession is None or self._succession.opened(handle.id, node, handle)

    def unbind(self, handle: OpenHandle) -> None:
        """The next version is this handle's own: it reads whatever is current once that is finished."""
        with self._table.lock:
            handle.facts = handle.version = handle.follows = None
            self._table.local(handle.node).writers += not handle.wrote
            handle.wrote = True
            if self._succession is not None:
                self._succession.opened(handle.id, handle.node, handle)

    def rest(self, handle: OpenHandle) -> None:
        """It was closed, and is not expected to write any more: its release is on the way, or a duplicate left."""
        with self._table.lock:
            self._table.local(handle.node).writers -= handle.wrote
            handle.wrote = False

    def follow(self, handle: OpenHandle, draft: Draft) -> None:
        """It reads of `draft`: whatever comes after must begin with that, or it is stale."""
        with self._table.lock:
            if handle.follows is not draft:
                handle.follows, handle.facts = draft, Facts(handle.node.kind)
                handle.version = handle.facts.version(self._table.key(handle.node))
                if self._succession is not None:
                    self._succession.opened(handle.id, handle.node, handle)

    def follow_no_more(self, handle: OpenHandle) -> None:
        """What it read is an object now, or never will be."""
        with self._table.lock:
            draft, handle.follows = handle.follows, None
            if draft is not None and draft.became is not None:
                handle.version = draft.became.version(self._table.key(handle.node))

    def restore(self, noted: NotedHandle, node: Node, lost: OssFuseError | None) -> bool:
        """What a predecessor opened. `lost`: why what was written through it will never be an object. False: there was
        no room to note it."""
        facts = node.facts if noted.facts == node.facts else noted.facts
        handle = OpenHandle(
            *(noted.handle, node, noted.readable, noted.writable, noted.appends), failed=lost, opens=noted.opens
        )
        if noted.writable:
            handle.inherited = lost or FilesystemError(
                f"{shown(node.name)} is not written to: it was opened before the process that serves the mount was "
                "started again",
                hint="open it again",
            )
        with self._table.lock:
            self._handles[handle.id] = handle
            self._table.local(node).handles += 1
            handle.facts = facts
            handle.version = facts.version(self._table.key(node)) if facts is not None else None
            return self._succession is None or self._succession.opened(handle.id, node, handle)
