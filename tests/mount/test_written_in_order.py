"""Files written from their start to their end in pieces of all sizes, by one program and by many at a time."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from pathlib import Path

import pytest

from csi.volume.units import KIB, MIB
from tests.support.volumes import MountedVolume

PIECES = [(1, 3000), (100, 300 * KIB), (4095, 9 * MIB), (4096, 9 * MIB), (65_537, 20 * MIB), (MIB, 40 * MIB)]
PIECES += [(MIB + 1, 40 * MIB), (5 * MIB, 40 * MIB)]


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize(("piece", "size"), PIECES)
def test_every_piece_counts_at_once_and_the_file_is_what_was_written(
    folder: Path, writable_volume: MountedVolume, piece: int, size: int
) -> None:
    data = random.Random(piece).randbytes(min(size, 7 * MIB + 13))
    expected = hashlib.sha256()
    path = folder / "file"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        written, before = 0, 0
        while written < size:
            part = data[written % len(data) :][: min(piece, size - written)]
            assert os.write(descriptor, part) == len(part)
            expected.update(part)
            written += len(part)
            if written - before > size // 20:
                assert os.stat(path).st_size == written
                before = written
    finally:
        os.close(descriptor)
    assert os.stat(path).st_size == size
    assert digest(path) == expected.hexdigest()


def test_a_file_that_is_synced_and_touched_while_it_is_written(folder: Path) -> None:
    chance = random.Random(5)
    expected = bytearray()
    path = folder / "file"
    with path.open("wb", buffering=0) as file:
        for number in range(400):
            piece = chance.randbytes(chance.choice([1, 700, 5000, 40_000]))
            assert file.write(piece) == len(piece)
            expected += piece
            if number % 50 == 10:
                os.fsync(file.fileno())
                assert path.read_bytes() == expected
            if number % 50 == 20:
                os.utime(file.fileno(), (1_000_000_000, 1_000_000_000))
                assert os.fstat(file.fileno()).st_mtime == 1_000_000_000
            if number % 50 == 21:
                assert os.fstat(file.fileno()).st_mtime > 1_000_000_000
            if number % 50 == 30:
                os.close(os.dup(file.fileno()))
    assert path.read_bytes() == expected


def test_many_programs_write_side_by_side(folder: Path) -> None:
    wrong: list[str] = []

    def write(number: int) -> None:
        chance = random.Random(number)
        data = chance.randbytes(300 * KIB)
        expected = hashlib.sha256()
        path = folder / f"file{number}"
        with path.open("wb", buffering=0) as file:
            for _ in range(150):
                begin = chance.randrange(len(data))
                piece = data[begin : begin + chance.choice([10, 4096, 100_000])]
                file.write(piece)
                expected.update(piece)
        if digest(path) != expected.hexdigest():
            wrong.append(path.name)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
