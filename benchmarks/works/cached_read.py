"""What was read before a client was mounted anew, read again from its cache on disk: small files and a large object.

Only for clients that have such a cache. The caches of the kernel are dropped in between, so the bytes come from the
machine's disk. Of small files the server should see listings only; of a large object ours leaves out what came faster
than the disk took it the first time, so as not to hold up the reader, and fetches that again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.loads import load, short_of
from benchmarks.model import GIB, MIB, OURS, Case, Files, Ground, Metric, Outcome, Sample, Sizes
from benchmarks.works.reading import LARGE, LARGE_NAME, SMALL, Reading, cpu_per_gib, large, peak_mib, small

THREADS = 8
_ONE_IN = 4
_LARGE = "large"


class CachedRead(Reading):
    name = "cached-read"
    title = "Read again after a remount, from a cache on disk"
    only = frozenset({OURS, "rclone", "s3fs"})
    metrics: Sequence[Metric] = (
        Metric("MB/s", bars={"old": 1.2}),
        Metric("GET", higher=False, compare=False),
        Metric("CPU-s/GiB", higher=False, digits=2),
        Metric("peak RSS, MiB", higher=False),
    )

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        count = sizes.small_files // _ONE_IN
        small_name = f"{count} of {sizes.small_files} × {sizes.small_size >> 10} KiB, {THREADS} threads"
        return (
            Case(small_name, THREADS, count=count, size=sizes.small_size, remounted=True, limits={"GET": 0.0}),
            Case(f"{sizes.large / GIB:g} GiB, 1 stream", size=sizes.large, count=1, kind=_LARGE, remounted=True),
        )

    def prefix(self, case: Case) -> str:
        return LARGE if case.kind == _LARGE else SMALL

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return (*small(sizes), *large(sizes))

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        if case.kind == _LARGE:
            return load(ground.load, "sequential", root / LARGE_NAME, case.threads, MIB)
        return load(ground.load, "files", root, case.threads, case.count, case.seed)

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        return short_of(sample.outcome, case.count * case.size)

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {
            "MB/s": sample.outcome.bytes / 1e6 / sample.outcome.seconds,
            "GET": sample.cost.requests.get("GET", 0),
            "CPU-s/GiB": cpu_per_gib(sample),
            "peak RSS, MiB": peak_mib(sample),
        }
