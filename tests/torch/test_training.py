"""The guide's training script (docs/examples/training.py) from beginning to end: it trains, saves, is killed, and goes
on at the sample behind the last one that was trained before the checkpoint."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL.Image
import pytest

from tests.torch.conftest import Ground

pytestmark = pytest.mark.timeout(600)  # several processes that load torch, beside the tests of three clusters
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "examples" / "training.py"
IMAGES = 36
CLASSES = 3
BATCH = 3
SAVE_EVERY = 4
STEPS = IMAGES // BATCH


def picture(number: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (40, 36), (number * 7 % 256, number * 31 % 256, 90)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def images(ground: Ground) -> Ground:
    for number in range(IMAGES):
        ground.emulator.seed(f"images/{number % CLASSES}/{number:03}.JPEG", picture(number))
    return ground


@contextmanager
def training(ground: Ground, epochs: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(SCRIPT), "--endpoint", ground.emulator.endpoint]
    command += ["--data", ground.uri("images/"), "--checkpoint", ground.uri("model.pt"), "--epochs", str(epochs)]
    command += ["--cred-path", ground.cred_path, "--config-path", ground.config_path, "--workers", "2"]
    command += ["--batch-size", str(BATCH), "--image-size", "32", "--classes", str(CLASSES)]
    command += ["--save-every", str(SAVE_EVERY)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "torch" / "stand_ins")])
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n")


def steps_of(said: list[str]) -> dict[int, list[str]]:
    """Step → names of the samples it was trained with."""
    return {int(line.split()[3]): line.partition(": ")[2].split() for line in said if line.startswith("epoch ")}


def test_it_trains_is_killed_and_goes_on_at_the_same_sample(images: Ground) -> None:
    before: list[str] = []
    with training(images, epochs=1) as process:
        for line in lines(process):
            before.append(line)
            if line == f"saved after step {SAVE_EVERY}":
                break
        process.send_signal(signal.SIGKILL)
        before += lines(process)
        assert process.wait() == -signal.SIGKILL

    with training(images, epochs=1) as process:
        after = list(lines(process))
        assert process.wait() == 0

    saved = max(int(line.split()[-1]) for line in before if line.startswith("saved"))
    assert after[0] == f"going on after step {saved}"
    trained, rest = steps_of(before), steps_of(after)
    assert list(rest) == list(range(saved + 1, STEPS + 1))
    names = [name for step in range(1, saved + 1) for name in trained[step]]
    names += [name for step in rest for name in rest[step]]
    assert sorted(names) == [f"{number:03}.JPEG" for number in range(IMAGES)]
    assert names != sorted(names)
    for step in range(saved + 1, max(trained) + 1):  # trained after the checkpoint, and lost with the process
        assert rest[step] == trained[step]


def test_a_second_start_after_the_last_epoch_trains_the_next_one(images: Ground) -> None:
    with training(images, epochs=1) as process:
        assert list(lines(process))[-1] == f"saved after step {STEPS}"
        assert process.wait() == 0
    with training(images, epochs=2) as process:
        said = list(lines(process))
        assert process.wait() == 0

    assert said[0] == f"going on after step {STEPS}"
    assert list(steps_of(said)) == list(range(STEPS + 1, 2 * STEPS + 1))
    assert said[-1] == f"saved after step {2 * STEPS}"
