"""Names and keys; csi/fs/names.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.errors import NameNotAllowed, NameTooLong
from csi.fs.names import check_new, decode, directory_key, encode, is_inside, is_visible, join, object_key, shown


@given(st.binary(max_size=40))
def test_any_bytes_survive_the_way_through_a_key(name: bytes) -> None:
    assert encode(decode(name)) == name
    assert encode(join("d", name)) == b"d/" + name


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"nul\0", b"n" * 256])
def test_names_no_file_system_can_show(name: bytes) -> None:
    assert not is_visible(name)
    with pytest.raises((NameNotAllowed, NameTooLong)):
        check_new("", decode(name), name)


@pytest.mark.parametrize("name", [b"...", b"a", b"-", b" ", b"\n", b"\\", b"n" * 255])
def test_names_that_can_be_shown(name: bytes) -> None:
    assert is_visible(name)
    check_new("prefix/", decode(name), name)


def test_a_backslash_may_not_begin_a_key_but_a_name() -> None:
    with pytest.raises(NameNotAllowed):
        check_new("", "\\a", b"\\a")
    check_new("", "d/\\a", b"\\a")


def test_the_prefix_counts_for_the_length_of_a_key() -> None:
    check_new("p" * 1000 + "/", "a" * 22, b"a" * 22)
    with pytest.raises(NameTooLong):
        check_new("p" * 1000 + "/", "a" * 22, b"a" * 22, directory=True)
    with pytest.raises(NameTooLong):
        check_new("p" * 1000 + "/", "a" * 23, b"a" * 23)


def test_keys_of_files_and_directories() -> None:
    assert (object_key("v/", "a/b"), directory_key("v/", "a"), directory_key("v/", "")) == ("v/a/b", "v/a/", "v/")


@pytest.mark.parametrize(
    ("path", "root", "inside"),
    [("a", "a", True), ("a/b", "a", True), ("ab", "a", False), ("a", "a/b", False), ("x", "", True)],
)
def test_what_is_inside_what(path: str, root: str, inside: bool) -> None:
    assert is_inside(path, root) is inside


def test_messages_show_names_printable_and_short() -> None:
    assert shown("né\n".encode()).isascii()
    assert len(shown(b"x" * 5000)) < 130
