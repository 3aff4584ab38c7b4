"""Many open files in a mix of sequential and random readers under a small memory limit, beside the same without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.clients import UNLIMITED
from benchmarks.loads import load
from benchmarks.model import OURS, Case, Files, Ground, Metric, Outcome, Sample, Sizes
from benchmarks.works.reading import Reading, peak_mib

PREFIX = "handles/"
THREADS = 64
LIMIT = "512Mi"


class Memory(Reading):
    name = "memory"
    title = f"Open files read by {THREADS} threads, every other one at random, under a limit of {LIMIT}"
    only = frozenset({OURS, UNLIMITED})
    metrics: Sequence[Metric] = (
        Metric("MB/s", bars={UNLIMITED: 0.8}),
        Metric("peak RSS, MiB", higher=False),
    )

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        return (Case(f"{sizes.handles} handles, {LIMIT}", THREADS, count=sizes.handles, memory=LIMIT),)

    def prefix(self, case: Case) -> str:
        return PREFIX

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return (Files(PREFIX, "{n:06d}", sizes.handle_files, sizes.handle_size),)

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        return load(ground.load, "handles", root, case.count, case.threads, ground.sizes.handle_seconds)

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {"MB/s": sample.outcome.bytes / 1e6 / sample.outcome.seconds, "peak RSS, MiB": peak_mib(sample)}
