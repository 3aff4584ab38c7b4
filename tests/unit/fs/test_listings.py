"""Bounded memories; csi/fs/listings.py and csi/fs/absences.py."""

from __future__ import annotations

from csi.fs.absences import Absences
from csi.fs.inodes import InodeTable
from csi.fs.listings import Listing, ListingCache
from csi.fs.metadata import DIRECTORY
from csi.fs.nodes import NEVER
from csi.fs.types import FileKind


def test_the_oldest_listings_give_way() -> None:
    table = InodeTable("")
    directories = [table.add(table.root, b"%d" % number, FileKind.DIRECTORY) for number in range(4)]
    cache = ListingCache(most_names=10)
    for directory in directories:
        cache.put(directory, Listing({b"%d" % number: DIRECTORY for number in range(4)}, 1, 0.0))
    assert [cache.get(directory) is not None for directory in directories] == [False, False, True, True]
    assert cache.names == 8
    cache.drop(directories[3])
    assert (len(cache), cache.names) == (1, 4)


def test_a_listing_in_use_does_not_give_way() -> None:
    table = InodeTable("")
    directories = [table.add(table.root, b"%d" % number, FileKind.DIRECTORY) for number in range(4)]
    cache = ListingCache(most_names=10)
    for directory in directories:
        cache.put(directory, Listing({b"%d" % number: DIRECTORY for number in range(4)}, 1, 0.0))
        assert cache.get(directories[0]) is not None
    assert len(cache) == 2


def test_a_listing_put_again_is_counted_once() -> None:
    cache, root = ListingCache(), InodeTable("").root
    for asked in (1, 2):
        cache.put(root, Listing({b"a": DIRECTORY}, asked, 0.0))
    assert (len(cache), cache.names) == (1, 1)


def test_the_oldest_absences_give_way() -> None:
    absences, root = Absences(most=2), InodeTable("").root
    for serial, name in enumerate((b"a", b"b", b"a", b"c"), start=1):
        absences.note(root, name, serial, float(serial))
    assert [absences.asked(root, name) for name in (b"a", b"b", b"c")] == [3, 0, 4]
    assert absences.at(root, b"b") == NEVER


def test_a_name_is_as_old_as_its_page() -> None:
    listing = Listing({b"a": DIRECTORY, b"b": DIRECTORY, b"c": DIRECTORY}, 1, 1.0)
    listing.turn(b"a/", 5, 5.0)
    listing.turn(b"b/", 9, 9.0)
    assert [listing.told(name, DIRECTORY) for name in (b"a", b"b", b"c")] == [(1, 1.0), (5, 5.0), (9, 9.0)]


def test_a_listing_that_moved_on_keeps_what_came_last_and_is_never_complete() -> None:
    listing = Listing(dict.fromkeys([b"a", b"b", b"c", b"d"], DIRECTORY), 1, 1.0, complete=False)
    listing.turn(b"c/", 5, 5.0)
    listing.move_on()
    assert list(listing.names) == [b"c", b"d"]
    assert [listing.told(name, DIRECTORY) for name in listing.names] == [(1, 1.0), (5, 5.0)]
    listing.end()
    assert not listing.complete


def test_a_listing_that_is_read_to_its_end_is_complete() -> None:
    listing = Listing({}, 1, 1.0, complete=False)
    listing.end()
    assert listing.complete
