"""What a predecessor may have done: success when it has, and an error for everybody else."""

from __future__ import annotations

import errno
import os
import struct
from typing import Any

import pytest

from csi.errors import DirectoryNotEmpty
from csi.fuse.protocol.constants import UNIQUE_RESEND, Opcode
from tests.support.tree_filesystem import TreeFilesystem
from tests.unit.fuse.own.conftest import Served

MKDIR = struct.pack("<II", 0o755, 0o22) + b"dir\0"
CREATE = struct.pack("<IIII", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, 0o22, 0) + b"file\0"
RENAME = struct.pack("<QIxxxx", 1, 0) + b"file\0moved\0"


def ask_again(served: Served, opcode: Opcode, body: bytes) -> int:
    unique = UNIQUE_RESEND | served.next_unique()
    return served.device.wait_for(served.send(opcode, body, 1, unique)).error


@pytest.mark.parametrize(
    ("opcode", "body"),
    [(Opcode.MKDIR, MKDIR), (Opcode.SYMLINK, b"link\0target\0"), (Opcode.RENAME2, RENAME), (Opcode.UNLINK, b"file\0")],
)
def test_what_was_done_before_is_success(served: Served, opcode: Opcode, body: bytes) -> None:
    assert served.ask(opcode, body).error == 0

    assert ask_again(served, opcode, body) == 0


def test_a_removed_directory_is_success(served: Served) -> None:
    served.ask(Opcode.MKDIR, MKDIR)
    served.ask(Opcode.RMDIR, b"dir\0")

    assert ask_again(served, Opcode.RMDIR, b"dir\0") == 0


def test_a_file_may_be_there_when_its_creation_is_asked_for_again(served: Served, filesystem: TreeFilesystem) -> None:
    asked: list[int] = []
    create = filesystem.create

    def remember(parent: Any, name: bytes, mode: int, flags: int, caller: Any) -> Any:
        asked.append(flags & os.O_EXCL)
        return create(parent, name, mode, flags, caller)

    filesystem.create = remember  # type: ignore[method-assign]
    served.ask(Opcode.CREATE, CREATE.replace(b"file", b"one"))
    ask_again(served, Opcode.CREATE, CREATE.replace(b"file", b"two"))

    assert asked == [os.O_EXCL, 0]


@pytest.mark.parametrize(
    ("opcode", "body", "expected"),
    [
        (Opcode.MKDIR, MKDIR.replace(b"dir", b"file"), errno.EEXIST),
        (Opcode.UNLINK, b"nope\0", errno.ENOENT),
        (Opcode.RMDIR, b"nope\0", errno.ENOENT),
        (Opcode.RENAME2, RENAME.replace(b"file", b"nope"), errno.ENOENT),
    ],
)
def test_for_anybody_else_it_is_an_error(served: Served, opcode: Opcode, body: bytes, expected: int) -> None:
    assert served.ask(opcode, body).error == expected


def test_a_rename_of_which_nothing_is_there_is_an_error(served: Served) -> None:
    assert ask_again(served, Opcode.RENAME2, RENAME.replace(b"file", b"nope")) == errno.ENOENT


def test_an_entry_that_is_found_is_counted_once(served: Served, filesystem: TreeFilesystem) -> None:
    served.ask(Opcode.RENAME2, RENAME)
    ask_again(served, Opcode.RENAME2, RENAME)

    assert not +filesystem.lookups


def test_a_directory_of_which_a_part_may_have_been_renamed_is_another_error_than_one_that_is_in_the_way(
    served: Served, filesystem: TreeFilesystem
) -> None:
    def refuse(*_: Any) -> None:
        raise DirectoryNotEmpty("'moved' is not empty")

    filesystem.rename = refuse  # type: ignore[method-assign]

    assert served.ask(Opcode.RENAME2, RENAME).error == errno.ENOTEMPTY
    assert ask_again(served, Opcode.RENAME2, RENAME) == errno.EIO
