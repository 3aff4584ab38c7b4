"""Files of a few megabytes, as recordings and shards are: each is read from start to end, and no two are one after the
other for long, so that what counts is how soon a client asks for all of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.loads import load, short_of
from benchmarks.model import MIB, Case, Files, Ground, Metric, Outcome, Program, Sample, Sizes
from benchmarks.works.reading import Reading, cpu_per_gib, curl, peak_mib
from benchmarks.works.small_files import LATENCY_MS, SEED

PREFIX = "medium/"
SIZE = 5 * MIB
_READ = {(0, 1): 100, (0, 8): 200, (LATENCY_MS, 1): 50, (LATENCY_MS, 8): 200}
"""Latency and threads → files."""


class MediumFiles(Reading):
    name = "medium-files"
    title = "Files of 5 MiB, listed once, then read in a shuffled order"
    metrics: Sequence[Metric] = (
        Metric("MB/s", bars={"rclone": 2.0, "mount": 1.2}),
        Metric("CPU-s/GiB", higher=False, digits=2),
        Metric("GET a file", higher=False, digits=2, compare=False),
        Metric("peak RSS, MiB", higher=False),
    )

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        return [
            Case(
                f"{count} × {SIZE // MIB} MiB, {latency} ms, {threads} thread{'s' * (threads > 1)}",
                threads,
                latency,
                count,
                SIZE,
                seed=SEED,
            )
            for (latency, threads), count in _READ.items()
        ]

    def prefix(self, case: Case) -> str:
        return PREFIX

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return (Files(PREFIX, "{n:06d}", max(_READ.values()), SIZE),)

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        return load(ground.load, "files", root, case.threads, case.count, case.seed)

    def program(self, case: Case, client: str, ground: Ground) -> Program | None:
        if client != "curl":
            return None
        return curl(ground, "files", f"/{ground.bucket}/{PREFIX}", case.count, case.threads)

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        return short_of(sample.outcome, case.count * case.size)

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {
            "MB/s": sample.outcome.bytes / 1e6 / sample.outcome.seconds,
            "CPU-s/GiB": cpu_per_gib(sample),
            "GET a file": sample.cost.requests.get("GET", 0) / case.count,
            "peak RSS, MiB": peak_mib(sample),
        }
