"""Small files fetched ahead of who reads a directory in its order, beside the same mount that never does.

It is on for everybody, so it must cost nobody: who reads slowly, leaves files out, reads in another order or is near
the server must not wait longer than without it, nor have more fetched than half as much again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.clients import ONE_BY_ONE
from benchmarks.loads import load, short_of
from benchmarks.model import OURS, Case, Files, Ground, Metric, Outcome, Sample, Sizes
from benchmarks.works.reading import SMALL, Reading, small
from benchmarks.works.small_files import LATENCY_MS, SEED

LIMIT = 1.5
"""GETs a file that is read: what is fetched ahead is never more than half of what was read in order."""
_NO_WORSE = 0.95
_PAUSES = {0: 250, 100: 100, 1000: 40}
"""Milliseconds a reader rests after a file → files."""
_NEAR = 8
"""Without latency, where a file takes a fraction of a millisecond, one in so many is read."""
_SOME = 250


class Siblings(Reading):
    name = "siblings"
    title = "Small files read one after the other, with and without fetching ahead in the directory"
    only = frozenset({OURS, ONE_BY_ONE})
    metrics: Sequence[Metric] = (
        Metric("ms a file", higher=False, bars={ONE_BY_ONE: _NO_WORSE}, digits=2),
        Metric("ms a file, median", higher=False, digits=2),
        Metric("ms a file, 99 %", higher=False, digits=2),
        Metric("GET a file", higher=False, limit=LIMIT, digits=3, compare=False),
        Metric("CPU-ms a file", higher=False, digits=3),
    )

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        made = [
            Case(f"all in order, {LATENCY_MS} ms{_resting(pause)}", 1, LATENCY_MS, count, kind=f"1 1 {pause}")
            for pause, count in _PAUSES.items()
        ]
        made += [
            Case(f"two of three, {LATENCY_MS} ms", 1, LATENCY_MS, _SOME * 3 // 2, kind="2 3 0"),
            Case(f"every third, {LATENCY_MS} ms", 1, LATENCY_MS, _SOME * 3, kind="1 3 0"),
            Case(f"shuffled, {LATENCY_MS} ms", 1, LATENCY_MS, _SOME, kind="1 1 0", seed=SEED),
            Case("all in order, 0 ms", 1, 0, sizes.small_files // _NEAR, kind="1 1 0"),
            Case("shuffled, 0 ms", 1, 0, sizes.small_files // _NEAR, kind="1 1 0", seed=SEED),
        ]
        return made

    def prefix(self, case: Case) -> str:
        return SMALL

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return small(sizes)

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        return load(ground.load, "walk", root, case.count, case.seed, *case.kind.split())

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        return short_of(sample.outcome, _read(case) * ground.sizes.small_size)

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        pause = int(case.kind.split()[2])
        return {
            "ms a file": sample.outcome.seconds * 1000 / _read(case) - pause,
            "ms a file, median": sample.outcome.median * 1000,
            "ms a file, 99 %": sample.outcome.p99 * 1000,
            "GET a file": sample.cost.requests.get("GET", 0) / _read(case),
            "CPU-ms a file": sample.cost.cpu * 1000 / _read(case),
        }


def _resting(pause: int) -> str:
    return f", {pause} ms of rest after each" if pause else ""


def _read(case: Case) -> int:
    """How many of the first `count` are read; all of these are whole groups."""
    taken, of, _ = map(int, case.kind.split())
    return case.count // of * taken
