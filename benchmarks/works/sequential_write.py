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
PAGE = 4096


class SequentialWrite(Reading):
    name = "sequential-write"
    title = "One large file written, close included"
    writes = True
    metrics: Sequence[Metric] = (
        Metric("MB/s", bars={"old": 1.2, "mount": 1.2}),
        Metric("CPU-s/GB", higher=False, limit=1.0, digits=2),
        Metric("peak RSS, MiB", higher=False),
    )

    def __init__(self) -> None:
        self._expected: dict[str, int] = {}

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        large, small = sizes.written, sizes.written // 8
        return (
            Case(f"{large / GIB:g} GiB", size=large, kind=str(MIB)),
            # what programs do that write records; each call is a request of the kernel's, which has a price of its own
            Case(f"{small / MIB:g} MiB in calls of 4 KiB", size=small, kind=str(PAGE), limits={"CPU-s/GB": 3.0}),
        )

    def prefix(self, case: Case) -> str:
        return PREFIX

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return ()

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        return load(ground.load, "write", root / NAME, case.size, int(case.kind))

    def program(self, case: Case, client: str, ground: Ground) -> Program | None:
        return None

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        found = head(ground.endpoint, ground.bucket, PREFIX + NAME)
        if int(found.get("content-length", -1)) != case.size:
            return f"an object of {found.get('content-length', 'no')} bytes instead of {case.size}"
        if int(found["x-amz-hash-crc64ecma"]) != self._crc(case, ground):
            return "the object holds other bytes than were written"
        return short_of(sample.outcome, case.size)

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {
            "MB/s": sample.outcome.bytes / 1e6 / sample.outcome.seconds,
            "CPU-s/GB": sample.cost.cpu / (sample.outcome.bytes / GB),
            "peak RSS, MiB": peak_mib(sample),
        }

    def _crc(self, case: Case, ground: Ground) -> int:
        """Of the same file, made without any client."""
        if case.name not in self._expected:
            path = ground.scratch / NAME
            load(ground.load, "write", path, case.size, int(case.kind))
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                self._expected[case.name] = crc64(whole)
            path.unlink()
        return self._expected[case.name]
