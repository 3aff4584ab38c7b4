"""Symbolic links; csi/fs/links.py."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from csi.errors import (
    EntryExists,
    InvalidOperation,
    NameTooLong,
    NoAttribute,
    OperationNotPermitted,
    OperationNotSupported,
    PermissionDenied,
    StoreError,
)
from csi.fs.types import ROOT_INODE, DirectoryName, FileKind
from csi.volume.spec import MountArguments
from tests.support.filesystems import CONSISTENT, FAST, READONLY, World
from tests.support.programs import Program


@pytest.mark.parametrize("target", ["a", "../x/./y", "/absolute/path", "dangling", "日本", "d/"])
def test_a_link_keeps_its_target_as_it_was_given(world: World, consistent: Program, target: str) -> None:
    consistent.symlink(target, "link")
    other = world.mount()
    assert consistent.readlink("link") == other.readlink("link") == target
    seen = other.stat("link")
    assert (seen.kind, seen.size) == (FileKind.SYMLINK, len(target.encode()))


def test_links_are_listed_as_links(world: World, consistent: Program) -> None:
    consistent.symlink("target", "link")
    ((name, entry),) = world.mount(FAST).entries()
    assert (name, entry.attributes.kind) == (b"link", FileKind.SYMLINK)


def test_a_target_is_read_once(world: World) -> None:
    world.store.put_symlink("link", "target")
    program = world.mount(FAST)
    with program.walk("link"):
        for _ in range(3):
            assert program.readlink("link") == "target"
            assert program.stat("link").size == 6
    assert world.store.requests["GetSymlink"] == 1


def test_a_link_is_renamed_and_removed(world: World, consistent: Program) -> None:
    consistent.symlink("target", "link")
    consistent.mkdir("d")
    consistent.rename("link", "d/moved")
    assert consistent.readlink("d/moved") == "target"
    consistent.rename("d", "e")
    assert consistent.readlink("e/moved") == "target"
    consistent.unlink("e/moved")
    assert consistent.list("e") == []


def test_a_name_that_is_there_is_refused(world: World, consistent: Program) -> None:
    world.store.seed("a", b"x")
    with pytest.raises(EntryExists):
        consistent.symlink("target", "a")


@pytest.mark.parametrize(("target", "error"), [(b"", InvalidOperation), (b"x" * 4096, NameTooLong)])
def test_impossible_targets_are_refused(consistent: Program, target: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        consistent.filesystem.symlink(ROOT_INODE, b"link", target)


def test_a_file_is_no_link(world: World, consistent: Program) -> None:
    world.store.seed("a", b"x")
    with pytest.raises(InvalidOperation):
        consistent.readlink("a")


# --- with -ono_symlink ---


FOLLOWING = replace(FAST, symlinks=False)
LINKS = {"nowhere": "missing", "around": "d/nowhere"}  # OSS follows one step


@pytest.fixture
def led(world: World) -> World:
    """A bucket with a link to a file, and links that lead to none."""
    world.store.seed("target", b"what it leads to")
    world.store.put_symlink("d/link", "target")
    for name, leads in LINKS.items():
        world.store.put_symlink(f"d/{name}", leads)
    return world


def test_without_symlinks_none_are_made_and_those_there_are_files(led: World) -> None:
    program = led.mount(replace(CONSISTENT, symlinks=False))
    with pytest.raises(OperationNotPermitted):
        program.symlink("target", "new")
    assert (program.stat("d/link").kind, program.stat("d/link").size) == (FileKind.FILE, 16)
    assert {entry.attributes.kind for _, entry in program.entries("d")} == {FileKind.FILE}


@pytest.mark.parametrize("arguments", [FOLLOWING, READONLY])
def test_a_listing_is_not_taken_for_what_a_link_leads_to(led: World, arguments: MountArguments) -> None:
    program = led.mount(arguments)
    listed = {name: entry.attributes.size for name, entry in program.entries("d")}
    assert listed == {b"around": 0, b"link": 16, b"nowhere": 0}
    assert program.read("d/link") == b"what it leads to"


@pytest.mark.parametrize("arguments", [FOLLOWING, READONLY])
def test_a_link_that_was_listed_by_name_is_followed_when_it_is_looked_up(led: World, arguments: MountArguments) -> None:
    program = led.mount(arguments)
    with program.walk("d") as inode:
        handle = program.filesystem.opendir(inode)
        told = list(program.filesystem.scan(handle, 0, plus=True))
        program.filesystem.releasedir(handle)
    assert [type(each) for each in told] == [DirectoryName] * 3  # of no file in it the size is known
    assert program.stat("d/link").size == 16
    assert program.read("d/link") == b"what it leads to"


@pytest.mark.parametrize("arguments", [FOLLOWING, READONLY])
@pytest.mark.parametrize("plus", [True, False])
def test_a_link_in_the_place_of_a_directory_is_no_directory_in_a_listing(
    led: World, arguments: MountArguments, plus: bool
) -> None:
    led.store.put("d/was/x", [b""])
    program = led.mount(arguments)
    with program.walk("d") as inode, program.walk("d/was"):  # the kernel remembers it
        led.store.delete("d/was/x")
        led.store.put_symlink("d/was", "d/target")
        led.clock.advance(60)
        handle = program.filesystem.opendir(inode)
        told = {
            entry.name: entry.kind
            for entry in program.filesystem.scan(handle, 0, plus=plus)
            if isinstance(entry, DirectoryName)
        }
        program.filesystem.releasedir(handle)
    assert told[b"was"] is FileKind.FILE


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_nowhere_is_there_and_cannot_be_read(led: World, name: str) -> None:
    program = led.mount(FOLLOWING)
    assert (program.stat(f"d/{name}").kind, program.stat(f"d/{name}").size) == (FileKind.FILE, 0)
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_APPEND):
        with pytest.raises(StoreError) as refused:
            program.open(f"d/{name}", flags)
        assert refused.value.code == {"nowhere": "SymlinkTargetNotExist", "around": "InvalidTargetType"}[name]


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_nowhere_has_no_attributes(led: World, name: str) -> None:
    program = led.mount(FOLLOWING)
    with program.walk(f"d/{name}") as inode:
        assert program.filesystem.listxattr(inode) == []
        with pytest.raises(NoAttribute):
            program.filesystem.getxattr(inode, b"user.oss.type")
        with pytest.raises(OperationNotSupported):
            program.filesystem.setxattr(inode, b"user.a", b"x")


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_nowhere_is_not_truncated_by_its_path(led: World, name: str) -> None:
    with pytest.raises(StoreError):
        led.mount(FOLLOWING).truncate(f"d/{name}", 0)
    assert led.store.get_symlink(f"d/{name}") == LINKS[name]


def test_a_link_is_read_once_it_leads_somewhere(led: World) -> None:
    program = led.mount(FOLLOWING)
    with program.walk("d/nowhere"):
        assert program.stat("d/nowhere").size == 0
        led.store.seed("missing", b"made since")
        assert program.read("d/nowhere") == b"made since"
        assert program.stat("d/nowhere").size == 10


def test_a_link_that_leads_nowhere_can_be_written_over(led: World) -> None:
    led.mount(FOLLOWING).write("d/nowhere", b"a file")
    assert led.store.data("d/nowhere") == b"a file"
    assert "missing" not in led.store.objects


def test_links_shown_as_files_are_removed(led: World) -> None:
    program = led.mount(FOLLOWING)
    for name in ("link", *LINKS):
        program.unlink(f"d/{name}")
    program.rmdir("d")
    assert sorted(led.store.objects) == ["target"]


def test_a_link_to_what_may_not_be_read_is_removed(led: World) -> None:
    def deny(operation: str, key: str) -> None:
        if operation == "HeadObject":
            raise PermissionDenied(f"{key} leads to what is not yours", status=403, code="AccessDenied")

    led.store.before = deny
    program = led.mount(FOLLOWING)
    with pytest.raises(PermissionDenied):
        program.read("d/link")
    program.unlink("d/link")
    assert "d/link" not in led.store.objects


@pytest.mark.parametrize("name", ["link", "nowhere"])
def test_a_link_shown_as_a_file_is_renamed_as_a_link(led: World, name: str) -> None:
    program = led.mount(FOLLOWING)
    program.rename(f"d/{name}", "moved")
    assert program.list("d") == sorted({"link", *LINKS} - {name})
    assert led.store.get_symlink("moved") == {"link": "target", **LINKS}[name]
    if name == "link":
        assert program.read("moved") == b"what it leads to"


def test_an_open_link_goes_on_when_its_directory_is_renamed(led: World) -> None:
    program = led.mount(FOLLOWING)
    file = program.open("d/link")
    program.rename("d", "e")
    assert file.pread() == b"what it leads to"
    file.close()
    assert program.read("e/link") == b"what it leads to"
    assert led.store.get_symlink("e/nowhere") == "missing"
