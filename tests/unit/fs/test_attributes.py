"""Extended attributes; csi/fs/attributes.py."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from csi.errors import (
    EntryExists,
    NoAttribute,
    NoSpaceForAttributes,
    OperationNotSupported,
    StaleFile,
)
from tests.support.filesystems import CONSISTENT, World
from tests.support.programs import WRITE, Program


def get(program: Program, path: str, name: str) -> bytes:
    with program.walk(path) as inode:
        return program.filesystem.getxattr(inode, name.encode())


def put(program: Program, path: str, name: str, value: bytes, flags: int = 0) -> None:
    with program.walk(path) as inode:
        program.filesystem.setxattr(inode, name.encode(), value, flags)


def names(program: Program, path: str) -> list[bytes]:
    with program.walk(path) as inode:
        return list(program.filesystem.listxattr(inode))


def test_the_object_tells_about_itself(world: World, consistent: Program) -> None:
    etag = world.store.seed("a", b"x")
    assert get(consistent, "a", "user.oss.etag") == etag.encode()
    assert get(consistent, "a", "user.oss.storage-class") == b"Standard"
    assert get(consistent, "a", "user.oss.type") == b"Normal"
    assert world.store.requests["HeadObject"] == 0
    assert int(get(consistent, "a", "user.oss.crc64")) > 0


def test_user_metadata_is_read_under_both_names(world: World, consistent: Program) -> None:
    world.store.seed("a", b"x", owner="me")
    assert get(consistent, "a", "user.owner") == b"me"
    assert get(consistent, "a", "user.oss.owner") == b"me"
    assert names(consistent, "a")[-1] == b"user.owner"
    assert b"user.oss.etag" in names(consistent, "a")


@pytest.mark.parametrize(
    "value",
    [b"plain", b"", b" spaced ", b"two words", b"\x00\xff", "日本".encode(), b"base64:eA==", b"base64:!", b"\n"],
)
def test_any_value_is_read_back_as_it_was_set(world: World, consistent: Program, value: bytes) -> None:
    world.store.seed("a", b"content", keep="me")
    put(consistent, "a", "user.note", value)
    assert get(consistent, "a", "user.note") == value
    assert get(consistent, "a", "user.keep") == b"me"
    assert consistent.read("a") == b"content"


def test_values_of_other_programs_that_look_encoded_are_shown_as_they_are(world: World, consistent: Program) -> None:
    world.store.seed("a", b"", note="base64:not really")
    assert get(consistent, "a", "user.note") == b"base64:not really"


def test_an_attribute_is_removed(world: World, consistent: Program) -> None:
    world.store.seed("a", b"content", note="x", keep="y")
    with consistent.walk("a") as inode:
        consistent.filesystem.removexattr(inode, b"user.note")
        with pytest.raises(NoAttribute):
            consistent.filesystem.removexattr(inode, b"user.note")
    assert world.store.objects["a"].user == {"keep": "y"}
    assert world.store.data("a") == b"content"


def test_create_and_replace_are_honoured(world: World, consistent: Program) -> None:
    world.store.seed("a", b"", note="x")
    with pytest.raises(EntryExists):
        put(consistent, "a", "user.note", b"y", os.XATTR_CREATE)
    with pytest.raises(NoAttribute):
        put(consistent, "a", "user.other", b"y", os.XATTR_REPLACE)
    put(consistent, "a", "user.note", b"z", os.XATTR_REPLACE)
    assert get(consistent, "a", "user.note") == b"z"


@pytest.mark.parametrize("name", ["user.nope", "security.capability", "system.posix_acl_access", "user.oss.nope"])
def test_what_is_not_there_has_no_data(world: World, consistent: Program, name: str) -> None:
    world.store.seed("a", b"")
    with pytest.raises(NoAttribute):
        get(consistent, "a", name)


@pytest.mark.parametrize(
    "name", ["user.oss.etag", "user.oss.crc64", "user.Upper", "user.sp ace", "security.x", "user."]
)
def test_what_cannot_be_set_is_not_supported(world: World, consistent: Program, name: str) -> None:
    world.store.seed("a", b"")
    with pytest.raises(OperationNotSupported):
        put(consistent, "a", name, b"x")


def test_more_than_8_kib_is_refused(world: World, consistent: Program) -> None:
    world.store.seed("a", b"", note="x")
    with pytest.raises(NoSpaceForAttributes, match="8192"):
        put(consistent, "a", "user.big", b"x" * 8192)
    assert world.store.objects["a"].user == {"note": "x"}


def test_setting_on_a_file_being_written_finishes_it_first(world: World, consistent: Program) -> None:
    file = consistent.open("a", WRITE)
    file.write(b"one")
    put(consistent, "a", "user.note", b"x")
    file.write(b"two")
    file.close()
    assert world.store.data("a") == b"onetwo"
    assert world.store.objects["a"].user == {"note": "x"}


def test_an_open_reader_goes_on_when_metadata_is_set(world: World, consistent: Program) -> None:
    world.store.seed("a", b"x" * 3_000_000)
    file = consistent.open("a")
    put(consistent, "a", "user.note", b"x")
    assert file.pread(3, 2_999_990) == b"xxx"
    file.close()


def test_a_change_by_another_client_in_between_is_not_overwritten(world: World, consistent: Program) -> None:
    world.store.seed("a", b"old")

    def replace_it(operation: str, key: str) -> None:
        if operation == "CopyObject":
            world.store.before = None
            world.store.seed("a", b"theirs")

    world.store.before = replace_it
    with pytest.raises(StaleFile):
        put(consistent, "a", "user.note", b"x")
    assert world.store.data("a") == b"theirs"


def test_appendable_objects_keep_their_kind(world: World) -> None:
    program = world.mount(append=True)
    program.write("log", b"x")
    with pytest.raises(OperationNotSupported):
        put(program, "log", "user.note", b"x")
    assert world.store.objects["log"].type == "Appendable"


def test_directories_have_none(world: World, consistent: Program) -> None:
    consistent.mkdir("d")
    assert names(consistent, "d") == []
    with pytest.raises(NoAttribute):
        get(consistent, "d", "user.oss.etag")
    with pytest.raises(OperationNotSupported):
        put(consistent, "d", "user.note", b"x")


def test_without_xattrs_everything_is_not_supported(world: World) -> None:
    world.store.seed("a", b"", note="x")
    program = world.mount(replace(CONSISTENT, xattrs=False))
    for call in (
        lambda: get(program, "a", "user.note"),
        lambda: names(program, "a"),
        lambda: put(program, "a", "user.note", b"y"),
    ):
        with pytest.raises(OperationNotSupported):
            call()
