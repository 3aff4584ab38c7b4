"""The first page of files nobody has read, one after the other, after a listing: what the server's latency leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.loads import load
from benchmarks.model import Case, Files, Ground, Metric, Outcome, Sample, Sizes
from benchmarks.works.reading import SMALL, Reading, small

LATENCIES = (0, 20)


class FirstByte(Reading):
    name = "first-byte"
    title = "Open a cold file and read its first page"
    metrics: Sequence[Metric] = (
        Metric("ms over the latency, median", higher=False, limit=2.0, digits=2),
        Metric("ms over the latency, 99 %", higher=False, digits=2, compare=False),
    )

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        return [
            Case(f"{sizes.first_files} files, {latency} ms", latency_ms=latency, count=sizes.first_files)
            for latency in LATENCIES
        ]

    def prefix(self, case: Case) -> str:
        return SMALL

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return small(sizes)

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        return load(ground.load, "first", root, case.count)

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        found = sample.outcome.operations
        return "" if found == case.count else f"{found} files instead of {case.count}"

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {
            "ms over the latency, median": sample.outcome.median * 1000 - case.latency_ms,
            "ms over the latency, 99 %": sample.outcome.p99 * 1000 - case.latency_ms,
        }
