"""One inode, and what this mount is doing with it.

Plain state: `csi/fs/inodes.py` has the table of nodes and is the only place that changes what the kernel is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csi.fs.turns import Turn
from csi.fs.types import FileKind
from csi.oss.store import ObjectMetadata
from csi.volume.units import ETag, InodeNumber

if TYPE_CHECKING:
    from csi.fs.drafts import Draft
    from csi.fs.handles import OpenHandle
    from csi.fs.metadata import Facts
    from csi.fs.nameless import Kept

NEVER = float("-inf")


@dataclass(slots=True)
class LocalState:
    """What this mount is doing with a node; most nodes have none.

    `handles` counts open files, `writers` those that began a version and were not closed since, `draft` is the
    version being written, `nameless` what is written of a file without a name, `lineage` holds the ETags of
    versions that the current one has as its beginning (an open reader of one of them may go on with the current
    one), `opened` is the ETag that was last opened, `refused` says that since then the kernel was refused pages
    which it may still show, `times` are utimensat's until another version is found, `shown` are open files whose
    reads the kernel session may answer by itself. Of directories: when (nanoseconds) and at which serial this mount
    last changed a name in it.
    """

    turn: Turn = field(default_factory=Turn)
    handles: int = 0
    writers: int = 0
    draft: Draft | None = None
    nameless: Kept | None = None
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
    shown: list[OpenHandle] | None = None


@dataclass(slots=True, eq=False)
class Node:
    """One inode. `asked` orders what is known about it: the serial of the request that told it, or of our own change.

    `detached`: its name is gone (or belongs to another inode); open files go on. `published`: the kernel session may be
    answering for it by itself, and has to be told of every change (`InodeTable`). `planned`: it may also open it.
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
    published: bool = False
    planned: bool = False
    children: dict[bytes, Node] | None = None
    local: LocalState | None = None

    @property
    def draft(self) -> Draft | None:
        return self.local.draft if self.local is not None else None

    @property
    def nameless(self) -> Kept | None:
        return self.local.nameless if self.local is not None else None

    @property
    def is_directory(self) -> bool:
        return self.kind is FileKind.DIRECTORY
