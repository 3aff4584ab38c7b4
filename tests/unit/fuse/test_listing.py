"""A directory as the kernel reads it: in pages, from anywhere, with every count given back."""

from __future__ import annotations

import pyfuse3
import pytest
import trio

from csi.errors import ServerFailure
from csi.fuse.listing import DirectoryStream
from csi.fuse.workers import Workers
from csi.volume.units import FileHandle, InodeNumber
from tests.support.tree_filesystem import TreeFilesystem

NAMES = [f"n{number:04d}".encode() for number in range(300)]


class Page:
    """Room for `room` entries, as the kernel's buffer."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.names: list[bytes] = []
        self.dots: list[bytes] = []
        self.cookies: list[int] = []

    def reply(self, name: bytes, _attributes: pyfuse3.EntryAttributes, cookie: int) -> bool:
        if len(self.names) + len(self.dots) == self.room:
            return False
        (self.dots if name in (b".", b"..") else self.names).append(name)
        self.cookies.append(cookie)
        return True


class Opened:
    def __init__(self, names: list[bytes]) -> None:
        self.filesystem = TreeFilesystem()
        for name in names:
            self.filesystem.add(name.decode(), b"")
        handle = self.filesystem.opendir(InodeNumber(1))
        self.workers = Workers("listing", 1)
        self.stream = DirectoryStream(self.filesystem, InodeNumber(1), FileHandle(handle), self.workers)

    def page(self, cookie: int, room: int) -> Page:
        page = Page(room)
        trio.run(self.stream.fill, cookie, page.reply)
        return page

    def counted(self) -> int:
        return sum(self.filesystem.lookups.values())


@pytest.fixture
def opened() -> object:
    made = Opened(NAMES)
    yield made
    made.workers.close()


@pytest.mark.parametrize("room", [1, 7, 128, 299, 300, 1000])
def test_pages_of_any_size_show_every_name_once_from_one_listing(opened: Opened, room: int) -> None:
    seen: list[bytes] = []
    cookie = 0
    while (page := opened.page(cookie, room)).cookies:
        seen += page.names
        cookie = page.cookies[-1]

    assert seen == NAMES
    assert opened.filesystem.calls["readdir"] == 1
    assert opened.counted() == len(NAMES)


def test_any_earlier_position_can_be_read_again(opened: Opened) -> None:
    first = opened.page(0, 50)
    opened.page(first.cookies[-1], 50)

    again = opened.page(first.cookies[11], 5)

    assert again.names == NAMES[10:15]


@pytest.mark.parametrize(("cookie", "dots"), [(0, [b".", b".."]), (1, [b".."]), (2, [])])
def test_every_directory_begins_with_the_two_dots(opened: Opened, cookie: int, dots: list[bytes]) -> None:
    page = opened.page(cookie, 5)

    assert page.dots == dots
    assert page.names == NAMES[: 5 - len(dots)]


def test_a_rewound_directory_shows_what_is_there_now() -> None:
    opened = Opened([])
    assert opened.page(0, 10).names == []
    opened.filesystem.add("appeared", b"")

    assert opened.page(0, 10).names == [b"appeared"]
    opened.workers.close()


def test_entries_the_kernel_never_got_are_given_back_at_close(opened: Opened) -> None:
    opened.page(0, 5)
    opened.stream.close()

    assert opened.counted() == 3


def test_entries_the_kernel_never_got_are_given_back_at_a_rewind(opened: Opened) -> None:
    opened.page(0, 5)
    opened.page(0, 4)
    opened.stream.close()

    assert opened.counted() == 5


def test_names_before_an_error_are_shown_and_the_next_page_is_the_error() -> None:
    opened = Opened([b"a", b"b", b"unlistable", b"z"])

    page = opened.page(0, 10)

    assert page.names == [b"a", b"b"]
    with pytest.raises(ServerFailure):
        opened.page(page.cookies[-1], 10)
    opened.workers.close()


def test_after_an_error_a_listing_can_be_tried_again() -> None:
    opened = Opened([b"unlistable"])
    with pytest.raises(ServerFailure):
        opened.page(2, 10)
    opened.filesystem.unlink(InodeNumber(1), b"unlistable")
    opened.filesystem.add("fine", b"")

    assert opened.page(0, 10).names == [b"fine"]
    opened.workers.close()
