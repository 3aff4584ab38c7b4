"""The table of inodes: what the kernel has been told of, as a tree of names.

An inode number is a 63-bit hash of kind and object key, so that another process that serves the same volume gives the
same file the same number; only when two keys collide, or when a renamed or removed file that the kernel still knows
holds the number, is the next free one taken. The mount itself is 1. Paths are not stored but read off the tree, which
makes renaming a directory one step. The table knows nothing of OSS; what is known about an object is carried in
`Node.facts` by `csi/fs/namespace.py`, what is being done to it in `Node.local` by the rest of the room.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csi.errors import StaleFile
from csi.fs.names import decode, directory_key, join, object_key
from csi.fs.turns import Turn
from csi.fs.types import ROOT_INODE, FileKind
from csi.oss.store import ObjectMetadata
from csi.volume.units import ETag, InodeNumber, ObjectKey

if TYPE_CHECKING:
    from csi.fs.drafts import Draft
    from csi.fs.metadata import Facts

NEVER = float("-inf")
_MASK = (1 << 63) - 1


def stable_hash(data: bytes) -> int:
    """63 bits that are the same in every process; never 0 (the start of a directory) nor 1 (the root)."""
    number = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") & _MASK
    return number if number > ROOT_INODE else number + 2


@dataclass(slots=True)
class LocalState:
    """What this mount is doing with a node; most nodes have none.

    `handles` counts open files, `draft` is the version being written, `lineage` holds the ETags of versions that the
    current one has as its beginning (an open reader of one of them may go on with the current one), `opened` is the
    ETag that was last opened, `refused` says that since then the kernel was refused pages which it may still show,
    `times` are utimensat's until another version is found. Of directories: when (nanoseconds) and at which serial this
    mount last changed a name in it.
    """

    turn: Turn = field(default_factory=Turn)
    handles: int = 0
    draft: Draft | None = None
    unlinked: bool = False
    lineage: frozenset[ETag] = frozenset()
    opened: ETag | None = None
    refused: bool = False
    times: tuple[int | None, int | None] | None = None
    times_of: ETag | None = None
    metadata: ObjectMetadata | None = None
    target: tuple[ETag, bytes] | None = None
    has_marker: bool = False
    changed_ns: int = 0
    changed: int = 0


@dataclass(slots=True, eq=False)
class Node:
    """One inode. `asked` orders what is known about it: the serial of the request that told it, or of our own change.

    `detached`: its name is gone (or belongs to another inode); open files go on.
    """

    inode: InodeNumber
    kind: FileKind
    parent: Node | None
    name: bytes
    facts: Facts | None = None
    asked: int = 0
    checked_at: float = NEVER
    lookups: int = 0
    ticket: bool = False
    detached: bool = False
    children: dict[bytes, Node] | None = None
    local: LocalState | None = None

    @property
    def draft(self) -> Draft | None:
        return self.local.draft if self.local is not None else None

    @property
    def is_directory(self) -> bool:
        return self.kind is FileKind.DIRECTORY


class InodeTable:
    """`lock` guards the table and every field of every node (but not what a node's draft does inside its turn). It is
    taken for moments only, innermost of all, and re-entrant so that callers can combine steps."""

    def __init__(self, prefix: str) -> None:
        self.lock = threading.RLock()
        self.prefix = prefix
        self.root = Node(ROOT_INODE, FileKind.DIRECTORY, None, b"", lookups=1)
        self._nodes: dict[int, Node] = {ROOT_INODE: self.root}

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, inode: int) -> Node:
        """Raises StaleFile for a number that nobody was told."""
        node = self._nodes.get(inode)
        if node is None:
            raise StaleFile(f"inode {inode} is not known", hint="open the path again")
        return node

    def nodes(self) -> list[Node]:
        with self.lock:
            return list(self._nodes.values())

    def path(self, node: Node) -> str:
        """'a/b' for the file b in the directory a; '' for the root."""
        with self.lock:
            names = []
            while node.parent is not None:
                names.append(node.name)
                node = node.parent
        return decode(b"/".join(reversed(names)))

    def key(self, node: Node) -> ObjectKey:
        """The object key of a file; a directory's ends with a slash (or is the volume's prefix)."""
        path = self.path(node)
        return directory_key(self.prefix, path) if node.is_directory else object_key(self.prefix, path)

    def local(self, node: Node) -> LocalState:
        with self.lock:
            if node.local is None:
                node.local = LocalState()
            return node.local

    def child(self, parent: Node, name: bytes) -> Node | None:
        with self.lock:
            return parent.children.get(name) if parent.children else None

    def add(self, parent: Node, name: bytes, kind: FileKind) -> Node:
        """The node of a name that has none yet."""
        with self.lock:
            node = Node(self._number(parent, name, kind), kind, parent, name)
            self._nodes[node.inode] = node
            self._attach(node, parent, name)
            return node

    def detach(self, node: Node) -> None:
        """The name is gone; the node stays for as long as the kernel or an open file knows it."""
        with self.lock:
            self._unhook(node)
            node.detached = True
            self.drop_unused(node)

    def move(self, node: Node, parent: Node, name: bytes) -> None:
        """The node gets another name; what had that name must have been detached."""
        with self.lock:
            old = node.parent
            self._unhook(node)
            self._attach(node, parent, name)
            if old is not None:
                self.drop_unused(old)

    def forget(self, inode: int, count: int) -> None:
        """The kernel lets go of `count` of the times it was told `inode`."""
        with self.lock:
            node = self._nodes.get(inode)
            if node is not None and node is not self.root:
                node.lookups = max(0, node.lookups - count)
                self.drop_unused(node)

    def drop_unused(self, node: Node) -> None:
        """Take out `node`, and then its parents, if neither the kernel, an open file nor a child needs it."""
        with self.lock:
            current: Node | None = node
            while current is not None and current is not self.root and not _is_used(current):
                if self._nodes.get(current.inode) is current:
                    del self._nodes[current.inode]
                self._unhook(current)
                current = current.parent

    def descendants(self, node: Node) -> list[Node]:
        """Every known node below `node`."""
        found: list[Node] = []
        with self.lock:
            pending = list((node.children or {}).values())
            while pending:
                current = pending.pop()
                found.append(current)
                pending.extend((current.children or {}).values())
        return found

    # --- private; the lock is held ---

    def _number(self, parent: Node, name: bytes, kind: FileKind) -> InodeNumber:
        key = self.prefix + join(self.path(parent), name)
        number = stable_hash(f"{kind.value}:{key}".encode("utf-8", "surrogateescape"))
        while number in self._nodes:
            number = (number + 1) & _MASK or ROOT_INODE + 1
        return InodeNumber(number)

    def _attach(self, node: Node, parent: Node, name: bytes) -> None:
        node.parent, node.name, node.detached = parent, name, False
        if parent.children is None:
            parent.children = {}
        parent.children[name] = node

    def _unhook(self, node: Node) -> None:
        parent = node.parent
        if parent is not None and parent.children and parent.children.get(node.name) is node:
            del parent.children[node.name]
            if not parent.children:
                parent.children = None


def _is_used(node: Node) -> bool:
    if node.lookups or node.children:
        return True
    return node.local is not None and (node.local.handles > 0 or node.local.draft is not None)
