"""Open files: which version a handle reads, where its writes go, and when what it wrote becomes an object.

A handle that reads is bound to the version it was opened on. It moves to a newer one only if that begins with the old
one's bytes (it was continued or renamed by this mount, or is an Appendable object that grew); otherwise reading raises
StaleFile, and never bytes of two versions, not even through the kernel's page cache: as soon as a newer version is
known, the old one is not read any more. While a file is being written here it cannot be read here (FileBusy), except in
append mode. The rules of writing are in `csi/fs/drafts.py`.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from csi.data.streams import Reader, StreamSource
from csi.errors import (
    BadHandle,
    FileBusy,
    ObjectNotFound,
    OperationNotSupported,
    OssFuseError,
    PreconditionFailed,
    RangeNotSatisfiable,
    StaleFile,
)
from csi.fs.drafts import NOBODY, Draft, Drafts
from csi.fs.inodes import Node
from csi.fs.metadata import APPENDABLE_TYPE, Facts
from csi.fs.names import shown
from csi.fs.namespace import Namespace
from csi.fs.turns import Gate, Turn
from csi.fs.types import OpenFile
from csi.oss.store import Buffer, ObjectVersion
from csi.volume.spec import CachePolicy, MountArguments
from csi.volume.units import FileHandle

_log = logging.getLogger(__name__)

_CHANGED = (PreconditionFailed, ObjectNotFound, RangeNotSatisfiable)


@dataclass(slots=True, eq=False)
class OpenHandle:
    """One open(2). `facts` are those of the node when `version` was taken from it; the same value means that nothing
    was learned since. `failed` is why what was written through this handle will never be an object."""

    id: FileHandle
    node: Node
    readable: bool
    writable: bool
    appends: bool
    facts: Facts | None = None
    version: ObjectVersion | None = None
    reader: Reader | None = None
    failed: OssFuseError | None = None


class Files:
    """`table.lock` guards the handles and their fields; a reader is opened and replaced inside the handle's node's
    table lock, and used outside of it."""

    def __init__(
        self, namespace: Namespace, engine: StreamSource, drafts: Drafts, gate: Gate, arguments: MountArguments
    ) -> None:
        self._namespace = namespace
        self._table = namespace.table
        self._engine = engine
        self._drafts = drafts
        self._gate = gate
        self._arguments = arguments
        self._handles: dict[int, OpenHandle] = {}
        self._numbers = itertools.count(1)

    # --- opening and closing ---

    def open(self, node: Node, flags: int) -> OpenFile:
        """Raises FileBusy, StaleFile (the name is gone: the kernel looks it up again) and what OSS raises."""
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        if flags & os.O_DIRECT or not self._namespace.is_current_for_open(node):
            self._namespace.refresh(node)
        if node.detached:
            raise StaleFile(f"{shown(node.name)} was removed or replaced", hint="open the path again")
        handle = self._new_handle(node, flags)
        try:
            if writing and flags & os.O_TRUNC:
                with self.change(node), self.turn(node):
                    self._begin_empty(handle)
            elif not writing:
                self._check_readable(node)
        except BaseException:
            self._drop_handle(handle)
            raise
        return OpenFile(handle.id, *self._cache_policy(node, flags))

    def create(self, node: Node, flags: int) -> OpenFile:
        """Open a file that was not there, and begin its first version."""
        handle = self._new_handle(node, flags)
        try:
            with self.change(node), self.turn(node):
                self._begin_empty(handle, exclusive=bool(flags & os.O_EXCL))
        except BaseException:
            if node.facts is None and node.draft is None:
                self._namespace.withdrawn(node)
            self._drop_handle(handle)
            raise
        return OpenFile(handle.id, *self._cache_policy(node, flags))

    def release(self, number: FileHandle) -> None:
        """The last descriptor is closed. What flush did not finish (it never came) is finished here; a failure can
        only be logged."""
        handle = self.get(number)
        node = handle.node
        try:
            if node.draft is not None and node.draft.owner == handle.id:
                with self.change(node), self.turn(node):
                    draft = node.draft
                    if draft is not None and draft.owner == handle.id:
                        self._end_draft(node, draft)
        finally:
            self._drop_handle(handle)

    def get(self, number: FileHandle) -> OpenHandle:
        handle = self._handles.get(number)
        if handle is None:
            raise BadHandle(f"file handle {number} is not open")
        return handle

    def all(self) -> list[OpenHandle]:
        with self._table.lock:
            return list(self._handles.values())

    # --- bytes ---

    def read_ready(self, number: FileHandle, offset: int, size: int) -> Buffer | None:
        """`read` if it needs no waiting; called on an event loop."""
        handle = self._handles.get(number)
        if handle is None:
            return None
        node, reader = handle.node, handle.reader
        if reader is None or node.draft is not None or node.facts is not handle.facts:
            return None
        return reader.try_read(offset, size)

    def read(self, number: FileHandle, offset: int, size: int) -> Buffer:
        handle = self.get(number)
        if not handle.readable:
            raise BadHandle(f"{shown(handle.node.name)} is not open for reading")
        while True:
            draft = handle.node.draft
            if draft is not None:
                if offset >= draft.size:
                    return b""
                reader = self._draft_reader(handle, draft, offset + size)
            else:
                reader = self._current_reader(handle)
            try:
                return reader.read(offset, size)
            except BadHandle:
                if handle.reader is reader or handle.id not in self._handles:
                    raise  # otherwise another read moved the handle to a newer version: use that
            except _CHANGED as error:
                if not self._has_grown(handle):
                    raise self._stale(handle) from error

    def write(self, number: FileHandle, offset: int, data: Buffer) -> int:
        handle = self.get(number)
        node = handle.node
        if not handle.writable:
            raise BadHandle(f"{shown(node.name)} is not open for writing")
        if handle.failed is not None:
            raise handle.failed
        with self.turn(node):
            written = self._write_draft(handle, offset, data)
        if written is None:
            with self.change(node), self.turn(node):
                if node.draft is None:
                    self._drafts.continue_from(node, handle.id, offset, shared=handle.appends)
                    self._unbind(handle)
                written = self._write_draft(handle, offset, data)
        return len(data) if written is None else written

    def flush(self, number: FileHandle) -> None:
        """close(2) of one descriptor: what was written is an object when this returns, or it raises why not."""
        self._complete(number, push=False)

    def fsync(self, number: FileHandle) -> None:
        """As flush; in append mode the object goes on growing without being finished."""
        self._complete(number, push=True)

    # --- without reading or writing ---

    def truncate(self, node: Node, size: int, number: FileHandle | None) -> None:
        """truncate(2), ftruncate(2): to nothing, or to the size it has. Raises OperationNotSupported for others."""
        handle = self.get(number) if number is not None else None
        if handle is not None and not handle.writable:
            raise BadHandle(f"{shown(node.name)} is not open for writing")
        if handle is None and not self._namespace.is_current_for_open(node):
            self._namespace.refresh(node)
        with self.change(node), self.turn(node):
            draft = node.draft
            now = draft.size if draft is not None else node.facts.size if node.facts is not None else 0
            if size == now:
                return
            if size != 0:
                raise OperationNotSupported(
                    f"{shown(node.name)} has {now} bytes and cannot be cut or extended to {size}",
                    hint="objects can only be emptied and written again",
                )
            if handle is not None:
                self._begin_empty(handle)
            else:
                self._drafts.begin_empty(node, NOBODY)
                self.complete(node)

    def complete(self, node: Node) -> None:
        """Finish what is being written, inside the node's turn; a failed draft nobody owns is dropped."""
        draft = node.draft
        try:
            self._drafts.finish(node)
        except OssFuseError:
            if draft is not None and draft.owner == NOBODY:
                self._drafts.drop(node)
            raise

    # --- for the rest of the room ---

    def turn(self, node: Node) -> Turn:
        return self._table.local(node).turn

    def change(self, node: Node) -> AbstractContextManager[str]:
        """Keep renames of what is above `node` out while its key matters."""
        path: Callable[[], str] = lambda: self._table.path(node)  # noqa: E731 - asked again after each wait
        return self._gate.change(path)

    # --- private ---

    def _new_handle(self, node: Node, flags: int) -> OpenHandle:
        mode = flags & os.O_ACCMODE
        with self._table.lock:
            handle = OpenHandle(
                FileHandle(next(self._numbers)),
                node,
                readable=mode != os.O_WRONLY,
                writable=mode != os.O_RDONLY,
                appends=bool(flags & os.O_APPEND),
            )
            if node.facts is not None:
                handle.facts, handle.version = node.facts, node.facts.version(self._table.key(node))
            self._handles[handle.id] = handle
            self._table.local(node).handles += 1
        return handle

    def _drop_handle(self, handle: OpenHandle) -> None:
        with self._table.lock:
            if self._handles.pop(handle.id, None) is None:
                return
            reader, handle.reader = handle.reader, None
            self._table.local(handle.node).handles -= 1
            self._table.drop_unused(handle.node)
        if reader is not None:
            reader.close()

    def _begin_empty(self, handle: OpenHandle, *, exclusive: bool = False) -> None:
        self._drafts.begin_empty(handle.node, handle.id, shared=handle.appends, exclusive=exclusive)
        self._unbind(handle)

    def _unbind(self, handle: OpenHandle) -> None:
        """The next version is this handle's own: it reads whatever is current once that is finished."""
        with self._table.lock:
            handle.facts = handle.version = None

    def _cache_policy(self, node: Node, flags: int) -> tuple[bool, bool]:
        """(keep_cache, direct_io) of the reply to open. AUTO keeps pages if this is the version opened before."""
        policy = self._arguments.cache
        if policy is CachePolicy.DIRECT or flags & os.O_DIRECT:
            return False, True
        with self._table.lock:
            local = self._table.local(node)
            current = node.facts.etag if node.facts is not None and node.draft is None else None
            same = current is not None and local.opened == current
            local.opened = current
        return policy is CachePolicy.KERNEL or (policy is CachePolicy.AUTO and same), False

    def _check_readable(self, node: Node) -> None:
        draft = node.draft
        if draft is not None and not draft.appendable:
            raise FileBusy(
                f"{shown(node.name)} is being written on this mount",
                hint="it can be read once its writer has closed it (fs.oss.append.enable lets files be read earlier)",
            )

    def _draft_reader(self, handle: OpenHandle, draft: Draft, end: int) -> Reader:
        """The reader of a file that is being appended to, which sees everything written up to `end`."""
        node = handle.node
        self._check_readable(node)
        visible = draft.writer.visible_version
        if visible is None or end > visible.size < draft.size:
            with self.turn(node):
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
            facts, version = node.facts, handle.version
            unlinked = node.detached and node.local is not None and node.local.unlinked
            if facts is None or facts.etag == "" or (unlinked and version is None):
                raise self._stale(handle)
            current = facts.version(self._table.key(node))
            if unlinked and version is not None:
                current = version
            elif version is not None and not self._may_follow(handle, version, current):
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
        opened = self._engine.open_reader(version, exact=self._arguments.random_read)
        with self._table.lock:
            old, handle.reader = handle.reader, opened
            if facts is not None:
                handle.facts, handle.version = facts, version
            if handle.id not in self._handles:
                old, handle.reader = opened, None
        if old is not None:
            old.close()
        return opened

    def _has_grown(self, handle: OpenHandle) -> bool:
        """After OSS said that the version is gone: whether it was an Appendable object that somebody appended to."""
        node, facts = handle.node, handle.facts
        if facts is None or facts.type != APPENDABLE_TYPE or node.detached:
            return False
        self._namespace.refresh(node)
        return node.facts is not None and node.facts is not facts

    def _stale(self, handle: OpenHandle) -> StaleFile:
        with self._table.lock:
            handle.node.checked_at = float("-inf")  # what was believed is wrong: ask before showing it again
        return StaleFile(
            f"{shown(handle.node.name)} was changed or removed since it was opened", hint="open it again to read it"
        )

    def _write_draft(self, handle: OpenHandle, offset: int, data: Buffer) -> int | None:
        """Write to the draft there is; None when there is none to write to (0 bytes are lost: the caller begins one).
        Bytes for a removed file are taken and dropped."""
        node, draft = handle.node, handle.node.draft
        if draft is not None:
            try:
                return self._drafts.write(node, draft, handle.id, handle.appends, offset, data)
            except OssFuseError as error:
                if draft.error is error:
                    handle.failed = error
                raise
        if node.local is not None and node.local.unlinked:
            with self._table.lock:
                size = max(offset + len(data), node.facts.size if node.facts is not None else 0)
                node.facts = Facts((node.facts or Facts(node.kind)).kind, size)
            return len(data)
        return None

    def _complete(self, number: FileHandle, *, push: bool) -> None:
        handle = self.get(number)
        node = handle.node
        if handle.failed is not None:
            raise handle.failed
        with self.change(node), self.turn(node):
            draft = node.draft
            if draft is None or not (draft.owner == handle.id or (draft.shared and handle.appends)):
                return
            try:
                if push and draft.appendable:
                    self._drafts.push(draft)
                else:
                    self._drafts.finish(node)
            except OssFuseError as error:
                handle.failed = error
                raise

    def _end_draft(self, node: Node, draft: Draft) -> None:
        if draft.error is not None:
            self._drafts.drop(node)
            return
        try:
            self._drafts.finish(node)
        except OssFuseError as error:
            _log.error("%r was not written: %s", self._table.path(node), error)
            self._drafts.drop(node)
