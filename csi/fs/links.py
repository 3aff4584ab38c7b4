"""Symbolic links: OSS symlink objects, when the mount has them (without `-ono_symlink`).

The target is stored, and read back, exactly as symlink(2) was given it; the kernel resolves it. The length of a target
is not part of a listing, so it is read when the link is looked up.
"""

from __future__ import annotations

from csi.errors import InvalidOperation, NameTooLong, OperationNotPermitted
from csi.fs.metadata import Facts
from csi.fs.names import check_new, decode, join, object_key, shown
from csi.fs.namespace import Namespace
from csi.fs.nodes import Node
from csi.fs.turns import Gate
from csi.fs.types import FileKind
from csi.oss.store import ObjectStore
from csi.volume.units import ETag

TARGET_MAX = 4095
"""Bytes of a target: PATH_MAX less its NUL."""


class Links:
    def __init__(self, store: ObjectStore, namespace: Namespace, gate: Gate, *, enabled: bool) -> None:
        self._store = store
        self._namespace = namespace
        self._table = namespace.table
        self._gate = gate
        self._enabled = enabled

    def target(self, node: Node) -> bytes:
        """readlink(2). Raises InvalidOperation for anything but a symlink."""
        if node.kind is not FileKind.SYMLINK:
            raise InvalidOperation(f"{shown(node.name)} is not a symbolic link")
        known = self._namespace.shown.symlink_target(node)
        if known is not None:
            return known
        etag = node.facts.etag if node.facts is not None else ETag("")
        target = self._store.get_symlink(self._table.key(node)).encode("utf-8", "surrogateescape")
        self._table.set_target(node, etag, target)
        return target

    def make(self, parent: Node, name: bytes, target: bytes) -> Node:
        """symlink(2). Raises OperationNotPermitted where links are switched off."""
        if not self._enabled:
            raise OperationNotPermitted(
                f"{shown(name)}: symbolic links are switched off", hint="mount without -ono_symlink to have them"
            )
        if not target or b"\0" in target:
            raise InvalidOperation("the target of a symbolic link cannot be empty")
        if len(target) > TARGET_MAX:
            raise NameTooLong(f"the target has {len(target)} bytes", hint=f"targets have at most {TARGET_MAX} bytes")
        with self._gate.change(lambda: join(self._table.path(parent), name)) as path:
            check_new(self._table.prefix, path, name)
            self._namespace.require_absent(parent, name)
            self._store.put_symlink(object_key(self._table.prefix, path), decode(target))
            with self._table.lock:
                node = self._namespace.knowledge.made(parent, name, FileKind.SYMLINK)
                now = float(int(self._namespace.clock()))
                self._namespace.knowledge.changed(node, Facts(FileKind.SYMLINK, len(target), ETag(""), now, "Symlink"))
                self._table.set_target(node, ETag(""), target)
            return node
