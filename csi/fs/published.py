"""What the filesystem lets a kernel session answer by itself: names, attributes, opens, and blocks of files.

A session that has such tables answers lookups, attributes, opens for reading and reads from them without the
interpreter; everything else comes to the filesystem as ever. Publishing is never needed for correctness and may be
refused (the tables are bounded). What is published must be true until its time is over or it is taken back.

Rules for who publishes:

1. Publish under the lock that guards what is published (`InodeTable.lock` for names and attributes), in the same
   critical section that establishes it, so that nothing older is published after something newer was taken back.
2. Taking back (`retract_*`, `withdraw_*`) is in effect when it returns: no answer from before is sent later. It may
   wait for replies under way (microseconds), with the interpreter's lock released; calling it with `InodeTable.lock`
   held is fine, replies need no lock of the filesystem.
3. The session counts what it told the kernel of by itself. Before an inode is dropped, `withdraw_inode` moves those
   lookups to the filesystem's own count, still under the lock: only an inode whose sum is 0 may go. Before a handle is
   closed, `withdraw_file` does the same for opens.
4. A plan says which version of which object a small file is. The session opens and reads such a file by itself: its
   handles are the bit LIGHT and the inode's number, one for all opens of an inode, so that the filesystem finds the
   inode of one it has never heard of. Before anything else is said of the file's content, `withdraw_plan` takes the
   plan back, and the opens that the kernel has not released: they are the filesystem's from then on, as they were
   before the change. A READ that the session cannot answer comes to the filesystem with the plan still there.
5. An inode that the filesystem publishes without having told the kernel of it is *offered*: the filesystem counts one
   lookup for it, which is forgotten when the kernel has forgotten all it was told, or by `reclaim_inode`.
6. Bytes of a published block must not change. Its buffer is held until `retract_block` or `retract_content`.

Times are seconds from now: `believed` for how long the session may answer from it, `told` for how long the kernel is
told to keep it (both shrink with age by themselves; `told` may be 0 or less, the answer is then kept by nobody).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from csi.fs.types import Attributes
from csi.oss.store import Buffer
from csi.volume.units import MIB, Bytes, FileHandle, InodeNumber, Seconds

LIGHT = 1 << 63
"""In handles that the session gave out by itself."""

LARGEST = Bytes(1 * MIB)
"""Of files that are read by the session: the kernel asks for all of one at once."""


class ListedFile(NamedTuple):
    """A file as a listing tells of it. `offered`: see rule 5; `opened`: this version was opened before."""

    name: bytes
    inode: InodeNumber
    size: Bytes
    mtime_ns: int
    etag: str
    offered: bool
    opened: bool


class FilesShown(NamedTuple):
    """What `ListedFile`s have in common. `keeps`: pages from open to open: 0 never, 1 those of the version that was
    opened before, 2 always. `name_*` are of the name, `opens` says for how long opens may be answered (0: never)."""

    mode: int
    uid: int
    gid: int
    keeps: int
    name_believed: Seconds
    name_told: Seconds
    believed: Seconds
    told: Seconds
    opens: Seconds


class PlanLeft(NamedTuple):
    """Of a plan that was taken back: `opens` not released yet; whether the file was `opened` at all; the `slot` in
    which the opens are noted until `forget_noted`, -1 if in none."""

    opens: int
    opened: bool
    slot: int = -1


@dataclass(frozen=True, slots=True)
class FetchingStatistics:
    """`couriers` there are, `jobs` asked for, under way (`flying`) and `here`; `buffers` are bytes. So far: `gets` and
    the `bytes` they brought, files fetched ahead and left `unread`."""

    couriers: int = 0
    jobs: int = 0
    flying: int = 0
    here: int = 0
    buffers: Bytes = Bytes(0)
    gets: int = 0
    bytes: int = 0
    unread: int = 0


@dataclass(frozen=True, slots=True)
class PublishedStatistics:
    """`lookups` and `opens` are those the session answered by itself and nobody has given back yet. `answered` counts
    requests by kind since the start, `refused` what found no room, `untold` notes of `tell_at` that found none."""

    inodes: int = 0
    names: int = 0
    files: int = 0
    blocks: int = 0
    block_bytes: Bytes = Bytes(0)
    lookups: int = 0
    opens: int = 0
    refused: int = 0
    untold: int = 0
    answered: dict[str, int] = field(default_factory=dict)


class Published(Protocol):
    """Thread-safe. Every method returns at once, those that take back after the replies under way."""

    # --- names and attributes ---

    def publish_inode(self, attributes: Attributes, *, believed: Seconds, told: Seconds, generation: int = 0) -> bool:
        """GETATTR, and LOOKUP of every published name of it, may be answered with this. Replaces what was known."""

    def publish_name(
        self, parent: InodeNumber, name: bytes, inode: InodeNumber, *, believed: Seconds, told: Seconds
    ) -> bool:
        """LOOKUP of `name` in `parent` is `inode`, when that has published attributes."""

    def publish_absence(self, parent: InodeNumber, name: bytes, *, believed: Seconds, told: Seconds) -> bool:
        """LOOKUP of `name` in `parent` finds nothing: ENOENT when `told` is 0, else a negative entry of that age."""

    def retract_inode(self, inode: InodeNumber) -> None:
        """Attributes are not known any more (they will change, are changing, may have changed). Names stay. Opens of
        it by `publish_open` are taken back too."""

    def retract_name(self, parent: InodeNumber, name: bytes) -> None:
        """A name, or its absence, is not known any more: before it is made, removed or renamed."""

    def retract_names(self, parent: InodeNumber) -> None:
        """All names and absences in `parent`."""

    def retract_all(self) -> None:
        """All names, attributes and opens; files and blocks stay."""

    def withdraw_inode(self, inode: InodeNumber) -> int:
        """`retract_inode`, and how often the kernel was told of `inode` without the filesystem: to be added to its
        count, and from now on forgotten through `Filesystem.forget`."""

    def hits(self, parent: InodeNumber) -> int:
        """How many LOOKUPs in `parent` were answered so far; it may begin again at 0."""

    # --- small files ---

    @property
    def fetches(self) -> bool:
        """Whether plans are of any use."""

    def publish_files(
        self, parent: InodeNumber, directory: bytes, files: Sequence[ListedFile], shown: FilesShown
    ) -> int:
        """`publish_inode`, `publish_name` and `publish_plan` of many files of one directory, whose keys begin with
        `directory`: how many of them, from the first on, there was room for."""

    def publish_plan(
        self,
        inode: InodeNumber,
        key: bytes,
        etag: str,
        size: Bytes,
        *,
        keeps: int,
        opened: bool,
        believed: Seconds,
    ) -> bool:
        """OPEN of `inode`, which has published attributes, for reading alone may be answered for `believed` seconds,
        and READ from the object `key`. `opened`: this version was opened before."""

    def open_planned(self, inode: InodeNumber) -> bool:
        """An OPEN that came to the filesystem is one of the session's: LIGHT and the inode's number. False: it cannot
        be, there is no plan."""

    def withdraw_plan(self, inode: InodeNumber) -> PlanLeft | None:
        """See rule 4. None: there was none."""

    def note_opens(self, descriptor: int, offset: int, size: int) -> bool:
        """From now on opens by plans are noted there, in zeros, before they are answered (`csi/fs/light_opens.py`);
        what finds no room is not opened. False: they are not. Called once, before any plan is published."""

    def forget_noted(self, slot: int, opens: int) -> None:
        """The opens of a plan that was taken back are noted elsewhere (both as in `PlanLeft`)."""

    def count_opens(self, inode: InodeNumber) -> int:
        """Opens by the plan of `inode` that are not released."""

    def reclaim_inode(self, inode: InodeNumber) -> bool:
        """True: `inode` is offered, the session has not told the kernel of it, and never will by itself: everything of
        it is taken back. If the filesystem has told the kernel, take back the plan first."""

    def fetch_ahead(self, parent: InodeNumber, names: Sequence[bytes]) -> int:
        """Fetch files that will probably be read soon, if they are published: how many of them, from the first on, were
        looked at before there was too much of it."""

    # --- opens and bytes ---

    def publish_open(self, inode: InodeNumber, handle: FileHandle, *, keep_cache: bool, believed: Seconds) -> bool:
        """OPEN of `inode` for reading alone (no O_TRUNC, O_DIRECT, O_CREAT) is `handle`, which is shared by all who get
        it and has been given to `publish_file`."""

    def retract_open(self, inode: InodeNumber) -> None: ...

    def publish_file(self, handle: FileHandle, content: int, size: Bytes) -> bool:
        """READ of `handle`, opened for reading alone, may be answered from the blocks of `content`; the file ends at
        `size`. `content` is a number of the publisher's for one version of one object."""

    def publish_version(self, handle: FileHandle, key: bytes, etag: str) -> bool:
        """READs of `handle`, which was given to `publish_file`, are scattered: what no block answers may be asked for
        from the object `key`, just those bytes. READs near each other or at equal distances come to the filesystem all
        the same. False: they all do."""

    def retract_version(self, handle: FileHandle) -> None:
        """They are scattered no more; who waits for one already gets it."""

    def withdraw_file(self, handle: FileHandle) -> int:
        """READs of `handle` come to the filesystem again; how many opens of it (`publish_open`) the kernel has not
        released yet: each will be released through `Filesystem.release`. Take back `publish_open` first."""

    def publish_block(self, content: int, start: int, data: Buffer) -> bool:
        """The bytes of `content` from `start`. Blocks of one content do not overlap."""

    def retract_block(self, content: int, start: int) -> None:
        """The memory of that block is not used any more when this returns."""

    def retract_content(self, content: int) -> None:
        """All of its blocks."""

    def tell_at(self, handle: FileHandle, offset: int) -> None:
        """Once a read of `handle` that was answered from blocks reaches beyond `offset`, say so, once, by
        `ReadListener.read_reached` on a thread of the session. Read-ahead goes on without the reader waiting for it."""

    def statistics(self) -> PublishedStatistics: ...


@runtime_checkable
class ReadListener(Protocol):
    """A filesystem that asks for `tell_at` has this."""

    def read_reached(self, handle: FileHandle, offset: int, end: int) -> None:
        """A read of `handle` from `offset` to `end` was answered without the filesystem. Never waits, never raises."""


class NothingPublished:
    """Implements `Published` for sessions that ask the filesystem every time."""

    def publish_inode(self, attributes: Attributes, *, believed: Seconds, told: Seconds, generation: int = 0) -> bool:
        return False

    def publish_name(
        self, parent: InodeNumber, name: bytes, inode: InodeNumber, *, believed: Seconds, told: Seconds
    ) -> bool:
        return False

    def publish_absence(self, parent: InodeNumber, name: bytes, *, believed: Seconds, told: Seconds) -> bool:
        return False

    def retract_inode(self, inode: InodeNumber) -> None:
        """Nothing is there."""

    def retract_name(self, parent: InodeNumber, name: bytes) -> None:
        """Nothing is there."""

    def retract_names(self, parent: InodeNumber) -> None:
        """Nothing is there."""

    def retract_all(self) -> None:
        """Nothing is there."""

    def withdraw_inode(self, inode: InodeNumber) -> int:
        return 0

    def hits(self, parent: InodeNumber) -> int:
        return 0

    @property
    def fetches(self) -> bool:
        return False

    def publish_files(
        self, parent: InodeNumber, directory: bytes, files: Sequence[ListedFile], shown: FilesShown
    ) -> int:
        return 0

    def publish_plan(
        self,
        inode: InodeNumber,
        key: bytes,
        etag: str,
        size: Bytes,
        *,
        keeps: int,
        opened: bool,
        believed: Seconds,
    ) -> bool:
        return False

    def open_planned(self, inode: InodeNumber) -> bool:
        return False

    def withdraw_plan(self, inode: InodeNumber) -> PlanLeft | None:
        return None

    def note_opens(self, descriptor: int, offset: int, size: int) -> bool:
        return False

    def forget_noted(self, slot: int, opens: int) -> None:
        """Nothing is noted."""

    def count_opens(self, inode: InodeNumber) -> int:
        return 0

    def reclaim_inode(self, inode: InodeNumber) -> bool:
        return False

    def fetch_ahead(self, parent: InodeNumber, names: Sequence[bytes]) -> int:
        return 0

    def publish_open(self, inode: InodeNumber, handle: FileHandle, *, keep_cache: bool, believed: Seconds) -> bool:
        return False

    def retract_open(self, inode: InodeNumber) -> None:
        """Nothing is there."""

    def publish_file(self, handle: FileHandle, content: int, size: Bytes) -> bool:
        return False

    def publish_version(self, handle: FileHandle, key: bytes, etag: str) -> bool:
        return False

    def retract_version(self, handle: FileHandle) -> None:
        """Nothing is there."""

    def withdraw_file(self, handle: FileHandle) -> int:
        return 0

    def publish_block(self, content: int, start: int, data: Buffer) -> bool:
        return False

    def retract_block(self, content: int, start: int) -> None:
        """Nothing is there."""

    def retract_content(self, content: int) -> None:
        """Nothing is there."""

    def tell_at(self, handle: FileHandle, offset: int) -> None:
        """Nobody reads without the filesystem."""

    def statistics(self) -> PublishedStatistics:
        return PublishedStatistics()
