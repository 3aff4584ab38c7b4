"""The table of inodes: what the kernel has been told of, as a tree of names.

An inode number is a 63-bit hash of kind and object key, so that another process that serves the same volume gives the
same file the same number; only when two keys collide, or when a renamed or removed file that the kernel still knows
holds the number, is the next free one taken. The mount itself is 1. Paths are not stored but read off the tree, which
makes renaming a directory one step. The table knows nothing of OSS; what is known about an object is carried in
`Node.facts` by `csi/fs/namespace.py`, what is being done to it in `Node.local` by the rest of the room.

Every field of a node that a LOOKUP or GETATTR is answered from is set here and nowhere else, because the kernel
session may be answering those by itself from what was published last (`csi/fs/published.py`): each change retracts it.
`tests/unit/fs/test_published.py` reads the sources for assignments elsewhere.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING

from csi.errors import StaleFile
from csi.fs.names import decode, directory_key, encode, object_key
from csi.fs.nodes import NEVER, LocalState, Node
from csi.fs.published import NothingPublished, Published
from csi.fs.types import ROOT_INODE, FileKind, KnownName
from csi.volume.units import ETag, InodeNumber, ObjectKey, Seconds

if TYPE_CHECKING:
    from csi.data.streams import Reader
    from csi.fs.drafts import Draft
    from csi.fs.handles import OpenHandle
    from csi.fs.metadata import Facts
    from csi.fs.succession import NotedNode, Succession

_MASK = (1 << 63) - 1
_MOST_ABSENT = 20_000


def stable_hash(data: bytes) -> int:
    """63 bits that are the same in every process; never 0 (the start of a directory) nor 1 (the root)."""
    number = int.from_bytes(blake2b(data, digest_size=8).digest(), "big") & _MASK
    return number if number > ROOT_INODE else number + 2


class InodeTable:
    """`lock` guards the table and every field of every node (but not what a node's draft does inside its turn). It is
    taken for moments only, innermost of all, and re-entrant so that callers can combine steps."""

    def __init__(self, prefix: str, published: Published | None = None, succession: Succession | None = None) -> None:
        """`succession` notes what a successor of this process has to know."""
        self.published = published if published is not None else NothingPublished()
        self.succession = succession
        self.lock = threading.RLock()
        self.prefix = prefix
        self.root = Node(ROOT_INODE, FileKind.DIRECTORY, None, b"", lookups=1)
        self._absent: OrderedDict[tuple[InodeNumber, bytes], None] = OrderedDict()  # published absences
        self._nodes: dict[int, Node] = {ROOT_INODE: self.root}
        self._written: set[Node] = set()  # those with a draft
        self.adopt: Callable[[Node, int], bool] = lambda node, opens: True
        """Take over files that the kernel session opened by itself, with the lock held; set by `Handles`."""
        self._watched: tuple[int, Callable[[], None]] | None = None
        self.dropped = 0
        """Inodes so far that nobody needed any more."""

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, inode: int) -> Node:
        """Raises StaleFile for a number that nobody was told."""
        node = self._nodes.get(inode)
        if node is None:
            raise StaleFile(f"inode {inode} is not known", hint="open the path again")
        return node

    def find(self, inode: int) -> Node | None:
        return self._nodes.get(inode)

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

    # --- names ---

    def place(self, directory: Node) -> bytes:
        """What the keys of everything in `directory` begin with."""
        return encode(self.key(directory))

    def number(self, place: bytes, name: bytes, kind: FileKind) -> InodeNumber:
        """The inode number of a name, unless another inode has it."""
        if kind is FileKind.FILE:
            return InodeNumber(stable_hash(b"file:" + place + name))
        return InodeNumber(stable_hash((b"directory:" if kind is FileKind.DIRECTORY else b"symlink:") + place + name))

    def add(self, parent: Node, name: bytes, kind: FileKind, place: bytes | None = None) -> Node:
        """The node of a name that has none yet. `place`: of `parent`, if the caller knows it."""
        with self.lock:
            number = self.number(self.place(parent) if place is None else place, name, kind)
            while number in self._nodes:
                number = InodeNumber((number + 1) & _MASK or ROOT_INODE + 1)
            node = Node(number, kind, parent, name)
            self._nodes[number] = node
            self.retract_absence(parent, name)
            if parent.children is None:
                parent.children = {}
            parent.children[name] = node
            if self.succession is not None and kind is FileKind.DIRECTORY:
                self.succession.told(node)
            if self._watched is not None and len(self._nodes) > self._watched[0]:
                (_, tell), self._watched = self._watched, None
                tell()
            return node

    def watch_growth(self, count: int, tell: Callable[[], None]) -> None:
        """Call `tell`, with the lock held and once, when there are more than `count` inodes."""
        with self.lock:
            self._watched = count, tell

    def least_needed(self, count: int) -> list[KnownName]:
        """Up to `count` of those inodes that nobody but the kernel needs, beginning with the one that it was told of
        first; the next call goes on with others."""
        found: list[KnownName] = []
        with self.lock:
            for node in list(islice(self._nodes.values(), 2 * count)):
                self._nodes[node.inode] = self._nodes.pop(node.inode)
                if node.parent is not None and self._is_only_told(node):
                    found.append(KnownName(node.parent.inode, node.name, node.inode, node.is_directory))
                    if len(found) == count:
                        break
        return found

    def restore(self, noted: NotedNode, parent: Node) -> Node:
        """An inode that the kernel was told of by a predecessor, however often: it forgets all of that at once. OSS is
        asked before anything of it is shown."""
        with self.lock:
            node = Node(noted.inode, noted.kind, parent, noted.name, noted.facts, lookups=1, detached=noted.detached)
            node.local = LocalState(unlinked=noted.unlinked, lineage=frozenset(noted.lineage))
            self._nodes[node.inode] = node
            if not node.detached:
                self._attach(node, parent, node.name)
            return node

    def offer(self, parent: Node, name: bytes, facts: Facts, asked: int, at: float, place: bytes) -> Node:
        """`add` a file that the kernel was not told of; it counts as if it was, until `reclaim` or its last forget."""
        with self.lock:
            node = self.add(parent, name, facts.kind, place)
            node.facts, node.asked, node.checked_at = facts, asked, at
            node.lookups = 1
            return node

    def detach(self, node: Node) -> None:
        """The name is gone; the node stays for as long as the kernel or an open file knows it."""
        with self.lock:
            self._end_plan(node)
            self._retract(node)
            if node.is_directory:  # whatever is known of a name in it, nothing is there
                self.published.retract_names(node.inode)
            self._unhook(node)
            node.detached = True
            self._note(node)
            self.drop_unused(node)

    def move(self, node: Node, parent: Node, name: bytes) -> None:
        """The node gets another name; what had that name must have been detached."""
        with self.lock:
            old = node.parent
            self._end_plan(node)
            self._retract(node)
            self._unhook(node)
            self._attach(node, parent, name)
            self._note(node)
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
                self._end_plan(current)
                self._retract(current)
                current.lookups += self.published.withdraw_inode(current.inode)
                if _is_used(current):
                    return
                if self._nodes.get(current.inode) is current:
                    del self._nodes[current.inode]
                    self.dropped += 1
                    if self.succession is not None:
                        self.succession.gone(current)
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

    def written_in(self, directory: Node) -> list[Node]:
        """What is in `directory` because it is being written, or something below it is."""
        found: dict[Node, None] = {}
        with self.lock:
            for node in self._written:
                current: Node | None = node
                while current is not None and not current.detached:
                    if current.parent is directory:
                        found[current] = None
                        break
                    current = current.parent
        return list(found)

    # --- what is shown of a node ---

    def tell(self, node: Node, facts: Facts | None, asked: int, at: float) -> None:
        """`facts` are what is known of `node` since serial `asked` and time `at` (NEVER: OSS is asked before they are
        shown)."""
        with self.lock:
            is_other = facts is not node.facts
            if at == NEVER or is_other:
                self._end_plan(node)
            node.facts, node.asked, node.checked_at = facts, asked, at
            self._retract(node)
            if is_other:
                self._note(node)

    def renew(self, node: Node, asked: int, at: float) -> None:
        """What is known of `node` was told again: all that is published of it goes on to be true."""
        with self.lock:
            node.asked, node.checked_at = asked, at

    def replace_facts(self, node: Node, facts: Facts | None) -> None:
        with self.lock:
            self._end_plan(node)
            node.facts = facts
            self._retract(node)
            self._note(node)

    def distrust(self, node: Node) -> None:
        """Ask OSS before anything of `node` is shown again."""
        with self.lock:
            self._end_plan(node)
            node.checked_at = NEVER
            self._retract(node)

    def refuse_pages(self, node: Node) -> None:
        """A write was refused. If it was pages of a mapping, the kernel goes on showing them until an open drops them,
        which only one that comes here does."""
        with self.lock:
            self._end_plan(node)
            self.local(node).refused = True

    def set_draft(self, node: Node, draft: Draft | None) -> None:
        """`node` is being written, or no longer. What is being written changes without notice: nothing is said of it
        that could be outdated."""
        with self.lock:
            self._end_plan(node)
            self.local(node).draft = draft
            if draft is not None:
                self._written.add(node)
            else:
                self._written.discard(node)
            self._retract(node)
            self._note(node)

    def set_times(self, node: Node, times: tuple[int | None, int | None] | None, of: ETag | None = None) -> None:
        """utimensat(2): modification and access time in nanoseconds, shown for as long as the version is `of`."""
        with self.lock:
            if times is None and node.local is None:
                return
            local = self.local(node)
            local.times, local.times_of = times, of
            self._retract(node)

    def set_target(self, node: Node, of: ETag, target: bytes) -> None:
        """Where a symlink leads while its version is `of`."""
        with self.lock:
            self.local(node).target = (of, target)
            self._retract(node)

    def touch(self, directory: Node, now_ns: int) -> None:
        """A name in `directory` was made or removed here."""
        with self.lock:
            local = self.local(directory)
            local.changed_ns, local.times = now_ns, None
            self._retract(directory)

    # --- what the kernel session may say by itself ---

    def publish_absence(self, parent: Node, name: bytes, believed: Seconds) -> None:
        """LOOKUP of `name` may be told for `believed` seconds that it is not there."""
        with self.lock:
            if believed > 0 and self.published.publish_absence(parent.inode, name, believed=believed, told=believed):
                self._absent[parent.inode, name] = None
                if len(self._absent) > _MOST_ABSENT:
                    self.published.retract_name(*self._absent.popitem(last=False)[0])

    def retract_absence(self, parent: Node, name: bytes) -> None:
        """`name` is being made, or may be there."""
        with self.lock:
            if self._absent and (parent.inode, name) in self._absent:
                del self._absent[parent.inode, name]
                self.published.retract_name(parent.inode, name)

    def show(self, handle: OpenHandle, reader: Reader, content: int) -> bool:
        """READ of `handle` may be answered from the published blocks of `content`, which are those of `reader`, until
        anything is learned of its node. False: it may not, or there is no room."""
        node = handle.node
        with self.lock:
            if handle.reader is not reader or handle.shown or handle.writable or node.draft is not None:
                return handle.shown
            if node.facts is not handle.facts or not self.published.publish_file(
                handle.id, content, reader.version.size
            ):
                return False
            local = self.local(node)
            if local.shown is None:
                local.shown = []
            local.shown.append(handle)
            handle.shown = True
            return True

    def scatter(self, handle: OpenHandle, reader: Reader) -> None:
        """READs of `handle`, which `reader` is shown for, may be requests of the kernel session, or not any more."""
        with self.lock:
            if not handle.shown or handle.reader is not reader or handle.scattered == reader.scattered:
                return
            handle.scattered = reader.scattered
            version = reader.version
            if not handle.scattered:
                self.published.retract_version(handle.id)
            elif version.etag:
                self.published.publish_version(handle.id, encode(version.key), version.etag)

    def conceal(self, handle: OpenHandle) -> None:
        """READs of `handle` come here again."""
        with self.lock:
            if handle.shown:
                handle.shown = handle.scattered = False
                self.published.withdraw_file(handle.id)
                local = handle.node.local
                if local is not None and local.shown is not None:
                    local.shown.remove(handle)

    def note_published(self, node: Node, *, planned: bool) -> None:
        """The kernel session was given what is known of `node`; `planned`: and may open it."""
        node.published = True
        node.planned = node.planned or planned

    def take_over(self, inode: int) -> None:
        """What the kernel session opened of `inode` by itself is known here from now on."""
        with self.lock:
            node = self._nodes.get(inode)
            if node is not None:
                self._end_plan(node)

    def reclaim(self, node: Node) -> None:
        """Take back the inode of a name that was offered (`csi/fs/offers.py`), unless the kernel has come for it."""
        with self.lock:
            if self._nodes.get(node.inode) is not node:
                return
            if node.lookups > 1:  # the kernel was told of it here too, and may have it open by its plan
                self._end_plan(node)
            if self.published.reclaim_inode(node.inode):
                node.published = node.planned = False
                self.forget(node.inode, 1)

    def retract_all(self) -> None:
        """More has changed than single nodes."""
        with self.lock:
            self.published.retract_all()
            self._absent.clear()
            for node in self._nodes.values():
                node.published = False

    # --- private; the lock is held ---

    def _is_only_told(self, node: Node) -> bool:
        """Whether `node` would go if the kernel forgot it."""
        if node.detached or _is_used_here(node):
            return False
        return not (node.planned and self.published.count_opens(node.inode))

    def _note(self, node: Node) -> None:
        """Of `node` something is different that a successor has to know."""
        if self.succession is not None:
            self.succession.changed(node)

    def _end_plan(self, node: Node) -> None:
        """Something else will be known of `node`, or is: files open by what was known are opened here from now on."""
        if node.planned:
            node.planned = False
            left = self.published.withdraw_plan(node.inode)
            if left is not None and left.opened and node.facts is not None:
                self.local(node).opened = node.facts.etag
            noted = left is None or not left.opens or self.adopt(node, left.opens)
            if left is not None and left.slot >= 0 and noted:
                self.published.forget_noted(left.slot, left.opens)

    def _retract(self, node: Node) -> None:
        if node.local is not None and node.local.shown:
            for handle in list(node.local.shown):
                self.conceal(handle)
        if node.published:
            node.published = False
            self.published.retract_inode(node.inode)
            if node.parent is not None:
                self.published.retract_name(node.parent.inode, node.name)

    def _attach(self, node: Node, parent: Node, name: bytes) -> None:
        self.retract_absence(parent, name)
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
    return node.lookups > 0 or _is_used_here(node)


def _is_used_here(node: Node) -> bool:
    """By an open file or a child."""
    if node.children:
        return True
    return node.local is not None and (node.local.handles > 0 or node.local.draft is not None)
