"""Files that are new, emptied or opened for writing alone: the kernel takes their bytes from wherever the program has
them, without pages of its own in between."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from csi.volume.units import KIB, MIB
from tests.mount.conftest import MountVolume
from tests.support.asynchronous import submit_writes
from tests.support.volumes import MountedVolume

DATA = random.Random(1).randbytes(9 * MIB + 777)


@pytest.fixture
def volume(mount_volume: MountVolume) -> MountedVolume:
    return mount_volume(mode="fast")


@contextmanager
def opened(path: Path, flags: int = os.O_WRONLY) -> Iterator[int]:
    descriptor = os.open(path, os.O_CREAT | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_DIRECT], ids=["writing", "reading too", "O_DIRECT"]
)
def test_one_large_asynchronous_write_is_in_the_file_as_it_is_in_memory(volume: MountedVolume, flags: int) -> None:
    data = DATA[: 9 * MIB]
    for round_ in range(12):
        name = f"file{round_}"
        with opened(volume.path / name, flags) as file:
            results = submit_writes(file, [(0, data)])
            results += submit_writes(file, [(len(data), data[: 4 * MIB])])
        assert results == [len(data), 4 * MIB]
        assert volume.get(name) == data + data[: 4 * MIB]


def test_asynchronous_writes_submitted_together_go_on_one_after_the_other(volume: MountedVolume) -> None:
    pieces = [(at, DATA[at : at + 700 * KIB]) for at in range(0, len(DATA), 700 * KIB)]
    for round_ in range(12):
        name = f"file{round_}"
        with opened(volume.path / name) as file:
            results = submit_writes(file, pieces)
        assert results == [len(data) for _, data in pieces]
        assert volume.get(name) == DATA


def test_bytes_of_many_places_of_memory(volume: MountedVolume) -> None:
    chance = random.Random(2)
    ends = sorted({0, len(DATA), *(chance.randrange(len(DATA)) for _ in range(900))})
    pieces = [DATA[begin:end] for begin, end in itertools.pairwise(ends)]
    with opened(volume.path / "file") as file:
        while pieces:
            count = os.writev(file, pieces)
            while pieces and count >= len(pieces[0]):
                count -= len(pieces.pop(0))
            if count:
                pieces[0] = pieces[0][count:]
    assert volume.get("file") == DATA


def test_bytes_of_another_file_of_the_mount_that_is_mapped(volume: MountedVolume) -> None:
    volume.put("source", DATA)
    with (volume.path / "source").open("rb") as source, opened(volume.path / "file") as file:
        with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as view:
            written = 0
            while written < len(DATA):
                written += os.write(file, memoryview(view)[written:])
    assert volume.get("file") == DATA


@pytest.mark.parametrize("way", ["sendfile", "splice"])
def test_bytes_that_the_kernel_has_already(volume: MountedVolume, tmp_path: Path, way: str) -> None:
    (tmp_path / "source").write_bytes(DATA)
    with (tmp_path / "source").open("rb") as source, opened(volume.path / "file") as file:
        if way == "sendfile":
            while os.sendfile(file, source.fileno(), None, 3 * MIB):
                pass
        else:
            end, begin = os.pipe()
            while count := os.splice(source.fileno(), begin, 60_000):
                while count:
                    count -= os.splice(end, file, count)
            os.close(end)
            os.close(begin)
    assert volume.get("file") == DATA


def test_memory_that_cannot_be_read_is_refused_and_the_file_goes_on(volume: MountedVolume) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(-1, 4 * mmap.PAGESIZE) as memory:
        memory[:] = DATA[: len(memory)]
        window = ctypes.c_char.from_buffer(memory)
        begin = ctypes.addressof(window)
        half = 2 * mmap.PAGESIZE
        assert libc.mprotect(ctypes.c_void_p(begin + half), ctypes.c_size_t(half), 0) == 0
        with opened(volume.path / "file") as file:
            assert libc.write(file, ctypes.c_void_p(begin + half), ctypes.c_size_t(100)) == -1
            written = libc.write(file, ctypes.c_void_p(begin), ctypes.c_size_t(4 * mmap.PAGESIZE))
            assert 0 < written <= half
            os.write(file, DATA[written : 5 * MIB])
        assert libc.mprotect(ctypes.c_void_p(begin + half), ctypes.c_size_t(half), mmap.PROT_READ) == 0
        del window
    assert volume.get("file") == DATA[: 5 * MIB]


@pytest.mark.parametrize("arguments", ["", "-oauto_cache -odirect_io"])
@pytest.mark.parametrize("flags", [os.O_SYNC, os.O_DSYNC, os.O_SYNC | os.O_APPEND, os.O_SYNC | os.O_DIRECT])
def test_what_is_written_with_o_sync_is_in_the_bucket_when_write_returns(
    mount_volume: MountVolume, flags: int, arguments: str
) -> None:
    volume = mount_volume(mode="custom", arguments=arguments)
    with opened(volume.path / "file", os.O_WRONLY | flags) as file, mmap.mmap(-1, mmap.PAGESIZE) as page:
        for count in (1, 2, 3):
            assert os.write(file, page) == len(page)
            assert volume.get("file") == bytes(len(page)) * count


def test_one_call_that_asks_for_it_is_in_the_bucket_when_it_returns(volume: MountedVolume) -> None:
    with opened(volume.path / "file") as file:
        os.write(file, b"one")
        os.pwritev(file, [b"two"], 3, os.RWF_DSYNC)
        assert volume.get("file") == b"onetwo"


def test_what_is_written_and_synced_is_read_back_by_the_same_descriptor(volume: MountedVolume) -> None:
    with opened(volume.path / "file", os.O_RDWR) as file:
        written = 0
        while written < len(DATA):
            written += os.write(file, DATA[written:])
        os.fsync(file)
        assert b"".join(os.pread(file, 300_000, at) for at in range(0, len(DATA), 300_000)) == DATA
        with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as view:
            assert view[:] == DATA
        os.write(file, b"more")
    assert volume.get("file") == DATA + b"more"
    assert (volume.path / "file").read_bytes() == DATA + b"more"


def test_a_file_that_another_program_reads_from_its_pages_is_replaced(volume: MountedVolume) -> None:
    volume.put("file", DATA)
    path = volume.path / "file"
    with path.open("rb") as before, mmap.mmap(before.fileno(), 0, access=mmap.ACCESS_READ) as view:
        assert view[-100:] == DATA[-100:]
        with opened(path, os.O_WRONLY | os.O_APPEND) as file:
            os.write(file, b"more")
        assert view[: len(DATA)] == DATA
        assert path.read_bytes() == DATA + b"more"
        with opened(path, os.O_WRONLY | os.O_TRUNC) as file:
            os.write(file, DATA[::-1])
        assert path.read_bytes() == DATA[::-1]
