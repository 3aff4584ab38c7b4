"""Handlers of open files: bytes that are there are answered at once, everything else on a lane."""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable

from csi.fs.published import LIGHT
from csi.fs.types import Entry, OpenFile
from csi.fuse.errno_map import ErrorReporter
from csi.fuse.own.names import caller_of
from csi.fuse.own.passthrough import Passthrough
from csi.fuse.own.resent import is_resent
from csi.fuse.own.work import NOTHING, Done, Lanes, Later, Outcome, Refused, call, nothing
from csi.fuse.protocol import replies
from csi.fuse.protocol.bodies import (
    Allocate,
    CopyRange,
    Create,
    Flush,
    Header,
    MakeNode,
    Open,
    Read,
    Release,
    Seek,
    Sync,
    Write,
)
from csi.fuse.protocol.constants import OpenFlag, ReadFlag
from csi.fuse.served import Allocating, Copying, ServedFilesystem
from csi.fuse.slow_errors import SlowErrors
from csi.oss.store import Buffer
from csi.volume.spec import MountArguments
from csi.volume.units import FileHandle, InodeNumber


class FileHandlers:
    """`_readers` are the handles that were opened for reading alone; each step on it is atomic."""

    def __init__(
        self,
        filesystem: ServedFilesystem,
        arguments: MountArguments,
        lanes: Lanes,
        reporter: ErrorReporter,
        can_keep: Callable[[], bool],
        passthrough: Passthrough | None = None,
    ) -> None:
        """`can_keep`: whether the payload of a write may stay in the request's buffer until it is written.
        `passthrough`: opens for reading, the only ones there are then, may name local files."""
        self._filesystem = filesystem
        self._arguments = arguments
        self._lanes = lanes
        self._reporter = reporter
        self._can_keep = can_keep
        self._passthrough = passthrough
        self._readers: set[int] = set()
        self._slow_errors = SlowErrors()

    # --- opening and closing ---

    def open(self, header: Header, body: Open) -> Outcome:
        inode, flags = InodeNumber(header.node), body.flags
        reading = flags & os.O_ACCMODE == os.O_RDONLY
        finish = functools.partial(self._opened, inode, reading)
        opened = self._filesystem.open_cached(inode, flags)
        if opened is not None:
            if self._passthrough is None:
                return finish(opened)
            return Later(self._lanes.names, lambda: opened, finish, long=False)
        lane = self._lanes.names if reading else self._lanes.opens
        work = call(self._filesystem.open, inode, flags, caller_of(header))
        return Later(lane, work, finish, interruptible=not flags & os.O_TRUNC)

    def _opened(self, inode: InodeNumber, reading: bool, opened: OpenFile) -> Done:
        if reading and not opened.handle & LIGHT:  # those are released without Python
            self._readers.add(opened.handle)
        flags, backing = _open_flags(opened) | (OpenFlag.NOFLUSH if reading else 0), 0
        if self._passthrough is not None:
            flags, backing = self._passthrough.opened(inode, opened, flags)
        return Done((replies.opened(opened.handle, flags, backing),), functools.partial(self._unopened, opened.handle))

    def create(self, header: Header, body: Create) -> Outcome:
        flags = body.flags & ~os.O_EXCL if is_resent(header) else body.flags
        work = call(
            self._filesystem.create,
            *(InodeNumber(header.node), body.name, body.mode, flags, caller_of(header, body.umask)),
        )
        return Later(self._lanes.opens, work, self._created)

    def _created(self, result: tuple[Entry, OpenFile]) -> Done:
        entry, opened = result

        def dropped() -> None:
            self._unopened(opened.handle)
            self._filesystem.forget(entry.attributes.inode, 1)

        return Done((replies.entry(entry), replies.opened(opened.handle, _open_flags(opened))), dropped)

    def mknod(self, header: Header, body: MakeNode) -> Outcome:
        if not stat.S_ISREG(body.mode):
            raise Refused(errno.EPERM)  # mknod(2): "does not support the type of node requested"
        return Later(self._lanes.opens, call(self._make_empty, header, body), self._made_empty)

    def _make_empty(self, header: Header, body: MakeNode) -> Entry:
        caller = caller_of(header, body.umask)
        entry, opened = self._filesystem.create(InodeNumber(header.node), body.name, body.mode, 0, caller)
        try:
            self._filesystem.flush(opened.handle)
        finally:
            self._release(opened.handle)
        return entry

    def _made_empty(self, entry: Entry) -> Done:
        return Done((replies.entry(entry),), functools.partial(self._filesystem.forget, entry.attributes.inode, 1))

    def release(self, _header: Header, body: Release) -> Outcome:
        handle = FileHandle(body.handle)
        self._slow_errors.forget(handle)
        self._let_go(handle)
        if handle in self._readers:
            self._readers.discard(handle)
            self._filesystem.release(handle)
            return NOTHING
        return Later(self._lanes.releases, call(self._release, handle), nothing)

    def _release(self, handle: FileHandle) -> None:
        """close(2) has returned already: a failure goes to the log and nowhere else."""
        try:
            self._filesystem.release(handle)
        except Exception as error:
            self._reporter.report("release", error)

    def _unopened(self, handle: FileHandle) -> None:
        """The caller does not know of it: nobody else will release it."""
        self._let_go(handle)
        self._readers.discard(handle)
        self._lanes.releases.submit(call(self._release, handle))

    def _let_go(self, handle: FileHandle) -> None:
        if self._passthrough is not None:
            self._passthrough.released(handle)

    # --- bytes ---

    def read(self, _header: Header, body: Read) -> Outcome:
        handle, offset, size = FileHandle(body.handle), body.offset, body.size
        self._slow_errors.check(handle, offset)
        ready = self._filesystem.read_ready(handle, offset, size)
        if ready is not None:
            return Done((ready,))
        work = call(self._read, handle, offset, size, not body.read_flags & ReadFlag.LOCKOWNER)
        return Later(self._lanes.reads, work, _bytes, interruptible=True)

    def _read(self, handle: FileHandle, offset: int, size: int, for_pages: bool) -> Buffer:
        started = self._slow_errors.now()
        try:
            return self._filesystem.read(handle, offset, size, for_pages)
        except Exception as error:
            self._slow_errors.remember(handle, offset, size, started, error)
            raise

    def write(self, _header: Header, body: Write) -> Outcome:
        data: Buffer = body.data if self._can_keep() else bytes(body.data)
        synced = bool(body.flags & os.O_DSYNC)  # O_SYNC, O_DSYNC, RWF_SYNC or RWF_DSYNC
        write = self._write_synced if synced else self._filesystem.write
        work = call(write, FileHandle(body.handle), body.offset, data)
        return Later(self._lanes.writes, work, _count, long=synced)

    def _write_synced(self, handle: FileHandle, offset: int, data: Buffer) -> int:
        """The kernel sends the FSYNC only after writes that made pages (fuse_direct_write_iter, Linux 6.18)."""
        count = self._filesystem.write(handle, offset, data)
        self._filesystem.fsync(handle)
        return count

    def flush(self, _header: Header, body: Flush) -> Outcome:
        if self._arguments.read_only:
            raise Refused(errno.ENOSYS)  # nothing to flush, ever: the kernel stops asking
        if body.handle in self._readers:
            return NOTHING  # close(2) of a file opened for reading
        return Later(self._lanes.finishes, call(self._filesystem.flush, FileHandle(body.handle)), nothing)

    def fsync(self, _header: Header, body: Sync) -> Outcome:
        return Later(self._lanes.finishes, call(self._filesystem.fsync, FileHandle(body.handle)), nothing)

    def allocate(self, _header: Header, body: Allocate) -> Outcome:
        if not isinstance(self._filesystem, Allocating):
            raise Refused(errno.EOPNOTSUPP)
        work = call(self._filesystem.allocate, FileHandle(body.handle), body.offset, body.length, body.mode)
        return Later(self._lanes.writes, work, nothing)

    def seek(self, header: Header, body: Seek) -> Outcome:
        """SEEK_DATA and SEEK_HOLE: there are no holes, but for the one after the end."""
        if body.whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise Refused(errno.EINVAL)
        finish = functools.partial(_sought, body)
        entry = self._filesystem.getattr_cached(InodeNumber(header.node))
        if entry is not None:
            return finish(entry)
        return Later(
            self._lanes.names, call(self._filesystem.getattr, InodeNumber(header.node)), finish, interruptible=True
        )

    def copy_range(self, _header: Header, body: CopyRange) -> Outcome:
        return self._copy(body, _count)

    def copy_range_64(self, _header: Header, body: CopyRange) -> Outcome:
        return self._copy(body, _long_count)

    def _copy(self, body: CopyRange, encode: Callable[[int], Done]) -> Outcome:
        if not isinstance(self._filesystem, Copying):
            raise Refused(errno.ENOSYS)
        if body.flags:
            raise Refused(errno.EINVAL)
        work = call(
            self._filesystem.copy_range,
            *(FileHandle(body.handle), body.offset, FileHandle(body.to_handle), body.to_offset, body.length),
        )
        return Later(self._lanes.writes, work, encode)

    def tmpfile(self, _header: Header, _body: object) -> Outcome:
        raise Refused(errno.EOPNOTSUPP)  # open(2): an object has a name from the start


def _open_flags(opened: OpenFile) -> int:
    """Writes of several threads to a file without page cache need not wait for each other in the kernel. Where nobody
    would read the pages that writes make, the kernel sends what is written from the program's memory."""
    if opened.direct_io:
        return OpenFlag.DIRECT_IO | OpenFlag.PARALLEL_DIRECT_WRITES
    if opened.uncached_writes:
        return OpenFlag.DIRECT_IO
    return OpenFlag.KEEP_CACHE if opened.keep_cache else 0


def _bytes(data: Buffer) -> Done:
    return Done((data,))


def _count(count: int) -> Done:
    return Done((replies.size(count),))


def _long_count(count: int) -> Done:
    return Done((replies.position(count),))


def _sought(body: Seek, entry: Entry) -> Done:
    size = entry.attributes.size
    if body.offset >= size:
        raise Refused(errno.ENXIO)
    return Done((replies.position(body.offset if body.whence == os.SEEK_DATA else size),))
