"""rename(2) in a store that has none: copy inside OSS, then delete.

A file is copied on the condition that it is still the version we know, then its old name is deleted; a reader of the
new name sees the old object there or the new one, whole. A directory is every key that starts with its name, those that
cannot be shown included: all are copied first, a few at a time, and only when every copy is there are the sources
deleted; if a copy fails the copies made so far are removed again and the error names the key. Neither is atomic for
other clients. What is being written to below the old name becomes an object first, and goes on under the new name.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack

from csi.errors import (
    EntryExists,
    InvalidOperation,
    IsADirectory,
    NameTooLong,
    NoSuchEntry,
    NotADirectory,
    ObjectNotFound,
    OssFuseError,
    PreconditionFailed,
    ServerFailure,
)
from csi.fs.drafts import Drafts
from csi.fs.files import Files
from csi.fs.metadata import SYMLINK_TYPE, Facts, facts_of, renewed
from csi.fs.names import KEY_MAX, check_new, directory_key, encode, is_inside, join, object_key, shown
from csi.fs.namespace import Namespace
from csi.fs.nodes import Node
from csi.fs.tree import require_empty
from csi.fs.turns import Gate
from csi.fs.types import FileKind
from csi.oss.store import ListedObject, ObjectStore
from csi.volume.units import ETag, ObjectKey

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
"""renameat2(2)."""

_COPIES = 16
_BATCH = 1000

_log = logging.getLogger(__name__)


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
                self._move_file(node, target, new_parent, new_name)

    def _check_replaceable(self, node: Node, target: Node) -> None:
        if node.is_directory and not target.is_directory:
            raise NotADirectory(f"{shown(target.name)} is a file and cannot be replaced by a directory")
        if target.is_directory and not node.is_directory:
            raise IsADirectory(f"{shown(target.name)} is a directory and cannot be replaced by a file")
        if target.is_directory:
            require_empty(self._store, self._namespace, target)

    def _move_file(self, node: Node, target: Node | None, parent: Node, name: bytes) -> None:
        with self._files.turn(node):
            self._files.complete(node)
            old_key = self._table.key(node)
            new_key = object_key(self._table.prefix, join(self._table.path(parent), name))
            before = node.facts
            with ExitStack() as replaced:
                if target is not None:
                    replaced.enter_context(self._files.turn(target))
                    replaced.enter_context(self._drafts.losing_name(target))
                after = self._copy_file(node, old_key, new_key)
            if node.parent is not None:
                self._namespace.ensure_marker(node.parent)
            self._store.delete(old_key)
            with self._table.lock:
                self._namespace.knowledge.moved(node, parent, name)
                self._follow(node, before, after)

    def _copy_file(self, node: Node, old_key: ObjectKey, new_key: ObjectKey) -> Facts:
        """Copy the current version; if it is not the one we knew, whatever is there now."""
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
                etag = self._copy(old_key, new_key, facts)
            except (PreconditionFailed, ObjectNotFound):
                if not known:
                    raise
                continue
            return Facts(facts.kind, facts.size, etag, facts.modified, "Normal", facts.storage_class)
        raise AssertionError("unreachable")

    def _copy(self, old_key: ObjectKey, new_key: ObjectKey, facts: Facts) -> ETag:
        version = facts.version(old_key)
        return self._store.copy(old_key, new_key, size=version.size, if_match=version.etag or None).etag

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
        old_prefix = self._table.key(node)
        new_prefix = directory_key(self._table.prefix, join(self._table.path(parent), name))
        known = {self._table.key(below): below for below in self._table.descendants(node) if not below.is_directory}
        moved: dict[str, ETag] = {}
        sources = self._copy_all(old_prefix, new_prefix, known, moved, keep_marker=target is not None)
        if not sources:
            raise NoSuchEntry(f"{shown(node.name)} is no longer in the bucket")
        try:
            if node.parent is not None:
                self._namespace.ensure_marker(node.parent)
            self._delete_all(sources)
        except OssFuseError:
            self._namespace.knowledge.distrust(node)
            self._namespace.knowledge.forget_absence(parent, name)
            raise
        with self._table.lock:
            self._namespace.knowledge.moved(node, parent, name)
            for key, below in known.items():
                before = below.facts
                etag = moved.get(key)
                if before is not None and etag is not None:
                    after = Facts(before.kind, before.size, etag, before.modified, "Normal", before.storage_class)
                    self._follow(below, before, renewed(before) if before.type == SYMLINK_TYPE else after)

    def _copy_all(
        self,
        old_prefix: ObjectKey,
        new_prefix: ObjectKey,
        known: Container[str],
        moved: dict[str, ETag],
        *,
        keep_marker: bool,
    ) -> list[ObjectKey]:
        """Copy everything under `old_prefix`; returns what was copied. After a failure no copy is left, except the
        marker of a directory that was there before."""
        sources: list[ObjectKey] = []
        running: dict[Future[ETag], ObjectKey] = {}
        try:
            for found in self._all_below(old_prefix, new_prefix):
                sources.append(found.key)
                new_key = ObjectKey(new_prefix + found.key[len(old_prefix) :])
                running[self._threads().submit(self._copy_listed, found, new_key)] = found.key
                if len(running) >= 2 * _COPIES:
                    self._collect(running, known, moved)
            while running:
                self._collect(running, known, moved)
        except OssFuseError:
            wait(running)
            made = [ObjectKey(new_prefix + key[len(old_prefix) :]) for key in sources]
            self._withdraw([key for key in made if not (keep_marker and key == new_prefix)])
            raise
        return sources

    def _all_below(self, old_prefix: ObjectKey, new_prefix: ObjectKey) -> Iterator[ListedObject]:
        growth = len(encode(new_prefix)) - len(encode(old_prefix))
        for page in self._store.list_all(old_prefix):
            for found in page.objects:
                if len(encode(found.key)) + growth > KEY_MAX:
                    raise NameTooLong(
                        f"{found.key!r} would have a key of more than {KEY_MAX} bytes",
                        hint="move it to a shorter name first",
                    )
                yield found

    def _copy_listed(self, found: ListedObject, new_key: ObjectKey) -> ETag:
        if found.type == SYMLINK_TYPE:
            self._store.put_symlink(new_key, self._store.get_symlink(found.key))
            return found.etag
        return self._copy(found.key, new_key, facts_of(found, symlinks=False))

    def _collect(self, running: dict[Future[ETag], ObjectKey], known: Container[str], moved: dict[str, ETag]) -> None:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            key = running.pop(future)
            etag = future.result()
            if key in known:
                moved[key] = etag

    def _delete_all(self, keys: Sequence[ObjectKey]) -> None:
        for start in range(0, len(keys), _BATCH):
            failures = self._store.delete_many(keys[start : start + _BATCH])
            if failures:
                first = failures[0]
                raise ServerFailure(
                    f"everything was copied, but {len(failures)} old objects could not be deleted, "
                    f"the first is {first.key!r}: {first.message}",
                    code=first.code,
                    operation="DeleteMultipleObjects",
                    key=first.key,
                    hint="both names hold the data now; remove the old one",
                )

    def _withdraw(self, copies: Sequence[ObjectKey]) -> None:
        try:
            self._delete_all(copies)
        except OssFuseError as error:
            _log.warning("copies of a rename that failed are left behind: %s", error)

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_COPIES, thread_name_prefix="rename")
            return self._pool
