"""Making and removing names: directories as marker objects, files as objects.

A directory exists while anything has a key below it. So that one does not vanish with the last file in it, a directory
gets its marker before something in it is removed; and it can be removed only when the marker is all there is, keys that
cannot be shown included.
"""

from __future__ import annotations

from csi.errors import (
    DirectoryNotEmpty,
    EntryExists,
    InvalidOperation,
    IsADirectory,
    NotADirectory,
    ObjectExists,
    StaleFile,
)
from csi.fs.drafts import Drafts
from csi.fs.files import Files
from csi.fs.metadata import DIRECTORY
from csi.fs.names import check_new, directory_key, join, shown
from csi.fs.namespace import Namespace
from csi.fs.nodes import Node
from csi.fs.turns import Gate
from csi.fs.types import FileKind
from csi.oss.store import ObjectStore


class Tree:
    def __init__(self, store: ObjectStore, namespace: Namespace, files: Files, drafts: Drafts, gate: Gate) -> None:
        self._store = store
        self._namespace = namespace
        self._table = namespace.table
        self._files = files
        self._drafts = drafts
        self._gate = gate

    def make_directory(self, directory: Node, name: bytes) -> Node:
        """mkdir(2)."""
        with self._gate.change(lambda: join(self._table.path(directory), name)) as path:
            check_new(self._table.prefix, path, name, directory=True)
            self._namespace.require_absent(directory, name)
            key = directory_key(self._table.prefix, path)
            try:
                self._store.put(key, [], content_type="application/x-directory", forbid_overwrite=True)
            except ObjectExists as error:
                self._namespace.knowledge.forget_absence(directory, name)
                raise EntryExists(f"{shown(name)} exists") from error
            with self._table.lock:
                node = self._namespace.knowledge.made(directory, name, FileKind.DIRECTORY)
                self._namespace.knowledge.changed(node, DIRECTORY, checked=True)
                self._table.local(node).has_marker = True
                return node

    def remove_directory(self, directory: Node, name: bytes) -> None:
        """rmdir(2)."""
        if name == b".":
            raise InvalidOperation("'.' cannot be removed")
        if name == b"..":
            raise DirectoryNotEmpty("'..' is not empty")
        with (
            self._gate.move(join(self._table.path(directory), name)),
            self._namespace.existing(directory, name) as node,
        ):
            if not node.is_directory:
                raise NotADirectory(f"{shown(name)} is not a directory")
            require_empty(self._store, self._namespace, node)
            self._namespace.ensure_marker(directory)
            self._store.delete(self._table.key(node))
            self._namespace.knowledge.removed(node)

    def remove_file(self, directory: Node, name: bytes) -> None:
        """unlink(2)."""
        with (
            self._gate.change(lambda: join(self._table.path(directory), name)),
            self._namespace.existing(directory, name) as node,
        ):
            if node.is_directory:
                raise IsADirectory(f"{shown(name)} is a directory", hint="use rmdir")
            with self._files.turn(node):
                draft = node.draft
                if draft is not None and draft.appendable:  # what it pushes would make the object again
                    self._drafts.fail(draft, StaleFile(f"{shown(name)} was being removed while it was written"))
                with self._drafts.losing_name(node):
                    if node.facts is not None or (draft is not None and draft.appendable):
                        self._namespace.ensure_marker(directory)
                        self._store.delete(self._table.key(node))
                self._namespace.knowledge.removed(node)


def require_empty(store: ObjectStore, namespace: Namespace, directory: Node) -> None:
    """Raises DirectoryNotEmpty unless there is nothing below `directory` but its marker, hidden keys and files being
    written included. A marker with bytes in it is somebody's data, though no mount shows them."""
    key = namespace.table.key(directory)
    page = store.list_page(key, max_keys=2)
    if namespace.table.written_in(directory) or any(found.key != key or found.size for found in page.objects):
        raise DirectoryNotEmpty(f"{shown(directory.name)} is not empty")
