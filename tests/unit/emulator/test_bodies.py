from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from fastcrc.crc64 import xz as crc64

from csi.emulator.store.bodies import Bodies, BodyWriter, Piece


@pytest.fixture
def bodies(tmp_path: Path) -> Bodies:
    return Bodies(tmp_path)


def files(bodies: Bodies, tmp_path: Path) -> int:
    return sum(1 for path in tmp_path.glob("*/*") if path.is_file())


@pytest.mark.parametrize("pieces", [[b""], [b"abc"], [b"abc", b"defgh"], [b"x" * 10, b"y" * 10, b"z"]])
@pytest.mark.parametrize("keep", [-1, 4, 100])
def test_a_writer_knows_size_and_checksums_and_keeps_small_bodies(
    bodies: Bodies, tmp_path: Path, pieces: list[bytes], keep: int
) -> None:
    writer = BodyWriter(bodies, keep)
    for piece in pieces:
        writer.write(piece)

    written = writer.finish()

    whole = b"".join(pieces)
    assert (written.size, written.md5, written.crc) == (len(whole), hashlib.md5(whole).digest(), crc64(whole))
    assert bool(written.file) == (len(whole) > keep)
    kept = bodies.path(written.file).read_bytes() if written.file else written.data
    assert kept == whole


def test_a_discarded_body_leaves_no_file(bodies: Bodies, tmp_path: Path) -> None:
    writer = BodyWriter(bodies)
    writer.write(b"abc")

    writer.discard()

    assert files(bodies, tmp_path) == 0


def test_a_pinned_body_is_removed_when_the_last_pin_goes(bodies: Bodies, tmp_path: Path) -> None:
    file = bodies.write(b"abc").file
    bodies.pin([file])
    bodies.pin([file])

    bodies.remove([file])
    bodies.unpin([file])
    assert bodies.path(file).read_bytes() == b"abc"
    bodies.unpin([file])

    assert files(bodies, tmp_path) == 0


def test_a_clone_outlives_its_original(bodies: Bodies) -> None:
    file = bodies.write(b"abc").file
    twin = bodies.clone(file)

    bodies.remove([file])

    assert bodies.path(twin).read_bytes() == b"abc"


def test_a_copy_joins_pieces(bodies: Bodies) -> None:
    one, two = bodies.write(b"0123456789").file, bodies.write(b"abcdef").file

    written = bodies.copy([Piece(one, 2, 3), Piece(two, 0, 2)])

    assert bodies.path(written.file).read_bytes() == b"234ab"
    assert written.crc == crc64(b"234ab")


def test_a_copy_of_more_than_there_is_fails_and_leaves_nothing(bodies: Bodies, tmp_path: Path) -> None:
    file = bodies.write(b"abc").file

    with pytest.raises(OSError, match="ends at 3, expected 5"):
        bodies.copy([Piece(file, 0, 5)])

    assert files(bodies, tmp_path) == 1


@pytest.mark.parametrize("as_file", [False, True])
def test_an_append_overwrites_what_a_crash_left_behind(bodies: Bodies, as_file: bool) -> None:
    file = bodies.write(b"abc" + b"left behind").file

    bodies.append(file, 3, bodies.write(b"defghijklmn").file if as_file else b"defghijklmn")

    assert bodies.path(file).read_bytes() == b"abcdefghijklmn"


def test_a_sweep_removes_exactly_what_nothing_names(bodies: Bodies, tmp_path: Path) -> None:
    kept, lost = bodies.write(b"a").file, bodies.write(b"b").file

    assert bodies.sweep({kept}) == 1

    assert bodies.path(kept).exists()
    assert not bodies.path(lost).exists()


def test_bodies_are_found_again_by_a_new_process(tmp_path: Path) -> None:
    file = Bodies(tmp_path).write(b"abc").file

    assert Bodies(tmp_path).path(file).read_bytes() == b"abc"
    assert os.listdir(tmp_path / file[:2]) == [file[2:]]
