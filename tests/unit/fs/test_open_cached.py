"""Opening without waiting: only for reading, and only while what is known may be used."""

from __future__ import annotations

import os

import pytest

from csi.fs.filesystem import Filesystem
from csi.fs.types import ROOT_INODE
from csi.volume.spec import MountArguments
from csi.volume.units import InodeNumber
from tests.support.filesystems import CONSISTENT, READONLY, World


def known(world: World, arguments: MountArguments) -> tuple[Filesystem, InodeNumber]:
    world.store.seed("a", b"hello")
    filesystem = world.mount(arguments).filesystem
    entry = filesystem.lookup(ROOT_INODE, b"a")
    return filesystem, entry.attributes.inode


def test_a_file_that_was_just_looked_up_is_opened_without_a_request(world: World) -> None:
    filesystem, inode = known(world, CONSISTENT)
    before = sum(world.store.requests.values())

    opened = filesystem.open_cached(inode, os.O_RDONLY)

    assert opened is not None
    assert sum(world.store.requests.values()) == before
    filesystem.release(opened.handle)
    filesystem.forget(inode, 1)


def test_in_consistent_mode_a_second_open_has_to_ask(world: World) -> None:
    filesystem, inode = known(world, CONSISTENT)
    first = filesystem.open_cached(inode, os.O_RDONLY)

    assert filesystem.open_cached(inode, os.O_RDONLY) is None
    filesystem.release(first.handle)
    filesystem.forget(inode, 1)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY | os.O_DIRECT])
def test_what_may_need_a_request_is_not_opened_here(world: World, flags: int) -> None:
    filesystem, inode = known(world, READONLY)

    assert filesystem.open_cached(inode, flags) is None
    filesystem.forget(inode, 1)
