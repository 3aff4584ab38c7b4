"""A sidecar is killed at random moments: every object is its old or its new version, and nothing told done is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from csi.errors import SidecarFailed
from csi.handover.cgroup import MemoryCgroup
from csi.handover.inheritance import Inheritance
from csi.handover.process import Launcher, SidecarProcess
from csi.volume.units import Bytes
from tests.support.emulator import RunningEmulator
from tests.support.journal import Expected, content
from tests.support.node import Node
from tests.support.published_volume import PublishedVolume, program, published_volume

KILLS = 6
PARTS = {"fs__oss__blocklet__size__mb": "1"}
APPEND = {"fs__oss__append__enable": "true", "fs__oss__write__buffer__size": "262144"}


def interrupt(volume: PublishedVolume, manner: str, seed: str, expected: Expected) -> None:
    """Kill the sidecar somewhere in the work of a writing program, which then ends by itself."""
    chance = random.Random(seed)
    line, delay = chance.randrange(1, 90), chance.choice([0, 0.001, 0.01, 0.03])
    with program("writing_program", manner, str(volume.path), seed, "1000") as writing:
        for number, said in enumerate(writing.lines()):
            expected.take(said)
            if number == line:
                time.sleep(delay)  # not to wait for something: any moment will do
                volume.kill_sidecar()
        assert writing.wait() == 0


@pytest.mark.parametrize(
    ("manner", "options"),
    [
        ("overwrite", PARTS),
        ("append", PARTS),
        ("grow", APPEND),
        ("save", PARTS),
        ("move_directory", {}),
    ],
    ids=["overwriting", "appending", "append-mode", "saving-by-rename", "renaming-directories"],
)
def test_a_killed_sidecar_leaves_old_or_new_versions_and_loses_nothing(
    node: Node, emulator: RunningEmulator, manner: str, options: dict[str, str]
) -> None:
    expected = Expected()
    with published_volume(node, emulator, mode="consistent", **options) as volume:
        for kill in range(KILLS):
            interrupt(volume, manner, f"{manner}-{kill}", expected)
            assert expected.errors, "the program did not notice"
            if kill % 2:
                volume.unpublish()
                assert volume.remains() == []
            volume.publish()

            assert expected.violations(volume.bucket.get) == []
            # the new mount shows what is in the bucket
            shown = {name: (volume.path / name) for name in expected.files}
            wrong = [name for name, path in shown.items() if _read(path) != expected.files[name].allowed[0]]
            assert wrong == []


# --- another one goes on ---


def kill_often(
    volume: PublishedVolume, manner: str, seed: str, rounds: int, expected: Expected, *, apart: int, most: int
) -> int:
    """Kill the sidecar again and again while a program works, about every `apart` of its steps, and have another one
    go on at once: how often."""
    chance = random.Random(seed)
    kills, due = 0, chance.randrange(1, apart)
    with program("writing_program", manner, str(volume.path), seed, str(rounds), "--go-on") as working:
        for number, said in enumerate(working.lines()):
            expected.take(said)
            if number == due and kills < most:
                time.sleep(chance.choice([0, 0.001, 0.01, 0.03]))  # any moment will do
                volume.kill_sidecar()
                volume.publish()
                kills, due = kills + 1, number + chance.randrange(1, apart)
        assert working.wait() == 0
    return kills


def test_programs_that_read_notice_nothing_when_another_sidecar_goes_on(node: Node, emulator: RunningEmulator) -> None:
    with published_volume(node, emulator, mode="fast", inheritances=Inheritance) as volume:
        sizes = [*range(100, 100_000, 9_001), *range(900_000, 12_000_000, 3_000_001)]
        for size in sizes:
            volume.bucket.put(f"in-{size}", content([(f"in-{size}", size)]))
        expected = Expected()

        connection = node.minor()
        kills = kill_often(volume, "read", "reader", 400, expected, apart=200, most=8)

        assert kills == 8
        assert (expected.errors, expected.wrong) == ([], [])
        assert node.minor() == connection


class _DyingAtFirst:
    """Starts sidecars of which the first few successors are killed before they serve."""

    def __init__(self, launcher: Launcher, deaths: int) -> None:
        self._launcher = launcher
        self._left = deaths
        self._started = 0

    def launch(self, runtime: Path, memory: MemoryCgroup, limit: Bytes) -> SidecarProcess:
        process = self._launcher.launch(runtime, memory, limit)
        self._started += 1
        if 1 < self._started <= 1 + self._left:
            process.signal(signal.SIGKILL)
        return process


def test_a_successor_that_dies_before_it_serves_is_followed_by_another(node: Node, emulator: RunningEmulator) -> None:
    plugin = node.start(launcher=_DyingAtFirst(node.real(), 3), inheritances=Inheritance)
    volume = PublishedVolume(node, plugin, emulator, {})
    volume.bucket.put("held", b"as it was")
    volume.publish()
    try:
        held = os.open(volume.path / "held", os.O_RDONLY | os.O_DIRECT)
        volume.kill_sidecar()
        for _ in range(3):
            with pytest.raises(SidecarFailed, match="ended before it was ready"):
                volume.publish()
        volume.publish()
        assert os.pread(held, 100, 0) == b"as it was"
        os.close(held)
    finally:
        volume.unpublish()


def test_what_waits_for_a_successor_is_over_when_the_volume_is_taken_away(
    node: Node, emulator: RunningEmulator
) -> None:
    plugin = node.start(launcher=_DyingAtFirst(node.real(), 3), inheritances=Inheritance)
    volume = PublishedVolume(node, plugin, emulator, {})
    volume.publish()
    volume.kill_sidecar()
    with pytest.raises(SidecarFailed):
        volume.publish()

    volume.unpublish()

    assert volume.remains() == []
    assert not any(link.readlink().name == "fuse" for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


@pytest.mark.parametrize("deaths", [1, 3])
def test_what_programs_have_open_goes_on_and_what_they_had_written_is_told_to_be_lost(
    node: Node, emulator: RunningEmulator, deaths: int
) -> None:
    with published_volume(node, emulator, mode="fast", inheritances=Inheritance) as volume:
        volume.bucket.put("large", b"0123456789" * 2_000_000)
        volume.bucket.put("small", b"small")
        volume.bucket.put("inside/small", b"inside")
        with program("enduring_program", str(volume.path)) as enduring:
            assert enduring.line() == "ready"
            for _ in range(deaths):
                volume.kill_sidecar()
                volume.publish()
            enduring.say("go on")
            found = json.loads(enduring.line() or "")
        assert found == {
            "read": "0123456789",
            "read small": "small",
            "mapping": "0123456789",
            "working directory": "inside",
            "listing": ["inside", "large", "small"],
            "lock": "EAGAIN",
            "write": "EIO",
            "fsync": "EIO",
            "close": "EIO",
            "write unwritten": "EIO",
            "read unwritten": "small",
        }
        assert volume.bucket.get("new") is None
        assert volume.bucket.get("small") == b"small"


@pytest.mark.parametrize(
    ("manner", "options"),
    [("overwrite", PARTS), ("append", PARTS), ("grow", APPEND), ("save", PARTS), ("move_directory", {})],
    ids=["overwriting", "appending", "append-mode", "saving-by-rename", "renaming-directories"],
)
def test_what_is_written_while_sidecars_follow_one_another_is_old_or_new_and_its_program_told(
    node: Node, emulator: RunningEmulator, manner: str, options: dict[str, str]
) -> None:
    expected = Expected()
    with published_volume(node, emulator, mode="consistent", inheritances=Inheritance, **options) as volume:
        connection = node.minor()
        kills = kill_often(volume, manner, f"often-{manner}", 60, expected, apart=60, most=KILLS)

        assert kills == KILLS
        assert node.minor() == connection
        assert set(expected.errors) <= {"EIO"}  # what the dead one had not made an object yet
        assert expected.violations(volume.bucket.get) == []


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
