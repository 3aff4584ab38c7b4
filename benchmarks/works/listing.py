"""`ls -l` of one large directory, and `find` over many: time, requests and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.model import Case, Files, Ground, Metric, Outcome, Sample, Sizes
from benchmarks.nginx import OBJECTS
from benchmarks.processes import ENVIRONMENT, run
from benchmarks.works.reading import Reading

FLAT = "listed/"
TREE = "tree/"
SIZE = 1234
PATIENCE = 600.0
LIST = "LIST requests"
RSS = "peak RSS, MB"


class Listing(Reading):
    name = "listing"
    title = "Listings"
    metrics: Sequence[Metric] = (
        Metric("seconds", higher=False, bars={"s3fs": 5.0}, digits=2),
        Metric(LIST, higher=False, compare=False),
        Metric("requests", higher=False, compare=False),
        Metric("CPU-s", higher=False, digits=2),
        Metric(RSS, higher=False, limit=300.0),
    )

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        whole = sizes.tree_prefixes * sizes.tree_entries
        pages = -(-sizes.entries // 1000) + 1
        return (
            Case(f"ls -l of {sizes.entries} entries", count=sizes.entries, limits={LIST: float(pages)}),
            Case(f"find over {whole} objects in {sizes.tree_prefixes} prefixes", count=whole, mode=""),
        )

    def prefix(self, case: Case) -> str:
        return FLAT if case.name.startswith("ls") else TREE

    def files(self, sizes: Sizes) -> Sequence[Files]:
        return (
            Files(FLAT, "{n:06d}", sizes.entries, SIZE, listed_only=True),
            Files(TREE, "{p}/{n:03d}", sizes.tree_prefixes * sizes.tree_entries, SIZE, listed_only=True),
        )

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        if case.name.startswith("ls"):
            command = f"LC_ALL=C ls -l {root} | grep -c ' {SIZE} '"
        else:
            command = f"find {root} -type f -printf x | wc -c"
        done = run(["sh", "-c", command], ENVIRONMENT, PATIENCE)
        found = int(done.output or 0)
        wrong = "" if found == case.count else f"showed {found} entries instead of {case.count}"
        if done.status == -9:
            wrong = f"was not done after {PATIENCE:g} s"
        return Outcome(done.seconds, 0, found, wrong=wrong)

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        requests = sample.cost.requests
        return {
            "seconds": sample.outcome.seconds,
            LIST: requests.get("LIST", 0),
            "requests": sum(number for kind, number in requests.items() if kind != OBJECTS),
            "CPU-s": sample.cost.cpu,
            RSS: sample.cost.peak / 1e6,
        }
