"""Many small files: listed once, then read whole by 1, 8 and 64 threads, with and without latency.

They are read in the order of the listing, each thread every so-manieth, as a program does that walks a directory; with
eight threads also in a shuffled order, as training does, where nobody can know the next file.

All are listed; few threads read fewer of them, more so with latency, so that a round takes no hours. Every client reads
the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.loads import load, short_of
from benchmarks.model import Case, Files, Ground, Metric, Outcome, Program, Sample, Sizes
from benchmarks.nginx import OBJECTS
from benchmarks.works.reading import SMALL, Reading, curl, library, peak_mib, small

SEED = 20_241
SHUFFLED_THREADS = 8
LATENCY_MS = 20
_ONE_IN = {(0, 1): 8, (0, 8): 4, (0, 64): 2, (LATENCY_MS, 1): 80, (LATENCY_MS, 8): 10, (LATENCY_MS, 64): 2}
"""Latency and threads → one in so many of the files is read."""


class SmallFiles(Reading):
    name = "small-files"
    title = "Small files, listed once, then read"
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
                count = sizes.small_files // _ONE_IN[latency, threads]
                what = f"{count} of {sizes.small_files} × {sizes.small_size >> 10} KiB"
                name = f"{what}, {latency} ms, {threads} thread{'s' * (threads > 1)}"
                made.append(Case(name, threads, latency, count, sizes.small_size))
                if threads == SHUFFLED_THREADS:
                    made.append(Case(f"{name}, shuffled", threads, latency, count, sizes.small_size, seed=SEED))
        return made

    def prefix(self, case: Case) -> str:
        return SMALL

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return small(sizes)

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        return load(ground.load, "files", root, case.threads, case.count, case.seed)

    def program(self, case: Case, client: str, ground: Ground) -> Program | None:
        if client == "curl":
            return curl(ground, "files", f"/{ground.bucket}/{SMALL}", case.count, case.threads)
        return library(ground, client, "files", SMALL, case.count, case.threads)

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        return short_of(sample.outcome, case.count * case.size)

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {
            "files/s": case.count / sample.outcome.seconds,
            "GET a file": sample.cost.requests.get("GET", 0) / max(sample.cost.requests.get(OBJECTS, 0), case.count),
            "CPU-ms a file": sample.cost.cpu * 1000 / case.count,
            "peak RSS, MiB": peak_mib(sample),
        }
