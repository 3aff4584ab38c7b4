"""Creating, overwriting and continuing files; csi/fs/drafts.py and csi/fs/files.py."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from csi.errors import (
    BadHandle,
    DeadlineExceeded,
    EntryExists,
    FileBusy,
    InvalidOperation,
    ObjectExists,
    OperationNotSupported,
    OssFuseError,
    PreconditionFailed,
    ServerFailure,
    StaleFile,
)
from csi.fs.types import AttributeChange
from csi.volume.spec import CachePolicy
from csi.volume.units import MIB
from tests.support.filesystems import CONSISTENT, FAST, World
from tests.support.programs import APPEND, WRITE, Program


def failing(operation: str):
    """A hook for the store that fails one operation as a server out of order does."""

    def before(seen: str, key: str) -> None:
        if seen == operation:
            raise ServerFailure(f"{key}: internal error", status=500, operation=operation, key=key)

    return before


def test_a_file_appears_whole_when_it_is_closed(world: World, consistent: Program) -> None:
    file = consistent.open("a.txt", WRITE)
    file.write(b"hello ")
    file.write(b"world")
    assert "a.txt" not in world.store.objects
    file.close()
    assert world.store.data("a.txt") == b"hello world"


def test_a_file_larger_than_a_part_appears_whole(world: World, consistent: Program) -> None:
    data = bytes(range(256)) * 4000
    consistent.write("large", data)
    assert world.store.data("large") == data
    assert consistent.read("large") == data


def test_an_unfinished_file_is_seen_by_stat_and_readdir_with_its_size(consistent: Program) -> None:
    file = consistent.open("a.txt", WRITE)
    file.write(b"hello")
    assert consistent.stat("a.txt").size == 5
    assert [(name, entry.attributes.size) for name, entry in consistent.entries()] == [(b"a.txt", 5)]
    file.close()


def test_touch_makes_an_empty_object(world: World, consistent: Program) -> None:
    consistent.write("empty", b"")
    assert world.store.data("empty") == b""


def test_overwriting_with_truncation_replaces_the_object_at_close(world: World, consistent: Program) -> None:
    world.store.seed("a", b"old content")
    file = consistent.open("a", os.O_WRONLY | os.O_TRUNC)
    file.write(b"new")
    assert world.store.data("a") == b"old content"
    assert consistent.stat("a").size == 3
    file.close()
    assert world.store.data("a") == b"new"


def test_appending_continues_what_is_there(world: World, consistent: Program) -> None:
    world.store.seed("log", b"one\n")
    consistent.append("log", b"two\n")
    assert world.store.data("log") == b"one\ntwo\n"


def test_appending_to_a_large_object_continues_it(world: World, consistent: Program) -> None:
    world.store.seed("log", b"x" * 300_000)
    consistent.append("log", b"end")
    assert world.store.data("log") == b"x" * 300_000 + b"end"


def test_appending_to_an_empty_object(world: World, consistent: Program) -> None:
    world.store.seed("log", b"")
    consistent.append("log", b"first")
    assert world.store.data("log") == b"first"


def test_appending_keeps_user_metadata(world: World, consistent: Program) -> None:
    world.store.seed("log", b"one", owner="me")
    consistent.append("log", b"two")
    assert world.store.objects["log"].user == {"owner": "me"}


def test_opening_for_write_without_writing_changes_nothing(world: World, consistent: Program) -> None:
    etag = world.store.seed("a", b"content")
    consistent.open("a", os.O_WRONLY).close()
    assert world.store.objects["a"].etag == etag


def test_writing_continues_after_the_close_of_a_duplicate(world: World, consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    file.write(b"one")
    file.flush()
    assert world.store.data("a") == b"one"
    file.write(b"two")
    file.close()
    assert world.store.data("a") == b"onetwo"


def test_fsync_makes_the_object_durable_and_writing_goes_on(world: World, consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    file.write(b"one")
    file.fsync()
    assert world.store.data("a") == b"one"
    file.write(b"two")
    assert file.size() == 6
    file.close()
    assert world.store.data("a") == b"onetwo"


@pytest.mark.parametrize("offset", [0, 3, 6])
def test_a_write_out_of_order_is_refused_and_close_tells_that_there_is_no_object(
    world: World, consistent: Program, caplog: pytest.LogCaptureFixture, offset: int
) -> None:
    file = consistent.open("dir.bin", WRITE)
    file.write(b"hello")
    with caplog.at_level(logging.WARNING), pytest.raises(InvalidOperation):
        file.pwrite(b"x", offset)
    assert [
        "dir.bin" in record.getMessage() and f"offset {offset}" in record.getMessage() and " 5" in record.getMessage()
        for record in caplog.records
    ] == [True]
    with pytest.raises(InvalidOperation):
        file.close()
    assert world.store.objects == {}
    assert not consistent.exists("dir.bin")


@pytest.mark.parametrize("append", [False, True])
def test_pieces_of_one_write_may_come_in_another_order(world: World, append: bool) -> None:
    program = world.mount(append=append)
    file = program.open("a", WRITE)
    file.write(b"zero ")
    late = iter([(b"one ", 5), (b"two ", 9)])

    def bring_the_next() -> None:
        world.meanwhile = lambda: None
        file.pwrite(*next(late))
        world.meanwhile = bring_the_next

    world.meanwhile = bring_the_next
    assert file.pwrite(b"three", 13) == 5
    file.close()
    assert world.store.data("a") == b"zero one two three"


def test_pieces_that_go_on_with_an_object_may_come_in_another_order(world: World, consistent: Program) -> None:
    world.store.seed("a", b"hello")
    file = consistent.open("a", os.O_WRONLY)
    earlier = iter([b" there"])

    def bring_it() -> None:
        world.meanwhile = lambda: None
        file.pwrite(next(earlier), 5)

    world.meanwhile = bring_it
    file.pwrite(b", you", 11)
    file.close()
    assert world.store.data("a") == b"hello there, you"


def test_who_waits_for_an_earlier_piece_is_told_when_that_has_failed(world: World, consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    file.write(b"zero ")
    failures: list[BaseException] = []

    def bring_another() -> None:
        world.meanwhile = lambda: None
        with pytest.raises(InvalidOperation) as caught:
            file.pwrite(b"to another place", 3)
        failures.append(caught.value)

    world.meanwhile = bring_another
    with pytest.raises(InvalidOperation) as caught:
        file.pwrite(b"two", 9)
    assert failures == [caught.value]
    with pytest.raises(InvalidOperation):
        file.close()


def test_a_write_far_ahead_is_refused_at_once(world: World, consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    world.meanwhile = lambda: pytest.fail("waited")
    with pytest.raises(InvalidOperation):
        file.pwrite(b"x", 64 * MIB + 1)
    with pytest.raises(InvalidOperation):
        file.close()


@pytest.mark.parametrize(
    ("flags", "policy", "append", "uncached"),
    [
        (os.O_WRONLY, CachePolicy.AUTO, False, True),
        (os.O_WRONLY, CachePolicy.NONE, False, True),
        (os.O_WRONLY | os.O_APPEND, CachePolicy.AUTO, False, True),
        (os.O_WRONLY, CachePolicy.KERNEL, False, False),  # its pages are read by who opens the file next
        (os.O_WRONLY, CachePolicy.AUTO, True, True),
        (os.O_RDWR | os.O_APPEND, CachePolicy.AUTO, False, True),
        (os.O_RDWR, CachePolicy.AUTO, True, True),
        (os.O_RDWR, CachePolicy.KERNEL, True, False),
        (os.O_RDWR, CachePolicy.AUTO, False, True),
        (os.O_RDONLY, CachePolicy.AUTO, False, False),
        (os.O_WRONLY, CachePolicy.DIRECT, False, False),  # says so already
        (os.O_WRONLY | os.O_DIRECT, CachePolicy.AUTO, False, False),
    ],
)
def test_writes_make_pages_where_somebody_may_read_them(
    world: World, flags: int, policy: CachePolicy, append: bool, uncached: bool
) -> None:
    world.store.seed("old", b"content")
    program = world.mount(replace(CONSISTENT, cache=policy), append=append)
    for name, more in (("new", os.O_CREAT), ("old", os.O_TRUNC)):
        file = program.open(name, flags | more)
        assert file.opened.uncached_writes == uncached
        file.close()
    world.store.seed("old", b"content")
    file = program.open("old", flags)
    can_be_mapped = flags == os.O_RDWR and not append
    assert file.opened.uncached_writes == (uncached and not can_be_mapped)
    file.close()


def test_the_first_write_to_an_existing_file_must_be_at_its_end(world: World, consistent: Program) -> None:
    world.store.seed("a", b"hello")
    file = consistent.open("a", os.O_RDWR)
    with pytest.raises(InvalidOperation):
        file.pwrite(b"x", 0)
    file.close()
    assert world.store.data("a") == b"hello"


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("flags", [os.O_CREAT, os.O_CREAT | os.O_EXCL])
def test_a_file_made_by_who_can_only_read_it_is_there_for_others(world: World, append: bool, flags: int) -> None:
    program = world.mount(append=append)
    lock = program.open("lock", os.O_RDONLY | flags)
    assert world.store.data("lock") == b""
    assert lock.pread() == b""
    other = program.open("lock", os.O_RDONLY)
    program.write("lock", b"pid")
    assert program.read("lock") == b"pid"
    other.close()
    lock.close()
    assert world.store.data("lock") == b"pid"


def test_a_file_that_cannot_be_made_for_reading_is_not_there(world: World, consistent: Program) -> None:
    world.store.before = failing("PutObject")
    with pytest.raises(ServerFailure):
        consistent.open("lock", os.O_RDONLY | os.O_CREAT)
    world.store.before = None
    assert not consistent.exists("lock")
    consistent.open("lock", os.O_RDONLY | os.O_CREAT).close()
    assert world.store.data("lock") == b""


@pytest.mark.parametrize("old", [None, b"pid of the last one"])
def test_two_programs_that_lock_a_file_which_both_empty(world: World, consistent: Program, old: bytes | None) -> None:
    if old is not None:
        world.store.seed("lock", old)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    first, second = consistent.open("lock", flags), consistent.open("lock", flags)
    first.close()
    assert world.store.data("lock") == b""
    second.write(b"second")
    third = consistent.open("lock", os.O_WRONLY)
    with pytest.raises(FileBusy):
        third.write(b"third")
    third.close()
    second.close()
    assert world.store.data("lock") == b"second"


def test_of_two_that_emptied_a_file_only_one_writes(world: World, consistent: Program) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    first, second = consistent.open("a", flags), consistent.open("a", flags)
    first.write(b"first")
    with pytest.raises(FileBusy):
        second.write(b"second")
    second.close()
    first.close()
    assert world.store.data("a") == b"first"


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (WRITE, WRITE),
        (os.O_RDWR | os.O_CREAT | os.O_TRUNC, os.O_RDWR | os.O_TRUNC),
        (WRITE, os.O_RDWR),
        (WRITE, os.O_WRONLY | os.O_APPEND),
        (APPEND | os.O_TRUNC, os.O_WRONLY),
    ],
)
@pytest.mark.parametrize("closes_first", [True, False])
def test_the_first_that_writes_to_a_file_that_others_opened_is_the_one_that_writes(
    world: World, consistent: Program, first: int, second: int, old: bytes | None, *, closes_first: bool
) -> None:
    if old is not None:
        world.store.seed("a", old)
    maker, writer = consistent.open("a", first), consistent.open("a", second)
    writer.pwrite(b"written", 0)
    with pytest.raises(FileBusy):
        maker.pwrite(b"too late", 7)
    writer.pwrite(b" by the second", 7)
    for one in (maker, writer) if closes_first else (writer, maker):
        one.close()
    assert world.store.data("a") == b"written by the second"
    assert consistent.read("a") == b"written by the second"


def test_who_writes_first_to_what_another_opened_can_read_it_afterwards(consistent: Program) -> None:
    consistent.write("a", b"old")
    maker = consistent.open("a", WRITE)
    writer = consistent.open("a", os.O_RDWR)
    writer.pwrite(b"the new one", 0)
    writer.fsync()
    assert writer.pread(11, 0) == b"the new one"
    writer.close()
    maker.close()


def test_a_size_may_be_given_by_another_than_who_made_the_file(world: World, consistent: Program) -> None:
    maker, writer = consistent.open("a", WRITE), consistent.open("a", os.O_WRONLY)
    writer.truncate(4)
    with pytest.raises(FileBusy):
        maker.pwrite(b"x", 0)
    writer.pwrite(b"four", 0)
    writer.close()
    maker.close()
    assert world.store.data("a") == b"four"


def test_a_second_writer_is_refused(consistent: Program) -> None:
    first = consistent.open("a", WRITE)
    first.write(b"x")
    with pytest.raises(FileBusy):
        consistent.open("a", WRITE)
    second = consistent.open("a", os.O_WRONLY)
    with pytest.raises(FileBusy):
        second.pwrite(b"y", 1)
    second.close()
    first.close()
    assert consistent.read("a") == b"x"


def test_two_who_append_share_the_file(consistent: Program) -> None:
    first, second = consistent.open("log", APPEND), consistent.open("log", APPEND)
    first.write(b"one ")
    second.pwrite(b"two ", 4)
    first.pwrite(b"three", 8)
    second.close()
    first.close()
    assert consistent.read("log") == b"one two three"


def test_a_file_can_be_written_again_once_it_is_closed(consistent: Program) -> None:
    consistent.write("a", b"first")
    consistent.write("a", b"second")
    assert consistent.read("a") == b"second"


def test_a_failed_upload_is_reported_by_close_and_leaves_the_old_object(world: World, consistent: Program) -> None:
    world.store.seed("a", b"old")
    file = consistent.open("a", WRITE)
    file.write(b"new")
    world.store.before = failing("PutObject")
    with pytest.raises(ServerFailure):
        file.close()
    world.store.before = None
    assert world.store.data("a") == b"old"
    assert consistent.stat("a").size == 3
    assert consistent.read("a") == b"old"


def test_the_old_object_can_be_opened_as_soon_as_close_has_failed(world: World, consistent: Program) -> None:
    """close(2) is FLUSH; RELEASE comes later, when the program may be reading the file again already."""
    world.store.seed("a", b"old")
    file = consistent.open("a", WRITE)
    file.write(b"new")
    world.store.before = failing("PutObject")
    with pytest.raises(ServerFailure):
        file.flush()
    world.store.before = None

    assert consistent.read("a") == b"old"
    consistent.write("a", b"newer")

    with pytest.raises(ServerFailure):
        file.write(b"by a duplicate of the descriptor")
    with pytest.raises(ServerFailure):
        file.close()
    assert consistent.read("a") == b"newer"


def test_the_old_object_can_be_opened_as_soon_as_a_refused_write_is_closed(world: World, consistent: Program) -> None:
    world.store.seed("a", b"old")
    file = consistent.open("a", WRITE)
    with pytest.raises(InvalidOperation):
        consistent.filesystem.write(file.handle, 7, b"beyond the end")
    with pytest.raises(InvalidOperation):
        file.flush()

    assert consistent.read("a") == b"old"
    with pytest.raises(InvalidOperation):
        file.close()


def test_what_failed_for_two_is_told_to_both(world: World, consistent: Program) -> None:
    one = consistent.open("a", WRITE | os.O_APPEND)
    other = consistent.open("a", os.O_WRONLY | os.O_APPEND)
    one.write(b"one")
    consistent.filesystem.write(other.handle, 3, b"two")
    world.store.before = failing("PutObject")
    with pytest.raises(ServerFailure):
        one.flush()
    world.store.before = None

    with pytest.raises(ServerFailure):
        other.close()
    with pytest.raises(ServerFailure):
        one.close()


def test_after_a_failed_upload_a_new_file_is_gone(world: World, consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    file.write(b"new")
    world.store.before = failing("PutObject")
    with pytest.raises(ServerFailure):
        file.flush()
    with pytest.raises(ServerFailure):
        file.close()
    world.store.before = None
    assert not consistent.exists("a")
    consistent.write("a", b"again")
    assert world.store.data("a") == b"again"


def test_a_failed_part_is_reported_and_nothing_is_left_in_the_bucket(world: World, consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    world.store.before = failing("UploadPart")
    with pytest.raises(ServerFailure):
        for _ in range(8):
            file.write(b"x" * 100_000)
        world.store.before = failing("PutObject")
        file.flush()
    world.store.before = None
    with pytest.raises(ServerFailure):
        file.close()
    assert world.store.objects == {} and world.store.uploads == {}


def test_release_without_flush_still_writes_the_file(world: World, consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    file.write(b"data")
    consistent.filesystem.release(file.handle)
    consistent.filesystem.forget(file.inode, 1)
    assert world.store.data("a") == b"data"


def test_o_excl_refuses_a_name_that_is_there(world: World, consistent: Program) -> None:
    world.store.seed("a", b"")
    with pytest.raises(EntryExists):
        consistent.open("a", WRITE | os.O_EXCL)


def test_o_excl_tells_at_close_that_another_client_was_first(world: World, consistent: Program) -> None:
    file = consistent.open("lock", WRITE | os.O_EXCL)
    world.store.seed("lock", b"theirs")
    with pytest.raises(ObjectExists):
        file.close()
    assert world.store.data("lock") == b"theirs"
    assert consistent.read("lock") == b"theirs"


def test_continuing_a_version_that_another_client_replaced_fails_and_theirs_stays(
    world: World, consistent: Program
) -> None:
    world.store.seed("log", b"one")
    file = consistent.open("log", os.O_WRONLY | os.O_APPEND)
    file.position = 3
    world.store.seed("log", b"ONE")
    with pytest.raises((StaleFile, PreconditionFailed)):
        file.write(b"two")
        file.flush()
    consistent.filesystem.release(file.handle)
    consistent.filesystem.forget(file.inode, 1)
    assert world.store.data("log") == b"ONE"


@pytest.mark.parametrize("synced", [True, False])
def test_an_object_replaced_after_bytes_were_added_stays_what_the_other_client_made_it(
    world: World, consistent: Program, synced: bool
) -> None:
    world.store.seed("log", b"one")
    file = consistent.open("log", os.O_WRONLY | os.O_APPEND)
    file.position = 3
    file.write(b"two")
    if synced:
        file.fsync()
        file.write(b"three")
    world.store.seed("log", b"theirs")
    with pytest.raises((StaleFile, PreconditionFailed)):
        file.flush()
    consistent.filesystem.release(file.handle)
    consistent.filesystem.forget(file.inode, 1)
    assert world.store.data("log") == b"theirs"


@pytest.mark.parametrize("by_handle", [True, False])
def test_truncate_to_nothing(world: World, consistent: Program, by_handle: bool) -> None:
    world.store.seed("a", b"content")
    if by_handle:
        file = consistent.open("a", os.O_RDWR)
        file.truncate(0)
        assert file.size() == 0
        file.close()
    else:
        consistent.truncate("a", 0)
    assert world.store.data("a") == b""
    assert consistent.stat("a").size == 0


def test_truncate_to_nothing_in_the_middle_of_writing_starts_again(world: World, consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    file.write(b"wrong")
    file.truncate(0)
    assert file.pwrite(b"right", 0) == 5
    file.close()
    assert world.store.data("a") == b"right"


def test_truncate_to_the_size_it_has_is_no_change(world: World, consistent: Program) -> None:
    etag = world.store.seed("a", b"content")
    consistent.truncate("a", 7)
    assert world.store.objects["a"].etag == etag


@pytest.mark.parametrize("size", [3, 100])
def test_truncate_to_any_other_size_is_not_supported(world: World, consistent: Program, size: int) -> None:
    world.store.seed("a", b"content")
    with pytest.raises(OperationNotSupported):
        consistent.truncate("a", size)
    assert world.store.data("a") == b"content"


@pytest.mark.parametrize("append", [False, True])
def test_a_size_announced_before_writing_is_shown_at_once_and_then_written(world: World, append: bool) -> None:
    """As safetensors saves: ftruncate to the final size, write in order, rename, close."""
    program = world.mount(append=append)
    data = bytes(range(256)) * 2000
    file = program.open("tmp", os.O_RDWR | os.O_CREAT | os.O_EXCL)

    file.truncate(len(data))
    assert file.size() == len(data)
    file.write(data[:300])
    assert program.stat("tmp").size == len(data)
    file.write(data[300:])
    program.rename("tmp", "model")
    file.close()

    assert world.store.data("model") == data


def test_a_file_with_less_than_the_announced_size_is_refused_at_close_and_not_padded(
    world: World, consistent: Program, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.seed("a", b"old")
    file = consistent.open("a", WRITE)
    file.truncate(10)
    file.write(b"new")

    with pytest.raises(InvalidOperation, match="10 bytes, of which 3 were written"):
        file.close()

    assert world.store.data("a") == b"old"
    assert consistent.stat("a").size == 3
    assert "was not written" in caplog.text


def test_an_announced_size_can_be_corrected_exceeded_and_outlives_the_close_of_a_duplicate(
    world: World, consistent: Program
) -> None:
    file = consistent.open("a", WRITE)
    file.truncate(1000)
    file.write(b"one ")
    with pytest.raises(InvalidOperation):
        file.flush()
    file.truncate(6)
    file.write(b"two ")
    assert file.size() == 8
    file.truncate(2000)
    file.truncate(8)
    file.close()
    assert world.store.data("a") == b"one two "


def test_only_who_writes_a_file_can_announce_its_size(consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    file.write(b"one")
    other = consistent.open("a", os.O_RDWR)
    with pytest.raises(FileBusy):
        other.truncate(100)
    other.close()
    file.close()


def test_a_handle_that_only_reads_cannot_write(world: World, consistent: Program) -> None:
    world.store.seed("a", b"content")
    file = consistent.open("a")
    with pytest.raises(BadHandle):
        file.pwrite(b"x", 7)
    file.close()


def test_chmod_and_chown_are_accepted_without_effect(world: World, consistent: Program) -> None:
    etag = world.store.seed("a", b"x")
    with consistent.walk("a") as inode:
        before = consistent.stat("a")
        after = consistent.filesystem.setattr(inode, AttributeChange(mode=0o755, uid=7, gid=8), None).attributes
    assert after == before
    assert world.store.objects["a"].etag == etag


def test_utimes_are_kept_until_the_file_is_changed(consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    file.write(b"x")
    consistent.filesystem.setattr(file.inode, AttributeChange(mtime_ns=12_345, atime_ns=678), file.handle)
    file.flush()
    during = consistent.stat("a")
    file.write(b"y")
    file.flush()
    after = consistent.stat("a")
    file.close()
    assert (during.mtime_ns, during.atime_ns) == (12_345, 678)
    assert after.mtime_ns > 1_000_000_000


def test_what_is_being_written_is_finished_by_flush_all(world: World, consistent: Program) -> None:
    first, second = consistent.open("a", WRITE), consistent.open("b", WRITE)
    first.write(b"one")
    second.write(b"two")
    assert consistent.filesystem.flush_all(10.0) == []
    assert (world.store.data("a"), world.store.data("b")) == (b"one", b"two")
    first.close()
    second.close()


def hold_put(world: World, failure: OssFuseError | None = None) -> tuple[threading.Event, threading.Event]:
    """PutObject sets the first event and waits for the second, and fails then if a `failure` is given."""
    uploading, go_on = threading.Event(), threading.Event()

    def before(operation: str, key: str) -> None:
        if operation == "PutObject":
            uploading.set()
            assert go_on.wait(10.0)
            if failure is not None:
                raise failure

    world.store.before = before
    return uploading, go_on


@pytest.mark.parametrize("before", [b"", b"old"], ids=["new", "there before"])
def test_a_write_that_waited_for_a_close_that_failed_is_told_the_same(
    world: World, consistent: Program, before: bytes
) -> None:
    """It was told EINVAL, or that it was done: the file was what it had been by then, or had no name."""
    if before:
        world.store.seed("a", before)
    file = consistent.open("a", WRITE)
    file.write(b"one")
    uploading, go_on = hold_put(world, ServerFailure("busy", status=503, operation="PutObject"))
    told: list[type[Exception]] = []

    def tell(act: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                act()
            except OssFuseError as error:
                told.append(type(error))

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    closing = tell(file.flush)
    assert uploading.wait(10.0)
    writing = tell(lambda: consistent.filesystem.write(file.handle, 3, b"two"))
    writing.join(0.05)
    go_on.set()
    closing.join()
    writing.join()
    assert told == [ServerFailure, ServerFailure]
    world.store.before = None
    with pytest.raises(ServerFailure):
        file.close()
    assert {key: found.data for key, found in world.store.objects.items()} == ({"a": before} if before else {})


def test_the_end_of_the_mount_waits_for_what_is_being_closed(world: World, consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    file.write(b"one")
    uploading, go_on = hold_put(world)
    closing = threading.Thread(target=file.close)
    closing.start()
    assert uploading.wait(10.0)
    late = consistent.filesystem.flush_all(0.01)
    assert [type(failure) for failure in late] == [DeadlineExceeded]
    threading.Timer(0.05, go_on.set).start()
    assert consistent.filesystem.flush_all(10.0) == []
    assert world.store.data("a") == b"one"
    closing.join()


def test_what_grows_in_oss_is_pushed_at_the_end_of_the_mount(world: World) -> None:
    program = world.mount(append=True)
    file = program.open("log", APPEND)
    file.write(b"one")
    assert program.filesystem.flush_all(10.0) == []
    assert world.store.data("log") == b"one"
    file.close()


def test_flush_all_tells_what_could_not_be_written(world: World, consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    file.write(b"one")
    world.store.before = failing("PutObject")
    failures = consistent.filesystem.flush_all(10.0)
    assert [type(failure) for failure in failures] == [ServerFailure]
    with pytest.raises(ServerFailure):
        file.close()


def test_a_small_file_costs_one_put_beside_its_lookup(world: World) -> None:
    program = world.mount(FAST)
    program.write("a", b"x")
    assert world.store.requests == {"ListObjectsV2": 1, "PutObject": 1}


# --- append mode ---


def test_append_mode_makes_appendable_objects(world: World) -> None:
    program = world.mount(append=True)
    program.write("log", b"data")
    assert world.store.objects["log"].type == "Appendable"
    assert world.store.data("log") == b"data"


def test_append_mode_files_can_be_read_while_they_are_written(world: World) -> None:
    program = world.mount(append=True)
    writer = program.open("log", WRITE)
    writer.write(b"one ")
    reader = program.open("log")
    assert reader.pread() == b"one "
    writer.write(b"two")
    assert reader.pread() == b"one two"
    assert world.store.data("log") == b"one two"
    writer.close()
    assert reader.pread() == b"one two"
    reader.close()


def test_append_mode_goes_on_after_fsync_and_reopening(world: World) -> None:
    program = world.mount(append=True)
    file = program.open("log", WRITE)
    file.write(b"one ")
    file.fsync()
    assert world.store.data("log") == b"one "
    file.write(b"two ")
    file.close()
    program.append("log", b"three")
    assert world.store.data("log") == b"one two three"
    assert world.store.objects["log"].type == "Appendable"


def test_append_mode_overwrites_by_removing_the_old_object_first(world: World) -> None:
    world.store.seed("log", b"old and long")
    program = world.mount(append=True)
    program.write("log", b"new")
    assert world.store.data("log") == b"new"
    assert world.store.objects["log"].type == "Appendable"


def test_append_mode_continues_a_normal_object_by_copying_it(world: World) -> None:
    world.store.seed("log", b"normal ")
    program = world.mount(append=True)
    program.append("log", b"more")
    assert world.store.data("log") == b"normal more"


def test_a_reader_follows_an_appendable_object_that_another_client_appends_to(world: World) -> None:
    writer, reader = world.mount(append=True), world.mount()
    log = writer.open("log", WRITE)
    log.write(b"one ")
    log.fsync()
    tail = reader.open("log")
    assert tail.pread() == b"one "
    log.write(b"two")
    log.fsync()
    world.clock.advance(2)
    assert tail.size() == 7
    assert tail.pread() == b"one two"
    log.close()
    tail.close()


@pytest.mark.parametrize("successor", [b"", b"the next file of that name"], ids=["removed", "replaced"])
def test_emptying_a_removed_file_through_its_descriptor_touches_nothing_in_the_bucket(
    world: World, consistent: Program, successor: bytes
) -> None:
    world.store.seed("a", b"old")
    file = consistent.open("a", os.O_RDWR)
    if successor:
        consistent.write("b", successor)
        consistent.rename("b", "a")
    else:
        consistent.unlink("a")

    file.truncate(0)
    assert file.size() == 0
    file.write(b"new")
    assert file.size() == 3
    file.close()

    assert {key: world.store.data(key) for key in world.store.objects} == ({"a": successor} if successor else {})


def test_emptying_a_file_that_another_client_replaced_leaves_theirs(world: World) -> None:
    world.store.seed("a", b"old")
    program = world.mount()
    reader, file = program.open("a"), program.open("a", os.O_RDWR)
    assert reader.pread() == b"old"
    world.store.seed("a/b", b"theirs")
    assert program.list("a") == ["b"]

    with pytest.raises(StaleFile):
        file.truncate(0)

    reader.close()
    file.close()
    assert world.store.data("a") == b"old"


def test_opening_for_reading_with_truncation_empties_the_file(world: World, consistent: Program) -> None:
    world.store.seed("a", b"old")

    file = consistent.open("a", os.O_RDONLY | os.O_TRUNC)

    assert world.store.data("a") == b""
    assert file.pread() == b""
    file.close()


def test_times_of_a_directory_are_kept_until_a_name_in_it_changes(consistent: Program) -> None:
    consistent.mkdir("d")
    with consistent.walk("d") as inode:
        consistent.filesystem.setattr(inode, AttributeChange(mtime_ns=5, atime_ns=6), None)
        kept = consistent.filesystem.getattr(inode).attributes
        consistent.write("d/f", b"x")
        changed = consistent.filesystem.getattr(inode).attributes

    assert (kept.mtime_ns, kept.atime_ns) == (5, 6)
    assert changed.mtime_ns > 6
