"""docs/examples/sdk_*.py run as they are printed, and docs/sdk.md names each of them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.torch.conftest import Ground

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = sorted(path.name for path in (DOCS / "examples").glob("sdk_*.py"))


# what `export` does, but without leaving the keys where /proc shows them
_WITH_KEYS = """
import json, os, runpy, sys
os.environ.update(json.loads(sys.stdin.readline()))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(ground: Ground, name: str, argument: str) -> list[str]:
    """The lines a program prints, started as its docstring says."""
    emulator = ground.emulator
    keys = {"OSS_ACCESS_KEY_ID": emulator.access_key_id, "OSS_ACCESS_KEY_SECRET": emulator.access_key_secret}
    script = str(DOCS / "examples" / name)
    done = subprocess.run(
        [sys.executable, "-c", _WITH_KEYS, script, emulator.endpoint, emulator.bucket, argument],
        input=json.dumps(keys) + "\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_objects_are_read_written_and_appended_to(ground: Ground) -> None:
    first = ["whole: 1400 bytes, b'good morning, '", "range: 100 bytes", "appended: 16 bytes"]
    assert run(ground, "sdk_objects.py", "folder/") == first
    assert run(ground, "sdk_objects.py", "folder/")[2] == "appended: 32 bytes"


def test_the_data_set_gives_each_sample_once(ground: Ground) -> None:
    samples = []
    for number in range(5):
        room = io.BytesIO()
        Image.new("RGB", (8, 6), (number, 0, 0)).save(room, "PNG")
        key = f"images/{number}:{'é' * number}.png"
        ground.emulator.seed(key, room.getvalue())
        samples.append(f"{key}:label{number}")
    ground.emulator.seed("index", ", ".join(samples).encode() + b",\n")
    lines = run(ground, "sdk_dataset.py", "index")
    assert lines == [
        "(2, 6, 8, 3) label0,label1",
        "(2, 6, 8, 3) label2,label3",
        "(1, 6, 8, 3) label4",
    ]


def test_a_model_is_saved_and_loaded(ground: Ground) -> None:
    assert run(ground, "sdk_model.py", "models/model.pt") == ["the same"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_names_the_example(name: str) -> None:
    assert f"(examples/{name})" in (DOCS / "sdk.md").read_text()


def test_no_example_is_without_a_test() -> None:
    assert EXAMPLES == ["sdk_dataset.py", "sdk_model.py", "sdk_objects.py"]
