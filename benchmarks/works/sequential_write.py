"""One large file written from start to end, close included, and compared with what should have arrived by its CRC."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastcrc.crc64 import xz as crc64

from benchmarks.loads import load, short_of
from benchmarks.model import GB, GIB, MIB, Case, Files, Ground, Metric, Outcome, Program, Sample, Sizes
from benchmarks.server import head
from benchmarks.works.reading import Reading, peak_mib

PREFIX = "written/"
NAME = "object"


class SequentialWrite(Reading):
    name = "sequential-write"
    title = "One large file written, 1 MiB calls, close included"
    writes = True
    metrics: Sequence[Metric] = (
        Metric("MB/s", bars={"old": 1.2, "mount": 1.2}),
        Metric("CPU-s/GB", higher=False, limit=1.0, digits=2),
        Metric("peak RSS, MiB", higher=False),
    )

    def __init__(self) -> None:
        self._expected: dict[int, int] = {}

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        return (Case(f"{sizes.written / GIB:g} GiB", size=sizes.written),)

    def prefix(self, case: Case) -> str:
        return PREFIX

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return ()

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        return load(ground.load, "write", root / NAME, case.size, MIB)

    def program(self, case: Case, client: str, ground: Ground) -> Program | None:
        return None

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        found = head(ground.endpoint, ground.bucket, PREFIX + NAME)
        if int(found.get("content-length", -1)) != case.size:
            return f"an object of {found.get('content-length', 'no')} bytes instead of {case.size}"
        if int(found["x-amz-hash-crc64ecma"]) != self._crc(case.size, ground):
            return "the object holds other bytes than were written"
        return short_of(sample.outcome, case.size)

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {
            "MB/s": sample.outcome.bytes / 1e6 / sample.outcome.seconds,
            "CPU-s/GB": sample.cost.cpu / (sample.outcome.bytes / GB),
            "peak RSS, MiB": peak_mib(sample),
        }

    def _crc(self, size: int, ground: Ground) -> int:
        """Of the same file, made without any client."""
        if size not in self._expected:
            path = ground.scratch / NAME
            load(ground.load, "write", path, size, MIB)
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                self._expected[size] = crc64(whole)
            path.unlink()
        return self._expected[size]
