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
