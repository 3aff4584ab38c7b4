"""Handlers of names, attributes, the tree and extended attributes: decide nothing, encode what the filesystem says."""

from __future__ import annotations

import errno
import functools
import time
from collections.abc import Callable
from typing import TypeVar

from csi.errors import NoSuchEntry
from csi.fs.types import AttributeChange, Caller, Entry
from csi.fuse.own.resent import made, moved, removed
from csi.fuse.own.work import Done, Lanes, Later, Outcome, Refused, call, nothing
from csi.fuse.protocol import replies
from csi.fuse.protocol.bodies import (
    GetXattr,
    Header,
    ListXattr,
    MakeDirectory,
    Name,
    Rename,
    SetAttributes,
    SetXattr,
    Symlink,
)
from csi.fuse.protocol.constants import SetAttr
from csi.fuse.served import ServedFilesystem
from csi.fuse.xattrs import refusal_of_xattr
from csi.volume.spec import MountArguments
from csi.volume.units import FileHandle, InodeNumber, Seconds

_Entry = TypeVar("_Entry", Entry, "Entry | None")


def caller_of(header: Header, umask: int = 0o022) -> Caller:
    return Caller(header.uid, header.gid, header.pid, umask)


class NameHandlers:
    def __init__(self, filesystem: ServedFilesystem, arguments: MountArguments, lanes: Lanes) -> None:
        self._filesystem = filesystem
        self._arguments = arguments
        self._lanes = lanes

    # --- names and attributes ---

    def lookup(self, header: Header, body: Name) -> Outcome:
        parent = InodeNumber(header.node)
        found = self._found(self._filesystem.lookup_cached, parent, body.name)
        if found is not None:
            return self._told_or_absent(found)
        look_up = call(self._found, self._filesystem.lookup, parent, body.name, caller_of(header))
        return Later(self._lanes.names, look_up, self._told_or_absent, interruptible=True)

    def _found(self, look_up: Callable[..., _Entry], *arguments: object) -> _Entry | Done:
        """What `look_up` finds, or that there is nothing, for as long as the kernel may believe it after the time for
        which it has been known. Raises NoSuchEntry when that is over."""
        try:
            return look_up(*arguments)
        except NoSuchEntry as error:
            left = self._arguments.negative_timeout - error.age
            if left <= 0:
                raise
            return Done((replies.negative_entry(Seconds(left)),))

    def _told_or_absent(self, found: Entry | Done) -> Done:
        return found if isinstance(found, Done) else self.told(found)

    def told(self, entry: Entry) -> Done:
        """An entry that is counted: given back if the kernel does not take it."""
        return Done((replies.entry(entry),), functools.partial(self._filesystem.forget, entry.attributes.inode, 1))

    def getattr(self, header: Header, _body: object) -> Outcome:
        return self._attributes(header, _attributes)

    def statx(self, header: Header, _body: object) -> Outcome:
        return self._attributes(header, _statx)

    def _attributes(self, header: Header, encode: Callable[[Entry], Done]) -> Outcome:
        inode = InodeNumber(header.node)
        entry = self._filesystem.getattr_cached(inode)
        if entry is not None:
            return encode(entry)
        return Later(self._lanes.names, call(self._filesystem.getattr, inode), encode, interruptible=True)

    def setattr(self, header: Header, body: SetAttributes) -> Outcome:
        change = _change(body)
        handle = FileHandle(body.handle) if body.valid & SetAttr.HANDLE else None
        lane = self._lanes.names if change.size is None else self._lanes.opens
        set_attributes = call(self._filesystem.setattr, InodeNumber(header.node), change, handle, caller_of(header))
        return Later(lane, set_attributes, _attributes)

    def access(self, _header: Header, _body: object) -> Outcome:
        # the mount has default_permissions: the kernel has checked the mode bits and the answer to all else is yes;
        # ENOSYS tells it never to ask
        raise Refused(errno.ENOSYS)

    def statfs(self, _header: Header, _body: object) -> Outcome:
        return Done((replies.statfs(self._filesystem.statfs()),))

    # --- changing the tree ---

    def readlink(self, header: Header, _body: object) -> Outcome:
        read = call(self._filesystem.readlink, InodeNumber(header.node))
        return Later(self._lanes.names, read, lambda target: Done((target,)), interruptible=True)

    def symlink(self, header: Header, body: Symlink) -> Outcome:
        parent, caller = InodeNumber(header.node), caller_of(header)
        make = call(self._filesystem.symlink, parent, body.name, body.target, caller)
        find = call(self._filesystem.lookup, parent, body.name, caller)
        return Later(self._lanes.names, made(header, make, find), self.told)

    def mkdir(self, header: Header, body: MakeDirectory) -> Outcome:
        parent, caller = InodeNumber(header.node), caller_of(header, body.umask)
        make = call(self._filesystem.mkdir, parent, body.name, body.mode, caller)
        find = call(self._filesystem.lookup, parent, body.name, caller)
        return Later(self._lanes.names, made(header, make, find), self.told)

    def rmdir(self, header: Header, body: Name) -> Outcome:
        remove = call(self._filesystem.rmdir, InodeNumber(header.node), body.name)
        return Later(self._lanes.names, removed(header, remove), nothing)

    def unlink(self, header: Header, body: Name) -> Outcome:
        remove = call(self._filesystem.unlink, InodeNumber(header.node), body.name)
        return Later(self._lanes.names, removed(header, remove), nothing)

    def rename(self, header: Header, body: Rename) -> Outcome:
        old, new = InodeNumber(header.node), InodeNumber(body.new_parent)
        move = call(self._filesystem.rename, old, body.name, new, body.new_name, body.flags)

        def find() -> None:
            found = self._filesystem.lookup(new, body.new_name, caller_of(header))
            self._filesystem.forget(found.attributes.inode, 1)  # told to nobody

        return Later(self._lanes.names, moved(header, move, find), nothing)

    def link(self, _header: Header, _body: object) -> Outcome:
        raise Refused(errno.EPERM)  # link(2): "does not support the creation of hard links"

    # --- extended attributes ---

    def getxattr(self, header: Header, body: GetXattr) -> Outcome:
        self._require_xattr(body.name, writing=False)
        get = call(self._filesystem.getxattr, InodeNumber(header.node), body.name)
        return Later(self._lanes.names, get, functools.partial(_sized, body.size), interruptible=True)

    def listxattr(self, header: Header, body: ListXattr) -> Outcome:
        self._require_xattrs()

        def answer(names: list[bytes]) -> Done:
            return _sized(body.size, replies.xattr_names(names))

        names = call(self._filesystem.listxattr, InodeNumber(header.node))
        return Later(self._lanes.names, names, answer, interruptible=True)

    def setxattr(self, header: Header, body: SetXattr) -> Outcome:
        self._require_xattr(body.name, writing=True)
        keep = call(self._filesystem.setxattr, InodeNumber(header.node), body.name, body.value, body.flags)
        return Later(self._lanes.names, keep, nothing)

    def removexattr(self, header: Header, body: Name) -> Outcome:
        self._require_xattr(body.name, writing=True)
        remove = call(self._filesystem.removexattr, InodeNumber(header.node), body.name)
        return Later(self._lanes.names, removed(header, remove), nothing)

    def _require_xattr(self, name: bytes, *, writing: bool) -> None:
        self._require_xattrs()
        refusal = refusal_of_xattr(name, writing=writing)
        if refusal:
            raise Refused(refusal)

    def _require_xattrs(self) -> None:
        if not self._arguments.xattrs:
            # the program sees EOPNOTSUPP; the kernel remembers and never asks again
            raise Refused(errno.ENOSYS)


def _attributes(entry: Entry) -> Done:
    return Done((replies.attributes_for(entry),))


def _statx(entry: Entry) -> Done:
    return Done((replies.statx(entry),))


def _sized(size: int, value: bytes) -> Done:
    if size == 0:
        return Done((replies.size(len(value)),))
    if len(value) > size:
        raise Refused(errno.ERANGE)
    return Done((value,))


def _change(body: SetAttributes) -> AttributeChange:
    valid = body.valid
    now = time.time_ns() if valid & (SetAttr.ATIME_NOW | SetAttr.MTIME_NOW) else 0
    mtime = now if valid & SetAttr.MTIME_NOW else body.mtime_ns if valid & SetAttr.MTIME else None
    atime = now if valid & SetAttr.ATIME_NOW else body.atime_ns if valid & SetAttr.ATIME else None
    return AttributeChange(
        size=body.size if valid & SetAttr.SIZE else None,
        mode=body.mode if valid & SetAttr.MODE else None,
        uid=body.uid if valid & SetAttr.UID else None,
        gid=body.gid if valid & SetAttr.GID else None,
        mtime_ns=mtime,
        atime_ns=atime,
    )
