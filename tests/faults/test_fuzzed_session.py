"""A kernel that sends nonsense: our own session refuses it, answers what it can, and goes on.

`--fuzz-seconds=N` lets atheris go on for that long; without it, it makes as many attempts as take a few seconds.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fuzzing import fuzz

ATTEMPTS = 15_000
PASSES, MESSAGES = 6, 8_000
WARM = 3
"""Passes after which all threads and buffers there will be are there."""
MOST_GROWTH = 4 << 20
"""Bytes; a leak of 180 bytes a message would show."""


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
def test_whatever_atheris_sends_is_answered_and_the_session_goes_on(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seconds = pytestconfig.getoption("fuzz_seconds")

    ended = fuzz("tests.support.fuzz_session", tmp_path, attempts=ATTEMPTS, seconds=seconds)

    assert ended.returncode == 0, ended.stderr[-4000:]


def test_the_same_nonsense_again_and_again_takes_no_more_memory() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.fuzzed_session", str(PASSES), str(MESSAGES)],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr[-4000:]
    memory = [int(line) for line in ended.stdout.splitlines()]
    assert len(memory) == PASSES
    assert memory[-1] - memory[WARM - 1] < MOST_GROWTH
