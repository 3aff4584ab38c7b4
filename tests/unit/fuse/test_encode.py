"""Every field of a value reaches the structure that libfuse sends, and comes back from what it received."""

from __future__ import annotations

import errno
import stat

import pyfuse3
import pytest

from csi.fs.types import AttributeChange, Attributes, Entry, FileKind, FilesystemStatistics, OpenFile
from csi.fuse.encode import (
    attribute_change,
    check_xattr_name,
    entry_attributes,
    file_info,
    negative_entry,
    statvfs_data,
)
from csi.volume.units import FileHandle, InodeNumber, Seconds

LARGEST_INODE = (1 << 63) - 1


def entry(size: int = 1_000, inode: int = 77) -> Entry:
    attributes = Attributes(
        InodeNumber(inode), FileKind.FILE, stat.S_IFREG | 0o640, 3, 1000, 2000, size, 1_000_000_001, 2_000_000_002, 3
    )
    return Entry(attributes, Seconds(1.5), Seconds(0.25), generation=9)


def test_an_entry_is_encoded_field_by_field() -> None:
    reply = entry_attributes(entry())

    assert reply.st_ino == 77
    assert (reply.generation, reply.entry_timeout, reply.attr_timeout) == (9, 1.5, 0.25)
    assert (reply.st_mode, reply.st_nlink) == (stat.S_IFREG | 0o640, 3)
    assert (reply.st_uid, reply.st_gid, reply.st_size) == (1000, 2000, 1_000)
    assert (reply.st_mtime_ns, reply.st_ctime_ns, reply.st_atime_ns) == (1_000_000_001, 2_000_000_002, 3)


def test_a_63_bit_inode_number_survives() -> None:
    assert entry_attributes(entry(inode=LARGEST_INODE)).st_ino == LARGEST_INODE


@pytest.mark.parametrize(("size", "blocks"), [(0, 0), (1, 1), (512, 1), (513, 2), (48 << 40, (48 << 40) // 512)])
def test_blocks_are_512_byte_units_rounded_up(size: int, blocks: int) -> None:
    assert entry_attributes(entry(size)).st_blocks == blocks


def test_a_negative_entry_has_no_inode_and_its_own_timeout() -> None:
    reply = negative_entry(Seconds(7200.0))

    assert (reply.st_ino, reply.entry_timeout, reply.attr_timeout) == (0, 7200.0, 0.0)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_open_flags_are_said_explicitly(keep: bool, direct: bool) -> None:
    info = file_info(OpenFile(FileHandle(5), keep_cache=keep, direct_io=direct))

    assert (info.fh, bool(info.keep_cache), bool(info.direct_io)) == (5, keep, direct)


class Fields:
    """SetattrFields cannot be filled in from Python."""

    def __init__(self, *updated: str) -> None:
        for name in ("size", "mode", "uid", "gid", "mtime", "atime", "ctime"):
            setattr(self, f"update_{name}", name in updated)


@pytest.mark.parametrize(
    ("updated", "change"),
    [
        (("size",), AttributeChange(size=11)),
        (("mode",), AttributeChange(mode=0o600)),
        (("uid", "gid"), AttributeChange(uid=5, gid=6)),
        (("mtime", "atime"), AttributeChange(mtime_ns=7_000_000_001, atime_ns=8_000_000_002)),
        (("ctime",), AttributeChange()),
        ((), AttributeChange()),
    ],
)
def test_only_the_fields_that_setattr_names_are_changed(updated: tuple[str, ...], change: AttributeChange) -> None:
    attributes = pyfuse3.EntryAttributes()
    attributes.st_size, attributes.st_mode = 11, pyfuse3.ModeT(0o600)
    attributes.st_uid, attributes.st_gid = 5, 6
    attributes.st_mtime_ns, attributes.st_atime_ns = 7_000_000_001, 8_000_000_002

    assert attribute_change(attributes, Fields(*updated)) == change  # type: ignore[arg-type]


def test_statfs_numbers_are_encoded() -> None:
    reply = statvfs_data(FilesystemStatistics(4096, 100, 90, 80, 70, name_max=255))

    assert (reply.f_bsize, reply.f_frsize) == (4096, 4096)
    assert (reply.f_blocks, reply.f_bfree, reply.f_bavail) == (100, 90, 90)
    assert (reply.f_files, reply.f_ffree, reply.f_favail, reply.f_namemax) == (80, 70, 70, 255)


@pytest.mark.parametrize(
    ("name", "writing", "number"),
    [
        (b"security.capability", False, errno.ENODATA),
        (b"security.selinux", False, errno.EOPNOTSUPP),
        (b"security.selinux", True, errno.EOPNOTSUPP),
        (b"system.posix_acl_access", False, errno.EOPNOTSUPP),
        (b"system.posix_acl_default", True, errno.EOPNOTSUPP),
        (b"trusted.overlay.opaque", False, errno.EOPNOTSUPP),
        (b"nonsense", True, errno.EOPNOTSUPP),
    ],
)
def test_namespaces_an_object_store_has_not_are_answered_at_once(name: bytes, writing: bool, number: int) -> None:
    with pytest.raises(pyfuse3.FUSEError) as refused:
        check_xattr_name(name, writing=writing)

    assert refused.value.errno == number


def test_user_attributes_go_to_the_filesystem() -> None:
    check_xattr_name(b"user.oss.etag", writing=True)
