"""Requests as bytes, answers as bytes: what the Python path of our own session makes of each kind."""

from __future__ import annotations

import errno
import gc
import os
import stat
import struct
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from csi import errors
from csi.fs.types import Caller, Entry
from csi.fuse.protocol.constants import Opcode, OpenFlag, SetAttr
from csi.volume.units import FileHandle, InodeNumber, Seconds
from tests.support.kernel_end import Answered, batch_forget_body, forget_body, open_body, read_body, release_body
from tests.support.tree_filesystem import TreeFilesystem
from tests.unit.fuse.own.conftest import Served


def node_of(answered: Answered) -> int:
    assert answered.error == 0
    return int(struct.unpack_from("<Q", answered.body)[0])


def opened(served: Served, flags: int = os.O_RDONLY) -> tuple[int, int, int]:
    """(node, handle, flags of the answer) of `file`."""
    node = node_of(served.ask(Opcode.LOOKUP, b"file\0"))
    handle, answer_flags = struct.unpack("<QIxxxx", served.ask(Opcode.OPEN, open_body(flags), node).body)
    return node, handle, answer_flags


def test_lookup_answers_with_attributes_and_is_counted(served: Served, filesystem: TreeFilesystem) -> None:
    answered = served.ask(Opcode.LOOKUP, b"file\0")

    assert struct.unpack_from("<Q", answered.body, 48) == (10,)
    assert filesystem.lookups[node_of(answered)] == 1


def test_a_lookup_whose_caller_is_gone_is_not_counted(served: Served, filesystem: TreeFilesystem) -> None:
    unique = served.next_unique()
    served.device.gone[unique] = errno.ENOENT
    served.send(Opcode.LOOKUP, b"file\0")
    served.device.wait_for_refusal(unique)

    assert eventually(lambda: not +filesystem.lookups)


def eventually(holds: Callable[[], bool]) -> bool:
    """What a thread of a lane does after it was refused has no answer to wait for."""
    end = time.monotonic() + 20
    while not holds() and time.monotonic() < end:
        time.sleep(0.001)
    return holds()


@pytest.mark.parametrize(("timeout", "expected"), [(0.0, errno.ENOENT), (30.0, 0)])
def test_a_missing_name_is_what_the_timeout_allows(timeout: float, expected: int) -> None:
    served = Served(TreeFilesystem(inline=False), negative_timeout=Seconds(timeout))

    answered = served.ask(Opcode.LOOKUP, b"nope\0")

    assert answered.error == expected
    if not expected:
        assert struct.unpack_from("<QQQ", answered.body) == (0, 0, 30)


class Remembering(TreeFilesystem):
    """It has known for 20 seconds what is not there."""

    def lookup(self, parent: InodeNumber, name: bytes, caller: Caller) -> Entry:
        error = errors.NoSuchEntry("it is not there")
        error.age = 20.0
        raise error


@pytest.mark.parametrize(("timeout", "told"), [(30.0, 10), (10.0, None)])
def test_a_name_that_was_known_to_be_missing_is_believed_for_what_is_left(timeout: float, told: int | None) -> None:
    served = Served(Remembering(inline=False), negative_timeout=Seconds(timeout))

    answered = served.ask(Opcode.LOOKUP, b"nope\0")

    if told is None:
        assert answered.error == errno.ENOENT
    else:
        assert struct.unpack_from("<QQQ", answered.body) == (0, 0, told)


class Missing(TreeFilesystem):
    """`kept` is a weak reference to the error of the last look-up; `known`: it is what is known already."""

    kept: weakref.ref[BaseException]

    def __init__(self, *, known: bool) -> None:
        super().__init__(inline=False)
        self.known = known

    def _missing(self) -> errors.NoSuchEntry:
        error = errors.NoSuchEntry("it is not there")
        self.kept = weakref.ref(error)
        return error

    def lookup_cached(self, parent: InodeNumber, name: bytes) -> Entry | None:
        if self.known:
            raise self._missing()
        return None

    def lookup(self, parent: InodeNumber, name: bytes, caller: Caller) -> Entry:
        raise self._missing()


@pytest.mark.parametrize("known", [True, False])
def test_what_was_read_for_a_missing_name_is_freed_without_the_garbage_collector(known: bool) -> None:
    """An error keeps the frames it came through, and those the memory of the request."""
    filesystem = Missing(known=known)
    served = Served(filesystem, negative_timeout=Seconds(0.0))
    gc.disable()
    try:
        assert served.ask(Opcode.LOOKUP, b"nope\0").error == errno.ENOENT
        assert eventually(lambda: filesystem.kept() is None)
    finally:
        gc.enable()


def test_attributes_are_answered(served: Served) -> None:
    node = node_of(served.ask(Opcode.LOOKUP, b"file\0"))

    answered = served.ask(Opcode.GETATTR, struct.pack("<IxxxxQ", 0, 0), node)

    assert struct.unpack_from("<QQ", answered.body, 16) == (node, 10)


def test_statx_has_mode_and_size(served: Served) -> None:
    node = node_of(served.ask(Opcode.LOOKUP, b"file\0"))

    answered = served.ask(Opcode.STATX, struct.pack("<IxxxxQII", 0, 0, 0, 0xFFF), node)

    mode, inode, size = struct.unpack_from("<HxxQQ", answered.body, 60)
    assert (stat.S_ISREG(mode), inode, size) == (True, node, 10)


def test_setattr_changes_what_is_marked_valid(served: Served, filesystem: TreeFilesystem) -> None:
    node = node_of(served.ask(Opcode.LOOKUP, b"file\0"))
    body = struct.pack(
        "<IxxxxQQQQQQIIIIxxxxIIxxxx", SetAttr.MODE | SetAttr.MTIME, 0, 3, 0, 0, 12, 0, 0, 5, 0, 0o100600, 0, 0
    )

    served.ask(Opcode.SETATTR, body, node)

    changed = filesystem.nodes[node]
    assert (changed.mode, changed.mtime_ns, len(changed.data)) == (0o600, 12_000_000_005, 10)


def test_the_tree_is_changed_and_answers_are_entries(served: Served, filesystem: TreeFilesystem) -> None:
    made = served.ask(Opcode.MKDIR, struct.pack("<II", 0o755, 0o22) + b"dir\0")
    link = served.ask(Opcode.SYMLINK, b"link\0target\0")
    moved = served.ask(Opcode.RENAME2, struct.pack("<QIxxxx", node_of(made), 0) + b"file\0moved\0")
    removed = served.ask(Opcode.UNLINK, b"link\0")

    assert (moved.error, removed.error) == (0, 0)
    assert served.ask(Opcode.LOOKUP, b"moved\0", node_of(made)).error == 0
    assert node_of(served.ask(Opcode.LOOKUP, b"link\0")) == 0
    assert filesystem.lookups[node_of(link)] == 1


def test_a_symlink_is_read(served: Served) -> None:
    node = node_of(served.ask(Opcode.SYMLINK, b"link\0target\0"))

    assert served.ask(Opcode.READLINK, node=node).body == b"target"


@pytest.mark.parametrize(
    ("opcode", "body", "expected"),
    [
        pytest.param(Opcode.LINK, struct.pack("<Q", 2) + b"x\0", errno.EPERM, id="hard link"),
        pytest.param(Opcode.MKNOD, struct.pack("<IIIxxxx", stat.S_IFIFO, 0, 0) + b"x\0", errno.EPERM, id="fifo"),
        pytest.param(Opcode.ACCESS, struct.pack("<II", 4, 0), errno.ENOSYS, id="access"),
        pytest.param(Opcode.TMPFILE, struct.pack("<IIII", 0, 0, 0, 0) + b"\0", errno.EOPNOTSUPP, id="tmpfile"),
        pytest.param(Opcode.FALLOCATE, struct.pack("<QQQIxxxx", 1, 0, 9, 0), errno.EOPNOTSUPP, id="fallocate"),
        pytest.param(Opcode.COPY_FILE_RANGE, bytes(56), errno.ENOSYS, id="copy_file_range"),
        pytest.param(Opcode.IOCTL, bytes(32), errno.ENOSYS, id="ioctl"),
        pytest.param(Opcode.SETLK, bytes(48), errno.ENOSYS, id="lock"),
        pytest.param(4242, b"anything", errno.ENOSYS, id="unknown"),
        pytest.param(Opcode.READDIR, read_body(99, 0, 4096), errno.EBADF, id="unknown directory"),
        pytest.param(Opcode.LOOKUP, b"no end", errno.EIO, id="malformed"),
        pytest.param(
            Opcode.GETXATTR, struct.pack("<II", 0, 0) + b"security.capability\0", errno.ENODATA, id="capabilities"
        ),
        pytest.param(Opcode.GETXATTR, struct.pack("<II", 0, 0) + b"system.x\0", errno.EOPNOTSUPP, id="system"),
    ],
)
def test_what_is_refused(served: Served, opcode: int, body: bytes, expected: int) -> None:
    assert served.ask(opcode, body).error == expected


def test_extended_attributes_are_kept_and_listed(served: Served) -> None:
    node = node_of(served.ask(Opcode.LOOKUP, b"file\0"))
    served.ask(Opcode.SETXATTR, struct.pack("<II", 5, os.XATTR_CREATE) + b"user.a\0value", node)

    value = served.ask(Opcode.GETXATTR, struct.pack("<II", 100, 0) + b"user.a\0", node)
    size = served.ask(Opcode.GETXATTR, struct.pack("<II", 0, 0) + b"user.a\0", node)
    small = served.ask(Opcode.GETXATTR, struct.pack("<II", 2, 0) + b"user.a\0", node)
    names = served.ask(Opcode.LISTXATTR, struct.pack("<II", 100, 0), node)

    assert value.body == b"value"
    assert struct.unpack("<Ixxxx", size.body) == (5,)
    assert small.error == errno.ERANGE
    assert names.body == b"user.a\0"


def test_without_xattrs_the_kernel_is_told_never_to_ask() -> None:
    served = Served(TreeFilesystem(), xattrs=False)

    assert served.ask(Opcode.GETXATTR, struct.pack("<II", 0, 0) + b"user.a\0").error == errno.ENOSYS
    assert served.ask(Opcode.LISTXATTR, struct.pack("<II", 0, 0)).error == errno.ENOSYS


def test_a_file_is_opened_read_and_released(served: Served, filesystem: TreeFilesystem) -> None:
    _, handle, flags = opened(served)

    data = served.ask(Opcode.READ, read_body(handle, 2, 100))
    flushed = served.ask(Opcode.FLUSH, struct.pack("<QxxxxxxxxQ", handle, 0))
    released = served.ask(Opcode.RELEASE, release_body(handle))

    assert data.body == b"23456789"
    assert flags & OpenFlag.NOFLUSH
    assert (flushed.error, released.error, filesystem.handles) == (0, 0, {})
    assert filesystem.calls["flush"] == 0


@pytest.mark.parametrize(("read_flags", "for_pages"), [(0, 1), (1, 1), (2, 0), (3, 0)])
def test_what_goes_to_the_memory_of_a_program_is_told_from_what_becomes_pages(
    served: Served, filesystem: TreeFilesystem, read_flags: int, for_pages: int
) -> None:
    filesystem.inline = False
    _, handle, _ = opened(served)

    served.ask(Opcode.READ, struct.pack("<QQIIQIxxxx", handle, 2, 100, read_flags, 0, 0))

    assert (filesystem.calls["read"], filesystem.calls["read for pages"]) == (1, for_pages)


def test_direct_io_lets_writers_work_at_the_same_time(served: Served, filesystem: TreeFilesystem) -> None:
    filesystem.direct_io = True

    _, _, flags = opened(served)

    assert flags & (OpenFlag.DIRECT_IO | OpenFlag.PARALLEL_DIRECT_WRITES | OpenFlag.KEEP_CACHE) == (
        OpenFlag.DIRECT_IO | OpenFlag.PARALLEL_DIRECT_WRITES
    )


def test_where_nobody_reads_pages_that_writes_make_none_are_made_and_writers_take_turns(
    served: Served, filesystem: TreeFilesystem
) -> None:
    filesystem.uncached_writes = True

    _, _, flags = opened(served, os.O_WRONLY)

    assert flags & (OpenFlag.DIRECT_IO | OpenFlag.PARALLEL_DIRECT_WRITES) == OpenFlag.DIRECT_IO


def test_a_file_is_created_written_and_flushed(served: Served, filesystem: TreeFilesystem) -> None:
    flags = os.O_WRONLY | os.O_CREAT
    created = served.ask(Opcode.CREATE, struct.pack("<IIII", flags, 0o644, 0o22, 0) + b"new\0")
    node, handle = node_of(created), struct.unpack_from("<Q", created.body, 128)[0]
    data = b"x" * 1000

    body = struct.pack("<QQIIQIxxxx", handle, 0, len(data), 0, 0, 0) + data
    written = served.ask(Opcode.WRITE, body, node)
    flushed = served.ask(Opcode.FLUSH, struct.pack("<QxxxxxxxxQ", handle, 0), node)

    assert struct.unpack("<Ixxxx", written.body) == (1000,)
    assert flushed.error == 0
    assert bytes(filesystem.nodes[node].data) == data


@pytest.mark.parametrize("flags", [0, os.O_SYNC, os.O_DSYNC])
def test_a_write_that_is_to_be_durable_is_synced_before_it_is_answered(
    served: Served, filesystem: TreeFilesystem, flags: int
) -> None:
    node, handle, _ = opened(served, os.O_RDWR)
    body = struct.pack("<QQIIQIxxxx", handle, 10, 3, 0, 0, os.O_WRONLY | flags) + b"abc"

    written = served.ask(Opcode.WRITE, body, node)

    assert struct.unpack("<Ixxxx", written.body) == (3,)
    assert filesystem.calls["fsync"] == (flags != 0)


def test_a_durable_write_is_told_that_the_sync_failed(served: Served, filesystem: TreeFilesystem) -> None:
    node, handle, _ = opened(served, os.O_RDWR)

    def fsync(handle: FileHandle) -> None:
        raise errors.ServerFailure("internal error", status=500)

    filesystem.fsync = fsync  # type: ignore[method-assign]
    body = struct.pack("<QQIIQIxxxx", handle, 10, 3, 0, 0, os.O_WRONLY | os.O_SYNC) + b"abc"

    assert served.ask(Opcode.WRITE, body, node).error == errno.EIO


def test_the_payload_is_copied_when_no_buffer_is_left(served: Served, filesystem: TreeFilesystem) -> None:
    node, handle, _ = opened(served, os.O_RDWR)
    kept: list[Any] = []
    filesystem.write = lambda handle, offset, data: kept.append(type(data)) or len(data)  # type: ignore[method-assign]
    body = struct.pack("<QQIIQIxxxx", handle, 0, 3, 0, 0, 0) + b"abc"

    served.ask(Opcode.WRITE, body, node)
    served.spare_buffer = False
    served.ask(Opcode.WRITE, body, node)

    assert kept == [memoryview, bytes]


def test_mknod_makes_an_empty_file_that_nobody_has_open(served: Served, filesystem: TreeFilesystem) -> None:
    made = served.ask(Opcode.MKNOD, struct.pack("<IIIxxxx", stat.S_IFREG | 0o644, 0, 0) + b"new\0")

    assert filesystem.nodes[node_of(made)].data == b""
    assert filesystem.handles == {}


def test_a_read_only_mount_is_told_never_to_flush() -> None:
    served = Served(TreeFilesystem(), read_only=True)

    assert served.ask(Opcode.FLUSH, struct.pack("<QxxxxxxxxQ", 1, 0)).error == errno.ENOSYS


@pytest.mark.parametrize(
    ("whence", "offset", "expected"),
    [(os.SEEK_DATA, 3, 3), (os.SEEK_HOLE, 3, 10), (os.SEEK_DATA, 10, None), (os.SEEK_HOLE, 11, None)],
)
def test_a_file_has_one_hole_and_it_is_at_its_end(
    served: Served, whence: int, offset: int, expected: int | None
) -> None:
    node, handle, _ = opened(served)

    answered = served.ask(Opcode.LSEEK, struct.pack("<QQIxxxx", handle, offset, whence), node)

    if expected is None:
        assert answered.error == errno.ENXIO
    else:
        assert struct.unpack("<Q", answered.body) == (expected,)


def test_an_open_whose_caller_is_gone_is_released(served: Served, filesystem: TreeFilesystem) -> None:
    node = node_of(served.ask(Opcode.LOOKUP, b"file\0"))
    unique = served.next_unique()
    served.device.gone[unique] = errno.ENOENT

    served.send(Opcode.OPEN, open_body(os.O_RDONLY), node)
    served.device.wait_for_refusal(unique)

    assert eventually(lambda: not filesystem.handles)


def test_an_answer_that_the_kernel_does_not_take_is_eio(served: Served) -> None:
    _, handle, _ = opened(served)
    served.device.picky = True

    assert served.ask(Opcode.READ, read_body(handle, 0, 10)).error == errno.EIO


def test_forgets_reach_the_filesystem_and_have_no_answer(served: Served, filesystem: TreeFilesystem) -> None:
    node = node_of(served.ask(Opcode.LOOKUP, b"file\0"))
    served.ask(Opcode.LOOKUP, b"file\0")

    first = served.send(Opcode.FORGET, forget_body(1), node)
    second = served.send(Opcode.BATCH_FORGET, batch_forget_body((node, 1)), 0)

    assert filesystem.lookups[node] == 0
    assert not {first, second} & served.device.answers.keys()


def test_a_bug_in_the_filesystem_is_eio_and_the_next_request_is_answered(served: Served) -> None:
    assert served.ask(Opcode.LOOKUP, b"broken\0").error == errno.EIO
    assert served.ask(Opcode.LOOKUP, b"file\0").error == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_no_exception_leaves_a_request_unanswered(
    served: Served, filesystem: TreeFilesystem, error: BaseException
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    filesystem.unlink = fail  # type: ignore[method-assign, assignment]

    assert served.ask(Opcode.UNLINK, b"file\0").error == errno.EIO
    assert served.device.staying == 0


def test_a_refused_request_has_the_errno_of_its_error(served: Served, filesystem: TreeFilesystem) -> None:
    def fail(*_arguments: object) -> None:
        raise errors.PermissionDenied("403")

    filesystem.unlink = fail  # type: ignore[method-assign, assignment]

    assert served.ask(Opcode.UNLINK, b"file\0").error == errno.EACCES


def test_requests_are_counted(served: Served) -> None:
    served.ask(Opcode.LOOKUP, b"file\0")
    served.ask(Opcode.LOOKUP, b"nope\0")

    statistics = served.exchanges.statistics()
    assert (statistics.answered, statistics.in_flight) == ({"lookup": 2}, 0)


# --- what a filesystem may have besides ---


class Able(TreeFilesystem):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, ...]] = []

    def allocate(self, handle: FileHandle, offset: int, size: int, mode: int) -> None:
        if mode:
            raise errors.OperationNotSupported("no holes")
        self.asked.append((handle, offset, size))

    def copy_range(
        self, source: FileHandle, offset: int, destination: FileHandle, destination_offset: int, size: int
    ) -> int:
        self.asked.append((source, offset, destination, destination_offset, size))
        return size


def test_space_is_allocated_where_the_filesystem_can() -> None:
    filesystem = Able()
    served = Served(filesystem)

    assert served.ask(Opcode.FALLOCATE, struct.pack("<QQQIxxxx", 1, 0, 9, 0)).error == 0
    assert served.ask(Opcode.FALLOCATE, struct.pack("<QQQIxxxx", 1, 0, 9, 3)).error == errno.EOPNOTSUPP
    assert filesystem.asked == [(1, 0, 9)]


@pytest.mark.parametrize(("opcode", "layout"), [(Opcode.COPY_FILE_RANGE, "<Ixxxx"), (Opcode.COPY_FILE_RANGE_64, "<Q")])
def test_a_range_is_copied_where_the_filesystem_can(opcode: Opcode, layout: str) -> None:
    filesystem = Able()
    served = Served(filesystem)

    answered = served.ask(opcode, struct.pack("<7Q", 1, 10, 2, 3, 20, 4096, 0))

    assert struct.unpack(layout, answered.body) == (4096,)
    assert filesystem.asked == [(1, 10, 3, 20, 4096)]
