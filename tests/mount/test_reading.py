"""Every access pattern gives the bytes of the object, in every mode, with the page cache and without."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from csi.volume.naming import SESSIONS
from tests.support.chunking_proxy import chunking_proxy
from tests.support.emulator import RunningEmulator
from tests.support.volumes import MountedVolume, mounted_volume

MIB = 1 << 20
SIZE = 40 * MIB + 12_345
DATA = random.Random(5).randbytes(SIZE)

Patterns = dict[str, Callable[[int], list[tuple[int, int]]]]


def sequence(low: int, high: int, block: int) -> list[tuple[int, int]]:
    return [(offset, block) for offset in range(low, high, block)]


def scattered() -> list[tuple[int, int]]:
    dice = random.Random(7)
    return [(dice.randrange(SIZE), dice.choice((1, 4096, 100_000, MIB))) for _ in range(60)]


PATTERNS = {
    "4 KiB from the start": sequence(0, 8 * MIB, 4096),
    "100003 bytes from the start": sequence(0, 24 * MIB, 100_003),
    "1 MiB whole": sequence(0, SIZE, MIB),
    "50000 bytes across a block border": sequence(8 * MIB - 12_345, 16 * MIB, 50_000),
    "the tail": sequence(SIZE - 4 * MIB - 777, SIZE, 65_537),
    "random": scattered(),
    "backwards": sequence(0, 8 * MIB, 131_072)[::-1],
}


@pytest.fixture(
    scope="module",
    params=[
        ("fast", "", {}),
        ("fast", "-odirect_io", {}),
        ("incremental", "", {}),
        ("consistent", "", {}),
        ("consistent", "-odirect_io", {}),
        ("readonly", "", {}),
        ("custom", "-opread", {}),
        ("fast", "", {"fs.jindo.fuse.pod.mem.limit": "256Mi"}),
    ],
    ids=["fast", "fast-direct", "incremental", "consistent", "consistent-direct", "readonly", "pread", "256Mi"],
)
def volume(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, emulator_process: RunningEmulator
) -> Iterator[MountedVolume]:
    mode, arguments, attributes = request.param
    own = replace(emulator_process, bucket=emulator_process.create_bucket())
    home = tmp_path_factory.mktemp("reading")
    with mounted_volume(home, own, mode=mode, arguments=arguments, attributes=attributes) as mounted:
        mounted.put("big", DATA)
        yield mounted


@pytest.mark.parametrize("session", SESSIONS)
def test_answers_in_chunks_are_read(tmp_path: Path, emulator: RunningEmulator, session: str) -> None:
    """A proxy in between leaves out Content-Length; bodies that it breaks off are asked for again."""
    files = {str(size): DATA[:size] for size in (0, 1, 5000, 9 * MIB)}
    with chunking_proxy(emulator.endpoint) as proxy:
        behind = replace(emulator, endpoint=proxy.url)
        with mounted_volume(tmp_path, behind, session=session) as mounted:
            for name, body in files.items():
                replace(mounted, emulator=emulator).put(name, body)
            names = os.listdir(mounted.path)
            proxy.cuts, proxy.losses = 3, 3
            found = {name: (mounted.path / name).read_bytes() for name in names}
    assert found == files


def wrong_reads(path: Path, reads: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    wrong = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for offset, size in reads:
            found = os.pread(descriptor, size, offset)
            if found != DATA[offset : offset + size]:
                wrong.append((offset, size, len(found)))
    finally:
        os.close(descriptor)
    return wrong


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_bytes_are_those_of_the_object(volume: MountedVolume, pattern: str) -> None:
    _drop_page_cache()

    assert wrong_reads(volume.path / "big", PATTERNS[pattern]) == []


def test_four_readers_at_once_see_the_same_object(volume: MountedVolume) -> None:
    _drop_page_cache()
    quarter = SIZE // 4
    wrong: list[tuple[int, int, int]] = []

    def read(part: int) -> None:
        start = part * quarter + 13
        wrong.extend(wrong_reads(volume.path / "big", sequence(start, start + quarter // 2, 77_777)))

    threads = [threading.Thread(target=read, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_the_size_is_that_of_the_object(volume: MountedVolume) -> None:
    assert (volume.path / "big").stat().st_size == SIZE


# --- what is asked for ---


def places(seed: int, low: int, high: int, count: int) -> list[tuple[int, int]]:
    return [(offset, 4096) for offset in random.Random(seed).sample(range(low, high, 65_536), count)]


@pytest.mark.parametrize("arguments", ["", "-odirect_io"], ids=["pages", "direct"])
def test_reads_at_random_places_fetch_what_is_asked_for_and_reading_on_goes_ahead_again(
    arguments: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    with mounted_volume(tmp_path, emulator, arguments=arguments) as volume:
        volume.put("big", DATA)
        descriptor = os.open(volume.path / "big", os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            wrong: list[int] = []

            def read(reads: list[tuple[int, int]]) -> None:
                for offset, size in reads:
                    if os.pread(descriptor, size, offset) != DATA[offset : offset + size]:
                        wrong.append(offset)

            read(places(1, 0, SIZE // 2, 40))  # now they are known as such
            emulator.reset_counters()
            threads = [threading.Thread(target=read, args=(places(seed, 0, SIZE // 2, 100),)) for seed in (2, 3, 4, 5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert wrong == []
            assert emulator.counters()["operations"]["GetObject"]["bytes_out"] <= 2 * 400 * 4096

            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NORMAL)
            emulator.reset_counters()
            read(sequence(SIZE // 2, SIZE, 131_072))
            assert wrong == []
            assert emulator.count("GetObject") <= 60  # of 160 reads
        finally:
            os.close(descriptor)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "code": "ServiceUnavailable", "probability": 0.2},
        {"reset_after": 10, "probability": 0.1},
        {"truncate_after": 100, "probability": 0.1},
        {"latency": 0.03, "probability": 0.3},
    ],
    ids=["503", "reset", "truncated", "slow"],
)
def test_reads_at_random_places_are_right_whatever_the_server_does(
    fault: dict[str, object], tmp_path: Path, emulator: RunningEmulator
) -> None:
    with mounted_volume(tmp_path, emulator) as volume:
        volume.put("big", DATA)
        emulator.fault(operation="GetObject", **fault)
        wrong: list[tuple[int, int, int]] = []

        def read(seed: int) -> None:
            wrong.extend(wrong_reads(volume.path / "big", places(seed, 0, SIZE, 150)))

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        emulator.clear_faults()
        assert wrong == []


def test_who_reads_at_random_places_of_an_object_that_is_replaced_never_sees_the_other_one(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    other = DATA[1:] + DATA[:1]
    with mounted_volume(tmp_path, emulator) as volume:
        volume.put("big", DATA)
        descriptor = os.open(volume.path / "big", os.O_RDONLY)
        try:
            found = []
            for number, (offset, size) in enumerate(places(9, 0, SIZE, 200)):
                if number == 100:
                    volume.put("big", other)
                try:
                    found.append((offset, os.pread(descriptor, size, offset)))
                except OSError as error:
                    assert error.errno == errno.ESTALE
        finally:
            os.close(descriptor)
        assert len(found) >= 100
        assert [offset for offset, read in found if read != DATA[offset : offset + 4096]] == []


def _drop_page_cache() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("1")
