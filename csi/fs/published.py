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
4. Bytes of a published block must not change. Its buffer is held until `retract_block` or `retract_content`.

Times are seconds from now: `believed` for how long the session may answer from it, `told` for how long the kernel is
told to keep it (both shrink with age by themselves; `told` may be 0 or less, the answer is then kept by nobody).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from csi.fs.types import Attributes
from csi.oss.store import Buffer
from csi.volume.units import Bytes, FileHandle, InodeNumber, Seconds


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

    # --- opens and bytes ---

    def publish_open(self, inode: InodeNumber, handle: FileHandle, *, keep_cache: bool, believed: Seconds) -> bool:
        """OPEN of `inode` for reading alone (no O_TRUNC, O_DIRECT, O_CREAT) is `handle`, which is shared by all who get
        it and has been given to `publish_file`."""

    def retract_open(self, inode: InodeNumber) -> None: ...

    def publish_file(self, handle: FileHandle, content: int, size: Bytes) -> bool:
        """READ of `handle`, opened for reading alone, may be answered from the blocks of `content`; the file ends at
        `size`. `content` is a number of the publisher's for one version of one object."""

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

    def publish_open(self, inode: InodeNumber, handle: FileHandle, *, keep_cache: bool, believed: Seconds) -> bool:
        return False

    def retract_open(self, inode: InodeNumber) -> None:
        """Nothing is there."""

    def publish_file(self, handle: FileHandle, content: int, size: Bytes) -> bool:
        return False

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
