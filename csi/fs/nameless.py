"""Files that have no name any more and go on being written by who has them open: temporary files, logs that somebody
removed.

What is written is kept in memory, for who writes it and for who opened the file when it was being written. If there is
no room for it, all of it is taken and dropped, and reading says so (StaleFile). Of a file that was there before its
name went, only what is written after it is emptied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi.data.streams import Scratch, StreamSource
from csi.errors import FileBusy, StaleFile
from csi.fs.inodes import InodeTable
from csi.fs.metadata import Facts
from csi.fs.names import decode, shown
from csi.fs.nodes import Node
from csi.oss.store import Buffer
from csi.volume.units import MIB, FileHandle

if TYPE_CHECKING:
    from csi.fs.drafts import Draft
    from csi.fs.handles import OpenHandle

_log = logging.getLogger(__name__)

_PIECE = MIB


@dataclass(slots=True, eq=False)
class Kept:
    """What was written to a file without a name. `draft` is the version that it was while it had one, `writer` the
    only handle that has written to it, None if several have. `lost`: it was too much."""

    scratch: Scratch
    draft: Draft | None
    writer: FileHandle | None
    lost: bool = False


class Nameless:
    """Everything but `read` runs inside the node's turn."""

    def __init__(self, table: InodeTable, engine: StreamSource, clock: Callable[[], float]) -> None:
        self._table = table
        self._engine = engine
        self._clock = clock

    def keep(self, node: Node, draft: Draft) -> None:
        """A file that is being written loses its name: from what of it is here."""
        size = draft.size
        if not draft.shown_size or draft.error is not None or draft.writer.readable_from > 0:
            return
        kept = self._begin(node, draft, None if draft.shared or draft.joined else draft.owner)
        stays = draft.shown_size <= kept.scratch.most
        for offset in range(0, size, _PIECE) if stays else ():
            piece = draft.writer.reread(offset, min(_PIECE, size - offset))
            stays = stays and piece is not None and kept.scratch.write(offset, piece)
        if not (stays and kept.scratch.resize(draft.shown_size)):
            self._lose(node, kept)

    def write(self, node: Node, handle: OpenHandle, offset: int, data: Buffer) -> None:
        size, kept = _size(node), node.nameless
        if kept is None and size == 0:
            kept = self._begin(node, None, handle.id)
        if kept is not None:
            if not kept.scratch.write(offset, data):
                self._lose(node, kept)
            kept.writer = handle.id if kept.writer == handle.id else None
        self._resized(node, max(offset + len(data), size))

    def resize(self, node: Node, size: int) -> bool:
        """ftruncate(2). False, and nothing done: it has bytes that are not here."""
        kept = node.nameless
        if kept is None and size:
            if _size(node):
                return False
            kept = self._begin(node, None, None)
        if kept is not None and not kept.scratch.resize(size):
            self._lose(node, kept)
        self._resized(node, size)
        return True

    def read(self, handle: OpenHandle, kept: Kept, offset: int, size: int, *, for_pages: bool) -> Buffer:
        """Raises StaleFile: it is not here (any more), or not what `handle` was opened on; FileBusy."""
        node = handle.node
        with self._table.lock:
            is_its_own = _goes_on(handle, kept)
            size = max(0, min(size, _size(node) - offset))
        if is_its_own and for_pages and not (handle.caches and kept.writer == handle.id):
            raise FileBusy(
                f"{shown(node.name)} was removed and may still be written to",
                hint="read it with read(2) or its like: it cannot be mapped or sent",
            )
        found = kept.scratch.read(offset, size) if is_its_own else None
        if found is None:
            raise StaleFile(
                f"{shown(node.name)} was removed, and what was written to it is not in memory any more",
                hint="keep temporary files elsewhere (TMPDIR), or raise fs.jindo.fuse.pod.mem.limit",
            )
        return found

    # --- private ---

    def _begin(self, node: Node, draft: Draft | None, writer: FileHandle | None) -> Kept:
        kept = Kept(self._engine.open_scratch(), draft, writer)
        with self._table.lock:
            self._table.local(node).nameless = kept
        return kept

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


def _goes_on(handle: OpenHandle, kept: Kept) -> bool:
    """Whether it has read nothing, or of this version."""
    version = handle.version
    if version is None or (kept.draft is not None and handle.follows is kept.draft):
        return True
    return version.etag != "" and version.size == 0


def _size(node: Node) -> int:
    return node.facts.size if node.facts is not None else 0
