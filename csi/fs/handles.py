"""The table of open files: which node and which version each handle is bound to."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

from csi.data.streams import Reader
from csi.errors import BadHandle, OssFuseError
from csi.fs.inodes import InodeTable
from csi.fs.metadata import Facts
from csi.fs.nodes import Node
from csi.fs.openers import Opener
from csi.fs.published import LIGHT
from csi.oss.store import ObjectVersion
from csi.volume.units import FileHandle, InodeNumber


@dataclass(slots=True, eq=False)
class OpenHandle:
    """One open(2). `facts` are those of the node when `version` was taken from it; the same value means that nothing
    was learned since. `shown`: the kernel session may answer reads by itself (`InodeTable.show`). `failed` is why what
    was written through this handle will never be an object. `deserted`: the last to close it was a program that was
    being killed, and nothing was written since. `opens`: releases still to come, more than one for a handle that the
    kernel session gave out by itself."""

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
    deserted: bool = False
    shown: bool = False
    opens: int = 1


class Handles:
    """`InodeTable.lock` guards the table and the fields of its handles."""

    def __init__(self, table: InodeTable) -> None:
        self._table = table
        self._handles: dict[int, OpenHandle] = {}
        self._numbers = itertools.count(1)
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
            self._table.local(handle.node).handles -= 1
            self._table.drop_unused(handle.node)
        if reader is not None:
            reader.close()

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

    def _adopt(self, node: Node, opens: int) -> None:
        """The kernel session has opened `node` for reading `opens` times; `InodeTable.lock` is held."""
        number = FileHandle(LIGHT | node.inode)
        self._keep(OpenHandle(number, node, readable=True, writable=False, appends=False, opens=opens))

    def _keep(self, handle: OpenHandle) -> None:
        """A file was opened; `InodeTable.lock` is held."""
        node = handle.node
        if node.facts is not None:
            handle.facts, handle.version = node.facts, node.facts.version(self._table.key(node))
        self._handles[handle.id] = handle
        self._table.local(node).handles += 1

    def unbind(self, handle: OpenHandle) -> None:
        """The next version is this handle's own: it reads whatever is current once that is finished."""
        with self._table.lock:
            handle.facts = handle.version = None
