"""Symbolic links; csi/fs/links.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csi.errors import EntryExists, InvalidOperation, NameTooLong, OperationNotPermitted
from csi.fs.types import ROOT_INODE, FileKind
from tests.support.filesystems import CONSISTENT, FAST, World
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


def test_without_symlinks_none_are_made_and_those_there_are_files(world: World) -> None:
    world.store.put_symlink("link", "target")
    program = world.mount(replace(CONSISTENT, symlinks=False))
    with pytest.raises(OperationNotPermitted):
        program.symlink("target", "new")
    assert program.stat("link").kind is FileKind.FILE
    assert [entry.attributes.kind for _, entry in program.entries()] == [FileKind.FILE]
