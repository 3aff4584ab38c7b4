"""The filesystem of one volume: every operation a kernel session can ask for, on inodes and handles.

Synchronous and thread-safe; names, targets and attribute names are bytes. It decides what an operation means
(docs/semantics.md is the promise, row by row) and leaves bytes to the data engine, requests to the object store, and
errno and timeouts in replies to the session. Any `csi.errors.OssFuseError` may be raised by anything here.

An inode is counted as told to the kernel by every `Entry` of lookup, create, mkdir, symlink and by every entry taken
from `readdir`; `forget` takes it back. The `*_cached` and `*_ready` twins never wait for the network.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

from csi.data.ledger import MemoryLedger
from csi.data.streams import StreamSource
from csi.data.workers import WorkerPool
from csi.errors import AccessRefused, OssFuseError, ReadOnlyVolume
from csi.fs import memory
from csi.fs.attributes import ExtendedAttributes
from csi.fs.changing import AttributeChanges
from csi.fs.copying import Copying
from csi.fs.drafts import Drafts
from csi.fs.ending import Ending
from csi.fs.files import Files
from csi.fs.handles import Handles
from csi.fs.inodes import InodeTable
from csi.fs.journal import Journal
from csi.fs.links import Links
from csi.fs.memory import DEFAULT_ALLOWANCE, MetadataMemory
from csi.fs.names import shown
from csi.fs.namespace import Namespace
from csi.fs.offers import Offers
from csi.fs.opendirs import OpenDirectories
from csi.fs.openers import Openers
from csi.fs.opening import Opening
from csi.fs.pages import Pages
from csi.fs.published import NothingPublished, Published
from csi.fs.reading import Reading
from csi.fs.renames import Renames
from csi.fs.reports import FilesystemReport, OpenFileReport
from csi.fs.succession import Succession, restore
from csi.fs.surplus import Surplus
from csi.fs.tree import Tree
from csi.fs.turns import Gate
from csi.fs.types import (
    AttributeChange,
    Backing,
    Caller,
    DirectoryEntry,
    DirectoryName,
    Entry,
    FileKind,
    FilesystemStatistics,
    KnownName,
    OpenFile,
)
from csi.fs.walks import Walks
from csi.oss.store import Buffer, ObjectStore
from csi.volume.spec import MountArguments, Ownership, WriteOptions
from csi.volume.units import Bytes, FileHandle, InodeNumber, Seconds

_LISTINGS = 16
"""Under way that no program waits for, of all directories together."""
_CLOSING = Seconds(5.0)
_BLOCK = 4096
_ENDLESS = FilesystemStatistics(_BLOCK, 1 << 38, 1 << 38, 1 << 40, 1 << 40)
"""A bucket has no end: 1 PiB, all of it free, so that no program refuses to write."""


class Filesystem:
    """Everything is guarded where it lives; see `csi/fs/turns.py` for what waits for what."""

    def __init__(
        self,
        store: ObjectStore,
        engine: StreamSource,
        *,
        prefix: str = "",
        arguments: MountArguments | None = None,
        ownership: Ownership | None = None,
        write: WriteOptions | None = None,
        read_only: bool = False,
        openers: Openers | None = None,
        published: Published | None = None,
        ledger: MemoryLedger | None = None,
        allowance: Bytes = DEFAULT_ALLOWANCE,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`prefix` is '' or ends with '/'. `openers` tells of programs that are killed; without it none is.
        `published` is what the kernel session answers from by itself. `clock` tells seconds since the epoch: it dates
        what is written here and measures the timeouts of `arguments`. Inodes and listings may take `allowance` bytes
        and are charged to `ledger` beyond that. `journal` has what a predecessor, killed, left open: that goes on here
        (`csi/fs/succession.py`). The caller closes store, engine and journal, after `close`."""
        arguments = arguments if arguments is not None else MountArguments()
        self._read_only = read_only or arguments.read_only
        published = published if published is not None else NothingPublished()
        succession = Succession(journal, published) if journal is not None else None
        self._table = InodeTable(prefix, published, succession)
        self._memory = MetadataMemory(ledger, allowance)
        ownership = ownership if ownership is not None else Ownership()
        write = write if write is not None else WriteOptions()
        appends = write.append and not self._read_only
        self._workers = WorkerPool("ossfuse-list", _LISTINGS)
        self._namespace = Namespace(
            *(store, self._table, arguments, ownership, clock),
            workers=self._workers,
            most_names=self._memory.most_names,
            appends=appends,
        )
        self._offers = Offers(self._namespace.knowledge, self._memory.most_inodes)
        self._pages = Pages(store, self._namespace.knowledge.serial, clock, self._workers)
        self._walks = Walks(self._namespace.knowledge, self._pages)
        self._gate = Gate()
        self._handles = Handles(self._table)
        self._drafts = Drafts(store, engine, self._namespace, self._handles, write)
        self._reading = Reading(self._namespace, engine, self._drafts, self._handles, exact=arguments.random_read)
        self._files = Files(self._namespace, self._handles, self._reading, self._drafts, self._gate, arguments, sleep)
        self._tree = Tree(store, self._namespace, self._files, self._drafts, self._gate)
        self._links = Links(store, self._namespace, self._gate, enabled=arguments.symlinks)
        self._attributes = ExtendedAttributes(store, self._namespace, self._files, enabled=arguments.xattrs)
        self._renames = Renames(store, self._namespace, self._files, self._drafts, self._gate)
        self._opening = Opening(self._namespace, self._files, openers)
        self._changes = AttributeChanges(self._table, self._files)
        self._directories = OpenDirectories(self._namespace, self._walks, self._memory, symlinks=arguments.symlinks)
        self._copying = Copying(self._table, self._handles, self._files, self._drafts)
        self._memory.watch(self._held, self._give_up)
        self._surplus = Surplus(self._table, self._memory)
        self._ending = Ending(self._table, self._files, knows_programs=openers is not None)
        if succession is not None:
            restore(succession, self._table, self._handles, self._directories)

    # --- names ---

    def lookup(self, parent: InodeNumber, name: bytes, caller: Caller | None = None) -> Entry:
        """Raises NoSuchEntry; the session makes that a negative entry of `negative_timeout`."""
        directory = self._namespace.directory(parent)
        node = self._namespace.look_up(directory, name)
        self._offers.looked_up(directory, name)
        if node.kind is FileKind.SYMLINK:
            try:
                self._links.target(node)
            except OssFuseError:
                self._table.forget(node.inode, 1)
                raise
        return self._namespace.knowledge.tell(node)

    def lookup_cached(self, parent: InodeNumber, name: bytes) -> Entry | None:
        """`lookup` from what is known, else None; raises NoSuchEntry when the absence of the name is known."""
        with self._table.lock:
            directory = self._namespace.directory(parent)
            node = self._namespace.knowledge.known(directory, name)
            if node is None or (node.kind is FileKind.SYMLINK and self._namespace.shown.symlink_target(node) is None):
                return None
            entry = self._namespace.knowledge.tell(node, count=True)
            self._offers.looked_up(directory, name)
            return entry

    def forget(self, inode: InodeNumber, count: int) -> None:
        self._table.forget(inode, count)

    def surplus(self, within: Seconds) -> Sequence[KnownName]:
        """See `csi.fuse.served.Overflowing`."""
        return self._surplus.take(within)

    def getattr(self, inode: InodeNumber) -> Entry:
        node = self._table.get(inode)
        if not self._namespace.knowledge.has_current_attributes(node):
            self._namespace.refresh(node)
        if node.kind is FileKind.SYMLINK and not node.detached:
            self._links.target(node)
        return self._namespace.knowledge.tell(node)

    def getattr_cached(self, inode: InodeNumber) -> Entry | None:
        with self._table.lock:
            node = self._table.get(inode)
            if not self._namespace.knowledge.has_current_attributes(node):
                return None
            if node.kind is FileKind.SYMLINK and self._namespace.shown.symlink_target(node) is None:
                return None
            return self._namespace.knowledge.tell(node)

    def setattr(
        self, inode: InodeNumber, change: AttributeChange, handle: FileHandle | None, caller: Caller | None = None
    ) -> Entry:
        """Size and times; mode and owner are accepted and have no effect (`csi/fs/changing.py`)."""
        self._require_writable()
        self._changes.apply(self._table.get(inode), change, handle)
        return self.getattr(inode)

    def access(self, inode: InodeNumber, mask: int, caller: Caller | None = None) -> None:
        """For sessions without default_permissions; the mode bits are the kernel's business."""
        node = self._table.get(inode)
        if mask & os.W_OK:
            self._require_writable()
        if mask & os.X_OK and not node.is_directory and not self._namespace.shown.entry(node).attributes.mode & 0o111:
            raise AccessRefused(f"{shown(node.name)} is not executable on this mount", hint="set fileMode or umask")

    def statfs(self) -> FilesystemStatistics:
        return _ENDLESS

    def readlink(self, inode: InodeNumber) -> bytes:
        return self._links.target(self._table.get(inode))

    # --- changing the tree ---

    def symlink(self, parent: InodeNumber, name: bytes, target: bytes, caller: Caller | None = None) -> Entry:
        self._require_writable()
        node = self._links.make(self._namespace.directory(parent), name, target)
        return self._namespace.knowledge.tell(node)

    def mkdir(self, parent: InodeNumber, name: bytes, mode: int, caller: Caller | None = None) -> Entry:
        """Writes the marker object; of two clients that make one directory at the same time, one gets EntryExists."""
        self._require_writable()
        node = self._tree.make_directory(self._namespace.directory(parent), name)
        return self._namespace.knowledge.tell(node)

    def rmdir(self, parent: InodeNumber, name: bytes) -> None:
        self._require_writable()
        self._tree.remove_directory(self._namespace.directory(parent), name)

    def unlink(self, parent: InodeNumber, name: bytes) -> None:
        """What is being written to the file is given up; open readers go on for as long as they have its bytes."""
        self._require_writable()
        self._tree.remove_file(self._namespace.directory(parent), name)

    def rename(
        self, parent: InodeNumber, name: bytes, new_parent: InodeNumber, new_name: bytes, flags: int = 0
    ) -> None:
        """`flags` are renameat2(2)'s; RENAME_EXCHANGE and RENAME_WHITEOUT raise InvalidOperation."""
        self._require_writable()
        old, new = self._namespace.directory(parent), self._namespace.directory(new_parent)
        self._renames.rename(old, name, new, new_name, flags)

    # --- files ---

    def open(self, inode: InodeNumber, flags: int, caller: Caller | None = None) -> OpenFile:
        node = self._table.get(inode)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            self._require_writable()
        return self._opening.open(node, flags, caller)

    def open_cached(self, inode: InodeNumber, flags: int) -> OpenFile | None:
        """`open` for reading from what is known, else None."""
        return self._opening.open_cached(self._table.get(inode), flags)

    def create(
        self, parent: InodeNumber, name: bytes, mode: int, flags: int, caller: Caller | None = None
    ) -> tuple[Entry, OpenFile]:
        """open(2) with O_CREAT: a name that is there already is opened as it is (O_EXCL: EntryExists)."""
        self._require_writable()
        return self._opening.create(self._namespace.directory(parent), name, flags, caller)

    def read_ready(self, handle: FileHandle, offset: int, size: int) -> Buffer | None:
        return self._reading.read_ready(handle, offset, size)

    def read_reached(self, handle: FileHandle, offset: int, end: int) -> None:
        self._reading.reached(handle, offset, end)

    def backing(self, handle: FileHandle) -> Backing | None:
        """The local file that holds what `handle` reads, if the disk cache has all of it."""
        return self._reading.backing(handle)

    def read(self, handle: FileHandle, offset: int, size: int, for_pages: bool = True) -> Buffer:
        """Exactly `size` bytes, fewer only at the end of the file. `for_pages`: for all that is known the kernel makes
        pages of them."""
        return self._reading.read(handle, offset, size, for_pages=for_pages)

    def write(self, handle: FileHandle, offset: int, data: Buffer) -> int:
        return self._files.write(handle, offset, data)

    def flush(self, handle: FileHandle) -> None:
        self._files.flush(handle)

    def fsync(self, handle: FileHandle) -> None:
        self._files.fsync(handle)

    def release(self, handle: FileHandle) -> None:
        self._files.release(handle)

    def copy_range(
        self, source: FileHandle, offset: int, destination: FileHandle, destination_offset: int, size: int
    ) -> int:
        """copy_file_range(2) inside OSS: how many bytes were copied. Raises OperationNotSupported, with nothing done,
        when the program has to read and write them."""
        self._require_writable()
        return self._copying.copy_range(source, offset, destination, destination_offset, size)

    def allocate(self, handle: FileHandle, offset: int, size: int, mode: int) -> None:
        """fallocate(2): nothing is reserved, but the size of a file being written is announced. Raises
        OperationNotSupported for everything else."""
        self._require_writable()
        self._copying.allocate(handle, offset, size, mode)

    # --- directories ---

    def opendir(self, inode: InodeNumber) -> FileHandle:
        return self._directories.open(self._namespace.directory(inode))

    def readdir(self, handle: FileHandle, cookie: int) -> Iterator[DirectoryEntry]:
        """Entries after the one whose cookie is `cookie` (0: from the start), '.' and '..' left to the session; any
        cookie ever given may come back. Each entry that is taken counts as told to the kernel."""
        return self._directories.read(handle, cookie)

    def scan(self, handle: FileHandle, cookie: int, *, plus: bool) -> Iterator[DirectoryEntry | DirectoryName]:
        """`readdir` for a session that can tell a name without an inode, which counts for nothing: all of them unless
        `plus`, and files beyond the inodes that there is room for."""
        return self._directories.scan(handle, cookie, plus=plus)

    def listing_age(self, handle: FileHandle) -> Seconds:
        """How long ago what `readdir` tells of the beginning of the directory was asked for."""
        return self._directories.age(handle)

    def releasedir(self, handle: FileHandle) -> None:
        self._directories.close(handle)

    # --- extended attributes ---

    def getxattr(self, inode: InodeNumber, name: bytes) -> bytes:
        return self._attributes.get(self._table.get(inode), name)

    def listxattr(self, inode: InodeNumber) -> Sequence[bytes]:
        return self._attributes.names(self._table.get(inode))

    def setxattr(self, inode: InodeNumber, name: bytes, value: bytes, flags: int = 0) -> None:
        self._require_writable()
        self._attributes.set(self._table.get(inode), name, value, flags)

    def removexattr(self, inode: InodeNumber, name: bytes) -> None:
        self._require_writable()
        self._attributes.remove(self._table.get(inode), name)

    # --- the mount ---

    def open_files(self) -> list[OpenFileReport]:
        reports = []
        for handle in self._handles.all():
            with self._table.lock:
                entry = self._namespace.shown.entry(handle.node)
                draft = handle.node.draft
                writing = draft is not None and draft.owner == handle.id
                reports.append(OpenFileReport(handle.id, self._table.path(handle.node), writing, entry.attributes.size))
        return reports

    def statistics(self) -> FilesystemReport:
        weight, gate = self._memory.statistics(), self._gate.statistics()
        together, siblings = self._namespace.together.statistics(), self._reading.siblings.statistics()
        offers, published = self._offers.statistics(), self._table.published.statistics()
        with self._table.lock:
            writing = sum(node.draft is not None for node in self._table.nodes())
            return FilesystemReport(
                len(self._table),
                len(self._handles.all()) + published.opens,
                len(self._directories),
                writing,
                gate,
                self._namespace.knowledge.statistics(),
                offers,
                self._walks.statistics(),
                together,
                siblings,
                self._workers.statistics(),
                published,
                weight,
            )

    def flush_all(self, deadline: Seconds) -> Sequence[OssFuseError]:
        """Make an object of everything that is being written, for at most `deadline` seconds; returns what failed, one
        error a file, the ones that did not end in time included. For SIGTERM: programs may not get to close(2).

        Programs may be getting killed at the same moment, as in a pod whose time is over: they have a moment to end
        in, and what one of them leaves is half a file, no object."""
        return self._ending.flush_all(deadline)

    def close(self) -> None:
        """Let go of every open file without finishing it (`flush_all` comes before): nothing half written appears."""
        for handle in self._handles.all():
            draft = handle.node.draft
            if draft is not None:
                draft.writer.abandon()
            self._table.conceal(handle)
            if handle.reader is not None:
                handle.reader.close()
        self._renames.close()
        self._walks.close()
        self._workers.close(_CLOSING)
        self._memory.close()

    # --- private ---

    def _require_writable(self) -> None:
        if self._read_only:
            raise ReadOnlyVolume("the volume is mounted read-only", hint="mount it without -oro, in a writing mode")

    def _held(self) -> int:
        """Bytes that names take, by estimate."""
        knowledge = self._namespace.knowledge.statistics()
        pages = len(self._directories) + self._walks.statistics().waiting
        names = knowledge.names * memory.NAME + knowledge.absent * memory.ABSENCE
        return (len(self._table) - 1) * memory.INODE + names + pages * memory.PAGE

    def _give_up(self, size: int) -> int:
        with self._table.lock:
            return self._namespace.knowledge.listings.give_up(-(-size // memory.NAME)) * memory.NAME
