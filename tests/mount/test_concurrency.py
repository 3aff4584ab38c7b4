"""Many programs at once on one mount, also in the least memory a sidecar can have."""

from __future__ import annotations

import hashlib
import os
import random
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
