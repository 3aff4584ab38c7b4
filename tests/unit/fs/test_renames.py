"""rename(2); csi/fs/renames.py."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from csi.errors import (
    DirectoryNotEmpty,
    EntryExists,
    InvalidOperation,
    IsADirectory,
    NameTooLong,
    NoSuchEntry,
    NotADirectory,
    PermissionDenied,
    ServerFailure,
)
from csi.fs.renames import RENAME_EXCHANGE, RENAME_NOREPLACE
from csi.fs.types import AttributeChange
from tests.support.engines import until
from tests.support.filesystems import FAST, World
from tests.support.programs import APPEND, WRITE, Program


def contents(world: World) -> dict[str, bytes]:
    return {key: found.data for key, found in world.store.objects.items()}


def test_a_file_gets_its_new_name(world: World, consistent: Program) -> None:
    world.store.seed("a", b"x")
    consistent.mkdir("d")
    consistent.rename("a", "d/b")
    assert contents(world) == {"d/": b"", "d/b": b"x"}
    assert not consistent.exists("a")
    assert consistent.read("d/b") == b"x"


def test_a_file_replaces_the_one_that_had_the_name(world: World, consistent: Program) -> None:
    world.store.seed("a", b"new")
    world.store.seed("b", b"old")
    consistent.rename("a", "b")
    assert contents(world) == {"b": b"new"}


def test_a_checkpoint_written_beside_and_renamed_over_is_whole(world: World, consistent: Program) -> None:
    world.store.seed("model.bin", b"old")
    consistent.write("model.bin.tmp", b"new weights")
    consistent.rename("model.bin.tmp", "model.bin")
    assert consistent.read("model.bin") == b"new weights"
    assert consistent.list() == ["model.bin"]


@pytest.mark.parametrize("append", [False, True])
def test_a_file_renamed_while_it_is_written_ends_under_its_new_name(world: World, append: bool) -> None:
    program = world.mount(append=append)
    file = program.open("tmp", WRITE)
    file.write(b"first ")
    program.rename("tmp", "final")
    assert program.stat("final").size == 6
    assert not program.exists("tmp")
    file.write(b"second")
    file.close()
    assert contents(world) == {"final": b"first second"}


def test_a_name_can_be_used_again_while_the_renamed_file_is_open(world: World, consistent: Program) -> None:
    file = consistent.open("log", APPEND)
    file.write(b"old")
    consistent.rename("log", "log.1")
    fresh = consistent.open("log", APPEND)
    assert fresh.inode != file.inode
    fresh.write(b"new")
    file.write(b"er")
    fresh.close()
    file.close()
    assert contents(world) == {"log": b"new", "log.1": b"older"}


def test_a_reader_goes_on_after_a_rename(world: World, consistent: Program) -> None:
    world.store.seed("a", b"x" * 3_000_000)
    world.store.seed("d/b", b"y" * 3_000_000)
    one, other = consistent.open("a"), consistent.open("d/b")
    consistent.rename("a", "aa")
    consistent.rename("d", "dd")
    assert one.pread(3, 2_999_990) == b"xxx"
    assert other.pread(3, 2_999_990) == b"yyy"
    one.close()
    other.close()


def test_a_file_being_written_is_given_up_when_another_is_renamed_over_it(world: World, consistent: Program) -> None:
    world.store.seed("a", b"winner")
    file = consistent.open("b", WRITE)
    file.write(b"loser")
    consistent.rename("a", "b")
    file.write(b"more")
    file.close()
    assert contents(world) == {"b": b"winner"}
    assert consistent.read("b") == b"winner"


def test_a_directory_moves_with_everything_below_it_hidden_keys_too(world: World, consistent: Program) -> None:
    for key in ("d/", "d/a", "d/sub/b", "d//hidden", "d/../up", "dd/not"):
        world.store.seed(key, key.encode())
    consistent.rename("d", "new")
    assert contents(world) == {
        "new/": b"d/",
        "new/a": b"d/a",
        "new/sub/b": b"d/sub/b",
        "new//hidden": b"d//hidden",
        "new/../up": b"d/../up",
        "dd/not": b"dd/not",
    }
    assert consistent.list("new") == ["a", "sub"]
    assert consistent.read("new/sub/b") == b"d/sub/b"
    assert not consistent.exists("d")


def test_a_directory_of_thousands_of_files_moves(world: World, consistent: Program) -> None:
    for number in range(2_300):
        world.store.seed(f"d/{number}", b"%d" % number)
    consistent.rename("d", "e")
    assert contents(world) == {f"e/{number}": b"%d" % number for number in range(2_300)}
    assert world.store.requests["DeleteMultipleObjects"] == 3


def test_a_directory_replaces_an_empty_one(world: World, consistent: Program) -> None:
    world.store.seed("d/a", b"x")
    consistent.mkdir("e")
    consistent.rename("d", "e")
    assert contents(world) == {"e/": b"", "e/a": b"x"}


def test_files_being_written_move_with_their_directory(world: World, consistent: Program) -> None:
    consistent.mkdir("d")
    file = consistent.open("d/a", WRITE)
    file.write(b"one ")
    consistent.rename("d", "e")
    file.write(b"two")
    file.close()
    assert contents(world) == {"e/": b"", "e/a": b"one two"}


def test_the_directory_a_file_was_moved_out_of_stays(world: World, consistent: Program) -> None:
    world.store.seed("implied/a", b"x")
    consistent.rename("implied/a", "b")
    assert consistent.list("implied") == []


def test_renaming_to_the_same_name_changes_nothing(world: World, consistent: Program) -> None:
    etag = world.store.seed("a", b"x")
    consistent.rename("a", "a")
    assert world.store.objects["a"].etag == etag


@pytest.mark.parametrize(
    ("old", "new", "flags", "error"),
    [
        ("nothing", "new", 0, NoSuchEntry),
        ("dir", "dir/inside", 0, InvalidOperation),
        ("file", "full", 0, IsADirectory),
        ("dir", "file", 0, NotADirectory),
        ("dir", "full", 0, DirectoryNotEmpty),
        ("file", "other", RENAME_NOREPLACE, EntryExists),
        ("file", "other", RENAME_EXCHANGE, InvalidOperation),
        ("file", "other", 4, InvalidOperation),
        ("file", "n" * 256, 0, NameTooLong),
        ("file", "file/below", 0, NotADirectory),
    ],
)
def test_refused_renames_change_nothing(
    world: World, consistent: Program, old: str, new: str, flags: int, error: type[Exception]
) -> None:
    for key in ("file", "other", "dir/a", "full/b"):
        world.store.seed(key, key.encode())
    before = contents(world)
    with pytest.raises(error):
        consistent.rename(old, new, flags)
    assert contents(world) == before


def test_noreplace_renames_to_a_free_name(world: World, consistent: Program) -> None:
    world.store.seed("a", b"x")
    consistent.rename("a", "b", RENAME_NOREPLACE)
    assert contents(world) == {"b": b"x"}


def test_a_failed_copy_leaves_the_source_whole_and_no_copies(world: World, consistent: Program) -> None:
    for number in range(40):
        world.store.seed(f"d/{number}", b"x")
    consistent.mkdir("e")
    before = contents(world)

    def refuse(operation: str, key: str) -> None:
        if operation == "CopyObject" and key == "d/25":
            raise PermissionDenied(f"{key}: not allowed", status=403, operation=operation, key=key)

    world.store.before = refuse
    with pytest.raises(PermissionDenied, match="d/25"):
        consistent.rename("d", "e")
    world.store.before = None
    assert contents(world) == before
    assert len(consistent.list("d")) == 40


def test_a_rename_that_would_make_a_key_too_long_leaves_everything(world: World, consistent: Program) -> None:
    long = "d/" + "/".join(["x" * 250] * 4)
    world.store.seed(long, b"x")
    world.store.seed("d/a", b"x")
    before = contents(world)
    with pytest.raises(NameTooLong):
        consistent.rename("d", "n" * 100)
    assert contents(world) == before


def test_a_failed_deletion_leaves_the_data_under_both_names_and_says_so(world: World, consistent: Program) -> None:
    world.store.seed("d/a", b"x")

    def refuse(operation: str, key: str) -> None:
        if operation == "DeleteMultipleObjects":
            raise ServerFailure("busy", status=503, operation=operation)

    world.store.before = refuse
    with pytest.raises(ServerFailure):
        consistent.rename("d", "e")
    world.store.before = None
    assert (consistent.read("d/a"), consistent.read("e/a")) == (b"x", b"x")


def test_a_file_changed_by_another_client_is_renamed_as_it_is_now(world: World) -> None:
    world.store.seed("a", b"old")
    program = world.mount(FAST)
    with program.walk("a"):
        world.store.seed("a", b"newer")
        program.rename("a", "b")
        assert contents(world) == {"b": b"newer"}
        assert program.stat("b").size == 5


def test_a_file_removed_by_another_client_cannot_be_renamed(world: World) -> None:
    world.store.seed("a", b"old")
    program = world.mount(FAST)
    with program.walk("a"):
        del world.store.objects["a"]
        with pytest.raises(NoSuchEntry):
            program.filesystem.rename(1, b"a", 1, b"b")
    assert contents(world) == {}


def test_times_set_by_a_program_go_with_the_file(consistent: Program) -> None:
    consistent.write("a", b"x")
    with consistent.walk("a") as inode:
        consistent.filesystem.setattr(inode, AttributeChange(mtime_ns=1_000), None)
        consistent.rename("a", "b")
        assert consistent.stat("b").mtime_ns == 1_000


def test_a_file_closed_during_a_directory_rename_ends_in_the_new_directory(world: World, consistent: Program) -> None:
    """The rename waits in the middle of its copies; closing waits for the rename, and nothing is left behind."""
    world.store.seed("d/other", b"x")
    file = consistent.open("d/a", WRITE)
    file.write(b"data")
    copying, go_on = threading.Event(), threading.Event()

    def hold(operation: str, key: str) -> None:
        if operation == "CopyObject" and key == "d/other":
            copying.set()
            assert go_on.wait(30)

    world.store.before = hold
    rename = threading.Thread(target=consistent.rename, args=("d", "e"))
    rename.start()
    assert copying.wait(30)
    closing = threading.Thread(target=lambda: (file.write(b" more"), file.close()))
    closing.start()
    go_on.set()
    rename.join(30)
    closing.join(30)
    assert contents(world) == {"e/a": b"data more", "e/other": b"x"}


# --- other clients meanwhile ---


def meanwhile(world: World, operation: str, key: str, act: Callable[[], object]) -> None:
    """Once, just before the request `operation` of `key`, another client does something."""

    def before(asked: str, of: str) -> None:
        if (asked, of) == (operation, key):
            world.store.before = None
            act()

    world.store.before = before


def test_noreplace_replaces_nothing_that_another_client_has_just_made(world: World, consistent: Program) -> None:
    world.store.seed("a", b"ours")
    meanwhile(world, "CopyObject", "a", lambda: world.store.seed("b", b"theirs"))
    with pytest.raises(EntryExists):
        consistent.rename("a", "b", RENAME_NOREPLACE)
    assert contents(world) == {"a": b"ours", "b": b"theirs"}
    assert consistent.read("b") == b"theirs"


@pytest.mark.parametrize("name", ["d/0", "d/2", "d/9", "d/"])
def test_what_is_written_to_a_directory_while_it_is_renamed_goes_with_it(
    world: World, consistent: Program, name: str
) -> None:
    """Changed, or made, after everything was copied."""
    for number in range(4):
        world.store.seed(f"d/{number}", b"x")
    copied: list[str] = []

    def before(operation: str, key: str) -> None:
        if operation == "CopyObject":
            copied.append(key)
        if operation == "ListObjectsV2" and len(copied) == 4:
            world.store.before = None
            world.store.seed(name, b"late")

    world.store.before = before
    consistent.rename("d", "e")
    written = {f"e/{number}": b"x" for number in range(4)} | {f"e{name[1:]}": b"late"}
    assert {key: data for key, data in contents(world).items() if data} == written
    if name != "d/":
        assert consistent.read(f"e{name[1:]}") == b"late"


def test_a_file_of_another_size_by_then_has_it_under_the_new_name(world: World) -> None:
    world.store.seed("d/a", b"old")
    program = world.mount(FAST)
    with program.walk("d/a"):
        world.store.seed("d/a", b"newer")
        program.rename("d", "e")
        assert program.stat("e/a").size == 5
        assert program.read("e/a") == b"newer"


def test_what_is_removed_from_a_directory_while_it_is_renamed_is_gone(world: World, consistent: Program) -> None:
    for number in range(4):
        world.store.seed(f"d/{number}", b"x")
    meanwhile(world, "CopyObject", "d/2", lambda: world.store.objects.pop("d/2"))
    consistent.rename("d", "e")
    assert consistent.list("e") == ["0", "1", "3"]
    assert not consistent.exists("d")


def test_what_is_overwritten_in_a_directory_while_it_is_copied_is_copied_as_it_is_then(
    world: World, consistent: Program
) -> None:
    world.store.seed("d/a", b"old")
    meanwhile(world, "CopyObject", "d/a", lambda: world.store.seed("d/a", b"newer"))
    consistent.rename("d", "e")
    assert consistent.read("e/a") == b"newer"


def test_a_failed_rename_leaves_what_another_client_wrote_over_a_copy(world: World, consistent: Program) -> None:
    for number in range(3):
        world.store.seed(f"d/{number}", b"x")
    consistent.mkdir("e")

    def refuse(operation: str, key: str) -> None:
        if operation == "CopyObject" and key == "d/2":
            until(lambda: {"e/0", "e/1"} <= world.store.objects.keys())
            world.store.seed("e/1", b"theirs")
            raise PermissionDenied(f"{key}: not allowed", status=403, operation=operation, key=key)

    world.store.before = refuse
    with pytest.raises(PermissionDenied):
        consistent.rename("d", "e")
    world.store.before = None
    assert contents(world) == {"d/0": b"x", "d/1": b"x", "d/2": b"x", "e/": b"", "e/1": b"theirs"}
