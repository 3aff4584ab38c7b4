"""Growth: whether twice the work costs twice as much. Four sizes of each of files, object size, handles and threads.

Only ours is run, the sizes in rotating order. What is compared is the CPU and the memory of one unit (a file, a GiB, a
handle): a doubling may raise it by less than 15 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from benchmarks.clients import by_name
from benchmarks.figures import BAR, median, spread
from benchmarks.loads import load
from benchmarks.model import GIB, MIB, OURS, Case, Files, Ground, Metric, Outcome, Row, Sample, Sizes
from benchmarks.runner import Setting, rotated, run_case
from benchmarks.server import Server
from benchmarks.works.memory import PREFIX as HANDLES
from benchmarks.works.reading import LARGE, LARGE_NAME, SMALL, Reading, large, small

NAME = "growth"
TITLE = "Growth: cost of one unit as the work doubles"
BOUND = 1.15
STEPS = 4
CPU, MEMORY = "CPU-ms a unit", "peak MiB a unit"


@dataclass(frozen=True)
class Growing(Reading):
    """One kind of growth. `unit` is what a cost is of; the cases are four sizes, each twice the one before."""

    kind: str
    unit: str
    name = NAME
    title = TITLE
    metrics: Sequence[Metric] = (Metric(CPU, higher=False, digits=3), Metric(MEMORY, higher=False, digits=3))

    def cases(self, sizes: Sizes) -> Sequence[Case]:
        largest = {
            "files": sizes.small_files // 2,
            "object size": sizes.large // MIB,
            "handles": sizes.handles,
            "threads": 64,
        }[self.kind]
        return [Case(str(largest >> step), count=largest >> step) for step in reversed(range(STEPS))]

    def prefix(self, case: Case) -> str:
        return {"object size": LARGE, "handles": HANDLES}.get(self.kind, SMALL)

    def files(self, sizes: Sizes) -> Sequence[Files]:
        if self.kind == "handles":
            return (Files(HANDLES, "{n:06d}", sizes.handle_files, sizes.handle_size),)
        return large(sizes) if self.kind == "object size" else small(sizes)

    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        if self.kind == "files":
            return load(ground.load, "files", root, 8, case.count, 0)
        if self.kind == "threads":
            return load(ground.load, "files", root, case.count, ground.sizes.small_files // 4, 0)
        if self.kind == "handles":
            return load(ground.load, "handles", root, case.count, 32, ground.sizes.handle_seconds)
        return load(ground.load, "part", root / LARGE_NAME, case.count * MIB, MIB)

    def units(self, case: Case, sample: Sample) -> float:
        """Of work done: files, or GiB."""
        return sample.outcome.operations if self.kind in ("files", "threads") else sample.outcome.bytes / GIB

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]:
        return {
            CPU: sample.cost.cpu * 1000 / self.units(case, sample),
            MEMORY: sample.cost.peak / MIB / case.count,
        }


KINDS = (
    Growing("files", "file"),
    Growing("object size", "GiB, MiB of memory a MiB"),
    Growing("handles", "GiB, MiB of memory a handle"),
    Growing("threads", "file, MiB of memory a thread"),
)


def measure(server: Server, setting: Setting) -> tuple[list[Row], list[str]]:
    """The rows of all kinds, and the lines of their tables."""
    rows: list[Row] = []
    lines = [f"## {TITLE}", "", f"{setting.rounds} rounds, ours alone; a doubling may raise a unit's cost by 15 %.", ""]
    for kind in KINDS:
        server.provide(kind.files(setting.ground.sizes))
        samples = _rounds(kind, server, setting)
        if not samples:
            lines += [f"{kind.kind}: failed, see the run's output", ""]
            continue
        rows += growth_rows(kind, samples)
        lines += table(kind, samples)
    return rows, lines


def _rounds(kind: Growing, server: Server, setting: Setting) -> dict[str, list[Mapping[str, float]]]:
    cases = kind.cases(setting.ground.sizes)
    found: dict[str, list[Mapping[str, float]]] = {case.name: [] for case in cases}
    for turn in range(setting.rounds):
        for case in rotated(cases, turn):
            result = run_case(kind, case, [by_name(OURS)], server, replace(setting, rounds=1))
            if OURS not in result.samples:
                return {}
            found[case.name].append(kind.figures(case, result.samples[OURS][0]))
    return found


def growth_rows(kind: Growing, samples: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Row]:
    """A row for each doubling and cost: the unit's cost after it ÷ before it."""
    names = list(samples)
    made = []
    for metric in (CPU, MEMORY):
        for before, after in pairwise(names):
            small = [figures[metric] for figures in samples[before]]
            great = [figures[metric] for figures in samples[after]]
            value = median(great) / median(small)
            each = [b / a for a, b in zip(small, great, strict=True) if a]
            low, high = spread(each or [value])
            case = f"{kind.kind} {before} to {after}: {metric}"
            around = (round(low, 4), round(high, 4))
            made.append(
                Row(NAME, case, round(value, 4), BAR, None, round(value, 4), BOUND, value < BOUND, len(small), around)
            )
    return made


def table(kind: Growing, samples: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    lines = [f"### {kind.kind} (a unit is a {kind.unit})", "", f"| {kind.kind} | {CPU} | {MEMORY} |", "|---|---|---|"]
    for name, runs in samples.items():
        cells = [f"{median([figures[metric] for figures in runs]):.3f}" for metric in (CPU, MEMORY)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]
