"""The load program notices every page that is not the one it should be: nothing is compared on wrong data."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.loads import build, load, short_of
from benchmarks.programs.curl import ranges

PAGE = 4096
SIZE = 5 * PAGE + 100


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture
def file(program: Path, tmp_path: Path) -> Path:
    load(program, "make-many", tmp_path, 3, SIZE)
    return tmp_path / "000001"


def test_what_it_made_is_right_however_it_is_read(program: Path, file: Path) -> None:
    everything = load(program, "files", file.parent, 2, 3, 1)
    assert (everything.wrong, everything.operations, everything.bytes) == ("", 3, 3 * SIZE)
    for block in (PAGE, 3000, 1 << 20):  # pages that begin in the middle of a call are looked at too
        found = load(program, "sequential", file, 2, block)
        assert (found.wrong, found.bytes) == ("", SIZE)
    found = load(program, "random", file, 2, 50, PAGE, 1)
    assert (found.wrong, found.operations) == ("", 50)


@pytest.mark.parametrize("page", [0, 3, 5])
def test_a_page_of_another_file_is_noticed(program: Path, file: Path, page: int) -> None:
    other = (file.parent / "000002").read_bytes()
    whole = bytearray(file.read_bytes())
    whole[page * PAGE : (page + 1) * PAGE] = other[page * PAGE : (page + 1) * PAGE]
    file.write_bytes(whole)
    assert load(program, "check", file).wrong == "1 pages hold other bytes than they should"


def test_pages_in_another_order_are_noticed(program: Path, file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[PAGE : 2 * PAGE] + whole[:PAGE] + whole[2 * PAGE :])
    assert load(program, "check", file).wrong == "2 pages hold other bytes than they should"


def test_a_file_that_ends_early_is_short(program: Path, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])
    assert short_of(load(program, "check", file), SIZE) == f"{SIZE - 50} bytes instead of {SIZE}"


def test_what_it_writes_through_a_mount_is_what_it_makes(program: Path, file: Path) -> None:
    made = file.read_bytes()
    load(program, "write", file, SIZE, 1 << 20)
    assert file.read_bytes() == made


def test_a_failure_is_said(program: Path, tmp_path: Path) -> None:
    assert load(program, "sequential", tmp_path / "none", 1, PAGE).wrong.startswith("No such file or directory")


def test_curl_is_given_ranges_that_cover_the_object_once() -> None:
    lines = [line for line in ranges("http://host/o", 10, 4) if line.startswith("range")]
    assert lines == ['range = "0-2"', 'range = "3-5"', 'range = "6-8"', 'range = "9-9"']
