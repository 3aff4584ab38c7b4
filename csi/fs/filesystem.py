"""The filesystem of one volume: every operation a kernel session can ask for, on inodes and handles.

Synchronous and thread-safe; names, targets and attribute names are bytes. It decides what an operation means
(docs/semantics.md is the promise, row by row) and leaves bytes to the data engine, requests to the object store, and
errno and timeouts in replies to the session. Any `csi.errors.OssFuseError` may be raised by anything here.

An inode is counted as told to the kernel by every `Entry` of lookup, create, mkdir, symlink and by every entry taken
from `readdir`; `forget` takes it back. The `*_cached` and `*_ready` twins never wait for the network.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from csi.data.streams import StreamSource
from csi.errors import (
    AccessRefused,
    BadHandle,
    DeadlineExceeded,
    EntryExists,
    FileBusy,
    InvalidOperation,
    IsADirectory,
    OssFuseError,
    ReadOnlyVolume,
)
from csi.fs.attributes import ExtendedAttributes
from csi.fs.directories import OpenDirectory
from csi.fs.drafts import Drafts
from csi.fs.files import Files
from csi.fs.handles import Handles
from csi.fs.inodes import InodeTable
from csi.fs.links import Links
from csi.fs.metadata import DIRECTORY
from csi.fs.names import check_new, join, shown
from csi.fs.namespace import Namespace
from csi.fs.nodes import Node
from csi.fs.openers import Opener, Openers
from csi.fs.pages import Pages
from csi.fs.published import Published
from csi.fs.reading import Reading
from csi.fs.renames import Renames
from csi.fs.reports import FilesystemReport, OpenFileReport
from csi.fs.tree import Tree
from csi.fs.turns import Gate
from csi.fs.types import (
    AttributeChange,
    Caller,
    DirectoryEntry,
    DirectoryName,
    Entry,
    FileKind,
    FilesystemStatistics,
    OpenFile,
)
from csi.oss.store import Buffer, ObjectStore
from csi.volume.spec import MountArguments, Ownership, WriteOptions
from csi.volume.units import FileHandle, InodeNumber, Seconds

_log = logging.getLogger(__name__)

_BLOCK = 4096
_ENDLESS = FilesystemStatistics(_BLOCK, 1 << 38, 1 << 38, 1 << 40, 1 << 40)
"""A bucket has no end: 1 PiB, all of it free, so that no program refuses to write."""

_FLUSHERS = 8
_MOMENT = Seconds(1.0)
"""For programs to end in, that are being killed while the mount ends."""
_GLANCE = Seconds(0.01)

_MOST_TOLD = 100_000
"""Inodes the kernel is told of before it asks: about half a kilobyte each."""


class Filesystem:
    """`_lock` guards the open directories. Everything else is guarded where it lives; see `csi/fs/turns.py` for what
    waits for what."""

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
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`prefix` is '' or ends with '/'. `openers` tells of programs that are killed; without it none is.
        `published` is what the kernel session answers from by itself. `clock` tells seconds since the epoch: it dates
        what is written here and measures the timeouts of `arguments`. The caller closes store and engine, after
        `close`."""
        arguments = arguments if arguments is not None else MountArguments()
        self._store = store
        self._openers = openers
        self._read_only = read_only or arguments.read_only
        self._symlinks = arguments.symlinks
        self._table = InodeTable(prefix, published)
        self._namespace = Namespace(
            store, self._table, arguments, ownership if ownership is not None else Ownership(), clock
        )
        self._pages = Pages(store, self._namespace.knowledge.serial, clock)
        self._gate = Gate()
        self._drafts = Drafts(store, engine, self._namespace, write if write is not None else WriteOptions())
        self._handles = Handles(self._table)
        self._reading = Reading(self._namespace, engine, self._drafts, self._handles, exact=arguments.random_read)
        self._files = Files(self._namespace, self._handles, self._reading, self._drafts, self._gate, arguments)
        self._tree = Tree(store, self._namespace, self._files, self._drafts, self._gate)
        self._links = Links(store, self._namespace, self._gate, enabled=arguments.symlinks)
        self._attributes = ExtendedAttributes(store, self._namespace, self._files, enabled=arguments.xattrs)
        self._renames = Renames(store, self._namespace, self._files, self._drafts, self._gate)
        self._lock = threading.Lock()
        self._directories: dict[int, OpenDirectory] = {}
        self._directory_numbers = 1 << 62  # apart from files, so that a mix-up is an error and not another file

    # --- names ---

    def lookup(self, parent: InodeNumber, name: bytes, caller: Caller | None = None) -> Entry:
        """Raises NoSuchEntry; the session makes that a negative entry of `negative_timeout`."""
        node = self._namespace.look_up(self._namespace.directory(parent), name)
        if node.kind is FileKind.SYMLINK:
            try:
                self._links.target(node)
            except OssFuseError:
                self._table.drop_unused(node)
                raise
        return self._namespace.knowledge.tell(node, count=True)

    def lookup_cached(self, parent: InodeNumber, name: bytes) -> Entry | None:
        """`lookup` from what is known, else None; raises NoSuchEntry when the absence of the name is known."""
        with self._table.lock:
            node = self._namespace.knowledge.known(self._namespace.directory(parent), name)
            if node is None or (node.kind is FileKind.SYMLINK and self._namespace.shown.symlink_target(node) is None):
                return None
            return self._namespace.knowledge.tell(node, count=True)

    def forget(self, inode: InodeNumber, count: int) -> None:
        self._table.forget(inode, count)

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
        """Size: to 0, or unchanged. Times are kept by this mount until the file is changed, or a name in the
        directory. Mode and owner are accepted and have no effect: the mount decides them (`uid`, `gid`, `umask`, …)."""
        self._require_writable()
        node = self._table.get(inode)
        if change.size is not None:
            if node.is_directory:
                raise IsADirectory(f"{shown(node.name)} is a directory")
            self._files.truncate(node, change.size, handle)
        if change.mtime_ns is not None or change.atime_ns is not None:
            self._set_times(node, change)
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
        return self._namespace.knowledge.tell(node, count=True)

    def mkdir(self, parent: InodeNumber, name: bytes, mode: int, caller: Caller | None = None) -> Entry:
        """Writes the marker object; of two clients that make one directory at the same time, one gets EntryExists."""
        self._require_writable()
        node = self._tree.make_directory(self._namespace.directory(parent), name)
        return self._namespace.knowledge.tell(node, count=True)

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
        return self._open(node, flags, caller)

    def open_cached(self, inode: InodeNumber, flags: int) -> OpenFile | None:
        """`open` for reading from what is known, else None."""
        node = self._table.get(inode)
        return None if node.kind is not FileKind.FILE else self._files.open_cached(node, flags)

    def create(
        self, parent: InodeNumber, name: bytes, mode: int, flags: int, caller: Caller | None = None
    ) -> tuple[Entry, OpenFile]:
        """open(2) with O_CREAT: a name that is there already is opened as it is (O_EXCL: EntryExists)."""
        self._require_writable()
        directory = self._namespace.directory(parent)
        check_new(self._table.prefix, join(self._table.path(directory), name), name)
        with self._namespace.held(directory, name) as node:
            if node is not None:
                if flags & os.O_EXCL:
                    raise EntryExists(f"{shown(name)} exists")
                opened = self._open(node, flags, caller)
                return self._namespace.knowledge.tell(node, count=True), opened
        node = self._namespace.knowledge.made(directory, name, FileKind.FILE)
        opener = self._opener(flags, caller)
        opened = self._files.create(node, flags, opener)
        if opener is not None:
            opener.identify()
        return self._namespace.knowledge.tell(node, count=True), opened

    def read_ready(self, handle: FileHandle, offset: int, size: int) -> Buffer | None:
        return self._reading.read_ready(handle, offset, size)

    def read(self, handle: FileHandle, offset: int, size: int) -> Buffer:
        """Exactly `size` bytes, fewer only at the end of the file."""
        return self._reading.read(handle, offset, size)

    def write(self, handle: FileHandle, offset: int, data: Buffer) -> int:
        return self._files.write(handle, offset, data)

    def flush(self, handle: FileHandle) -> None:
        self._files.flush(handle)

    def fsync(self, handle: FileHandle) -> None:
        self._files.fsync(handle)

    def release(self, handle: FileHandle) -> None:
        self._files.release(handle)

    # --- directories ---

    def opendir(self, inode: InodeNumber) -> FileHandle:
        node = self._namespace.directory(inode)
        opened = OpenDirectory(node, self._namespace, self._pages, symlinks=self._symlinks)
        with self._table.lock:
            self._table.local(node).handles += 1
        with self._lock:
            self._directory_numbers += 1
            number = self._directory_numbers
            self._directories[number] = opened
        return FileHandle(number)

    def readdir(self, handle: FileHandle, cookie: int) -> Iterator[DirectoryEntry]:
        """Entries after the one whose cookie is `cookie` (0: from the start), '.' and '..' left to the session; any
        cookie ever given may come back. Each entry that is taken counts as told to the kernel."""
        return self._directory(handle).read(cookie)

    def scan(self, handle: FileHandle, cookie: int, *, plus: bool) -> Iterator[DirectoryEntry | DirectoryName]:
        """`readdir` for a session that can tell a name without an inode, which counts for nothing: all of them unless
        `plus`, and files beyond the inodes that there is room for."""
        opened = self._directory(handle)
        return opened.scan(cookie, self._has_room) if plus else opened.names(cookie)

    def releasedir(self, handle: FileHandle) -> None:
        opened = self._directory(handle)
        with self._lock:
            self._directories.pop(handle, None)
        with self._table.lock:
            self._table.local(opened.node).handles -= 1
            self._table.drop_unused(opened.node)

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
        with self._lock:
            directories = len(self._directories)
        with self._table.lock:
            writing = sum(node.draft is not None for node in self._table.nodes())
            return FilesystemReport(len(self._table), len(self._handles.all()), directories, writing)

    def flush_all(self, deadline: Seconds) -> Sequence[OssFuseError]:
        """Make an object of everything that is being written, for at most `deadline` seconds; returns what failed, one
        error a file, the ones that did not end in time included. For SIGTERM: programs may not get to close(2).

        Programs may be getting killed at the same moment, as in a pod whose time is over: they have a moment to end
        in, and what one of them leaves is half a file, no object."""
        end = time.monotonic() + deadline
        self._await_ends(Seconds(min(_MOMENT, deadline / 2)))
        nodes = [node for node in self._table.nodes() if node.draft is not None]
        if not nodes:
            return []
        pool = ThreadPoolExecutor(_FLUSHERS, thread_name_prefix="flush")
        try:
            running = {pool.submit(self._flush_node, node): self._table.path(node) for node in nodes}
            done, late = wait(running, timeout=max(0.0, end - time.monotonic()))
            failures = [error for future in done if (error := future.result()) is not None]
            failures.extend(
                DeadlineExceeded(
                    f"{running[future]!r} was not written within {deadline:g} s",
                    hint="give the pod a longer terminationGracePeriodSeconds",
                )
                for future in late
            )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        for failure in failures:
            _log.error("not written at the end: %s", failure)
        return failures

    def close(self) -> None:
        """Let go of every open file without finishing it (`flush_all` comes before): nothing half written appears."""
        for handle in self._handles.all():
            draft = handle.node.draft
            if draft is not None:
                draft.writer.abandon()
            if handle.reader is not None:
                handle.reader.close()
        self._renames.close()

    # --- private ---

    def _has_room(self) -> bool:
        """Whether the kernel may be told of an inode that nobody has asked for."""
        return len(self._table) < _MOST_TOLD

    def _await_ends(self, patience: Seconds) -> None:
        """Until no program has unfinished files open that could be half files. Nothing tells of that: it is looked."""
        if self._openers is None:
            return
        end = time.monotonic() + patience
        while time.monotonic() < end and any(self._files.has_writer(node) for node in self._table.nodes()):
            time.sleep(_GLANCE)

    def _opener(self, flags: int, caller: Caller | None) -> Opener | None:
        if self._openers is None or caller is None or flags & os.O_ACCMODE == os.O_RDONLY:
            return None
        return self._openers.opener(caller.pid)

    def _open(self, node: Node, flags: int, caller: Caller | None) -> OpenFile:
        if node.is_directory:
            raise IsADirectory(f"{shown(node.name)} is a directory")
        if node.kind is FileKind.SYMLINK:
            raise InvalidOperation(f"{shown(node.name)} is a symbolic link")
        opener = self._opener(flags, caller)
        opened = self._files.open(node, flags, opener)
        if opener is not None:
            opener.identify()  # it was asked for before, and what comes from OSS took longer
        return opened

    def _directory(self, handle: FileHandle) -> OpenDirectory:
        with self._lock:
            opened = self._directories.get(handle)
        if opened is None:
            raise BadHandle(f"directory handle {handle} is not open")
        return opened

    def _require_writable(self) -> None:
        if self._read_only:
            raise ReadOnlyVolume("the volume is mounted read-only", hint="mount it without -oro, in a writing mode")

    def _set_times(self, node: Node, change: AttributeChange) -> None:
        with self._table.lock:
            local = self._table.local(node)
            before = local.times or (None, None)
            times = (
                change.mtime_ns if change.mtime_ns is not None else before[0],
                change.atime_ns if change.atime_ns is not None else before[1],
            )
            facts = DIRECTORY if node.is_directory else node.facts
            of = facts.etag if node.draft is None and facts is not None else None
            self._table.set_times(node, times, of)

    def _flush_node(self, node: Node) -> OssFuseError | None:
        try:
            with self._files.change(node), self._files.turn(node):
                if self._files.is_deserted(node):
                    return FileBusy(
                        f"{self._table.path(node)!r} was being written by a program that is killed, and did not become "
                        "an object",
                        hint="use fsync for what must survive, or fs.oss.append.enable for logs",
                    )
                self._files.complete(node)
        except OssFuseError as error:
            return error
        return None
