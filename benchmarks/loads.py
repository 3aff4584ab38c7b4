"""The load program and what it prints, as outcomes; the commands that works have in common."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from benchmarks.model import Outcome
from benchmarks.processes import ENVIRONMENT, run

PATIENCE = 300.0
"""Seconds a client may take for one run of the load program."""
KILLED = -9
_SOURCE = Path(__file__).with_name("load") / "load.c"


def build(built: Path) -> Path:
    """The load program, compiled anew when its source changed."""
    source = _SOURCE.read_bytes()
    program = built / f"load-{hashlib.sha256(source).hexdigest()[:12]}"
    if not program.exists():
        built.mkdir(parents=True, exist_ok=True)
        flags = ["-O2", "-Wall", "-Wextra", "-Wno-format-truncation", "-pthread"]
        subprocess.run(["gcc", *flags, "-o", str(program), str(_SOURCE)], check=True)
    return program


def load(program: Path, *arguments: str | int | Path) -> Outcome:
    """Run the load program; what it found wrong is in the outcome."""
    finished = run([str(program), *map(str, arguments)], ENVIRONMENT, PATIENCE)
    if finished.status == KILLED:
        return Outcome(finished.seconds, 0, 0, wrong=f"was not done after {PATIENCE:g} s")
    return outcome(finished.output, finished.status)


def outcome(output: str, status: int) -> Outcome:
    """What was printed: by the load program, or by a client that is no mount and prints the same."""
    try:
        said = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return Outcome(0.0, 0, 0, wrong=f"ended with status {status} and no report")
    wrong = str(said.get("error", ""))
    if not wrong and said.get("wrong"):
        wrong = f"{said['wrong']} pages hold other bytes than they should"
    if not wrong and status:
        wrong = f"ended with status {status}"
    return Outcome(
        float(said["seconds"]),
        int(said["bytes"]),
        int(said["operations"]),
        float(said.get("listing_seconds", 0.0)),
        float(said.get("median", 0.0)),
        float(said.get("p99", 0.0)),
        wrong,
        float(said.get("cpu", 0.0)),
        int(said.get("memory", 0)),
    )


def short_of(found: Outcome, expected: int) -> str:
    """What is wrong with the number of bytes; '' when nothing."""
    return "" if found.bytes == expected else f"{found.bytes} bytes instead of {expected}"
