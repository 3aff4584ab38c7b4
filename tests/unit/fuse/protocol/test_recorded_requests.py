"""Every request of the protocol, as a real kernel sent it, decodes to what the program that caused it had asked for.

The steps, and the names, offsets and sizes in them, are those of tests/support/record_fuse.py; nodes and handles are
numbered by tests/support/raw_fuse.py. What the local kernel never sends to a server like ours is built by hand.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Sequence
from typing import Any
from unittest.mock import ANY

import pytest

from csi.fuse.protocol import bodies
from csi.fuse.protocol.bodies import Request
from csi.fuse.protocol.constants import InitFlag, Opcode, SetAttr
from csi.fuse.protocol.messages import decode
from tests.support.recorded_fuse import ALL, OLD, messages, requests

ROOT, FILE, COPY, DIRECTORY, LINK, UNNAMED, THEIRS = 1, 2, 3, 4, 7, 8, 9
WRITER, READER, COPIER, LISTED = 0x1001, 0x1002, 0x1003, 0x1004
RDWR = os.O_RDWR | 0o100000  # O_LARGEFILE, which Python says is 0
LISTING = os.O_DIRECTORY | os.O_NONBLOCK | 0o100000
UMASK = 0o022
MANY = 4095  # STATX_BASIC_STATS | STATX_BTIME
PAGE, DIRECTORY_PAGE = 4096, 65536
IOCTL = 0xC0086600

BOTH: Sequence[tuple[str, Opcode, int, Any]] = [
    ("init", Opcode.INIT, 0, bodies.Init(7, 45, 131072, ANY)),
    ("init", Opcode.GETATTR, ROOT, bodies.GetAttr(0, 0)),
    ("create", Opcode.LOOKUP, ROOT, bodies.Name(b"file")),
    ("create", Opcode.CREATE, ROOT, bodies.Create(b"file", RDWR | os.O_CREAT | os.O_EXCL, 0o100640, UMASK, 0)),
    ("write", Opcode.WRITE, FILE, bodies.Write(WRITER, 5, ANY, 0, 0, RDWR)),
    ("fsync", Opcode.FSYNC, FILE, bodies.Sync(WRITER, 0)),
    ("fdatasync", Opcode.FSYNC, FILE, bodies.Sync(WRITER, 1)),
    ("close", Opcode.FLUSH, FILE, bodies.Flush(WRITER, ANY)),
    ("close", Opcode.RELEASE, FILE, bodies.Release(WRITER, RDWR, 0, 0)),
    ("lookup-missing", Opcode.LOOKUP, ROOT, bodies.Name(b"missing")),
    ("chmod", Opcode.SETATTR, FILE, bodies.SetAttributes(SetAttr.MODE, 0, 0, 0, 0, 0, 0, 0o100604, 0, 0)),
    ("truncate", Opcode.SETATTR, FILE,
     bodies.SetAttributes(SetAttr.SIZE | SetAttr.LOCK_OWNER, 0, 12, ANY, 0, 0, 0, 0, 0, 0)),
    ("utime", Opcode.SETATTR, FILE,
     bodies.SetAttributes(SetAttr.ATIME | SetAttr.MTIME, 0, 0, 0, 1_111_111_111_000_000_001,
                          1_222_222_222_000_000_002, 0, 0, 0, 0)),
    ("utime-before-1970", Opcode.SETATTR, FILE,
     bodies.SetAttributes(SetAttr.ATIME | SetAttr.MTIME, 0, 0, 0, -1_500_000_000, -2_000_000_000, 0, 0, 0, 0)),
    ("utime-now", Opcode.SETATTR, FILE,
     bodies.SetAttributes(SetAttr.ATIME | SetAttr.MTIME | SetAttr.ATIME_NOW | SetAttr.MTIME_NOW, 0, 0, 0, ANY, ANY,
                          0, 0, 0, 0)),
    ("open", Opcode.OPEN, FILE, bodies.Open(RDWR, 0)),
    ("ftruncate", Opcode.SETATTR, FILE,
     bodies.SetAttributes(SetAttr.SIZE | SetAttr.LOCK_OWNER | SetAttr.HANDLE, READER, 64, ANY, 0, 0, 0, 0, 0, 0)),
    ("read", Opcode.READ, FILE, bodies.Read(READER, 0, PAGE, 0, 0, RDWR)),
    ("lseek", Opcode.LSEEK, FILE, bodies.Seek(READER, 3, os.SEEK_DATA)),
    ("fallocate", Opcode.FALLOCATE, FILE, bodies.Allocate(READER, 100, 200, 0)),
    ("getlk", Opcode.GETLK, FILE, bodies.Lock(READER, ANY, 10, 29, 1, 0, 0)),
    ("setlk", Opcode.SETLK, FILE, bodies.Lock(READER, ANY, 10, 29, 1, ANY, 0)),
    ("flock", Opcode.SETLK, FILE, bodies.Lock(READER, ANY, 0, (1 << 63) - 1, 0, ANY, 1)),
    ("setlkw-interrupted", Opcode.SETLKW, FILE, bodies.Lock(READER, ANY, 5000, 5000, 1, ANY, 0)),
    ("ioctl", Opcode.IOCTL, FILE, bodies.Ioctl(READER, 0, IOCTL, ANY, b"abcdefgh", 8)),
    ("poll", Opcode.POLL, FILE, bodies.Poll(READER, 2, 1, 27)),
    ("copy-range", Opcode.COPY_FILE_RANGE_64, FILE, bodies.CopyRange(READER, 3, COPY, COPIER, 7, 40, 0)),
    ("close-reader", Opcode.RELEASE, FILE, bodies.Release(READER, RDWR, 2, ANY)),
    ("mkdir", Opcode.MKDIR, ROOT, bodies.MakeDirectory(b"dir", 0o711, UMASK)),
    ("mknod-device", Opcode.MKNOD, ROOT, bodies.MakeNode(b"dev", stat.S_IFCHR | 0o600, 5 << 8 | 7, UMASK)),
    ("symlink", Opcode.SYMLINK, ROOT, bodies.Symlink(b"link", b"the/target")),
    ("readlink", Opcode.READLINK, LINK, bodies.Nothing()),
    ("hard-link", Opcode.LINK, DIRECTORY, bodies.Link(FILE, b"hard")),
    ("rename", Opcode.RENAME, DIRECTORY, bodies.Rename(b"hard", ROOT, b"moved", 0)),
    ("rename2", Opcode.RENAME2, ROOT, bodies.Rename(b"moved", DIRECTORY, b"again", 1)),
    ("setxattr", Opcode.SETXATTR, FILE, bodies.SetXattr(b"user.color", b"blue", os.XATTR_CREATE)),
    ("getxattr", Opcode.GETXATTR, FILE, bodies.GetXattr(b"user.color", 128)),
    ("getxattr-size", Opcode.GETXATTR, FILE, bodies.GetXattr(b"user.color", 0)),
    ("listxattr", Opcode.LISTXATTR, FILE, bodies.ListXattr(256)),
    ("removexattr", Opcode.REMOVEXATTR, FILE, bodies.Name(b"user.color")),
    ("statfs", Opcode.STATFS, ROOT, bodies.Nothing()),
    ("access", Opcode.ACCESS, FILE, bodies.Access(os.R_OK | os.W_OK)),
    ("readdir", Opcode.OPENDIR, ROOT, bodies.Open(LISTING, 0)),
    ("readdir", Opcode.RELEASEDIR, ROOT, bodies.Release(LISTED, LISTING, 0, 0)),
    ("fsyncdir", Opcode.FSYNCDIR, DIRECTORY, bodies.Sync(LISTED + 1, 0)),
    ("tmpfile", Opcode.TMPFILE, DIRECTORY, bodies.Create(b"/", os.O_TMPFILE | RDWR, 0o100600, UMASK, 0)),
    ("tmpfile", Opcode.FORGET, UNNAMED, bodies.Forget(((UNNAMED, 1),))),
    ("statx", Opcode.STATX, FILE, bodies.Statx(0, 0, 0, MANY)),
    ("unlink", Opcode.UNLINK, ROOT, bodies.Name(b"copy")),
    ("rmdir", Opcode.RMDIR, ROOT, bodies.Name(b"dir")),
    ("batch-forget", Opcode.BATCH_FORGET, 0, bodies.Forget(((10, 1), (11, 1), (12, 1)))),
    ("notify-retrieve", Opcode.NOTIFY_REPLY, FILE, bodies.Nothing()),
]  # fmt: skip
ONE: Sequence[tuple[str, str, Opcode, int, Any]] = [
    # a server of 7.31 gets modes with the umask applied, one that asked for DONT_MASK gets them as given
    (OLD, "mknod", Opcode.MKNOD, ROOT, bodies.MakeNode(b"fifo", stat.S_IFIFO | 0o600, 0, UMASK)),
    (ALL, "mknod", Opcode.MKNOD, ROOT, bodies.MakeNode(b"fifo", stat.S_IFIFO | 0o622, 0, UMASK)),
    (OLD, "readdir", Opcode.READDIR, ROOT, bodies.Read(LISTED, 0, DIRECTORY_PAGE, 0, 0, LISTING)),
    (ALL, "readdir", Opcode.READDIRPLUS, ROOT, bodies.Read(LISTED, 0, DIRECTORY_PAGE, 0, 0, LISTING)),
    (OLD, "copy-range", Opcode.COPY_FILE_RANGE, FILE, bodies.CopyRange(READER, 3, COPY, COPIER, 7, 40, 0)),
    (OLD, "chown", Opcode.SETATTR, FILE,
     bodies.SetAttributes(SetAttr.UID | SetAttr.GID, 0, 0, 0, 0, 0, 0, 0, 1001, 1002)),
    (ALL, "chown", Opcode.SETATTR, FILE,
     bodies.SetAttributes(SetAttr.UID | SetAttr.GID | SetAttr.KILL_SUIDGID, 0, 0, 0, 0, 0, 0, 0, 1001, 1002)),
    (ALL, "notify-retrieve", Opcode.GETATTR, FILE, bodies.GetAttr(1, READER)),
]  # fmt: skip
EXPECTED = [(session, *row) for session in (OLD, ALL) for row in BOTH] + list(ONE)


@pytest.mark.parametrize(
    ("session", "step", "opcode", "node", "expected"),
    EXPECTED,
    ids=[f"{row[0]}-{row[1]}-{row[2].name}" for row in EXPECTED],
)
def test_a_recorded_request_says_what_the_program_asked_for(
    session: str, step: str, opcode: Opcode, node: int, expected: object
) -> None:
    message = requests(session, step, opcode)[0]

    request = decode(memoryview(message), setxattr_ext=session == ALL)

    assert (request.header.opcode, request.header.node, request.header.length) == (opcode, node, len(message))
    assert request.body == expected


def test_the_payload_of_a_recorded_write_is_what_was_written() -> None:
    body = decoded(OLD, "write", Opcode.WRITE).body

    assert isinstance(body, bodies.Write)
    assert bytes(body.data) == b"0123456789"


def test_an_interrupt_names_the_request_that_waits() -> None:
    waiting = decoded(ALL, "setlkw-interrupted", Opcode.SETLKW)
    interrupt = decoded(ALL, "setlkw-interrupted", Opcode.INTERRUPT)

    assert interrupt.body == bodies.Interrupt(waiting.header.unique)
    assert interrupt.header.unique == waiting.header.unique | 1


def test_the_caller_is_in_the_header() -> None:
    header = decoded(ALL, "other-user", Opcode.CREATE).header

    assert (header.uid, header.gid) == (1001, 1002)
    assert header.pid > 1


def test_groups_that_follow_the_body_are_no_part_of_the_name() -> None:
    request = decoded(ALL, "other-user", Opcode.CREATE)

    assert request.header.extensions > 0
    assert request.body == bodies.Create(b"theirs", os.O_CREAT | os.O_WRONLY | 0o100000, 0o100600, UMASK, 0)


def test_init_offers_what_this_kernel_has() -> None:
    body = decoded(ALL, "init", Opcode.INIT).body

    assert isinstance(body, bodies.Init)
    offered = InitFlag(body.flags)
    assert offered & InitFlag.INIT_EXT
    assert offered & InitFlag.HAS_RESEND
    assert offered & InitFlag.PASSTHROUGH
    assert not offered & InitFlag.MAP_ALIGNMENT  # that is virtiofs


def test_a_batch_of_forgets_is_recorded_in_one_message() -> None:
    assert len(requests(ALL, "batch-forget", Opcode.BATCH_FORGET)) == 1


# --- what this kernel sends only to others: block devices, virtiofs ---

BY_HAND: Sequence[tuple[Opcode, bytes, Any]] = [
    (Opcode.BMAP, struct.pack("<QII", 7, 4096, 0), bodies.BlockMap(7, 4096)),
    (Opcode.DESTROY, b"", bodies.Nothing()),
    (Opcode.SYNCFS, bytes(8), bodies.Nothing()),
    (Opcode.SETUPMAPPING, struct.pack("<QQQQQ", 1, 2, 3, 4, 5), bodies.Nothing()),
    (Opcode.REMOVEMAPPING, struct.pack("<IQQ", 1, 0, 4096), bodies.Nothing()),
]


@pytest.mark.parametrize(("opcode", "body", "expected"), BY_HAND, ids=[row[0].name for row in BY_HAND])
def test_a_request_for_other_kinds_of_servers_is_understood(opcode: Opcode, body: bytes, expected: object) -> None:
    request = decode(memoryview(message_of(opcode, body)))

    assert request.body == expected


def test_an_opcode_of_the_future_is_a_request_without_a_body() -> None:
    request = decode(memoryview(message_of(999, b"whatever")))

    assert (request.header.opcode, request.body) == (999, bodies.Nothing())


def test_init_of_a_kernel_before_7_36_has_no_second_word_of_flags() -> None:
    body = decode(memoryview(message_of(Opcode.INIT, struct.pack("<IIII", 7, 31, 1 << 17, 0x1FFFFFB)))).body

    assert body == bodies.Init(7, 31, 1 << 17, 0x1FFFFFB)


def test_every_opcode_of_the_protocol_is_decoded_here() -> None:
    seen = {row[2] for row in EXPECTED} | {row[0] for row in BY_HAND} | {Opcode.INTERRUPT}

    assert seen == set(Opcode)


def test_every_recorded_message_decodes() -> None:
    decoded_opcodes = [
        decode(memoryview(message.data), setxattr_ext=message.extended).header.opcode
        for message in messages()
        if message.is_request
    ]

    assert len(decoded_opcodes) > 200
    assert set(decoded_opcodes) <= set(Opcode)


def test_the_kernel_accepted_the_recorded_answers() -> None:
    refused = {
        -struct.unpack_from("<i", message.data, 4)[0]
        for message in messages()
        if not message.is_request and message.opcode
    } - {0}

    assert refused == {errno.ENOENT, errno.ENODATA, errno.ENOSYS, errno.EINTR}


def decoded(session: str, step: str, opcode: Opcode) -> Request:
    return decode(memoryview(requests(session, step, opcode)[0]), setxattr_ext=session == ALL)


def message_of(opcode: int, body: bytes) -> bytes:
    return struct.pack("<IIQQIIIHH", 40 + len(body), opcode, 2, FILE, 0, 0, 1, 0, 0) + body
