"""The rounds: every case on every server, one right after the other, in an order that rotates.

A round mounts all servers afresh; an idle one costs nothing. What is compared was measured within seconds of each
other, because the machine is shared with others whose load comes and goes. A case is measured in slices, server by
server again and again, and the middle one counts: whether a program and its server wake each other on one processor or
across two is decided anew by each slice, and makes a factor of up to five for small requests.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.session.cases import MB, Case
from benchmarks.session.mounting import Programs, Served, compile_programs, served

SLICES = 3
_GRACE = 60.0
"""Seconds that a load may take beyond its time: a request waiting for a spinning thread, many times over."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one case: `rate` in the case's unit; `cpu` of the server, in seconds per GiB or microseconds per
    operation. `quiet` is the rate without the spinning thread, measured just before, of a case that has one."""

    rate: float
    cpu: float
    quiet: float | None = None


Samples = dict[Case, dict[str, list[Sample]]]


def measure(
    rounds: int,
    cases: Sequence[Case],
    servers: Sequence[str],
    seconds: float,
    said: Callable[[str], None] = print,
) -> Samples:
    """`rounds` samples of each case on each server, `seconds` each; raises RuntimeError when a server answers wrong."""
    samples: Samples = {case: {name: [] for name in servers} for case in cases}
    with tempfile.TemporaryDirectory(prefix="session-bench-") as directory:
        scratch = Path(directory)
        programs = compile_programs(scratch)
        for turn in range(rounds):
            with ExitStack() as stack:
                mounts = [stack.enter_context(served(name, programs, scratch)) for name in servers]
                for mount in mounts:
                    _load(programs, mount, Case("stat", 2, ""), 0.1)  # the first requests find everything cold
                for number, case in enumerate(cases):
                    first = (turn + number) % len(mounts)
                    order = mounts[first:] + mounts[:first]
                    slices = [
                        [_sample(programs, mount, case, seconds / SLICES) for mount in order] for _ in range(SLICES)
                    ]
                    for mount, taken in zip(order, zip(*slices, strict=True), strict=True):
                        sample = sorted(taken, key=lambda sample: sample.rate)[SLICES // 2]
                        samples[case][mount.name].append(sample)
                        said(f"{turn + 1}/{rounds} {case.name} {mount.name}: {sample.rate:.0f} {case.unit}")
    return samples


def _sample(programs: Programs, mount: Served, case: Case, seconds: float) -> Sample:
    rate, cpu = _load(programs, mount, case, seconds)
    if not case.busy:
        return Sample(rate, cpu)
    mount.spin()
    try:
        busy, cpu = _load(programs, mount, case, seconds)
    finally:
        mount.rest()
    return Sample(busy, cpu, rate)


def _load(programs: Programs, mount: Served, case: Case, seconds: float) -> tuple[float, float]:
    """Rate, and the server's CPU per GiB or operation."""
    before = mount.cpu_seconds()
    words = [str(programs.load), case.kind, str(mount.root), str(case.threads), str(seconds)]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=seconds + _GRACE, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{case.name} on {mount.name} does not end") from error
    if ended.returncode != 0:
        raise RuntimeError(f"{case.name} on {mount.name} went wrong: {ended.stdout}{ended.stderr}")
    told = json.loads(ended.stdout)
    cpu = mount.cpu_seconds() - before
    if case.unit == MB:
        return told["bytes"] / 1e6 / told["seconds"], cpu / (told["bytes"] / (1 << 30))
    return told["operations"] / told["seconds"], cpu * 1e6 / told["operations"]
