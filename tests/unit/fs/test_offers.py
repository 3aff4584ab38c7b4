"""Names of a listing that are published before anybody asks: which, as what, and when they are taken back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csi.fs.offers import FIRST, LEAST
from csi.fs.types import ROOT_INODE, Entry
from csi.volume.units import InodeNumber, Seconds
from tests.support.filesystems import CONSISTENT, FAST, World
from tests.support.programs import Program
from tests.support.published_names import PublishedNames

LISTED = 100


class Told(Program):
    """A mount whose directory was listed by names alone, and the tables it publishes in."""

    def __init__(self, program: Program, published: PublishedNames) -> None:
        super().__init__(program.filesystem)
        self.published = published

    def look_up(self, name: bytes) -> Entry:
        found = self.filesystem.lookup_cached(ROOT_INODE, name)
        return found if found is not None else self.filesystem.lookup(ROOT_INODE, name)

    def said(self) -> list[bytes]:
        return sorted(name for _, name in self.published.names)

    def offers(self) -> int:
        return self.filesystem.statistics().offers.inodes


@pytest.fixture
def told(world: World) -> Told:
    for number in range(LISTED):
        world.store.seed(name(number).decode(), b"x" * number)
    published = PublishedNames(world.clock)
    made = Told(world.mount(FAST, published=published), published)
    handle = made.filesystem.opendir(ROOT_INODE)
    assert len(list(made.filesystem.scan(handle, 0, plus=False))) == LISTED
    made.filesystem.releasedir(handle)
    return made


def name(number: int) -> bytes:
    return b"%03d" % number


def forget(told: Told, entry: Entry) -> None:
    told.filesystem.forget(entry.attributes.inode, 1)


def test_the_names_that_follow_are_published_with_the_one_that_was_asked_for(told: Told) -> None:
    entry = told.look_up(name(10))
    assert told.said() == [name(number) for number in range(10, 11 + FIRST)]
    assert told.offers() == FIRST
    forget(told, entry)


def test_twice_as_many_are_published_the_next_time(told: Told) -> None:
    entries = [told.look_up(name(0)), told.look_up(name(1 + FIRST))]
    assert told.said() == [name(number) for number in range(2 + 3 * FIRST)]
    for entry in entries:
        forget(told, entry)


def published_with(told: Told, number: int) -> int:
    """How many names are published with the LOOKUP of one."""
    before = told.filesystem.statistics().offers.published
    forget(told, told.look_up(name(number)))
    return told.filesystem.statistics().offers.published - before


def test_who_asks_for_names_now_and_then_does_not_wait_for_others(world: World, told: Told) -> None:
    sizes = []
    for number in (0, 60, 90, 35):  # none near the end of what was published before
        sizes.append(published_with(told, number))
        world.clock.advance(10.0)
    assert sizes == [FIRST, FIRST // 2, LEAST, LEAST]
    assert [published_with(told, 36 + LEAST), published_with(told, 37 + 3 * LEAST)] == [2 * LEAST, 4 * LEAST]


def test_names_looked_up_so_fast_that_they_will_all_be_are_published_in_any_order(world: World, told: Told) -> None:
    sizes = []
    for number in (60, 0, 30):
        sizes.append(published_with(told, number))
        world.clock.advance(0.01)
    assert sizes == [FIRST, 2 * FIRST, 4 * FIRST - 18]  # some had been published with the others


def test_what_is_published_is_what_a_lookup_is_told(told: Told) -> None:
    entry = told.look_up(name(0))
    said = told.published.lookup(ROOT_INODE, name(5))
    asked = told.look_up(name(5))
    assert said is not None and said.what == asked.attributes.inode
    shown = told.published.getattr(asked.attributes.inode)
    assert shown is not None and shown.what == asked.attributes
    for each in (entry, asked):
        forget(told, each)


def test_a_name_that_the_session_told_is_the_filesystems_until_it_is_forgotten(told: Told) -> None:
    entry = told.look_up(name(0))
    inode = told.published.answer_lookup(ROOT_INODE, name(1))
    assert inode is not None
    told.filesystem._offers.take_back(everything=True)
    assert told.filesystem.getattr(inode).attributes.size == 1
    told.filesystem.forget(inode, told.published.forget(inode, 1))
    forget(told, entry)
    assert told.filesystem.statistics().inodes == 1


def test_a_name_that_nobody_came_for_is_taken_back_when_its_time_is_over(world: World, told: Told) -> None:
    forget(told, told.look_up(name(0)))
    world.clock.advance(FAST.attr_timeout + 0.1)
    assert told.offers() == 0
    assert told.filesystem.statistics().inodes == 1


def test_a_name_that_was_removed_is_said_no_longer(told: Told) -> None:
    forget(told, told.look_up(name(0)))
    told.unlink(name(3).decode())
    assert told.published.lookup(ROOT_INODE, name(3)) is None
    assert not told.exists(name(3).decode())


def test_a_name_that_was_written_is_said_as_it_is_now(told: Told) -> None:
    forget(told, told.look_up(name(0)))
    told.write(name(3).decode(), b"now this")
    assert told.stat(name(3).decode()).size == 8
    said = told.published.lookup(ROOT_INODE, name(3))
    shown = told.published.getattr(InodeNumber(said.what)) if said is not None and isinstance(said.what, int) else None
    assert shown is None or shown.what == told.stat(name(3).decode())


def test_names_that_a_page_told_again_are_published_again(world: World, told: Told) -> None:
    forget(told, told.look_up(name(0)))
    world.clock.advance(FAST.attr_timeout + 0.1)
    assert told.published.lookup(ROOT_INODE, name(5)) is None
    forget(told, told.look_up(name(4)))
    assert told.published.lookup(ROOT_INODE, name(5)) is not None


def test_nothing_is_published_where_everything_is_asked_for(world: World) -> None:
    world.store.seed("000", b"")
    world.store.seed("001", b"")
    published = PublishedNames(world.clock)
    program = world.mount(replace(CONSISTENT, attr_timeout=Seconds(0.0)), published=published)
    assert program.list("") == ["000", "001"]
    program.stat("000")
    assert program.filesystem.statistics().offers.published == 0


def test_without_room_nothing_is_left_behind(told: Told) -> None:
    told.published.full = True
    forget(told, told.look_up(name(0)))
    assert told.filesystem.statistics().inodes == 1


def test_listings_that_are_not_kept_are_not_remembered(world: World, told: Told) -> None:
    knowledge = told.filesystem._namespace.knowledge
    forget(told, told.look_up(name(10)))
    for number in range(LISTED):
        world.store.seed(f"d/{number:03}")
    with told.walk("d") as directory:
        knowledge.listings.give_up(LISTED)
        told.list("d")
        forget(told, told.filesystem.lookup(directory, name(10)))
    remembered = {order.listing for order in told.filesystem._offers._orders.values()}
    assert len(remembered) == 1
    assert remembered <= knowledge.listings.all()
