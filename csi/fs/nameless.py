"""Files that have no name any more and go on for who has them open: temporary files, logs that somebody removed.

What is written to them, and what of them was at OSS if it is little, is kept in memory, for who writes it and for who
has open what it goes on from. If there is no room for it, all of it is taken and dropped, and reading says so
(StaleFile).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi.data.streams import Scratch, StreamSource
from csi.errors import FileBusy, OssFuseError, StaleFile
from csi.fs.handles import NOBODY, Handles
from csi.fs.inodes import InodeTable
from csi.fs.metadata import Facts
from csi.fs.names import decode, shown
from csi.fs.nodes import Node
from csi.oss.store import Buffer, ObjectVersion
from csi.volume.units import MIB, FileHandle

if TYPE_CHECKING:
    from csi.fs.drafts import Draft
    from csi.fs.handles import OpenHandle

_log = logging.getLogger(__name__)

_PIECE = MIB
_FETCHED = 8 * MIB
"""Of an object that is removed so much is fetched before, if somebody has it open."""


@dataclass(slots=True, eq=False)
class Kept:
    """The bytes of a file without a name. They began as `version`, an object, or as `draft`, which was being written,
    or as nothing. `writer` is the only handle that has written to it, NOBODY if none has, None if several have.
    `lost`: it was too much."""

    scratch: Scratch
    version: ObjectVersion | None = None
    draft: Draft | None = None
    writer: FileHandle | None = NOBODY
    lost: bool = False

    def wrote(self, handle: OpenHandle) -> None:
        self.writer = handle.id if self.writer in (NOBODY, handle.id) else None


class Nameless:
    """Everything but `read` runs inside the node's turn."""

    def __init__(self, table: InodeTable, handles: Handles, engine: StreamSource, clock: Callable[[], float]) -> None:
        self._table = table
        self._handles = handles
        self._engine = engine
        self._clock = clock

    def fetch(self, node: Node) -> Kept | None:
        """The object of `node` is about to be removed: its bytes, if there are few and somebody may go on to read it.
        The caller gives them to `keep`, or closes them."""
        facts = node.facts
        if facts is None or not facts.etag or not 0 < facts.size <= _FETCHED or not self._is_read(node):
            return None
        version = facts.version(self._table.key(node))
        kept = Kept(self._engine.open_scratch(), version=version)
        try:
            reader = self._engine.open_reader(version)
            try:
                stays = _fill(kept.scratch, facts.size, reader.read)
            finally:
                reader.close()
        except OssFuseError:  # whoever reads is told
            stays = False
        if not stays:
            kept.scratch.close()
        return kept if stays else None

    def keep(self, node: Node, kept: Kept) -> None:
        """The name of `node` is gone."""
        with self._table.lock:
            if self._table.local(node).handles:
                self._table.local(node).nameless = kept
                return
        kept.scratch.close()

    def keep_draft(self, node: Node, draft: Draft) -> None:
        """A file that is being written loses its name: from what of it is here."""
        if not draft.shown_size or draft.error is not None or draft.writer.readable_from > 0:
            return
        writer = None if draft.shared or draft.joined else draft.owner
        kept = Kept(self._engine.open_scratch(), draft=draft, writer=writer)
        size = draft.shown_size
        filled = size <= kept.scratch.most and _fill(kept.scratch, draft.size, draft.writer.reread)
        if not (filled and kept.scratch.resize(size)):
            self._lose(node, kept)
        self.keep(node, kept)

    def write(self, node: Node, handle: OpenHandle, offset: int, data: Buffer) -> None:
        size, kept = _size(node), node.nameless
        if kept is None and size == 0:
            kept = Kept(self._engine.open_scratch())
            self.keep(node, kept)
        if kept is not None:
            self._join(handle, kept)
            if not kept.scratch.write(offset, data):
                self._lose(node, kept)
        self._resized(node, max(offset + len(data), size))

    def resize(self, node: Node, handle: OpenHandle, size: int) -> bool:
        """ftruncate(2). False, and nothing done: it has bytes that are not here."""
        kept = node.nameless
        if kept is None and size and _size(node):
            return False
        if kept is None:
            kept = Kept(self._engine.open_scratch())
            self.keep(node, kept)
        elif kept.lost and size == 0:
            kept.scratch, kept.lost = self._engine.open_scratch(), False
        self._join(handle, kept)
        if not kept.scratch.resize(size):
            self._lose(node, kept)
        self._resized(node, size)
        return True

    def read(self, handle: OpenHandle, kept: Kept, offset: int, size: int, *, for_pages: bool) -> Buffer:
        """Raises StaleFile: it is not here (any more), or not what `handle` was opened on; FileBusy."""
        node = handle.node
        with self._table.lock:
            goes_on = self._goes_on(handle, kept)
            size = max(0, min(size, _size(node) - offset))
        if goes_on and for_pages and kept.writer != NOBODY and not (handle.caches and kept.writer == handle.id):
            raise FileBusy(
                f"{shown(node.name)} was removed and may still be written to",
                hint="read it with read(2) or its like: it cannot be mapped or sent",
            )
        found = kept.scratch.read(offset, size) if goes_on else None
        if found is None:
            raise StaleFile(
                f"{shown(node.name)} was removed, and what was written to it is not in memory any more",
                hint="keep temporary files elsewhere (TMPDIR), or raise fs.jindo.fuse.pod.mem.limit",
            )
        return found

    # --- private ---

    def _is_read(self, node: Node) -> bool:
        """Whether somebody has it open for reading; not who has closed what he wrote, whose release is on its way."""
        with self._table.lock:
            self._table.take_over(node.inode)
            local = node.local
            if local is None or not local.handles:
                return False
        return any(each.node is node and each.readable and each.deserted is None for each in self._handles.all())

    def _join(self, handle: OpenHandle, kept: Kept) -> None:
        """`handle` writes to it: what it has is what it reads."""
        kept.wrote(handle)
        if handle.version is not None or handle.follows is not None:
            self._handles.unbind(handle)

    def _goes_on(self, handle: OpenHandle, kept: Kept) -> bool:
        """Whether it was opened on what this began as, or has read nothing of another version."""
        if kept.draft is not None and handle.follows is kept.draft:
            return True
        self._handles.follow_no_more(handle)
        version, local = handle.version, handle.node.local
        if version is None:
            return True
        if kept.version is None:
            return version.etag != "" and version.size == 0
        return version.etag == kept.version.etag or (local is not None and version.etag in local.lineage)

    def _lose(self, node: Node, kept: Kept) -> None:
        kept.scratch.close()
        if not kept.lost:
            kept.lost = True
            _log.warning(
                "%r was removed while it was open, and what is written to it is dropped: there is no memory for it "
                "(fs.jindo.fuse.pod.mem.limit)",
                decode(node.name),
            )

    def _resized(self, node: Node, size: int) -> None:
        self._table.replace_facts(node, Facts(node.kind, size, modified=self._clock()))


def _fill(scratch: Scratch, size: int, read: Callable[[int, int], Buffer | None]) -> bool:
    for offset in range(0, size, _PIECE):
        piece = read(offset, min(_PIECE, size - offset))
        if piece is None or not scratch.write(offset, piece):
            return False
    return True


def _size(node: Node) -> int:
    return node.facts.size if node.facts is not None else 0
