"""Small reads at random places of a large object nobody has read before: how fast, and how many bytes are fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.loads import load
from benchmarks.model import GIB, Case, Files, Ground, Metric, Outcome, Sample, Sizes
from benchmarks.works.reading import LARGE, LARGE_NAME, Reading, large, peak_mib

SEED = 7
SIZE = 4096


class RandomRead(Reading):
    name = "random-read"
    title = "4 KiB reads at random places of one large object"
    metrics: Sequence[Metric] = (
        Metric("reads/s", bars={"old": 1.5, "mount": 1.5}),
        Metric("bytes fetched ÷ asked", higher=False, limit=4.0, digits=1),
        Metric("CPU-ms a read", higher=False, digits=3),
        Metric("peak RSS, MiB", higher=False),
    )

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        size = f"{sizes.large / GIB:g} GiB"
        fewer = max(200, sizes.random_reads // 10)  # clients that fetch megabytes for each read take minutes otherwise
        return (
            Case(f"{fewer} in {size}, 1 thread", 1, 0, fewer),
            Case(f"{fewer} in {size}, 8 threads", 8, 0, fewer),
        )

    def prefix(self, case: Case) -> str:
        return LARGE

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return large(sizes)

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        return load(ground.load, "random", root / LARGE_NAME, case.threads, case.count, SIZE, SEED)

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        found = sample.outcome.operations
        return "" if found == case.count else f"{found} reads instead of {case.count}"

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {
            "reads/s": case.count / sample.outcome.seconds,
            "bytes fetched ÷ asked": sample.cost.sent / (case.count * SIZE),
            "CPU-ms a read": sample.cost.cpu * 1000 / case.count,
            "peak RSS, MiB": peak_mib(sample),
        }
