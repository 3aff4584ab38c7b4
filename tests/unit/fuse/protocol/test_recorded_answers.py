"""Our answers are, byte for byte, those that a kernel accepted from tests/support/raw_fuse.py, and whose values the
programs of the recording saw."""

from __future__ import annotations

import errno
import stat
import struct
from collections.abc import Sequence

import pytest

from csi.fs.types import Attributes, DirectoryEntry, Entry, FileKind, FilesystemStatistics
from csi.fuse.protocol import replies
from csi.fuse.protocol.bodies import Init
from csi.fuse.protocol.constants import InitFlag, Opcode
from csi.fuse.protocol.messages import decode
from csi.fuse.protocol.negotiation import InitResult, negotiate
from csi.volume.units import InodeNumber, Seconds
from tests.support.recorded_fuse import ALL, OLD, answers, requests

ENTRY_TIMEOUT, ATTR_TIMEOUT = Seconds(300.5), Seconds(200.25)
SECOND = 1_000_000_000
_KINDS = {stat.S_IFREG: FileKind.FILE, stat.S_IFDIR: FileKind.DIRECTORY, stat.S_IFLNK: FileKind.SYMLINK}


def entry(inode: int, mode: int, size: int = 0, *, links: int = 1, owner: tuple[int, int] = (0, 0)) -> Entry:
    """As raw_fuse.py makes them."""
    kind = _KINDS.get(stat.S_IFMT(mode), FileKind.FILE)
    access, modification, change = (
        (1_700_000_000 + number) * SECOND + part for number, part in enumerate((11, 22, 33))
    )
    attributes = Attributes(InodeNumber(inode), kind, mode, links, *owner, size, modification, change, access)
    return Entry(attributes, ENTRY_TIMEOUT, ATTR_TIMEOUT, 7)


FILE_AFTER_CHMOD = entry(2, 0o100604, 15)
FILE_AT_THE_END = entry(2, 0o100604, 64, links=2, owner=(1001, 1002))

SAME: Sequence[tuple[str, str, Opcode, bytes]] = [
    (ALL, "create", Opcode.CREATE, replies.entry(entry(2, 0o100640)) + replies.opened(0x1001, 0)),
    (ALL, "write", Opcode.WRITE, replies.size(10)),
    (ALL, "chmod", Opcode.SETATTR, replies.attributes_for(FILE_AFTER_CHMOD)),
    (ALL, "open", Opcode.OPEN, replies.opened(0x1002, 0)),
    (ALL, "lseek", Opcode.LSEEK, replies.position(3)),
    (ALL, "copy-range", Opcode.COPY_FILE_RANGE_64, replies.position(40)),
    (OLD, "copy-range", Opcode.COPY_FILE_RANGE, replies.size(40)),
    (ALL, "mkdir", Opcode.MKDIR, replies.entry(entry(4, 0o40711))),
    (ALL, "symlink", Opcode.SYMLINK, replies.entry(entry(7, 0o120777, 10))),
    (ALL, "readlink", Opcode.READLINK, b"the/target"),
    (ALL, "hard-link", Opcode.LINK, replies.entry(FILE_AT_THE_END)),
    (ALL, "getxattr-size", Opcode.GETXATTR, replies.size(4)),
    (ALL, "listxattr", Opcode.LISTXATTR, replies.xattr_names([b"user.color"])),
    (ALL, "statfs", Opcode.STATFS, replies.statfs(FilesystemStatistics(4096, 1000, 900, 700, 600))),
    (ALL, "statx", Opcode.STATX, replies.statx(FILE_AT_THE_END)),
    (ALL, "tmpfile", Opcode.TMPFILE, replies.entry(entry(8, 0o100600)) + replies.opened(0x1006, 0)),
    (ALL, "readdir", Opcode.OPENDIR, replies.opened(0x1004, 0)),
]
CHILDREN = [
    (b"file", FILE_AT_THE_END),
    (b"copy", entry(3, 0o100777, 47)),
    (b"dir", entry(4, 0o40711)),
    (b"fifo", entry(5, stat.S_IFIFO | 0o622)),
    (b"dev", entry(6, stat.S_IFCHR | 0o600)),
    (b"link", entry(7, 0o120777, 10)),
]


@pytest.mark.parametrize(
    ("session", "step", "opcode", "body"), SAME, ids=[f"{row[0]}-{row[1]}-{row[2].name}" for row in SAME]
)
def test_an_answer_is_the_one_that_the_kernel_took(session: str, step: str, opcode: Opcode, body: bytes) -> None:
    answer = answers(session, step, opcode)[0]
    unique = decode(memoryview(requests(session, step, opcode)[0]), setxattr_ext=session == ALL).header.unique

    assert answer == replies.header(unique, len(body)) + body


def test_a_page_of_a_directory_is_the_one_that_the_kernel_took() -> None:
    page = b"".join(
        replies.directory_record(name, child.attributes.inode, child.attributes.mode, position)
        for position, (name, child) in enumerate(CHILDREN, 1)
    )

    assert answers(OLD, "readdir", Opcode.READDIR)[0][16:] == page


def test_a_page_of_a_directory_with_attributes_is_the_one_that_the_kernel_took() -> None:
    page = b"".join(
        replies.directory_record_plus(DirectoryEntry(name, child, position))
        for position, (name, child) in enumerate(CHILDREN, 1)
    )

    assert answers(ALL, "readdir", Opcode.READDIRPLUS)[0][16:] == page


def test_an_error_is_the_header_alone() -> None:
    answer = answers(ALL, "lookup-missing", Opcode.LOOKUP)[0]
    unique = decode(memoryview(requests(ALL, "lookup-missing", Opcode.LOOKUP)[0])).header.unique

    assert answer == replies.header(unique, 0, errno.ENOENT)


def test_init_is_answered_with_the_flags_where_the_kernel_looks_for_them() -> None:
    asked = decode(memoryview(requests(ALL, "init", Opcode.INIT)[0])).body
    assert isinstance(asked, Init)
    recorded = answers(ALL, "init", Opcode.INIT)[0][16:]
    low, background, congestion, max_write, _, pages, _, high = struct.unpack_from("<IHHIIHHI", recorded, 12)

    agreed = InitResult(7, 45, high << 32 | low, asked.max_readahead, max_write, pages, background, congestion)

    assert agreed.encode() == recorded


def test_what_is_negotiated_was_offered() -> None:
    asked = decode(memoryview(requests(ALL, "init", Opcode.INIT)[0])).body
    assert isinstance(asked, Init)

    agreed = negotiate(asked)

    assert InitFlag(agreed.flags) & ~InitFlag(asked.flags) == InitFlag(0)
    assert agreed.has(InitFlag.HAS_RESEND)
    assert agreed.max_write == 1 << 20
