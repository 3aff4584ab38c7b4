"""Versions being written: from the first byte (or the truncation) of a file to the moment the object is in OSS.

A draft belongs to one node and to the handle that wrote to it first, or began it while nobody has; a second writer is
refused with FileBusy, unless both append (O_APPEND), because then their bytes cannot collide. The object appears,
whole, when the draft is finished: at close(2), at fsync(2), or before a rename; not when the kernel closes the file for
a program that was killed. What is written after that begins another draft that continues the finished version. A draft
that failed, or was written to out of order, never becomes an object: its error is told by every later call, and the
object stays the old one or absent. Writes of its owner that go on where the last one ended may be put into the tail of
its writer by the kernel session, which nobody here hears of: what has to, calls `recall` first.
In append mode (`fs.oss.append.enable`) a draft is an Appendable object that grows in OSS while it is written. A size
that a program announces before it writes (ftruncate) is shown at once and owed from then on: until as much has been
written the draft is not finished, and nothing is padded.

Everything here runs inside the node's `Turn`; opening, finishing and removing also inside the `Gate`, so that the key
cannot change meanwhile. Fields that stat(2) shows (`size`, `mtime_ns`) are set under `InodeTable.lock`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from csi.data.streams import StreamSource, Writer
from csi.errors import AppendConflict, EntryExists, FileBusy, InvalidOperation, OssFuseError, StaleFile
from csi.fs.handles import NOBODY, Handles
from csi.fs.metadata import APPENDABLE_TYPE, Facts
from csi.fs.nameless import Nameless
from csi.fs.names import shown
from csi.fs.namespace import Namespace
from csi.fs.nodes import Node
from csi.fs.types import FileKind
from csi.oss.store import Buffer, ObjectMetadata, ObjectStore, ObjectVersion, PutResult
from csi.volume.spec import WriteOptions
from csi.volume.units import Bytes, ETag, FileHandle, ObjectKey

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Draft:
    """`shared`: its owner appends, so that others who append may write to it as well. `base`: the version it begins
    with. `appendable`: it grows in OSS while it is written. `announced`: the size its program said it will have,
    if that is more than it has. `joined`: others have written to it too. `awaited`: others have opened it as the empty
    file that it was. `became`: the version that it is now. `error`: why it will never be an object."""

    writer: Writer
    owner: FileHandle
    shared: bool
    base: ObjectVersion | None
    appendable: bool
    touched_ns: int
    announced: int = 0
    joined: bool = False
    awaited: bool = False
    became: Facts | None = None
    error: OssFuseError | None = None

    @property
    def size(self) -> int:
        return self.writer.position

    @property
    def shown_size(self) -> int:
        return max(self.size, self.announced)

    @property
    def mtime_ns(self) -> int:
        return self.touched_ns if self.writer.tail is None else max(self.touched_ns, self.writer.tail.written_ns)

    @property
    def is_readable(self) -> bool:
        """Whether every byte of it is here or in the object that it continues, and none is only on its way to OSS."""
        return self.error is None and self.writer.readable_from <= (self.base.size if self.base is not None else 0)

    def recall(self) -> None:
        """From now on every write comes to the filesystem, until one has."""
        if self.writer.tail is not None:
            self.writer.tail.recall()


class Drafts:
    def __init__(
        self,
        store: ObjectStore,
        engine: StreamSource,
        namespace: Namespace,
        handles: Handles,
        options: WriteOptions,
    ) -> None:
        self._store = store
        self._engine = engine
        self._namespace = namespace
        self._table = namespace.table
        self._options = options
        self.nameless = Nameless(namespace.table, handles, engine, namespace.clock)

    @property
    def readable(self) -> bool:
        """Whether files are read while they are written: append mode."""
        return self._options.append

    # --- beginning ---

    def begin_empty(self, node: Node, owner: FileHandle, *, shared: bool = False, exclusive: bool = False) -> Draft:
        """A version that starts from nothing: create(2), O_TRUNC, truncate to 0. `exclusive`: if another client makes
        the object meanwhile, finishing says so. Raises FileBusy while another handle writes the file."""
        appended = node.draft is not None and node.draft.appendable
        self._supersede(node, owner)
        key = self._table.key(node)
        if not self._options.append:
            writer = self._engine.open_writer(key, forbid_overwrite=exclusive)
            return self._install(node, writer, owner, shared=shared, base=None, appendable=False)
        if node.facts is not None or appended:
            self._store.delete(key)  # AppendObject cannot replace what is there
            self._namespace.knowledge.changed(node, None)
        try:
            writer = self._engine.open_appender(key, position=0)
        except AppendConflict as error:
            if exclusive:
                raise EntryExists(f"{shown(node.name)} was made by another client") from error
            raise
        return self._install(node, writer, owner, shared=shared, base=None, appendable=True)

    def continue_from(self, node: Node, owner: FileHandle, offset: int, *, shared: bool, at_end: bool = False) -> Draft:
        """A version that begins with all of the current one, for a write at `offset`, which must be its end, or
        `at_end`: wherever that is by now, in append mode."""
        self._supersede(node, owner)
        facts = self._continued(node)
        grows = self._namespace.knowledge.may_grow(facts)
        at_end = at_end and grows
        if offset != facts.size and not at_end:
            raise self._out_of_order(node, offset, facts.size)
        key = self._table.key(node)
        if grows:
            try:
                writer = self._engine.open_appender(key, position=facts.size)
            except AppendConflict:
                if not at_end:
                    raise
                self._namespace.refresh(node)  # another client has appended
                facts = self._continued(node)
                writer = self._engine.open_appender(key, position=facts.size)
            return self._install(node, writer, owner, shared=shared, base=facts.version(key), appendable=True)
        base = facts.version(key)
        user, content_type = self._kept_metadata(node, base)
        writer = self._engine.open_writer(key, base=base, user=user, content_type=content_type)
        return self._install(node, writer, owner, shared=shared, base=base, appendable=False)

    # --- writing ---

    def write(
        self, node: Node, draft: Draft, writer_handle: FileHandle, appends: bool, offset: int, data: Buffer
    ) -> int:
        """Append `data`, which must belong at the end. A refusal or a failure ends the draft: close(2) reports it, and
        no object with a hole in it appears."""
        self._claim(node, draft, writer_handle, appends, offset)
        draft.recall()
        if offset != draft.size:
            error = self._out_of_order(node, offset, draft.size)
            self.fail(draft, error)
            raise error
        try:
            draft.writer.write(data)
        except OssFuseError as error:
            self.fail(draft, error)
            raise
        with self._table.lock:
            draft.touched_ns = self._now_ns()
            draft.joined = draft.joined or draft.owner != writer_handle
            self._table.set_times(node, None)
        if not draft.joined:
            draft.writer.lend()
        return len(data)

    def copy(
        self, node: Node, draft: Draft, owner: FileHandle, offset: int, source: ObjectVersion, start: int, size: int
    ) -> bool:
        """Append `size` bytes of another object by a copy inside OSS; False, with nothing changed, if they have to be
        written."""
        draft.recall()
        if draft.owner != owner or draft.appendable or draft.error is not None or offset != draft.size:
            return False
        try:
            if not draft.writer.copy(source, start, size):
                return False
        except OssFuseError as error:
            self.fail(draft, error)
            raise
        with self._table.lock:
            draft.touched_ns = self._now_ns()
            self._table.set_times(node, None)
        return True

    def announce(self, node: Node, draft: Draft, handle: FileHandle, appends: bool, size: int) -> None:
        """ftruncate(2) to `size`, which is not less than what has been written: safetensors and others do it before
        they write as much, in order."""
        self._claim(node, draft, handle, appends, 0)
        with self._table.lock:
            draft.announced, draft.touched_ns = size, self._now_ns()

    def push(self, draft: Draft) -> None:
        """Append mode: everything written so far is in OSS, and readable, when this returns."""
        if draft.error is not None:
            raise draft.error
        try:
            draft.writer.flush()
        except OssFuseError as error:
            self.fail(draft, error)
            raise

    def finish(self, node: Node) -> None:
        """Make the draft of `node`, if there is one, the current version. Raises InvalidOperation, and leaves it as it
        is, while less was written than announced: this may be the close of a duplicate, in a child process."""
        draft = node.draft
        if draft is None:
            return
        if draft.error is not None:
            raise draft.error
        if draft.announced > draft.size:
            raise InvalidOperation(
                f"{shown(node.name)} was given a size of {draft.announced} bytes, of which {draft.size} were written",
                hint="write all of it before closing it; nothing is padded",
            )
        try:
            result = draft.writer.finish()
        except OssFuseError as error:
            self.fail(draft, error)
            raise
        self._adopt(node, draft, result)

    # --- ending without an object ---

    def fail(self, draft: Draft, error: OssFuseError) -> None:
        draft.error = error
        draft.writer.abandon()

    def drop(self, node: Node) -> None:
        """Forget a draft, finished or not: what was before is what is there. A file that never was, is gone."""
        draft = node.draft
        if draft is None:
            return
        draft.writer.abandon()
        with self._table.lock:
            self._table.set_draft(node, None)
            self._table.set_times(node, None)
            if draft.appendable and not node.detached:
                self._namespace.knowledge.changed(node, node.facts or self._facts(draft, ETag("")))
            elif node.facts is None and not node.detached:
                self._namespace.knowledge.withdrawn(node)
            elif not node.detached:
                self._namespace.knowledge.changed(node, node.facts)

    @contextmanager
    def losing_name(self, node: Node) -> Iterator[None]:
        """Its object is removed, or replaced, in the body; if that fails, nothing is changed. What is being written
        does not bring it back, but those who have it open go on with it."""
        kept = self.nameless.fetch(node) if node.draft is None else None
        try:
            yield
        except BaseException:
            if kept is not None:
                kept.scratch.close()
            raise
        self._discard(node)
        if kept is not None:
            self.nameless.keep(node, kept)

    # --- private ---

    def _continued(self, node: Node) -> Facts:
        """What there is to continue. Raises StaleFile."""
        if node.facts is None or node.detached:
            raise StaleFile(f"{shown(node.name)} is no longer in the bucket", hint="open the path again")
        return node.facts

    def _discard(self, node: Node) -> None:
        draft = node.draft
        if draft is None:
            return
        draft.recall()
        self.nameless.keep_draft(node, draft)
        draft.writer.abandon()
        with self._table.lock:
            self._table.set_draft(node, None)
            self._table.replace_facts(node, self._facts(draft, ETag(""))._replace(size=draft.shown_size))

    def _claim(self, node: Node, draft: Draft, handle: FileHandle, appends: bool, offset: int) -> None:
        """Raises why `handle` may not write to the draft. While nothing is in it, it becomes the draft of who begins:
        the program that made a temporary file, or waits for a lock, is not the one that writes."""
        if draft.owner != handle and not (draft.shared and appends):
            draft.recall()
            if draft.shown_size or draft.error is not None or offset:
                raise _busy(node)
            with self._table.lock:
                draft.owner, draft.shared = handle, appends
                self._table.set_draft(node, draft)
            if draft.writer.tail is not None:
                draft.writer.tail.show(handle)
        if draft.error is not None:
            raise draft.error

    def _supersede(self, node: Node, owner: FileHandle) -> None:
        """Make room for a draft of `owner`: its own earlier one, or one that failed, gives way."""
        draft = node.draft
        if draft is None:
            return
        if draft.owner != owner and draft.error is None:
            raise _busy(node)
        draft.writer.abandon()
        self._table.set_draft(node, None)

    def _install(
        self,
        node: Node,
        writer: Writer,
        owner: FileHandle,
        *,
        shared: bool,
        base: ObjectVersion | None,
        appendable: bool,
    ) -> Draft:
        draft = Draft(writer, owner, shared, base, appendable, self._now_ns())
        with self._table.lock:
            self._table.set_draft(node, draft)
            self._table.set_times(node, None)
        if writer.tail is not None and owner != NOBODY:
            writer.tail.show(owner)
            writer.lend()
        return draft

    def _adopt(self, node: Node, draft: Draft, result: PutResult) -> None:
        facts = self._facts(draft, result.etag)
        with self._table.lock:
            local = self._table.local(node)
            self._table.set_draft(node, None)
            self._table.set_times(node, local.times, result.etag if local.times is not None else None)
            local.lineage = (local.lineage | {draft.base.etag}) if draft.base is not None else frozenset()
            if draft.base is None or (local.metadata is not None and local.metadata.etag == draft.base.etag):
                before = local.metadata if draft.base is not None else None
                local.metadata = ObjectMetadata(
                    self._table.key(node),
                    Bytes(facts.size),
                    result.etag,
                    facts.modified,
                    facts.type,
                    crc64=result.crc64,
                    content_type=before.content_type if before is not None else "",
                    user=dict(before.user) if before is not None else {},
                )
            draft.became = facts
            self._namespace.knowledge.changed(node, facts)

    def _facts(self, draft: Draft, etag: ETag) -> Facts:
        kind = APPENDABLE_TYPE if draft.appendable else "Normal"
        return Facts(FileKind.FILE, draft.size, etag, float(draft.mtime_ns // 1_000_000_000), kind, "Standard")

    def _kept_metadata(self, node: Node, base: ObjectVersion) -> tuple[Mapping[str, str], str]:
        """User metadata and content type go on with the file; OSS would drop them with the new version."""
        local = self._table.local(node)
        known = local.metadata
        if known is None or known.etag != base.etag:
            known = self._store.head(ObjectKey(base.key))
            if known.etag != base.etag:
                raise StaleFile(f"{shown(node.name)} was changed by another client", hint="open the path again")
            local.metadata = known
        return known.user, known.content_type

    def _out_of_order(self, node: Node, offset: int, expected: int) -> InvalidOperation:
        path = self._table.path(node)
        _log.warning("write refused: %r at offset %d, where the end of the file is %d", path, offset, expected)
        return InvalidOperation(
            f"{shown(node.name)}: a write at offset {offset}, where the file ends at {expected}",
            hint="objects are written in order, from the start or at the end; write a new file instead",
        )

    def _now_ns(self) -> int:
        return int(self._namespace.clock() * 1e9)


def _busy(node: Node) -> FileBusy:
    return FileBusy(
        f"{shown(node.name)} is being written by another open file on this mount",
        hint="wait until the writer has closed it",
    )
