"""copy_file_range(2) and fallocate(2): what can be done to a file being written without its bytes passing through.

A copy from an object of this volume to the end of a file being written becomes parts that OSS copies by itself, bound
to the version that was opened. It is worth that only for large ranges; for everything else the program is told that the
operation is not supported here, and copies by reading and writing, as it would between file systems.
"""

from __future__ import annotations

from csi.errors import BadHandle, OperationNotSupported
from csi.fs.drafts import Drafts
from csi.fs.files import Files
from csi.fs.handles import Handles, OpenHandle
from csi.fs.inodes import InodeTable
from csi.fs.names import shown
from csi.oss.store import ObjectVersion
from csi.volume.units import GIB, MIB, FileHandle

LEAST = 16 * MIB
"""Bytes from which on a copy inside OSS is faster than reading and writing: it costs two requests more."""

_MOST = 1 * GIB
"""Bytes of one call: the answer has 32 bits, and the program sees its copy get on."""


class Copying:
    def __init__(self, table: InodeTable, handles: Handles, files: Files, drafts: Drafts) -> None:
        self._table = table
        self._handles = handles
        self._files = files
        self._drafts = drafts

    def copy_range(
        self, source: FileHandle, offset: int, destination: FileHandle, destination_offset: int, size: int
    ) -> int:
        """How many bytes were copied; 0 at the end of the source. Raises OperationNotSupported, with nothing done."""
        origin, target = self._handles.get(source), self._handles.get(destination)
        if not origin.readable:
            raise BadHandle(f"{shown(origin.node.name)} is not open for reading")
        target.require_writable()
        version = self._version(origin)
        count = min(size, _MOST, max(0, version.size - offset))
        if count == 0:
            return 0
        left = version.size - offset - count
        if 0 < left < LEAST and count + left <= size:
            count += left  # the rest is too little for a call of its own
        if count < LEAST or origin.node is target.node:
            raise _not_here(target)
        with self._files.change(target.node), self._files.turn(target.node):
            draft = target.node.draft
            if draft is None or not self._drafts.copy(
                target.node, draft, target.id, destination_offset, version, offset, count
            ):
                raise _not_here(target)
        return count

    def allocate(self, number: FileHandle, offset: int, size: int, mode: int) -> None:
        """fallocate(2) of a file being written, as ftruncate(2) to a size that it does not have yet: the size is shown,
        and owed. Nothing is reserved. Raises OperationNotSupported for every other kind."""
        handle = self._handles.get(number)
        handle.require_writable()
        with self._files.turn(handle.node):
            draft = handle.node.draft
            if mode != 0 or draft is None or offset + size < draft.shown_size:
                raise _not_here(handle)
            if offset + size > draft.shown_size:
                self._drafts.announce(handle.node, draft, handle.id, handle.appends, offset + size)

    def _version(self, origin: OpenHandle) -> ObjectVersion:
        """The object that the source is. Raises OperationNotSupported if it is none now."""
        node = origin.node
        with self._table.lock:
            facts, version = node.facts, origin.version
            if node.draft is not None or node.detached or facts is None or version is None or not facts.etag:
                raise _not_here(origin)
            current = facts.version(self._table.key(node))
            if (current.etag, current.size) != (version.etag, version.size):
                raise _not_here(origin)
            return current


def _not_here(handle: OpenHandle) -> OperationNotSupported:
    return OperationNotSupported(f"{shown(handle.node.name)}: this cannot be done inside OSS", hint="read and write it")
