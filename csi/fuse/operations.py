"""Every FUSE request as one short handler: try the answer that needs no waiting, else a thread, then encode.

Two rules hold for all of them: no exception other than FUSEError leaves a handler (pyfuse3 would end the mount), and no
request is left unanswered, also when the session is told to stop. Handlers decide nothing: what an operation means is
`csi/fs`, which errno an error becomes is `csi/fuse/errno_map.py`.
"""

from __future__ import annotations

import errno
import functools
import logging
import stat
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio

from csi.errors import NoSuchEntry
from csi.fs.types import OpenFile
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
from csi.volume.units import FileHandle, InodeNumber

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)


def _answered(
    operation: str,
) -> Callable[
    [Callable[Concatenate[Operations, P], Awaitable[R]]], Callable[Concatenate[Operations, P], Coroutine[Any, Any, R]]
]:
    """Make a handler answer whatever happens, and count it as the FUSE operation `operation`."""

    def decorate(
        handler: Callable[Concatenate[Operations, P], Awaitable[R]],
    ) -> Callable[Concatenate[Operations, P], Coroutine[Any, Any, R]]:
        async def answer(self: Operations, /, *arguments: P.args, **keywords: P.kwargs) -> R:
            ticket = self.requests.begin(operation)
            try:
                return await handler(self, *arguments, **keywords)
            except pyfuse3.FUSEError:
                raise
            except trio.Cancelled:
                # the session was told to stop and its grace is over; swallowed because the caller needs its answer,
                # and nothing in pyfuse3's task waits after it
                raise pyfuse3.FUSEError(errno.EIO) from None
            except BaseException as error:
                raise pyfuse3.FUSEError(self.reporter.report(operation, error)) from None
            finally:
                self.requests.end(ticket)

        functools.update_wrapper(answer, handler)
        return answer

    return decorate


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
        self._negative = negative_entry(arguments.negative_timeout) if arguments.negative_timeout > 0 else None
        self._directories: dict[int, DirectoryStream] = {}
        self._slow_errors = SlowErrors()

    def init(self) -> None:
        self._on_init()

    def stacktrace(self) -> None:
        """pyfuse3 calls this for `setfattr -n fuse_stacktrace`, which any program in the pod may do: not for them."""

    # --- names and attributes ---

    @_answered("lookup")
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent = InodeNumber(parent_inode)
        try:
            entry = self._filesystem.lookup_cached(parent, name)
            if entry is None:
                entry = await self._lanes.names.run(self._filesystem.lookup, parent, bytes(name), caller_of(ctx))
        except NoSuchEntry:
            if self._negative is None:
                raise
            return self._negative
        return entry_attributes(entry)

    async def forget(self, inode_list: Sequence[tuple[pyfuse3.InodeT, int]]) -> None:
        for inode, count in inode_list:
            try:
                self._filesystem.forget(InodeNumber(inode), count)
            except Exception as error:
                self.reporter.report("forget", error)  # nobody waits for an answer to a forget

    @_answered("getattr")
    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        entry = self._filesystem.getattr_cached(InodeNumber(inode))
        if entry is None:
            entry = await self._lanes.names.run(self._filesystem.getattr, InodeNumber(inode))
        return entry_attributes(entry)

    @_answered("setattr")
    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        change = attribute_change(attr, fields)
        handle = None if fh is None else FileHandle(fh)
        lane = self._lanes.names if change.size is None else self._lanes.opens
        entry = await lane.run(self._filesystem.setattr, InodeNumber(inode), change, handle, caller_of(ctx))
        return entry_attributes(entry)

    @_answered("access")
    async def access(self, inode: pyfuse3.InodeT, mode: pyfuse3.ModeT, ctx: pyfuse3.RequestContext) -> bool:
        # the mount has default_permissions: the kernel has checked the mode bits and the answer to all else is yes;
        # ENOSYS tells it never to ask
        raise pyfuse3.FUSEError(errno.ENOSYS)

    @_answered("statfs")
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        return statvfs_data(self._filesystem.statfs())

    # --- changing the tree ---

    @_answered("readlink")
    async def readlink(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileNameT:
        return pyfuse3.FileNameT(await self._lanes.names.run(self._filesystem.readlink, InodeNumber(inode)))

    @_answered("symlink")
    async def symlink(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        target: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        entry = await self._lanes.names.run(
            self._filesystem.symlink, InodeNumber(parent_inode), bytes(name), bytes(target), caller_of(ctx)
        )
        return entry_attributes(entry)

    @_answered("mkdir")
    async def mkdir(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        entry = await self._lanes.names.run(
            self._filesystem.mkdir, InodeNumber(parent_inode), bytes(name), mode, caller_of(ctx)
        )
        return entry_attributes(entry)

    @_answered("rmdir")
    async def rmdir(self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext) -> None:
        await self._lanes.names.run(self._filesystem.rmdir, InodeNumber(parent_inode), bytes(name))

    @_answered("unlink")
    async def unlink(self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext) -> None:
        await self._lanes.names.run(self._filesystem.unlink, InodeNumber(parent_inode), bytes(name))

    @_answered("rename")
    async def rename(
        self,
        parent_inode_old: pyfuse3.InodeT,
        name_old: pyfuse3.FileNameT,
        parent_inode_new: pyfuse3.InodeT,
        name_new: pyfuse3.FileNameT,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        await self._lanes.names.run(
            self._filesystem.rename,
            InodeNumber(parent_inode_old),
            bytes(name_old),
            InodeNumber(parent_inode_new),
            bytes(name_new),
            int(flags),
        )

    @_answered("link")
    async def link(
        self,
        inode: pyfuse3.InodeT,
        new_parent_inode: pyfuse3.InodeT,
        new_name: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        raise pyfuse3.FUSEError(errno.EPERM)  # link(2): "does not support the creation of hard links"

    @_answered("mknod")
    async def mknod(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        rdev: int,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        if not stat.S_ISREG(mode):
            raise pyfuse3.FUSEError(errno.EPERM)  # mknod(2): "does not support the type of node requested"
        entry, opened = await self._lanes.opens.run(
            self._filesystem.create, InodeNumber(parent_inode), bytes(name), mode, 0, caller_of(ctx)
        )
        try:
            await self._lanes.finishes.run(self._filesystem.flush, opened.handle)
        finally:
            await self._release(opened.handle)
        return entry_attributes(entry)

    # --- files ---

    @_answered("open")
    async def open(self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        opened: OpenFile = await self._lanes.opens.run(
            self._filesystem.open, InodeNumber(inode), int(flags), caller_of(ctx)
        )
        return file_info(opened)

    @_answered("create")
    async def create(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        entry, opened = await self._lanes.opens.run(
            self._filesystem.create, InodeNumber(parent_inode), bytes(name), mode, int(flags), caller_of(ctx)
        )
        return file_info(opened), entry_attributes(entry)

    @_answered("read")
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> Buffer:  # type: ignore[override]
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

    @_answered("write")
    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        return await self._lanes.writes.run(self._filesystem.write, FileHandle(fh), off, buf)

    @_answered("flush")
    async def flush(self, fh: pyfuse3.FileHandleT) -> None:
        if self._arguments.read_only:
            raise pyfuse3.FUSEError(errno.ENOSYS)  # nothing to flush, ever: the kernel stops asking
        await self._lanes.finishes.run(self._filesystem.flush, FileHandle(fh))

    @_answered("fsync")
    async def fsync(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        await self._lanes.finishes.run(self._filesystem.fsync, FileHandle(fh))

    @_answered("release")
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        self._slow_errors.forget(fh)
        await self._release(FileHandle(fh))

    # --- directories ---

    @_answered("opendir")
    async def opendir(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        handle = await self._lanes.names.run(self._filesystem.opendir, InodeNumber(inode))
        self._directories[handle] = DirectoryStream(self._filesystem, InodeNumber(inode), handle, self._lanes.names)
        return pyfuse3.FileHandleT(handle)

    @_answered("readdir")
    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        stream = self._directories.get(fh)
        if stream is None:
            raise pyfuse3.FUSEError(errno.EBADF)
        await stream.fill(start_id, functools.partial(pyfuse3.readdir_reply, token))

    @_answered("releasedir")
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        stream = self._directories.pop(fh, None)
        if stream is not None:
            stream.close()
        await self._lanes.releases.run(self._filesystem.releasedir, FileHandle(fh))

    @_answered("fsyncdir")
    async def fsyncdir(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        """Every change of a directory is in the bucket before it is answered."""

    # --- extended attributes ---

    @_answered("getxattr")
    async def getxattr(self, inode: pyfuse3.InodeT, name: pyfuse3.XAttrNameT, ctx: pyfuse3.RequestContext) -> bytes:
        self._require_xattrs()
        check_xattr_name(name, writing=False)
        return await self._lanes.names.run(self._filesystem.getxattr, InodeNumber(inode), bytes(name))

    @_answered("listxattr")
    async def listxattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> Sequence[pyfuse3.XAttrNameT]:
        self._require_xattrs()
        names = await self._lanes.names.run(self._filesystem.listxattr, InodeNumber(inode))
        return [pyfuse3.XAttrNameT(name) for name in names]

    @_answered("setxattr")
    async def setxattr(
        self, inode: pyfuse3.InodeT, name: pyfuse3.XAttrNameT, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        self._require_xattrs()
        check_xattr_name(name, writing=True)
        await self._lanes.names.run(self._filesystem.setxattr, InodeNumber(inode), bytes(name), value)

    @_answered("removexattr")
    async def removexattr(self, inode: pyfuse3.InodeT, name: pyfuse3.XAttrNameT, ctx: pyfuse3.RequestContext) -> None:
        self._require_xattrs()
        check_xattr_name(name, writing=True)
        await self._lanes.names.run(self._filesystem.removexattr, InodeNumber(inode), bytes(name))

    # --- private ---

    def _require_xattrs(self) -> None:
        if not self._arguments.xattrs:
            # the program sees EOPNOTSUPP; the kernel remembers and never asks again
            raise pyfuse3.FUSEError(errno.ENOSYS)

    async def _release(self, handle: FileHandle) -> None:
        """close(2) has returned already: a failure goes to the log and nowhere else."""
        try:
            await self._lanes.releases.run(self._filesystem.release, handle)
        except Exception as error:
            self.reporter.report("release", error)
