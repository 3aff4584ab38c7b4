"""Many small files: listed once, then read whole by 1, 8 and 64 threads in a shuffled order, with and without latency.

With latency, fewer threads read fewer of the files, so that a round takes no hours; every client reads the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.loads import load, short_of
from benchmarks.model import Case, Files, Ground, Metric, Outcome, Program, Sample, Sizes
from benchmarks.works.common import SMALL, Reading, curl, library, peak_mib, small

SEED = 20_241
LATENCY_MS = 20
_READ_WITH_LATENCY = {1: 40, 8: 5, 64: 1}
"""Threads → the share of the files that is read is one part in so many."""


class SmallFiles(Reading):
    name = "small-files"
    title = "Small files, listed once, then read in a shuffled order"
    metrics: Sequence[Metric] = (
        Metric("files/s", bars={"rclone": 2.5, "mount": 1.2, "curl": 0.5}),
        Metric("GET a file", higher=False, limit=1.0, digits=3, compare=False),
        Metric("CPU-ms a file", higher=False, digits=3),
        Metric("peak RSS, MiB", higher=False),
    )

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        made = []
        for latency in (0, LATENCY_MS):
            for threads in (1, 8, 64):
                count = sizes.small_files // (_READ_WITH_LATENCY[threads] if latency else 1)
                name = f"{count} × {sizes.small_size >> 10} KiB, {latency} ms, {threads} thread{'s' * (threads > 1)}"
                made.append(Case(name, threads, latency, count, sizes.small_size))
        return made

    def prefix(self, case: Case) -> str:
        return SMALL

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return small(sizes)

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        return load(ground.load, "files", root, case.threads, case.count, SEED)

    def program(self, case: Case, client: str, ground: Ground) -> Program | None:
        if client == "curl":
            return curl(ground, "files", f"/{ground.bucket}/{SMALL}", case.count, case.threads)
        return library(ground, client, "files", SMALL, case.count, case.threads)

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        return short_of(sample.outcome, case.count * case.size)

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {
            "files/s": case.count / sample.outcome.seconds,
            "GET a file": sample.cost.requests.get("GET", 0) / case.count,
            "CPU-ms a file": sample.cost.cpu * 1000 / case.count,
            "peak RSS, MiB": peak_mib(sample),
        }
