"""A disk cache under real mounts: what one process has read, the next one reads without asking OSS for a byte."""

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from csi.volume.naming import CACHE_FOLDER, SESSIONS
from csi.volume.units import KIB, MIB
from tests.mount.conftest import MountVolume
from tests.support.emulator import RunningEmulator
from tests.support.engines import content, until
from tests.support.published_volume import Bucket
from tests.support.volumes import MountedVolume

SIZES = {"small": 100 * KIB, "medium": 900 * KIB, "large": 9 * MIB + 77, "empty": 0}
DATA = {name: content(size, seed=size) for name, size in SIZES.items()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "disk"
    made.mkdir()
    return made


@pytest.fixture(params=SESSIONS)
def session(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def cached(mount_volume: MountVolume, place: Path, **options: object) -> MountedVolume:
    return mount_volume(attributes={"cache": str(place)}, **options)


def put(emulator: RunningEmulator, objects: Mapping[str, bytes]) -> None:
    bucket = Bucket(emulator)
    for name, data in objects.items():
        bucket.put(name, data)


def read_all(volume: MountedVolume) -> dict[str, bytes]:
    assert sorted(os.listdir(volume.path)) == sorted(DATA)
    return {name: (volume.path / name).read_bytes() for name in DATA}


def test_the_next_mount_reads_without_a_request_for_bytes(
    mount_volume: MountVolume, emulator: RunningEmulator, place: Path, session: str
) -> None:
    put(emulator, DATA)
    first = cached(mount_volume, place, session=session)
    assert read_all(first) == DATA
    assert first.served.unmount() == 0
    assert emulator.count("GetObject") > 0
    emulator.reset_counters()
    second = cached(mount_volume, place, session=session)
    assert read_all(second) == DATA
    with (second.path / "large").open("rb") as file:
        assert os.pread(file.fileno(), 5000, 5 * MIB + 3) == DATA["large"][5 * MIB + 3 : 5 * MIB + 5003]
    assert emulator.count("GetObject") == 0
    assert emulator.count("ListObjectsV2") >= 1, "which versions there are is asked of OSS"


def test_an_object_that_was_replaced_is_read_anew(
    mount_volume: MountVolume, emulator: RunningEmulator, place: Path
) -> None:
    put(emulator, DATA)
    first = cached(mount_volume, place)
    assert read_all(first) == DATA
    assert first.served.unmount() == 0
    new = {"small": content(100 * KIB, seed=1), "large": content(9 * MIB + 77, seed=2)}
    put(emulator, new)
    emulator.reset_counters()
    second = cached(mount_volume, place)
    assert read_all(second) == {**DATA, **new}
    assert second.gets("medium") == 0
    assert second.gets("small") == 1


def test_what_a_killed_process_leaves_is_right_or_not_there(
    mount_volume: MountVolume, emulator: RunningEmulator, place: Path
) -> None:
    many = {f"{number:03d}": content(300 * KIB, seed=number) for number in range(60)}
    large = content(40 * MIB, seed=99)
    put(emulator, {**many, "large": large})
    first = cached(mount_volume, place)

    def read() -> None:
        try:
            for name in many:
                (first.path / name).read_bytes()
            (first.path / "large").read_bytes()
        except OSError:
            return  # its server was killed

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: len(list((place / CACHE_FOLDER).glob("??/*"))) > 30)
    first.served.process.send_signal(signal.SIGKILL)
    first.served.process.wait(30)
    first.served.abort()
    reader.join(60)
    emulator.reset_counters()
    second = cached(mount_volume, place)
    for name, data in many.items():
        assert (second.path / name).read_bytes() == data
    assert (second.path / "large").read_bytes() == large
    assert len([name for name in many if not second.gets(name)]) > 0
    assert "is not what was written" not in second.served.log()


def test_a_place_that_fails_costs_nobody_an_error(
    mount_volume: MountVolume, emulator: RunningEmulator, tmp_path: Path
) -> None:
    put(emulator, DATA)
    volume = cached(mount_volume, tmp_path / "nowhere")
    assert read_all(volume) == DATA
    assert volume.served.unmount() == 0
    told = [line for line in volume.served.log().splitlines() if "disk cache in" in line]
    assert told == [
        f"WARNING csi.data.disk.trouble: disk cache in {tmp_path}/nowhere: opening: No such file or directory; "
        "it is not used for now, OSS is"
    ]


def test_two_mounts_use_one_place_at_once(mount_volume: MountVolume, emulator: RunningEmulator, place: Path) -> None:
    put(emulator, DATA)
    one, other = cached(mount_volume, place), cached(mount_volume, place)
    assert read_all(one) == DATA

    def found_by_the_other() -> bool:
        emulator.reset_counters()
        fresh = cached(mount_volume, place)
        assert read_all(fresh) == DATA
        assert fresh.served.unmount() == 0
        return emulator.count("GetObject") == 0

    until(found_by_the_other)
    emulator.reset_counters()
    assert read_all(other) == DATA
    assert emulator.count("GetObject") == 0
