"""Handlers called as pyfuse3 calls them: what they answer, where they run, and that they always answer."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio
import trio.testing

from csi import errors
from csi.fuse.errno_map import ErrorReporter
from csi.fuse.operations import Operations
from csi.fuse.workers import Lanes
from csi.volume.spec import MountArguments
from csi.volume.units import Seconds
from tests.support.tree_filesystem import TreeFilesystem

CONTEXT: Any = SimpleNamespace(uid=1000, gid=1000, pid=1, umask=0o022)
ROOT: Any = 1


class Served:
    """An Operations over a TreeFilesystem; `run` calls one handler on an event loop."""

    def __init__(self, *, inline: bool = True, **arguments: Any) -> None:
        self.filesystem = TreeFilesystem(inline=inline)
        self.filesystem.add("file", b"0123456789")
        self.lanes = Lanes(4)
        reporter = ErrorReporter(logging.getLogger("test"))
        self.operations: Any = Operations(
            self.filesystem, MountArguments(**arguments), self.lanes, reporter, lambda: None
        )

    def run(self, handler: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        async def main() -> Any:
            with trio.fail_after(20):
                return await handler(*arguments)

        return trio.run(main)

    def errno_of(self, handler: Callable[..., Awaitable[Any]], *arguments: Any) -> int:
        with pytest.raises(pyfuse3.FUSEError) as refused:
            self.run(handler, *arguments)
        return refused.value.errno


@pytest.fixture(params=[True, False], ids=["inline", "threads"])
def served(request: pytest.FixtureRequest) -> Any:
    made = Served(inline=request.param)
    yield made
    made.filesystem.unblock.set()
    made.lanes.close()


def test_lookup_answers_with_attributes(served: Served) -> None:
    entry = served.run(served.operations.lookup, ROOT, b"file", CONTEXT)

    assert (entry.st_size, stat.S_ISREG(entry.st_mode), entry.entry_timeout) == (10, True, 1.0)
    assert served.filesystem.lookups[entry.st_ino] == 1


def test_a_missing_name_is_a_negative_entry_when_the_kernel_may_keep_it() -> None:
    served = Served(negative_timeout=Seconds(30.0))

    entry = served.run(served.operations.lookup, ROOT, b"nope", CONTEXT)

    assert (entry.st_ino, entry.entry_timeout) == (0, 30.0)


@pytest.mark.parametrize(("timeout", "told"), [(30.0, 10.0), (10.0, None)])
def test_a_name_that_was_known_to_be_missing_is_believed_for_what_is_left(timeout: float, told: float | None) -> None:
    served = Served(inline=False, negative_timeout=Seconds(timeout))
    error = errors.NoSuchEntry("it is not there")
    error.age = 20.0
    served.filesystem.lookup = _raiser(error)  # type: ignore[method-assign]

    if told is None:
        assert served.errno_of(served.operations.lookup, ROOT, b"nope", CONTEXT) == errno.ENOENT
    else:
        assert served.run(served.operations.lookup, ROOT, b"nope", CONTEXT).entry_timeout == told


def test_a_missing_name_is_enoent_when_the_kernel_may_not_keep_it() -> None:
    served = Served(negative_timeout=Seconds(0.0))

    assert served.errno_of(served.operations.lookup, ROOT, b"nope", CONTEXT) == errno.ENOENT


@pytest.mark.parametrize("timeout", [0.0, 30.0])
def test_a_refused_lookup_is_not_a_negative_entry(timeout: float) -> None:
    served = Served(inline=False, negative_timeout=Seconds(timeout))
    served.filesystem.lookup = _raiser(errors.PermissionDenied("403"))  # type: ignore[method-assign]

    assert served.errno_of(served.operations.lookup, ROOT, b"secret", CONTEXT) == errno.EACCES


def test_a_bug_in_the_filesystem_is_eio_for_one_caller_and_no_more(served: Served) -> None:
    assert served.errno_of(served.operations.lookup, ROOT, b"broken", CONTEXT) == errno.EIO
    assert served.run(served.operations.lookup, ROOT, b"file", CONTEXT).st_size == 10


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), MemoryError(), StopIteration()], ids=repr)
def test_whatever_a_filesystem_raises_the_request_is_answered(error: BaseException) -> None:
    served = Served()
    served.filesystem.getattr_cached = _raiser(error)  # type: ignore[method-assign]

    assert served.errno_of(served.operations.getattr, ROOT, CONTEXT) in {errno.EIO, errno.ENOMEM}
    assert served.operations.requests.statistics().in_flight == 0


def test_a_request_that_waits_is_answered_when_the_session_is_cancelled() -> None:
    served = Served(inline=False)

    async def main() -> int:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel_when_waiting() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()

                nursery.start_soon(cancel_when_waiting)
                with pytest.raises(pyfuse3.FUSEError) as refused:
                    await served.operations.lookup(ROOT, b"slow", CONTEXT)
        return refused.value.errno

    assert trio.run(main) == errno.EIO
    served.filesystem.unblock.set()


def test_while_one_request_waits_others_are_answered_and_its_age_is_seen() -> None:
    served = Served()

    async def main() -> tuple[int, str]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.operations.lookup, ROOT, b"slow1", CONTEXT)
            nursery.start_soon(_ignore, served.operations.lookup, ROOT, b"slow", CONTEXT)
            await trio.testing.wait_all_tasks_blocked()
            entry = await served.operations.lookup(ROOT, b"file", CONTEXT)
            oldest = served.operations.requests.statistics().oldest
            served.filesystem.unblock.set()
        return entry.st_size, oldest

    served.filesystem.add("slow1", b"")
    served.filesystem.add("slow", b"")
    assert trio.run(main) == (10, "lookup")


def test_create_write_read_and_release(served: Served) -> None:
    run, operations = served.run, served.operations
    info, entry = run(operations.create, ROOT, b"new", 0o100644, os.O_RDWR, CONTEXT)
    written = run(operations.write, info.fh, 0, b"some bytes")
    data = run(operations.read, info.fh, 5, 100)
    run(operations.flush, info.fh)
    run(operations.fsync, info.fh, True)
    run(operations.release, info.fh)

    assert (written, bytes(data)) == (10, b"bytes")
    assert entry.st_ino == served.filesystem.nodes[1].children[b"new"]
    assert served.filesystem.handles == {}


def test_a_block_is_answered_without_a_copy() -> None:
    served = Served()
    block = memoryview(bytearray(b"a block"))
    served.filesystem.read_ready = lambda *_: block  # type: ignore[method-assign]

    assert served.run(served.operations.read, 1, 0, 7) is block


def test_what_is_there_is_answered_without_a_thread() -> None:
    served = Served()
    info = served.run(served.operations.open, served.filesystem.nodes[1].children[b"file"], os.O_RDONLY, CONTEXT)
    threads: set[int] = set()
    original = served.filesystem.read
    served.filesystem.read = lambda *a: threads.add(threading.get_ident()) or original(*a)  # type: ignore[method-assign,func-returns-value]

    served.run(served.operations.read, info.fh, 0, 4)

    assert threads == {threading.get_ident()}


def test_a_file_opened_for_reading_is_closed_without_asking_for_a_flush(served: Served) -> None:
    run, operations = served.run, served.operations
    info = run(operations.open, served.filesystem.nodes[1].children[b"file"], os.O_RDONLY, CONTEXT)
    run(operations.flush, info.fh)
    run(operations.release, info.fh)

    assert served.filesystem.calls["flush"] == 0
    assert served.filesystem.handles == {}


def test_close_reports_a_failed_upload() -> None:
    served = Served()
    info = served.run(served.operations.open, served.filesystem.nodes[1].children[b"file"], os.O_WRONLY, CONTEXT)
    served.filesystem.flush_error = errors.PermissionDenied("403")

    assert served.errno_of(served.operations.flush, info.fh) == errno.EACCES


def test_a_failed_release_goes_to_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    served = Served()
    served.filesystem.release = _raiser(errors.ServerFailure("503", status=503, request_id="R7"))  # type: ignore[method-assign]

    served.run(served.operations.release, 1)

    assert "R7" in caplog.text


def test_on_a_read_only_mount_the_kernel_is_told_once_that_nothing_needs_flushing() -> None:
    served = Served(read_only=True)

    assert served.errno_of(served.operations.flush, 1) == errno.ENOSYS


@pytest.mark.parametrize(
    ("handler", "arguments"),
    [
        ("getxattr", (ROOT, b"user.a", CONTEXT)),
        ("listxattr", (ROOT, CONTEXT)),
        ("setxattr", (ROOT, b"user.a", b"1", CONTEXT)),
        ("removexattr", (ROOT, b"user.a", CONTEXT)),
    ],
)
def test_no_xattr_is_enosys_so_that_the_kernel_stops_asking(handler: str, arguments: tuple[Any, ...]) -> None:
    served = Served(xattrs=False)

    assert served.errno_of(getattr(served.operations, handler), *arguments) == errno.ENOSYS


def test_extended_attributes_round_trip(served: Served) -> None:
    run, operations = served.run, served.operations
    run(operations.setxattr, ROOT, b"user.a", b"1", CONTEXT)
    names = run(operations.listxattr, ROOT, CONTEXT)
    value = run(operations.getxattr, ROOT, b"user.a", CONTEXT)
    run(operations.removexattr, ROOT, b"user.a", CONTEXT)

    assert (names, value) == ([b"user.a"], b"1")
    assert served.errno_of(operations.getxattr, ROOT, b"user.a", CONTEXT) == errno.ENODATA


def test_the_kernels_own_probes_never_reach_the_filesystem(served: Served) -> None:
    assert served.errno_of(served.operations.getxattr, ROOT, b"security.capability", CONTEXT) == errno.ENODATA
    assert served.filesystem.calls["getxattr"] == 0


def test_hard_links_and_special_files_are_refused_as_link_and_mknod_document(served: Served) -> None:
    assert served.errno_of(served.operations.link, ROOT, ROOT, b"n", CONTEXT) == errno.EPERM
    assert served.errno_of(served.operations.mknod, ROOT, b"n", stat.S_IFIFO | 0o644, 0, CONTEXT) == errno.EPERM


def test_mknod_of_a_regular_file_makes_an_empty_file_and_leaves_nothing_open(served: Served) -> None:
    entry = served.run(served.operations.mknod, ROOT, b"n", stat.S_IFREG | 0o600, 0, CONTEXT)

    assert entry.st_size == 0
    assert served.filesystem.handles == {}


def test_mknod_reports_a_failed_upload_and_leaves_nothing_open(served: Served) -> None:
    served.filesystem.flush_error = errors.DeadlineExceeded("60 s")

    assert served.errno_of(served.operations.mknod, ROOT, b"n", stat.S_IFREG, 0, CONTEXT) == errno.ETIMEDOUT
    assert served.filesystem.handles == {}


def test_forget_of_many_goes_on_after_one_that_fails(served: Served) -> None:
    forgotten: list[int] = []

    def forget(inode: int, count: int) -> None:
        if inode == 5:
            raise RuntimeError("a bug")
        forgotten.append(inode)

    served.filesystem.forget = forget  # type: ignore[method-assign]

    served.run(served.operations.forget, [(4, 1), (5, 1), (6, 2)])

    assert forgotten == [4, 6]


def test_renames_carry_their_flags(served: Served) -> None:
    served.filesystem.add("other", b"")
    arguments = (ROOT, b"file", ROOT, b"other")

    assert served.errno_of(served.operations.rename, *arguments, pyfuse3.RENAME_NOREPLACE, CONTEXT) == errno.EEXIST
    assert served.errno_of(served.operations.rename, *arguments, pyfuse3.RENAME_EXCHANGE, CONTEXT) == errno.EINVAL
    served.run(served.operations.rename, *arguments, 0, CONTEXT)
    assert list(served.filesystem.nodes[1].children) == [b"other"]


def test_statfs_and_access(served: Served) -> None:
    assert served.run(served.operations.statfs, CONTEXT).f_namemax == 255
    assert served.errno_of(served.operations.access, ROOT, os.R_OK, CONTEXT) == errno.ENOSYS


def test_a_directory_handle_that_is_not_open_is_ebadf(served: Served) -> None:
    assert served.errno_of(served.operations.readdir, 99, 0, None) == errno.EBADF


def test_an_open_directory_is_released(served: Served) -> None:
    handle = served.run(served.operations.opendir, ROOT, CONTEXT)
    served.run(served.operations.fsyncdir, handle, False)
    served.run(served.operations.releasedir, handle)

    assert served.filesystem.handles == {}


def _raiser(error: BaseException) -> Callable[..., Any]:
    def raise_it(*_: Any) -> Any:
        raise error

    return raise_it


async def _ignore(handler: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
    await handler(*arguments)
