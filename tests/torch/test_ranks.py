"""Four ranks of a gloo process group get every object exactly once between them, in every epoch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.torch.conftest import Ground

pytestmark = pytest.mark.timeout(600)  # several processes that load torch, beside the tests of three clusters
RANKS = 4
COUNT = 44


def ranks(ground: Ground, directory: Path, workers: int) -> list[dict[str, Any]]:
    """What each said."""
    given = json.dumps({"oss_uri": ground.uri("data/"), **ground.arguments})
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.torch.rank_program",
                str(rank),
                str(RANKS),
                str(directory / "met"),
                str(workers),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        for process in started:
            assert process.stdin is not None
            process.stdin.write(given)
            process.stdin.close()
        said = [process.stdout.read() for process in started if process.stdout is not None]
        assert [process.wait() for process in started] == [0] * RANKS
        return [json.loads(text.splitlines()[-1]) for text in said]
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_every_object_comes_to_one_rank_once_an_epoch(ground: Ground, tmp_path: Path, workers: int) -> None:
    for number in range(COUNT):
        ground.emulator.seed(f"data/{number:03}", b"x" * number)
    everything = sorted(f"/{ground.emulator.bucket}/data/{number:03}" for number in range(COUNT))

    said = ranks(ground, tmp_path, workers)

    first, second = ([key for found in said for key in found["epochs"][epoch]] for epoch in range(2))
    assert sorted(first) == everything
    assert sorted(second) == everything
    assert first != second
    assert {len(found["epochs"][0]) for found in said} == {COUNT // RANKS}
    assert sorted(key for found in said for key in found["sampled"]) == everything
