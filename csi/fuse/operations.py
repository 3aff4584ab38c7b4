"""Every FUSE request as one short handler: try the answer that needs no waiting, else a thread, then encode.

Handlers decide nothing: what an operation means is `csi/fs`, which errno an error becomes is `csi/fuse/errno_map.py`,
and that every request is answered is `csi/fuse/answering.py`.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable, Sequence

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from csi.errors import NoSuchEntry
from csi.fuse.answering import answered
from csi.fuse.encode import (
    attribute_change,
    caller_of,
    check_xattr_name,
    entry_attributes,
    file_info,
    negative_entry,
    statvfs_data,
)
from csi.fuse.errno_map import ErrorReporter
from csi.fuse.listing import DirectoryStream
from csi.fuse.requests import RequestTable
from csi.fuse.served import ServedFilesystem
from csi.fuse.slow_errors import SlowErrors
from csi.fuse.workers import Lanes
from csi.oss.store import Buffer
from csi.volume.spec import MountArguments
from csi.volume.units import FileHandle, InodeNumber, Seconds


class Operations(pyfuse3.Operations):
    """The handlers of one mount. Everything here runs on the event loop's thread; `lanes` do what may block."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self,
        filesystem: ServedFilesystem,
        arguments: MountArguments,
        lanes: Lanes,
        reporter: ErrorReporter,
        on_init: Callable[[], None],
    ) -> None:
        self.requests = RequestTable()
        self.reporter = reporter
        self._filesystem = filesystem
        self._arguments = arguments
        self._lanes = lanes
        self._on_init = on_init
        self._directories: dict[int, DirectoryStream] = {}
        self._readers: set[int] = set()
        self._slow_errors = SlowErrors()

    def init(self) -> None:
        self._on_init()

    def stacktrace(self) -> None:
        """pyfuse3 calls this for `setfattr -n fuse_stacktrace`, which any program in the pod may do: not for them."""

    # --- names and attributes ---

    @answered("lookup")
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        parent = InodeNumber(parent_inode)
        try:
            entry = self._filesystem.lookup_cached(parent, name)
            if entry is None:
                entry = await self._lanes.names.run(self._filesystem.lookup, parent, bytes(name), caller_of(ctx))
        except NoSuchEntry as error:
            left = self._arguments.negative_timeout - error.age  # the time for which it has been known is over
            if left <= 0:
                raise
            return negative_entry(Seconds(left))
        return entry_attributes(entry)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for inode, count in inode_list:
            try:
                self._filesystem.forget(InodeNumber(inode), count)
            except Exception as error:
                self.reporter.report("forget", error)  # nobody waits for an answer to a forget

    @answered("getattr")
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        entry = self._filesystem.getattr_cached(InodeNumber(inode))
        if entry is None:
            entry = await self._lanes.names.run(self._filesystem.getattr, InodeNumber(inode))
        return entry_attributes(entry)

    @answered("setattr")
    async def setattr(
        self, inode: InodeT, attr: EntryAttributes, fields: SetattrFields, fh: FileHandleT | None, ctx: RequestContext
    ) -> EntryAttributes:
        change = attribute_change(attr, fields)
        handle = None if fh is None else FileHandle(fh)
        lane = self._lanes.names if change.size is None else self._lanes.opens
        entry = await lane.run(self._filesystem.setattr, InodeNumber(inode), change, handle, caller_of(ctx))
        return entry_attributes(entry)

    @answered("access")
    async def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        # the mount has default_permissions: the kernel has checked the mode bits and the answer to all else is yes;
        # ENOSYS tells it never to ask
        raise FUSEError(errno.ENOSYS)

    @answered("statfs")
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return statvfs_data(self._filesystem.statfs())

    # --- changing the tree ---

    @answered("readlink")
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(await self._lanes.names.run(self._filesystem.readlink, InodeNumber(inode)))

    @answered("symlink")
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        entry = await self._lanes.names.run(
            self._filesystem.symlink, InodeNumber(parent_inode), bytes(name), bytes(target), caller_of(ctx)
        )
        return entry_attributes(entry)

    @answered("mkdir")
    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        entry = await self._lanes.names.run(
            self._filesystem.mkdir, InodeNumber(parent_inode), bytes(name), mode, caller_of(ctx)
        )
        return entry_attributes(entry)

    @answered("rmdir")
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._lanes.names.run(self._filesystem.rmdir, InodeNumber(parent_inode), bytes(name))

    @answered("unlink")
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._lanes.names.run(self._filesystem.unlink, InodeNumber(parent_inode), bytes(name))

    @answered("rename")
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        await self._lanes.names.run(
            self._filesystem.rename,
            InodeNumber(parent_inode_old),
            bytes(name_old),
            InodeNumber(parent_inode_new),
            bytes(name_new),
            int(flags),
        )

    @answered("link")
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        raise FUSEError(errno.EPERM)  # link(2): "does not support the creation of hard links"

    @answered("mknod")
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        if not stat.S_ISREG(mode):
            raise FUSEError(errno.EPERM)  # mknod(2): "does not support the type of node requested"
        entry, opened = await self._lanes.opens.run(
            self._filesystem.create, InodeNumber(parent_inode), bytes(name), mode, 0, caller_of(ctx)
        )
        try:
            await self._lanes.finishes.run(self._filesystem.flush, opened.handle)
        finally:
            await self._release(opened.handle)
        return entry_attributes(entry)

    # --- files ---

    @answered("open")
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        opened = self._filesystem.open_cached(InodeNumber(inode), flags)
        reading = flags & os.O_ACCMODE == os.O_RDONLY
        if opened is None:
            lane = self._lanes.names if reading else self._lanes.opens
            opened = await lane.run(self._filesystem.open, InodeNumber(inode), int(flags), caller_of(ctx))
        if reading:
            self._readers.add(opened.handle)
        return file_info(opened)

    @answered("create")
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        entry, opened = await self._lanes.opens.run(
            self._filesystem.create, InodeNumber(parent_inode), bytes(name), mode, int(flags), caller_of(ctx)
        )
        return file_info(opened), entry_attributes(entry)

    @answered("read")
    async def read(self, fh: FileHandleT, off: int, size: int) -> Buffer:  # type: ignore[override]
        # pyfuse3 says bytes and takes any contiguous buffer: a block is answered without a copy
        self._slow_errors.check(fh, off)
        ready = self._filesystem.read_ready(FileHandle(fh), off, size)
        if ready is not None:
            return ready
        started = self._slow_errors.now()
        try:
            return await self._lanes.reads.run(self._filesystem.read, FileHandle(fh), off, size)
        except Exception as error:
            self._slow_errors.remember(fh, off, size, started, error)
            raise

    @answered("write")
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return await self._lanes.writes.run(self._filesystem.write, FileHandle(fh), off, buf)

    @answered("flush")
    async def flush(self, fh: FileHandleT) -> None:
        if self._arguments.read_only:
            raise FUSEError(errno.ENOSYS)  # nothing to flush, ever: the kernel stops asking
        if fh in self._readers:
            return  # close(2) of a file opened for reading
        await self._lanes.finishes.run(self._filesystem.flush, FileHandle(fh))

    @answered("fsync")
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._lanes.finishes.run(self._filesystem.fsync, FileHandle(fh))

    @answered("release")
    async def release(self, fh: FileHandleT) -> None:
        self._slow_errors.forget(fh)
        if fh in self._readers:
            self._readers.discard(fh)
            self._filesystem.release(FileHandle(fh))
        else:
            await self._release(FileHandle(fh))

    # --- directories ---

    @answered("opendir")
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        handle = self._filesystem.opendir(InodeNumber(inode))
        self._directories[handle] = DirectoryStream(self._filesystem, InodeNumber(inode), handle, self._lanes.names)
        return FileHandleT(handle)

    @answered("readdir")
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        stream = self._directories.get(fh)
        if stream is None:
            raise FUSEError(errno.EBADF)
        await stream.fill(start_id, functools.partial(pyfuse3.readdir_reply, token))

    @answered("releasedir")
    async def releasedir(self, fh: FileHandleT) -> None:
        stream = self._directories.pop(fh, None)
        if stream is not None:
            stream.close()
        self._filesystem.releasedir(FileHandle(fh))

    @answered("fsyncdir")
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """Every change of a directory is in the bucket before it is answered."""

    # --- extended attributes ---

    @answered("getxattr")
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        self._require_xattrs()
        check_xattr_name(name, writing=False)
        return await self._lanes.names.run(self._filesystem.getxattr, InodeNumber(inode), bytes(name))

    @answered("listxattr")
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        self._require_xattrs()
        names = await self._lanes.names.run(self._filesystem.listxattr, InodeNumber(inode))
        return [XAttrNameT(name) for name in names]

    @answered("setxattr")
    async def setxattr(self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext) -> None:
        self._require_xattrs()
        check_xattr_name(name, writing=True)
        await self._lanes.names.run(self._filesystem.setxattr, InodeNumber(inode), bytes(name), value)

    @answered("removexattr")
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        self._require_xattrs()
        check_xattr_name(name, writing=True)
        await self._lanes.names.run(self._filesystem.removexattr, InodeNumber(inode), bytes(name))

    # --- private ---

    def _require_xattrs(self) -> None:
        if not self._arguments.xattrs:
            # the program sees EOPNOTSUPP; the kernel remembers and never asks again
            raise FUSEError(errno.ENOSYS)

    async def _release(self, handle: FileHandle) -> None:
        """close(2) has returned already: a failure goes to the log and nowhere else."""
        try:
            await self._lanes.releases.run(self._filesystem.release, handle)
        except Exception as error:
            self.reporter.report("release", error)
