"""Names looked up in order where no listing is kept: few requests, the same answers (csi/fs/runs.py)."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from csi.errors import NoSuchEntry
from csi.fs.metadata import Facts
from csi.fs.nodes import Node
from csi.fs.page_sizes import FIRST, LARGEST
from csi.fs.renewal import Page, just_before
from csi.fs.runs import Runs
from csi.fs.types import FileKind
from csi.volume.spec import MountArguments
from csi.volume.units import InodeNumber, Seconds
from tests.support.filesystems import CONSISTENT, FAST, World
from tests.support.programs import Program
from tests.unit.fs.test_renewal import look_up, look_up_after_a_failure, look_up_neighbours_at_once

FILES = 3_000
DIRECTORY = Node(InodeNumber(2), FileKind.DIRECTORY, None, b"d")


@contextmanager
def unlisted(world: World, arguments: MountArguments = FAST) -> Iterator[tuple[Program, InodeNumber]]:
    """A mount, and its directory d, which nobody has listed."""
    for number in range(FILES):
        world.store.seed(f"d/{number:04d}", b"data")
    program = world.mount(arguments)
    with program.walk("d") as inode:
        world.store.requests.clear()
        yield program, inode


def lists(world: World) -> int:
    return world.store.requests["ListObjectsV2"]


def test_a_sorted_list_of_files_costs_few_listings(world: World) -> None:
    with unlisted(world) as (program, inode):
        assert {look_up(program, inode, b"%04d" % number) for number in range(FILES)} == {4}
        assert lists(world) <= 3 + 7 + FILES // LARGEST


def test_with_gaps_it_does_too(world: World) -> None:
    with unlisted(world) as (program, inode):
        for number in range(0, FILES, 7):
            look_up(program, inode, b"%04d" % number)
        assert lists(world) < FILES // 7 / 10


def test_in_any_other_order_each_name_is_one_request(world: World) -> None:
    numbers = random.Random(1).sample(range(FILES), 300)
    with unlisted(world) as (program, inode):
        for number in numbers:
            look_up(program, inode, b"%04d" % number)
        assert 250 <= lists(world) <= 300


def test_with_all_timeouts_zero_every_lookup_asks(world: World) -> None:
    with unlisted(world, CONSISTENT) as (program, inode):
        for number in range(10):
            look_up(program, inode, b"%04d" % number)
        assert world.store.requests == {"ListObjectsV2": 10}


def test_an_answer_from_a_page_is_as_old_as_its_request(world: World) -> None:
    with unlisted(world) as (program, inode):
        for number in range(3):
            look_up(program, inode, b"%04d" % number)
        world.store.seed("d/0005", b"changed")
        world.clock.advance(2.9)
        entry = program.filesystem.lookup_cached(inode, b"0005")
        assert entry is not None
        assert entry.attributes.size == 4
        assert 0 < entry.attr_timeout < 0.11
        program.filesystem.forget(entry.attributes.inode, 1)
        world.clock.advance(0.2)
        assert look_up(program, inode, b"0005") == 7


def test_a_name_that_is_not_there_costs_one_request_and_ends_the_run(world: World) -> None:
    with unlisted(world) as (program, inode):
        for number in range(2):
            look_up(program, inode, b"%04d" % number)
        before = lists(world)
        for name in (b"0001a", b"0001b"):
            with pytest.raises(NoSuchEntry):
                look_up(program, inode, name)
        assert lists(world) == before + 2


def test_what_this_mount_changes_after_a_page_is_seen_at_once(world: World) -> None:
    with unlisted(world) as (program, inode):
        for number in range(3):
            look_up(program, inode, b"%04d" % number)
        program.write("d/0004", b"longer")
        program.unlink("d/0005")
        assert look_up(program, inode, b"0004") == 6
        with pytest.raises(NoSuchEntry):
            look_up(program, inode, b"0005")
        assert look_up(program, inode, b"0006") == 4


def test_directories_and_what_they_hide_are_told_too(world: World) -> None:
    for name in ("d/0003/x", "d/0005-/y", "d/0006/", "d/é/z", "d/éa"):
        world.store.seed(name, b"data")
    with unlisted(world) as (program, _):
        names = [*(f"{number:04d}" for number in range(6)), "0005-", "0006", "0007", *map(str, range(3)), "é", "éa"]
        kinds = {}
        for name in names:
            with contextlib.suppress(NoSuchEntry), program.walk(f"d/{name}") as found:
                kinds[name] = program.filesystem.getattr(found).attributes.kind
    assert [name for name, kind in kinds.items() if kind is FileKind.DIRECTORY] == ["0003", "0005-", "0006", "é"]
    assert set(names) - set(kinds) == {"0", "1", "2"}


def test_neighbours_looked_up_at_once_share_a_request(world: World) -> None:
    with unlisted(world) as (program, inode):
        for number in range(2):
            look_up(program, inode, b"%04d" % number)
        world.store.requests.clear()
        look_up_neighbours_at_once(world, program, inode)


def test_a_page_that_fails_is_told_to_who_asked_and_asked_for_again(world: World) -> None:
    with unlisted(world) as (program, inode):
        for number in range(2):
            look_up(program, inode, b"%04d" % number)
        look_up_after_a_failure(world, program, inode)


def test_names_as_long_as_oss_has_them_are_looked_up_in_order_too(world: World) -> None:
    directory = "/".join(["d" * 200] * 4)
    names = [f"{number:04d}{'x' * (1023 - len(directory) - 5)}" for number in range(40)]
    for name in names:
        assert len(world.store.seed(f"{directory}/{name}", b"data"))
    program = world.mount(FAST)
    assert {program.stat(f"{directory}/{name}").size for name in names} == {4}


@pytest.mark.parametrize("order", [1, -1], ids=["ascending", "descending"])
def test_a_directory_that_was_made_anew_shows_nothing_of_the_last_page(world: World, order: int) -> None:
    program = world.mount(FAST)
    program.mkdir("d")
    for number in range(40):
        world.store.seed(f"d/{number:04d}", b"data")
    for number in range(4):
        program.stat(f"d/{number:04d}")
    for name in sorted(program.list("d"))[::order]:
        program.unlink(f"d/{name.decode() if isinstance(name, bytes) else name}")
    program.rmdir("d")
    program.mkdir("d")
    for number in range(50, 60):
        world.store.seed(f"d/{number:04d}", b"data")
        assert program.stat(f"d/{number:04d}").size == 4
    for number in range(40)[::order]:
        with pytest.raises(NoSuchEntry):
            program.stat(f"d/{number:04d}")


# --- csi/fs/runs.py by itself ---


def sizes(runs: Runs, names: range, told: int) -> list[int]:
    """How many names each is asked for with (1: by itself) when a page tells `told` of them and none is used."""
    found = []
    for number in names:
        name = b"%05d" % number
        joined = runs.join(DIRECTORY, name, 0)
        if joined is None:
            runs.asked(DIRECTORY, name, is_there=True)
            found.append(1)
            continue
        flight, _, is_new = joined
        assert is_new
        page = {b"%05d" % each: Facts(FileKind.FILE) for each in range(number, number + min(told, flight.size))}
        flight.page, flight.seconds = Page(page, 1, 0.0), Seconds(0.0)
        runs.land(DIRECTORY, flight, name)
        found.append(flight.size)
    return found


def test_pages_of_no_use_are_given_up_and_tried_again() -> None:
    found = sizes(Runs(), range(300), LARGEST)
    assert FIRST in found[:5]
    assert sum(found) < 300 * FIRST
    assert found.count(1) > 200
    assert FIRST in found[60:]


def test_files_that_are_made_in_order_are_asked_for_by_themselves() -> None:
    runs = Runs()
    for number in range(50):
        name = b"%05d" % number
        assert runs.join(DIRECTORY, name, 0) is None
        runs.asked(DIRECTORY, name, is_there=False)


def test_few_directories_are_remembered() -> None:
    runs = Runs()
    for number in range(1_000):
        runs.asked(Node(InodeNumber(number), FileKind.DIRECTORY, None, b""), b"name", is_there=True)
    assert len(runs._runs) == 64


@pytest.mark.parametrize("name", [b"0", b"a", b"a0", b"file-10.jpg", "é".encode(), "aé".encode(), b"a\xff", b"~", b"!"])
def test_a_place_just_before_a_name_comes_before_it_and_after_others(name: bytes) -> None:
    before = just_before(name)
    assert before < name
    assert before >= name[:-1] or not before or name[-1] >= 0x80
    before.decode("utf-8", "surrogateescape")
