"""The table of inodes; csi/fs/inodes.py."""

from __future__ import annotations

import pytest

from csi.errors import StaleFile
from csi.fs import inodes
from csi.fs.inodes import InodeTable, stable_hash
from csi.fs.metadata import Facts
from csi.fs.nodes import Node
from csi.fs.published import NothingPublished, PlanLeft
from csi.fs.types import ROOT_INODE, FileKind
from csi.volume.units import InodeNumber


def test_numbers_come_from_kind_and_key_alone() -> None:
    one, other = InodeTable("v/"), InodeTable("v/")
    first = one.add(one.root, b"a", FileKind.FILE)
    other.add(other.root, b"b", FileKind.FILE)
    assert other.add(other.root, b"a", FileKind.FILE).inode == first.inode
    assert InodeTable("").add(InodeTable("").root, b"a", FileKind.FILE).inode != first.inode


def test_a_number_fits_the_kernel_and_is_neither_nothing_nor_the_root() -> None:
    assert all(ROOT_INODE < stable_hash(b"%d" % number) < 1 << 63 for number in range(1000))


def test_keys_that_collide_get_different_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inodes, "stable_hash", lambda data: (1 << 63) - 1)
    table = InodeTable("")
    numbers = {table.add(table.root, name, FileKind.FILE).inode for name in (b"a", b"b", b"c")}
    assert len(numbers) == 3
    assert ROOT_INODE not in numbers and 0 not in numbers


def test_a_removed_file_that_the_kernel_knows_keeps_its_number() -> None:
    table = InodeTable("")
    old = table.add(table.root, b"a", FileKind.FILE)
    old.lookups = 1
    table.detach(old)
    fresh = table.add(table.root, b"a", FileKind.FILE)
    assert fresh.inode != old.inode
    assert table.get(old.inode) is old


def test_forgetting_a_file_forgets_the_directories_only_it_needed() -> None:
    table = InodeTable("")
    directory = table.add(table.root, b"d", FileKind.DIRECTORY)
    file = table.add(directory, b"a", FileKind.FILE)
    file.lookups = 2
    table.forget(file.inode, 1)
    assert len(table) == 3
    table.forget(file.inode, 1)
    assert len(table) == 1
    with pytest.raises(StaleFile):
        table.get(directory.inode)


def test_an_open_file_is_not_forgotten() -> None:
    table = InodeTable("")
    file = table.add(table.root, b"a", FileKind.FILE)
    table.local(file).handles = 1
    file.lookups = 1
    table.forget(file.inode, 1)
    assert table.get(file.inode) is file


def test_more_forgets_than_lookups_do_no_harm() -> None:
    table = InodeTable("")
    table.forget(12345, 1)
    table.forget(ROOT_INODE, 100)
    assert table.get(ROOT_INODE) is table.root


def test_moving_a_directory_moves_the_paths_below_it() -> None:
    table = InodeTable("v/")
    directory = table.add(table.root, b"d", FileKind.DIRECTORY)
    file = table.add(directory, b"a", FileKind.FILE)
    table.move(directory, table.root, b"e")
    assert (table.path(file), table.key(file), table.key(directory)) == ("e/a", "v/e/a", "v/e/")
    assert table.child(table.root, b"d") is None


class OpenedByPlan(NothingPublished):
    """A kernel session that has one offered file open, which it has told nobody of."""

    def __init__(self) -> None:
        self.opens = 1

    def withdraw_plan(self, inode: InodeNumber) -> PlanLeft | None:
        left, self.opens = PlanLeft(self.opens, opened=True), 0
        return left

    def reclaim_inode(self, inode: InodeNumber) -> bool:
        self.opens = 0
        return True


def test_opens_of_a_name_that_was_offered_and_told_here_outlive_the_offer() -> None:
    """Reads of such a file were EBADF once its time was over: nobody knew its handle."""
    published = OpenedByPlan()
    table = InodeTable("", published)
    adopted: list[tuple[Node, int]] = []
    table.adopt = lambda node, opens: adopted.append((node, opens))
    node = table.offer(table.root, b"a", Facts(FileKind.FILE), 0, 0.0, b"")
    table.note_published(node, planned=True)
    node.lookups += 1  # a LOOKUP that came here
    table.reclaim(node)
    assert adopted == [(node, 1)]
    assert node.lookups == 1
