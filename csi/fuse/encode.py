"""Values of `csi/fs` as the structures of pyfuse3, and back. No decisions: every field comes from the value."""

from __future__ import annotations

import pyfuse3

from csi.fs.types import AttributeChange, Attributes, Caller, Entry, FilesystemStatistics, OpenFile
from csi.fuse.protocol.replies import PREFERRED_IO, blocks_of
from csi.fuse.xattrs import refusal_of_xattr
from csi.volume.units import Seconds


def entry_attributes(entry: Entry) -> pyfuse3.EntryAttributes:
    """The answer to a lookup, getattr or readdirplus entry."""
    found: Attributes = entry.attributes
    reply = pyfuse3.EntryAttributes()
    reply.st_ino = pyfuse3.InodeT(found.inode)
    reply.generation = entry.generation
    reply.entry_timeout = entry.entry_timeout
    reply.attr_timeout = entry.attr_timeout
    reply.st_mode = pyfuse3.ModeT(found.mode)
    reply.st_nlink = found.nlink
    reply.st_uid = found.uid
    reply.st_gid = found.gid
    reply.st_rdev = 0
    reply.st_size = found.size
    reply.st_blocks = blocks_of(found.size)
    reply.st_blksize = PREFERRED_IO
    reply.st_atime_ns = found.atime_ns
    reply.st_mtime_ns = found.mtime_ns
    reply.st_ctime_ns = found.ctime_ns
    return reply


def negative_entry(timeout: Seconds) -> pyfuse3.EntryAttributes:
    """'There is no such name, and you may believe it for `timeout`': inode 0, struct fuse_entry_param in libfuse."""
    reply = pyfuse3.EntryAttributes()
    reply.st_ino = pyfuse3.InodeT(0)
    reply.entry_timeout = timeout
    reply.attr_timeout = 0.0
    return reply


def file_info(opened: OpenFile) -> pyfuse3.FileInfo:
    """keep_cache is always said: pyfuse3's own default is to keep."""
    return pyfuse3.FileInfo(
        fh=pyfuse3.FileHandleT(opened.handle), direct_io=opened.direct_io, keep_cache=opened.keep_cache
    )


def caller_of(context: pyfuse3.RequestContext) -> Caller:
    return Caller(context.uid, context.gid, context.pid, context.umask)


def attribute_change(attributes: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> AttributeChange:
    return AttributeChange(
        size=attributes.st_size if fields.update_size else None,
        mode=attributes.st_mode if fields.update_mode else None,
        uid=attributes.st_uid if fields.update_uid else None,
        gid=attributes.st_gid if fields.update_gid else None,
        mtime_ns=attributes.st_mtime_ns if fields.update_mtime else None,
        atime_ns=attributes.st_atime_ns if fields.update_atime else None,
    )


def statvfs_data(statistics: FilesystemStatistics) -> pyfuse3.StatvfsData:
    reply = pyfuse3.StatvfsData()
    reply.f_bsize = statistics.block_size
    reply.f_frsize = statistics.block_size
    reply.f_blocks = statistics.blocks
    reply.f_bfree = statistics.blocks_free
    reply.f_bavail = statistics.blocks_free
    reply.f_files = statistics.files
    reply.f_ffree = statistics.files_free
    reply.f_favail = statistics.files_free
    reply.f_namemax = statistics.name_max
    return reply


def check_xattr_name(name: bytes, *, writing: bool) -> None:
    """Raises FUSEError for what is refused without asking anybody."""
    refusal = refusal_of_xattr(name, writing=writing)
    if refusal:
        raise pyfuse3.FUSEError(refusal)
