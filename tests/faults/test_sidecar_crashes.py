"""A sidecar is killed at random moments: every object is its old or its new version, and nothing told done is lost."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.support.emulator import RunningEmulator
from tests.support.journal import Expected
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


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
