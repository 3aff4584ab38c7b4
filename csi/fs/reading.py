"""Reading through a handle: which version it may see, and when it has to say that the file changed.

A handle is bound to the version it was opened on. It moves to a newer one only if that begins with the old one's bytes
(it was continued or renamed by this mount, or is an Appendable object that grew); otherwise reading raises StaleFile
once OSS has to be asked, and never bytes of two versions, not even through the kernel's page cache: a version of
another client gets an inode of its own (`csi/fs/namespace.py`).

What is being written here is read from the memory of its writer, and from the object that it continues, as long as all
of it is there. What was sent stays there if somebody reads it and there is memory; otherwise it is FileBusy from then
on, for OSS shows no parts. It is read past the page cache, as every handle does that was opened since, and its writer
if he writes past it; a writer alone reads through the pages that he writes through. A handle that read of a version
that then did not come to be is stale. In append mode a read that needs what is still buffered has it pushed first.
"""

from __future__ import annotations

from csi.data.streams import Reader, StreamSource
from csi.errors import BadHandle, FileBusy, ObjectNotFound, PreconditionFailed, RangeNotSatisfiable, StaleFile
from csi.fs.drafts import Draft, Drafts
from csi.fs.handles import Handles, OpenHandle
from csi.fs.metadata import APPENDABLE_TYPE, Facts
from csi.fs.names import shown
from csi.fs.namespace import Namespace
from csi.fs.nodes import Node
from csi.fs.published import LIGHT, NothingPublished
from csi.fs.siblings import LARGEST, Siblings
from csi.fs.types import Backing
from csi.oss.store import Buffer, ObjectVersion
from csi.volume.units import FileHandle

_CHANGED = (PreconditionFailed, ObjectNotFound, RangeNotSatisfiable)


class Reading:
    """`InodeTable.lock` guards which reader a handle has; the reader is opened, used and closed outside of it."""

    def __init__(
        self, namespace: Namespace, engine: StreamSource, drafts: Drafts, handles: Handles, *, exact: bool
    ) -> None:
        """`exact`: nothing is read ahead (-opread)."""
        self._namespace = namespace
        self._table = namespace.table
        self._engine = engine
        self._drafts = drafts
        self._handles = handles
        self._exact = exact
        # files that the kernel session opens by itself are fetched ahead there
        self._reads_ahead = not exact and not namespace.knowledge.plans
        self.siblings = Siblings(namespace.table, namespace.knowledge.listings, engine, namespace.knowledge.clock)
        self._published = namespace.table.published
        self._shows = type(self._published) is not NothingPublished
        self._scatters = self._published.fetches

    def read_ready(self, number: FileHandle, offset: int, size: int) -> Buffer | None:
        """`read` if it needs no waiting; called on an event loop."""
        handle = self._handles.adopted(number)
        if handle is None:
            return None
        node, reader = handle.node, handle.reader
        if reader is None or node.draft is not None or node.facts is not handle.facts:
            return None
        found = reader.try_read(offset, size)
        if offset == 0 and found is not None and reader.version.size <= LARGEST and self._reads_ahead:
            self.siblings.read(node)
        if self._shows and found is not None:
            self._show(handle, reader)
        return found

    def reached(self, number: FileHandle, offset: int, end: int) -> None:
        """A read was answered from published blocks, or a file is read by the session; see `ReadListener`."""
        if number & LIGHT:
            self.siblings.read_beside(number ^ LIGHT)
            return
        handle = self._handles.find(number)
        reader = handle.reader if handle is not None else None
        if handle is not None and reader is not None:
            notice = reader.reached(offset, end)
            if notice or handle.scattered:
                self._published.tell_at(number, notice)
            if handle.scattered and not reader.scattered:
                self._table.scatter(handle, reader)

    def begin(self, handle: OpenHandle, *, half: bool) -> None:
        """`handle` was opened for reading alone. `half`: what is being written ends where its program was killed."""
        draft = handle.node.draft
        if draft is None or draft.appendable:
            return
        if half or not (draft.is_readable or self._is_finished(handle.node, draft)):
            raise _busy(handle.node)
        draft.writer.keep()
        if draft.size:
            self._handles.follow(handle, draft)

    def read(self, number: FileHandle, offset: int, size: int, *, for_pages: bool) -> Buffer:
        handle = self._handles.get(number)
        if not handle.readable:
            raise BadHandle(f"{shown(handle.node.name)} is not open for reading")
        while True:
            draft = handle.node.draft
            if draft is not None and not draft.appendable:
                written = self._read_draft(handle, draft, offset, size, for_pages=for_pages)
                if written is None:
                    continue
                return written
            nameless = handle.node.nameless
            if draft is None and nameless is not None:
                return self._drafts.nameless.read(handle, nameless, offset, size, for_pages=for_pages)
            if draft is not None:
                if offset >= draft.size:
                    return b""
                draft_reader = self._draft_reader(handle, draft, offset + size)
                if draft_reader is None:
                    continue
                reader = draft_reader
            else:
                reader = self._current_reader(handle)
                if offset == 0 and reader.version.size <= LARGEST and self._reads_ahead:
                    self.siblings.read(handle.node)
            try:
                read = reader.read(offset, size)
            except BadHandle:
                if handle.reader is reader or self._handles.find(handle.id) is None:
                    raise  # otherwise another read moved the handle to a newer version: use that
            except _CHANGED as error:
                if not (self._has_moved_on(handle, reader.version) or self._has_grown(handle)):
                    raise self._stale(handle) from error
            else:
                if self._shows:
                    self._show(handle, reader)
                return read

    def backing(self, number: FileHandle) -> Backing | None:
        handle = self._handles.find(number)
        if handle is None or not handle.readable or handle.node.draft is not None:
            return None
        try:
            found = self._current_reader(handle).file()
        except (StaleFile, BadHandle):  # the read that comes will say so
            return None
        return None if found is None else Backing(*found)

    # --- private ---

    def _show(self, handle: OpenHandle, reader: Reader) -> None:
        """Let the kernel session answer what is read ahead of `handle`, and what would be read at random places."""
        notice, scattered = reader.notice, self._scatters and reader.scattered
        if not (notice or scattered or handle.scattered):
            return
        if not handle.shown:
            try:
                content = reader.publish()
            except BadHandle:  # closed meanwhile
                return
            if content is None or not self._table.show(handle, reader, content):
                return
        self._published.tell_at(handle.id, notice)  # at 0 by the next read: who reads at random places may read on
        if scattered != handle.scattered:
            self._table.scatter(handle, reader)

    def _read_draft(
        self, handle: OpenHandle, draft: Draft, offset: int, size: int, *, for_pages: bool
    ) -> Buffer | None:
        """`read` of what is being written, which waits for no operation on the file; None if it was finished
        meanwhile. Of what may grow this moment no pages are made: the kernel could take the end of the last one, which
        is zeros, for the file's. It cannot where all that is written goes through them."""
        end, begin = min(offset + size, draft.shown_size), draft.writer.readable_from
        if offset >= end:
            return b""
        written: Buffer | None = None
        if draft.is_readable and end <= draft.size and self._may_read(handle, draft, for_pages=for_pages):
            start = max(offset, begin)
            written = draft.writer.reread(start, end - start) if start < end else b""
        if written is None:  # or sent this moment
            if self._is_finished(handle.node, draft):
                return None
            raise _busy(handle.node)
        self._handles.follow(handle, draft)
        if offset >= begin or draft.base is None:
            return written
        before = self._read_base(handle, draft, draft.base, offset, min(end, begin) - offset)
        return None if before is None else b"".join((before, written))

    def _is_finished(self, node: Node, draft: Draft) -> bool:
        if draft.writer.visible_version is not None:
            with self._table.local(node).turn:  # of who is just making it the current version
                pass
        return node.draft is not draft

    def _may_read(self, handle: OpenHandle, draft: Draft, *, for_pages: bool) -> bool:
        """Whether it goes on from what the handle was opened on, or has read of."""
        with self._table.lock:
            if for_pages and not (handle.caches and draft.owner == handle.id and not (draft.shared or draft.joined)):
                return False
            if handle.follows is draft:
                return True
            self._handles.follow_no_more(handle)
            version, local = handle.version, handle.node.local
        if version is None:
            return True
        lineage = local.lineage if local is not None else frozenset()
        return draft.base is not None and (version.etag == draft.base.etag or version.etag in lineage)

    def _read_base(
        self, handle: OpenHandle, draft: Draft, base: ObjectVersion, offset: int, size: int
    ) -> Buffer | None:
        """What is being written begins with `base`. None if it was finished meanwhile."""
        try:
            return self._reader_of(handle, None, base).read(offset, size)
        except BadHandle:
            if self._handles.find(handle.id) is None:
                raise
            return None
        except _CHANGED as error:
            with self._table.local(handle.node).turn:  # it may be this mount that just replaces it
                if handle.node.draft is draft:
                    raise self._stale(handle) from error
            return None

    def _draft_reader(self, handle: OpenHandle, draft: Draft, end: int) -> Reader | None:
        """The reader of a file that is being appended to, which sees everything written up to `end`; None if the draft
        was finished meanwhile."""
        node = handle.node
        visible = draft.writer.visible_version
        if visible is None or end > visible.size < draft.size:
            with self._table.local(node).turn:
                if node.draft is not draft:
                    return None
                self._drafts.push(draft)
            visible = draft.writer.visible_version
        if visible is None:
            raise FileBusy(f"{shown(node.name)} has nothing to read yet", hint="try again")
        return self._reader_of(handle, None, visible)

    def _current_reader(self, handle: OpenHandle) -> Reader:
        """The reader of the version this handle may see. Raises StaleFile."""
        node = handle.node
        with self._table.lock:
            if handle.reader is not None and node.facts is handle.facts:
                return handle.reader
            self._handles.follow_no_more(handle)
            facts, version = node.facts, handle.version
            unlinked = node.detached and node.local is not None and node.local.unlinked
            if facts is None or facts.etag == "" or (unlinked and version is None):
                raise self._stale(handle)
            if version is not None and version.etag == "":  # what it read of never came to be
                raise self._stale(handle)
            current = facts.version(self._table.key(node))
            if version is not None and not self._may_follow(handle, version, current):
                raise self._stale(handle)
        return self._reader_of(handle, facts, current)

    def _may_follow(self, handle: OpenHandle, version: ObjectVersion, current: ObjectVersion) -> bool:
        if version.etag == current.etag and version.size == current.size:
            return True
        local, facts = handle.node.local, handle.node.facts
        if local is not None and version.etag in local.lineage:
            return True
        grows = (
            handle.facts is not None
            and facts is not None
            and handle.facts.type == APPENDABLE_TYPE
            and facts.type == APPENDABLE_TYPE
        )
        return grows and current.size >= version.size

    def _reader_of(self, handle: OpenHandle, facts: Facts | None, version: ObjectVersion) -> Reader:
        with self._table.lock:
            if handle.reader is not None and handle.reader.version == version:
                if facts is not None:
                    handle.facts, handle.version = facts, version
                return handle.reader
        opened = self._engine.open_reader(version, exact=self._exact)
        with self._table.lock:
            self._table.conceal(handle)
            old, handle.reader = handle.reader, opened
            if facts is not None:
                handle.facts, handle.version = facts, version
            if self._handles.find(handle.id) is None:
                old, handle.reader = opened, None
        if old is not None:
            old.close()
        return opened

    def _has_moved_on(self, handle: OpenHandle, version: ObjectVersion) -> bool:
        """After OSS said that `version` is gone: whether it was this mount that made another one."""
        node = handle.node
        with self._table.local(node).turn:  # of who may be about to say so
            draft = node.draft
            if draft is None:
                return node.facts is not handle.facts
            if not draft.appendable:
                return True
            self._drafts.push(draft)  # one that is under way may have made it, and not be answered yet
            return draft.writer.visible_version != version

    def _has_grown(self, handle: OpenHandle) -> bool:
        """After OSS said that the version is gone: whether it was an Appendable object that somebody appended to."""
        node, facts = handle.node, handle.facts
        if facts is None or facts.type != APPENDABLE_TYPE or node.detached:
            return False
        self._namespace.refresh(node)
        return node.facts is not None and node.facts is not facts

    def _stale(self, handle: OpenHandle) -> StaleFile:
        self._namespace.knowledge.doubt(handle.node)
        return StaleFile(
            f"{shown(handle.node.name)} was changed or removed since it was opened", hint="open it again to read it"
        )


def _busy(node: Node) -> FileBusy:
    return FileBusy(
        f"{shown(node.name)} is being written on this mount",
        hint="it can be read once its writer has closed it (fs.oss.append.enable lets files be read earlier)",
    )
