"""Many small files written by eight threads, each closed; all must be there, and a sample of them is read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.loads import load, short_of
from benchmarks.model import GB, Case, Files, Ground, Metric, Outcome, Sample, Sizes
from benchmarks.server import list_keys, request
from benchmarks.works.reading import Reading, peak_mib

PREFIX = "many/"
THREADS = 8
SAMPLES = 20


class SmallWrite(Reading):
    name = "small-write"
    title = "Small files written by 8 threads, each closed"
    writes = True
    metrics: Sequence[Metric] = (
        Metric("files/s", bars={"old": 1.2, "mount": 1.2}),
        Metric("CPU-s/GB", higher=False, limit=1.0, digits=2),
        Metric("CPU-ms a file", higher=False, digits=3),
        Metric("peak RSS, MiB", higher=False),
    )

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        name = f"{sizes.written_files} × {sizes.small_size >> 10} KiB"
        return (Case(name, THREADS, 0, sizes.written_files, sizes.small_size),)

    def prefix(self, case: Case) -> str:
        return PREFIX

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return ()

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        return load(ground.load, "write-many", root, case.threads, case.count, case.size)

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        keys = self._keys(ground)
        if len(keys) != case.count:
            return f"{len(keys)} objects instead of {case.count}"
        for key in keys[:: max(1, case.count // SAMPLES)]:
            path = ground.scratch / key.rpartition("/")[2]
            path.write_bytes(request(ground.endpoint, "GET", f"/{ground.bucket}/{key}"))
            wrong = load(ground.load, "check", path).wrong or (path.stat().st_size != case.size and "of another size")
            path.unlink()
            if wrong:
                return f"{key}: {wrong}"
        return short_of(sample.outcome, case.count * case.size)

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {
            "files/s": case.count / sample.outcome.seconds,
            "CPU-s/GB": sample.cost.cpu / (sample.outcome.bytes / GB),
            "CPU-ms a file": sample.cost.cpu * 1000 / case.count,
            "peak RSS, MiB": peak_mib(sample),
        }

    def _keys(self, ground: Ground) -> list[str]:
        keys: list[str] = []
        while page := list_keys(ground.endpoint, ground.bucket, PREFIX, after=keys[-1] if keys else ""):
            keys += page
        return [key for key in keys if not key.endswith("/")]
