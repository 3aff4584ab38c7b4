"""A checkpoint of a PyTorch model, saved with torch.save and loaded with torch.load, by clients without a mount.

What was saved is compared with what torch.save makes of the same state; every element that was loaded is looked at.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastcrc.crc64 import xz as crc64

from benchmarks.clients import CONNECTOR
from benchmarks.model import GB, GIB, MIB, OURS, Case, Files, Ground, Metric, Outcome, Program, Sample, Sizes
from benchmarks.server import head
from benchmarks.works.reading import Reading, peak_mib
from benchmarks.works.torch_programs import PYTHON, program

PREFIX = "checkpoint/"
SAVED = "saved/"
NAME = "model.pt"
LATENCY_MS = 20
BEYOND = "memory beyond the tensors, MiB"
_ALLOWED = 64
_BUFFERS = {"save": 256, "load": 128}
"""MiB of buffers that ours has where the configuration names none: uploadBufferSizeMB, prefetchMB."""
_PIECE = 8 * MIB


class TorchCheckpoint(Reading):
    name = "torch-checkpoint"
    title = "A checkpoint saved and loaded"
    writes = True
    only = frozenset({OURS, CONNECTOR})
    programs = frozenset({OURS})
    metrics: Sequence[Metric] = (
        Metric("MB/s", bars={CONNECTOR: 1.2}),
        Metric("CPU-s/GB", higher=False, bars={CONNECTOR: 1.0}, digits=2),
        Metric(BEYOND, higher=False),
    )

    def __init__(self) -> None:
        self._expected: dict[int, int] = {}

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        return [
            Case(
                f"{what} {sizes.checkpoint / GIB:g} GiB, {latency} ms",
                latency_ms=latency,
                size=sizes.checkpoint,
                kind=what,
                limits={BEYOND: _BUFFERS[what] + _ALLOWED},
            )
            for latency in (0, LATENCY_MS)
            for what in ("save", "load")
        ]

    def prefix(self, case: Case) -> str:
        return SAVED

    def files(self, sizes: Sizes) -> Sequence[Files]:
        maker = (str(PYTHON), "-m", "benchmarks.programs.torch_checkpoint", "make", str(sizes.checkpoint))
        return (Files(PREFIX, NAME, 1, sizes.checkpoint, maker=maker),)

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        raise AssertionError("no client of this work is a mount")

    def program(self, case: Case, client: str, ground: Ground) -> Program | None:
        key = (SAVED if case.kind == "save" else PREFIX) + NAME
        return program(ground, client, "torch_checkpoint", case.kind, key, case.size)

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        if case.kind == "load":
            return ""  # the program looked at every element
        found = head(ground.endpoint, ground.bucket, SAVED + NAME)
        if not found:
            return "there is no object"
        if int(found["x-amz-hash-crc64ecma"]) != self._crc(case.size, ground):
            return "the object holds other bytes than torch.save makes"
        return ""

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {
            "MB/s": sample.outcome.bytes / 1e6 / sample.outcome.seconds,
            "CPU-s/GB": sample.cost.cpu / (sample.outcome.bytes / GB),
            BEYOND: peak_mib(sample),
        }

    def _crc(self, size: int, ground: Ground) -> int:
        """Of the object that was made without any client."""
        if size not in self._expected:
            crc = 0
            with urllib.request.urlopen(f"{ground.endpoint}/{ground.bucket}/{PREFIX}{NAME}") as answer:
                while piece := answer.read(_PIECE):
                    crc = crc64(piece, crc)
            self._expected[size] = crc
        return self._expected[size]
