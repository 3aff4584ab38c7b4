"""A successor of a process that was killed knows its inodes and open files: what is noted of them, and how it is read.

Who goes on with a kernel session (`resume` of `csi/fuse/own/session.py`) is asked about numbers that its predecessor
gave out. Most need no memory: numbers of inodes and positions in directories are hashes, and a path that is walked is
looked up again. Noted are the inodes that a program can go on with without a path, under the number that the kernel
has: every directory (a working directory, or what a descriptor is relative to) and every open file; and what each
handle is bound to. Inodes are noted by parent and name, so that a rename changes one record. A record is in the journal
before the reply that tells the kernel of it. (`takeover.md`, "State the successor needs", 4 to 6.)

What is not kept: bytes that were written and not yet an object. A file that had some is what it was before; who wrote
them is told so (EIO) by every later write, fsync and close. Through other handles that were open for writing nothing is
lost, but nothing more is written either: the program behind them is not known any more, and if it were killed half a
file would be taken for a whole one. A handle whose open was not answered is open for ever, which costs its memory. The
kernel looks a path up again only once: an open(2) that meets two deaths may end with ESTALE. So may a read of a file
that is being made in append mode and was never closed.

What the kernel session opens by itself it notes by itself (`csi/fs/light_opens.py`); where it does not, it opens
nothing. The journal's descriptor is kept by who keeps that of the session (`csi/handover/inheritance.py`) and passed to
one server of the mount after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from csi.errors import FilesystemError
from csi.fs.light_opens import LightOpen, slots_in
from csi.fs.metadata import DIRECTORY, Facts
from csi.fs.names import decode, encode, shown
from csi.fs.published import LIGHT, Published
from csi.fs.types import ROOT_INODE, FileKind
from csi.volume.units import Bytes, ETag, FileHandle, InodeNumber

if TYPE_CHECKING:
    from csi.fs.handles import Handles, OpenHandle
    from csi.fs.inodes import InodeTable
    from csi.fs.journal import Journal
    from csi.fs.nodes import Node
    from csi.fs.opendirs import OpenDirectories

_log = logging.getLogger(__name__)

_PLACES = 1 << 22
_HANDLES_OF_ONE = 1 << 40
_FOR_DIRECTORIES = 0.5
"""Of the journal; the rest is for what is open."""


class NotedNode(NamedTuple):
    """`unlinked`: it was removed by this mount, not only replaced. `writer`: the handle that has bytes of it which are
    no object yet, 0 if none has. `lineage`: see `LocalState`. A file without `facts` never was an object."""

    inode: InodeNumber
    parent: InodeNumber
    name: bytes
    kind: FileKind
    detached: bool
    unlinked: bool
    writer: FileHandle
    lineage: Sequence[ETag]
    facts: Facts | None


class NotedHandle(NamedTuple):
    """`facts` are those of the version it reads; None: whatever is current, or it is a directory. `lost`: something
    that was written through it will never be an object. `opens`: how often it will be released."""

    handle: FileHandle
    inode: InodeNumber
    readable: bool
    writable: bool
    appends: bool
    lost: bool
    opens: int
    facts: Facts | None


class Succession:
    """Called under `InodeTable.lock`."""

    def __init__(self, journal: Journal, published: Published) -> None:
        self._journal = journal
        self._full = False
        self.lights = self._lights_left()
        """Opens that the predecessor's session answered by itself."""
        noted = [self._note_light(light) for light in self.lights]
        if noted and all(noted):
            journal.clear_tail()
        self.notes_opens = bool(journal.tail[-1]) and all(noted) and published.note_opens(*journal.tail)
        """Whether the kernel session notes what it opens by itself."""
        self.first = journal.place % _PLACES * _HANDLES_OF_ONE
        """Numbers of handles begin after it: none of a predecessor is given out again, not even a released one, whose
        RELEASE may come once more."""

    # --- what becomes of inodes ---

    def told(self, node: Node) -> None:
        """The kernel is going to be told of a directory. Most are never needed: who walks a path looks it up again."""
        if self._journal.filled < _FOR_DIRECTORIES:
            self._note(node)

    def changed(self, node: Node) -> None:
        """Something that is noted of `node`, if it is noted at all, is different."""
        if self._is_noted(node):
            self._note_way(node)
            self._note(node)

    def gone(self, node: Node) -> None:
        self._journal.drop(_of_node(node.inode))

    # --- what becomes of handles ---

    def opened(self, number: FileHandle, node: Node, handle: OpenHandle | None = None) -> bool:
        """`number` is going to be given out, or is bound to something else; `handle`: of a file. False: there is no
        room to note it."""
        self._note_way(node)
        if not self._is_noted(node):
            self._note(node)
        values: Sequence[object] = (True, False, False, False, 1, None)
        if handle is not None:
            lost = handle.failed is not None
            values = (handle.readable, handle.writable, handle.appends, lost, handle.opens, _encoded(handle.facts))
        key = f"handle {number}"
        if not self._is_noted(node):
            self._journal.drop(key)
            return False
        return self._keep(key, (node.inode, *values))

    def closed(self, number: FileHandle, node: Node) -> None:
        """`number` is released. A file that nobody has open is found by its path."""
        self._journal.drop(f"handle {number}")
        if number & LIGHT:
            self._journal.drop(_of_light(node.inode))
        if not node.is_directory and not (node.local is not None and node.local.handles):
            self.gone(node)

    # --- what a predecessor noted ---

    def left(self) -> tuple[dict[InodeNumber, NotedNode], list[NotedHandle]]:
        nodes: dict[InodeNumber, NotedNode] = {}
        handles: list[NotedHandle] = []
        for key, values in self._journal.left():
            what, _, number = key.partition(" ")
            *others, facts = values
            if what == "node":
                parent, name, kind, *rest = others
                inode = InodeNumber(int(number))
                nodes[inode] = NotedNode._make(
                    (inode, parent, encode(name), FileKind(kind), *rest, _decoded(facts)),
                )
            elif what == "handle":
                handles.append(NotedHandle._make((FileHandle(int(number)), *others, _decoded(facts))))
        return nodes, handles

    def forget(self, number: FileHandle) -> None:
        """It is nobody's."""
        self._journal.drop(f"handle {number}")

    def took_over(self, light: LightOpen) -> None:
        """It is noted as a handle, or there is none."""
        self._journal.drop(_of_light(light.inode))

    # --- private ---

    def _lights_left(self) -> list[LightOpen]:
        """Of the tail, and of a predecessor that ended while it went on with them."""
        found: dict[InodeNumber, LightOpen] = {}
        for light in slots_in(self._journal.read_tail()):
            before = found.get(light.inode)
            found[light.inode] = light._replace(opens=light.opens + (before.opens if before is not None else 0))
        for key, values in self._journal.left():
            what, _, number = key.partition(" ")
            if what == "light":
                opens, name, etag, size = values
                inode = InodeNumber(int(number))
                before = found.get(inode)
                if before is None or before.opens < opens:
                    found[inode] = LightOpen(inode, opens, encode(name), ETag(etag), Bytes(size))
        return list(found.values())

    def _note_light(self, light: LightOpen) -> bool:
        values = (light.opens, decode(light.key), light.etag, light.size)
        return self._keep(_of_light(light.inode), values)

    def _is_noted(self, node: Node) -> bool:
        return node.parent is None or self._journal.has(_of_node(node.inode))

    def _note_way(self, node: Node) -> None:
        """Directories that were not noted when the kernel was told of them are, when something is open in them."""
        while not node.detached and node.parent is not None:
            node = node.parent
            if not self._is_noted(node):
                self._note(node)

    def _note(self, node: Node) -> None:
        if node.parent is None:
            return
        draft, local = node.draft, node.local
        values = (
            node.parent.inode,
            decode(node.name),
            node.kind.value,
            node.detached,
            local is not None and local.unlinked,
            draft.owner if draft is not None else 0,
            sorted(local.lineage) if local is not None else (),
            _encoded(node.facts),
        )
        self._keep(_of_node(node.inode), values)

    def _keep(self, key: str, values: Sequence[object]) -> bool:
        noted = self._journal.note(key, values)
        if not noted and not self._full:
            self._full = True
            _log.warning(
                "more is known than there is room to note: should this process be killed, programs may get ESTALE or "
                "EBADF for what they opened last"
            )
        return noted


def restore(succession: Succession, table: InodeTable, handles: Handles, directories: OpenDirectories) -> None:
    """Have the inodes and handles of a predecessor, before the first request comes."""
    nodes, opened = succession.left()
    found: dict[InodeNumber, Node] = {ROOT_INODE: table.root}
    for inode in nodes:
        _restore_way(inode, nodes, found, table)
    for noted in opened:
        node = found.get(noted.inode)
        if node is None:
            _log.error("the open file %d cannot be restored: its inode was not noted", noted.handle)
            succession.forget(noted.handle)
        elif node.is_directory:
            directories.restore(noted.handle, node)
        else:
            handles.restore(noted, node, _lost(noted, nodes[noted.inode], table.path(node)))
    known = {noted.handle for noted in opened}
    lights = succession.lights
    for light in lights:
        if FileHandle(LIGHT | light.inode) in known or _restore_light(light, found, table, handles):
            succession.took_over(light)
    with table.lock:
        for node in found.values():
            succession.changed(node)
    if nodes or opened or lights:
        _log.info("went on with %d open files and directories of the process before", len(opened) + len(lights))


def _restore_light(light: LightOpen, found: dict[InodeNumber, Node], table: InodeTable, handles: Handles) -> bool:
    """A file that was open by its key alone. Directories on its way have the numbers that they had. False: there is no
    room to note it as a handle."""
    path = decode(light.key).removeprefix(table.prefix)
    *way, name = (encode(part) for part in path.split("/"))
    facts = Facts(FileKind.FILE, light.size, light.etag, type="Normal")
    node = found.get(light.inode)
    if node is None:
        parent: Node | None = table.root
        for part in way:
            inside = table.child(parent, part) if parent is not None else None
            if parent is not None and inside is None:
                inside = table.add(parent, part, FileKind.DIRECTORY)
            parent = inside if inside is not None and inside.is_directory else None
        nowhere = parent is None or table.child(parent, name) is not None
        above = parent if parent is not None else table.root
        noted = NotedNode(light.inode, above.inode, name, FileKind.FILE, nowhere, nowhere, FileHandle(0), (), facts)
        node = found[light.inode] = table.restore(noted, above)
    handle = FileHandle(LIGHT | light.inode)
    return handles.restore(NotedHandle(handle, light.inode, True, False, False, False, light.opens, facts), node, None)


def _restore_way(
    inode: InodeNumber, noted: dict[InodeNumber, NotedNode], found: dict[InodeNumber, Node], table: InodeTable
) -> None:
    """`inode`, after the directories it is in."""
    way: list[NotedNode] = []
    while inode not in found and inode in noted:
        way.append(noted[inode])
        inode = way[-1].parent
    for each in reversed(way):
        parent = found.get(each.parent)
        facts = DIRECTORY if each.kind is FileKind.DIRECTORY else each.facts
        nowhere = parent is None or facts is None
        node = each._replace(facts=facts, detached=each.detached or nowhere, unlinked=each.unlinked or nowhere)
        found[each.inode] = table.restore(node, parent or table.root)


def _lost(handle: NotedHandle, node: NotedNode, path: str) -> FilesystemError | None:
    """Why what was written through `handle` will never be an object; None if there was nothing."""
    wrote = node.writer != 0 and handle.writable and (handle.handle == node.writer or handle.appends)
    if not (wrote or handle.lost):
        return None
    error = FilesystemError(
        f"{shown(encode(path))} was not written: the process that served the mount ended, and what was written and "
        "neither synced nor closed ended with it",
        hint="write the file again",
    )
    _log.error("%s", error)
    return error


def _of_node(inode: InodeNumber) -> str:
    return f"node {inode}"


def _of_light(inode: InodeNumber) -> str:
    return f"light {inode}"


def _encoded(facts: Facts | None) -> Sequence[object] | None:
    return None if facts is None else (facts.kind.value, *facts[1:])


def _decoded(values: Sequence[Any] | None) -> Facts | None:
    if values is None:
        return None
    kind, size, etag, modified, of_type, storage_class = values
    return Facts(FileKind(kind), size, ETag(etag), modified, of_type, storage_class)
