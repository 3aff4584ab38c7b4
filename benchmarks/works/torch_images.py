"""A training program's input: a PyTorch DataLoader over many small objects, with 0, 2 and 4 workers, by data sets that
are indexed and by such that are iterated, with and without latency; and what the very first item costs.

All objects are in the data set; where clients take long, fewer are read. The data set of oss2 and the mount have one
kind only, which both kinds of ours are held against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.clients import CONNECTOR, OSS2, OUR_MOUNT
from benchmarks.loads import outcome, short_of
from benchmarks.model import GB, OURS, Case, Files, Ground, Metric, Outcome, Program, Sample, Sizes
from benchmarks.nginx import OBJECTS
from benchmarks.processes import run
from benchmarks.works.reading import Reading, peak_mib
from benchmarks.works.torch_programs import program

PREFIX = "images/"
SEED = 20_241
LATENCY_MS = 20
KINDS = ("map", "iterable")
SHUFFLED = "map, shuffled"
WORKERS = (0, 2, 4)
FIRST = "first item"
_ONE_IN = {(0, 0): 5, (0, 2): 4, (0, 4): 4, (LATENCY_MS, 0): 50, (LATENCY_MS, 2): 25, (LATENCY_MS, 4): 10}
"""Latency and workers → one in so many of the objects is read."""


class TorchImages(Reading):
    name = "torch-images"
    title = "Small objects through a PyTorch DataLoader"
    only = frozenset({OURS, CONNECTOR, OSS2, OUR_MOUNT})
    programs = frozenset({OURS})
    metrics: Sequence[Metric] = (
        Metric("images/s", bars={CONNECTOR: 1.2, OSS2: 3.0, OUR_MOUNT: 2.0}),
        Metric("CPU-s/GB", higher=False, bars={CONNECTOR: 1.0}, digits=2),
        Metric("requests an object", higher=False, digits=3, compare=False),
        Metric("first batch, ms", higher=False),
        Metric("peak RSS, MiB", higher=False),
    )

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        made = []
        for latency in (0, LATENCY_MS):
            for kind in (*KINDS, SHUFFLED):
                for workers in WORKERS if kind != SHUFFLED else (2,):
                    count = sizes.images // _ONE_IN[latency, workers]
                    name = f"{kind}, {count} of {sizes.images}, {latency} ms, {workers} workers"
                    seed = SEED if kind == SHUFFLED else 0
                    made.append(Case(name, workers, latency, count, sizes.small_size, kind=kind, seed=seed))
            for kind in KINDS:
                name = f"{kind}, {FIRST} of {sizes.images}, {latency} ms"
                limits = {"requests an object": 2.0}
                made.append(Case(name, 0, latency, 1, sizes.small_size, kind=kind, raced=False, limits=limits))
        return made

    def prefix(self, case: Case) -> str:
        return PREFIX

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return (Files(PREFIX, "{n:06d}", sizes.images, sizes.small_size),)

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        """Of the mount, whose processes are charged by the harness; the program's own CPU is not."""
        finished = run(self._program(case, OUR_MOUNT, str(root), ground).command, {})
        return outcome(finished.output, finished.status)

    def program(self, case: Case, client: str, ground: Ground) -> Program | None:
        return self._program(case, client, PREFIX, ground)

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        return short_of(sample.outcome, sample.outcome.operations * case.size)

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        asked = sum(sample.cost.requests.get(kind, 0) for kind in ("GET", "HEAD"))
        return {
            "images/s": sample.outcome.operations / sample.outcome.seconds,
            "CPU-s/GB": sample.cost.cpu / (sample.outcome.bytes / GB),
            "requests an object": asked / max(sample.cost.requests.get(OBJECTS, 0), 1),
            "first batch, ms": sample.outcome.median * 1000,
            "peak RSS, MiB": peak_mib(sample),
        }

    def _program(self, case: Case, client: str, prefix: str, ground: Ground) -> Program:
        everything = ground.sizes.images
        kind = "map" if case.kind == SHUFFLED else case.kind
        numbers = (everything, case.count, case.size, case.threads, case.seed)
        return program(ground, client, "torch_images", kind, prefix, *numbers)
