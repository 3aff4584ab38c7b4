"""Many programs at once on one mount, also in the least memory a sidecar can have."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import random
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.mount.conftest import MountVolume

MIB = 1 << 20


@pytest.mark.parametrize("memory", ["128Mi", "1Gi"])
@pytest.mark.parametrize("arguments", ["", "-odirect_io"], ids=["page-cache", "direct"])
def test_readers_and_writers_at_once_each_get_their_own_bytes(
    mount_volume: MountVolume, memory: str, arguments: str
) -> None:
    attributes = {"fs.jindo.fuse.pod.mem.limit": memory, "fs.oss.blocklet.size.mb": "1"}
    volume = mount_volume(mode="fast", arguments=arguments, attributes=attributes)
    sources = {f"in{number}": random.Random(number).randbytes(6 * MIB + number) for number in range(4)}
    for name, data in sources.items():
        volume.put(name, data)

    def copy(task: int) -> bool:
        name, data = f"in{task % 4}", sources[f"in{task % 4}"]
        step = 70_000 + task * 1_111
        with (volume.path / name).open("rb") as source, (volume.path / f"out{task}").open("wb") as target:
            while piece := source.read(step):
                target.write(piece)
        return hashlib.md5((volume.path / f"out{task}").read_bytes()).digest() == hashlib.md5(data).digest()

    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(copy, range(12)))

    assert results == [True] * 12
    assert volume.get("out7") == sources["in3"]
    assert volume.uploads() == []


@pytest.mark.parametrize(
    ("arguments", "session"),
    [("", "own"), ("-odirect_io", "own"), ("-okernel_cache", "own"), ("", "pyfuse3"), ("-odirect_io", "pyfuse3")],
    ids=lambda value: value,
)
@pytest.mark.parametrize(
    ("flags", "old"),
    [
        (os.O_WRONLY | os.O_APPEND, 0),
        (os.O_WRONLY | os.O_APPEND, 300_000),
        (os.O_WRONLY | os.O_APPEND, 3 * MIB),
        (os.O_RDWR, 0),
        (os.O_RDWR | os.O_APPEND, 300_000),
    ],
)
def test_a_growing_file_is_read_by_others_without_a_wrong_byte(
    mount_volume: MountVolume, arguments: str, session: str, flags: int, old: int
) -> None:
    volume = mount_volume(mode="fast", arguments=arguments, session=session)
    path = volume.path / "log"
    numbers = random.Random(old)
    data = numbers.randbytes(old + 2 * MIB)
    if old:
        volume.put("log", data[:old])
    before = os.open(path, os.O_RDONLY) if old else None
    writer = os.open(path, flags | os.O_CREAT)
    os.lseek(writer, old, os.SEEK_SET)
    os.write(writer, data[old : old + 1])
    ended = threading.Event()

    def found_in(source: Callable[[], bytes], *, may_be_busy: bool) -> bytes | None:
        try:
            return source()
        except OSError as error:
            assert may_be_busy and error.errno == errno.EBUSY, error
            return None

    def sent() -> bytes:
        """By sendfile(2), which goes through the page cache whatever the file is opened for."""
        with path.open("rb") as file, tempfile.TemporaryFile() as target:
            while os.sendfile(target.fileno(), file.fileno(), None, 1 << 20):
                pass
            target.seek(0)
            return target.read()

    ways = [path.read_bytes, sent]
    by_pages = {before, writer if arguments == "-okernel_cache" else None}

    def read(task: int) -> int:
        """Whole files, and pieces by one descriptor: how many reads brought something."""
        numbers, brought = random.Random(task), 0
        lasting = os.open(path, os.O_RDONLY)
        while not (over := ended.is_set()) or brought < 3:
            way = numbers.choice(ways)
            whole = found_in(way, may_be_busy=not over and (way is sent or session == "pyfuse3"))
            assert (whole or b"") == data[: len(whole or b"")]
            assert not over or whole == data
            brought += bool(whole)
            for descriptor in (lasting, before, writer if flags & os.O_RDWR else None):
                offset, size = numbers.randrange(len(data)), numbers.randrange(1, 200_000)
                if descriptor is not None:
                    piece = found_in(
                        functools.partial(os.pread, descriptor, size, offset),
                        may_be_busy=session == "pyfuse3" or descriptor in by_pages,
                    )
                    assert piece is None or piece == data[offset : offset + len(piece)]
        os.close(lasting)
        return brought

    def write() -> None:
        at, unsynced = old + 1, 0
        while at < len(data):
            written = os.write(writer, data[at : at + numbers.randrange(1, 20_000)])
            at, unsynced = at + written, unsynced + written
            if unsynced > 500_000:
                os.fsync(writer)
                unsynced = 0
        os.fsync(writer)
        ended.set()

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, task) for task in range(3)]
        pool.submit(write).result()
        brought = [reader.result() for reader in readers]
    os.close(writer)
    if before is not None:
        os.close(before)

    assert min(brought) >= 3
    assert volume.get("log") == data


@pytest.mark.parametrize("session", ["own", "pyfuse3"])
@pytest.mark.parametrize("old", [0, 1000, 3 * MIB])
def test_in_append_mode_who_had_a_log_open_before_its_writer_reads_no_wrong_byte(
    mount_volume: MountVolume, session: str, old: int
) -> None:
    volume = mount_volume(mode="fast", attributes={"fs.oss.append.enable": "true"}, session=session)
    path = volume.path / "log"
    data = random.Random(old).randbytes(old + MIB).replace(b"\0", b"0")
    path.write_bytes(data[:old])
    names = [path] * 3
    before = [os.open(name, os.O_RDONLY) for name in names]
    for descriptor in before:
        assert os.pread(descriptor, len(data), 0) == data[:old]
    ended = threading.Event()

    def follow(descriptor: int) -> tuple[int, int]:
        """`tail -f`, which begins in the middle: (where the first wrong byte is, or -1; where it got to)."""
        at = old
        while True:
            over = ended.is_set()
            piece = os.pread(descriptor, 100_000, at)
            if piece != data[at : at + len(piece)]:
                return at, at
            at += len(piece)
            if over and not piece:
                return -1, at

    def write() -> None:
        numbers = random.Random(1)
        with path.open("ab", buffering=0) as writer:
            at = old
            while at < len(data):
                at += writer.write(data[at : at + numbers.randrange(1, 2_000)])
        ended.set()

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(follow, descriptor) for descriptor in before]
        pool.submit(write).result()
        found = [reader.result() for reader in readers]
    for descriptor in before:
        os.close(descriptor)

    assert found == [(-1, len(data))] * 3


def test_a_hundred_files_can_be_open_for_writing_at_once(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast")
    files = [(volume.path / f"f{number}").open("wb", buffering=0) for number in range(100)]
    for number, file in enumerate(files):
        file.write(b"%d" % number)
    for file in files:
        file.close()

    assert [volume.get(f"f{number}") for number in (0, 50, 99)] == [b"0", b"50", b"99"]
    assert len(os.listdir(volume.path)) == 100


def test_many_threads_make_and_remove_names_in_one_directory(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="consistent")

    def churn(task: int) -> None:
        for round_ in range(5):
            path = volume.path / f"{task}-{round_}"
            path.write_bytes(b"x" * task)
            path.rename(volume.path / f"moved-{task}-{round_}")
            if round_ % 2:
                (volume.path / f"moved-{task}-{round_}").unlink()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(churn, range(8)))

    expected = {f"moved-{task}-{round_}" for task in range(8) for round_ in (0, 2, 4)}
    assert set(os.listdir(volume.path)) == expected == volume.stored_names() - {""}


def test_one_file_read_by_many_is_fetched_once(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="readonly")
    data = random.Random(1).randbytes(900_000)
    volume.put("f", data)
    volume.emulator.fault(operation="GetObject", latency=0.3)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: (volume.path / "f").read_bytes(), range(8)))

    assert found == [data] * 8
    assert volume.gets("f") == 1
