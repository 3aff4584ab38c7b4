"""Runs an atheris program on the recorded messages of a kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.recorded_fuse import messages

_FORKED = '"$@"; exit $?'
"""libFuzzer bounds the peak of its process, and that of a process begins with the one it was forked from: pytest's."""


def fuzz(program: str, directory: Path, *, attempts: int, seconds: int) -> subprocess.CompletedProcess[str]:
    """`python -m program`, which makes so many attempts, or goes on for so many seconds if those are not 0. What it
    leaves is in `directory`."""
    corpus = directory / "corpus"
    corpus.mkdir()
    for number, message in enumerate(messages()):
        if message.is_request:
            (corpus / str(number)).write_bytes(message.data)
    bound = f"-max_total_time={seconds}" if seconds else f"-runs={attempts}"
    arguments = [str(corpus), bound, "-max_len=4096", "-rss_limit_mb=512", f"-artifact_prefix={directory}/"]
    return subprocess.run(
        ["sh", "-c", _FORKED, "sh", sys.executable, "-m", program, *arguments],
        capture_output=True,
        text=True,
        timeout=seconds + 170,
        check=False,
    )
