"""One large object read from start to end by one reader, and by four readers of a quarter each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.loads import load, short_of
from benchmarks.model import GIB, MIB, Case, Files, Ground, Metric, Outcome, Program, Sample, Sizes
from benchmarks.works.reading import LARGE, LARGE_NAME, Reading, cpu_per_gib, curl, large, library, peak_mib

CURL_CONNECTIONS = 4


class SequentialRead(Reading):
    name = "sequential-read"
    title = "Sequential read of one large object, 1 MiB calls"
    metrics: Sequence[Metric] = (
        Metric("MB/s", bars={"old": 2.0, "mount": 1.2, "curl": 0.6}),
        Metric("CPU-s/GiB", higher=False, limit=0.8, digits=2),
        Metric("peak RSS, MiB", higher=False),
    )

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        size = f"{sizes.large / GIB:g} GiB"
        return (
            Case(f"{size}, 1 stream", threads=1),
            Case(f"{size}, 4 streams", threads=4),
            Case(f"{size}, 1 stream, 20 ms", latency_ms=20, threads=1),
            Case(f"{size}, 4 streams, 20 ms", latency_ms=20, threads=4),
        )

    def prefix(self, case: Case) -> str:
        return LARGE

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return large(sizes)

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        return load(ground.load, "sequential", root / LARGE_NAME, case.threads, MIB)

    def program(self, case: Case, client: str, ground: Ground) -> Program | None:
        path = f"/{ground.bucket}/{LARGE}{LARGE_NAME}"
        if client == "curl":
            return curl(ground, "ranges", path, ground.sizes.large, CURL_CONNECTIONS)
        return library(ground, client, "sequential", LARGE + LARGE_NAME, ground.sizes.large, case.threads)

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        return short_of(sample.outcome, ground.sizes.large)

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {
            "MB/s": sample.outcome.bytes / 1e6 / sample.outcome.seconds,
            "CPU-s/GiB": cpu_per_gib(sample),
            "peak RSS, MiB": peak_mib(sample),
        }
