"""rename(2) in a store that has none: copy inside OSS, then delete.

A file is copied on the condition that it is still the version we know, then its old name is deleted; a reader of the
new name sees the old object there or the new one, whole. A directory is every key that starts with its name, those that
cannot be shown included (`csi/fs/tree_move.py`). Neither is atomic for other clients. What is being written to below
the old name becomes an object first, and goes on under the new name.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from csi.errors import (
    EntryExists,
    InvalidOperation,
    IsADirectory,
    NoSuchEntry,
    NotADirectory,
    ObjectExists,
    ObjectNotFound,
    OssFuseError,
    PreconditionFailed,
)
from csi.fs.drafts import Drafts
from csi.fs.files import Files
from csi.fs.metadata import SYMLINK_TYPE, Facts, facts_of, renewed
from csi.fs.names import check_new, directory_key, is_inside, join, object_key, shown
from csi.fs.namespace import Namespace
from csi.fs.nodes import Node
from csi.fs.tree import require_empty
from csi.fs.tree_move import COPIES, TreeMove
from csi.fs.turns import Gate
from csi.fs.types import FileKind
from csi.oss.store import ObjectStore
from csi.volume.units import ETag, ObjectKey

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
"""renameat2(2)."""


class Renames:
    """`_lock` guards the pool of copying threads, which is made when the first directory is renamed."""

    def __init__(self, store: ObjectStore, namespace: Namespace, files: Files, drafts: Drafts, gate: Gate) -> None:
        self._store = store
        self._namespace = namespace
        self._table = namespace.table
        self._files = files
        self._drafts = drafts
        self._gate = gate
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def rename(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int = 0) -> None:
        """Raises what rename(2) says: NoSuchEntry, EntryExists (RENAME_NOREPLACE), IsADirectory, NotADirectory,
        DirectoryNotEmpty, InvalidOperation (into itself, RENAME_EXCHANGE), and what OSS raises."""
        if flags & ~RENAME_NOREPLACE:
            raise InvalidOperation("two names cannot be exchanged in OSS", hint="rename one after the other")
        while True:
            old_path = join(self._table.path(parent), name)
            new_path = join(self._table.path(new_parent), new_name)
            if old_path == new_path:
                with self._namespace.existing(parent, name):
                    return
            with self._gate.move(old_path, new_path):
                # while waiting a directory above may have been moved
                if join(self._table.path(parent), name) != old_path:
                    continue
                if join(self._table.path(new_parent), new_name) != new_path:
                    continue
                self._rename(parent, name, new_parent, new_name, flags)
                return

    def close(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    # --- private ---

    def _rename(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int) -> None:
        old_path = join(self._table.path(parent), name)
        new_path = join(self._table.path(new_parent), new_name)
        with (
            self._namespace.existing(parent, name) as node,
            self._namespace.held(new_parent, new_name) as target,
        ):
            check_new(self._table.prefix, new_path, new_name, directory=node.is_directory)
            if node.is_directory and is_inside(new_path, old_path):
                raise InvalidOperation(f"{shown(name)} cannot be moved into itself")
            if target is not None and flags & RENAME_NOREPLACE:
                raise EntryExists(f"{shown(new_name)} exists")
            if target is not None:
                self._check_replaceable(node, target)
            if node.is_directory:
                self._move_directory(node, target, new_parent, new_name)
            else:
                self._move_file(node, target, new_parent, new_name, exclusive=bool(flags & RENAME_NOREPLACE))

    def _check_replaceable(self, node: Node, target: Node) -> None:
        if node.is_directory and not target.is_directory:
            raise NotADirectory(f"{shown(target.name)} is a file and cannot be replaced by a directory")
        if target.is_directory and not node.is_directory:
            raise IsADirectory(f"{shown(target.name)} is a directory and cannot be replaced by a file")
        if target.is_directory:
            require_empty(self._store, self._namespace, target)

    def _move_file(self, node: Node, target: Node | None, parent: Node, name: bytes, *, exclusive: bool) -> None:
        with self._files.turn(node):
            self._files.complete(node)
            old_key = self._table.key(node)
            new_key = object_key(self._table.prefix, join(self._table.path(parent), name))
            before = node.facts
            with ExitStack() as replaced:
                if target is not None:
                    replaced.enter_context(self._files.turn(target))
                    replaced.enter_context(self._drafts.losing_name(target))
                try:
                    after = self._copy_file(node, old_key, new_key, exclusive=exclusive)
                except ObjectExists as error:
                    self._namespace.knowledge.forget_absence(parent, name)
                    raise EntryExists(f"{shown(name)} exists") from error
            if node.parent is not None:
                self._namespace.ensure_marker(node.parent)
            self._store.delete(old_key)
            with self._table.lock:
                self._namespace.knowledge.moved(node, parent, name)
                self._follow(node, before, after)

    def _copy_file(self, node: Node, old_key: ObjectKey, new_key: ObjectKey, *, exclusive: bool) -> Facts:
        """Copy the current version; if it is not the one we knew, whatever is there now. `exclusive`: raises
        ObjectExists if somebody else has made the new name, but not for links."""
        facts = node.facts
        for known in (True, False):
            if facts is None or not known:
                try:
                    facts = facts_of(self._store.head(old_key), symlinks=node.kind is FileKind.SYMLINK)
                except ObjectNotFound as error:
                    self._namespace.knowledge.removed(node)
                    raise NoSuchEntry(f"{shown(node.name)} is no longer in the bucket") from error
            if facts.type == SYMLINK_TYPE:  # shown as a link or as the file it leads to
                self._store.put_symlink(new_key, self._store.get_symlink(old_key))
                return renewed(facts)
            try:
                etag = self._copy(old_key, new_key, facts, exclusive=exclusive)
            except (PreconditionFailed, ObjectNotFound):
                if not known:
                    raise
                continue
            return Facts(facts.kind, facts.size, etag, facts.modified, "Normal", facts.storage_class)
        raise AssertionError("unreachable")

    def _copy(self, old_key: ObjectKey, new_key: ObjectKey, facts: Facts, *, exclusive: bool) -> ETag:
        version = facts.version(old_key)
        return self._store.copy(
            old_key, new_key, size=version.size, if_match=version.etag or None, forbid_overwrite=exclusive
        ).etag

    def _follow(self, node: Node, before: Facts | None, after: Facts | None) -> None:
        """Open readers of `node` may go on under its new name, and its times stay. The table lock is held."""
        local = node.local
        if local is not None and before is not None and after is not None:
            local.lineage |= {before.etag}
            if local.times is not None and local.times_of == before.etag:
                self._table.set_times(node, local.times, after.etag)
            if local.target is not None and local.target[0] == before.etag:
                self._table.set_target(node, after.etag, local.target[1])
            local.metadata = None
        self._namespace.knowledge.changed(node, after)

    def _move_directory(self, node: Node, target: Node | None, parent: Node, name: bytes) -> None:
        for below in self._table.descendants(node):
            if below.draft is not None:
                with self._files.turn(below):
                    self._files.complete(below)
        new_prefix = directory_key(self._table.prefix, join(self._table.path(parent), name))
        known = {self._table.key(below): below for below in self._table.descendants(node) if not below.is_directory}
        move = TreeMove(self._store, self._threads(), self._table.key(node), new_prefix, known)
        if not move.copy(keep_marker=target is not None):
            raise NoSuchEntry(f"{shown(node.name)} is no longer in the bucket")
        try:
            if node.parent is not None:
                self._namespace.ensure_marker(node.parent)
            move.delete()
        except OssFuseError:
            self._namespace.knowledge.distrust(node)
            self._namespace.knowledge.forget_absence(parent, name)
            raise
        with self._table.lock:
            self._namespace.knowledge.moved(node, parent, name)
            for key, below in known.items():
                before, moved = below.facts, move.moved.get(key)
                if before is None:
                    continue
                if moved is None or moved.source != before.etag:  # another client's doing
                    self._table.distrust(below)
                    continue
                after = Facts(before.kind, before.size, moved.copy, before.modified, "Normal", before.storage_class)
                self._follow(below, before, renewed(before) if before.type == SYMLINK_TYPE else after)

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(COPIES, thread_name_prefix="rename")
            return self._pool
