"""What a run found, for people: tables on the terminal and sections of RESULTS.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.clients import ABSENT
from benchmarks.figures import median, rows, spread
from benchmarks.model import OURS, Case, Metric, Row, Work
from benchmarks.runner import CaseResult


def machine() -> str:
    """Processor, cores, memory and kernel of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"


def processor() -> str:
    """Its name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())


def values_of(work: Work, result: CaseResult, metric: Metric) -> dict[str, list[float]]:
    """Client → this metric of each round."""
    return {
        client: [work.figures(result.case, sample)[metric.name] for sample in samples]
        for client, samples in result.samples.items()
    }


def rows_of(work: Work, result: CaseResult, kinds: Mapping[str, str]) -> list[Row]:
    first = work.metrics[0]
    return [
        row
        for metric in work.metrics
        for row in rows(
            work.name,
            result.case.name,
            _held_against(metric, result.case),
            metric == first,
            values_of(work, result, metric),
            kinds,
        )
    ]


def _held_against(metric: Metric, case: Case) -> Metric:
    """`metric` with what it is held against in `case`."""
    limit = case.limits.get(metric.name, metric.limit)
    return replace(metric, limit=limit, bars=metric.bars if case.raced else {})


def show(console: Console, work: Work, result: CaseResult, made: Sequence[Row]) -> None:
    table = Table(title=f"{work.title}: {result.case.name}")
    table.add_column("client")
    for metric in work.metrics:
        table.add_column(metric.name, justify="right")
    table.add_column("ours ÷ it", justify="right")
    table.add_column("bar", justify="right")
    verdicts = {row.peer: row for row in made if row.case == result.case.name}
    for client in result.samples:
        cells = [_shown(values_of(work, result, metric)[client], metric) for metric in work.metrics]
        row = verdicts.get(client)
        ratio = f"{row.value:.2f}" if row else ""
        bar = "" if row is None or row.bar is None else f"[{'green' if row.holds else 'red'}]{row.bar:g}[/]"
        table.add_row(f"[bold]{client}[/]" if client == OURS else client, *cells, ratio, bar)
    console.print(table)
    for client, reason in result.dropped.items():
        if reason:
            console.print(f"[yellow]{client}[/] dropped: {reason}")
    for row in made:
        if row.peer == "bar":
            word = "holds" if row.holds else "[red]does not hold[/]"
            console.print(f"bar {row.case}: {row.ours:g} against {row.bar:g}, {word}")


def section(
    work: Work, result: CaseResult, made: Sequence[Row], rounds: int, missing: Mapping[str, str], when: str
) -> list[str]:
    """The lines of RESULTS.md for one case."""
    verdicts = {row.peer: row for row in made if row.case == result.case.name}
    heads = [
        f"{metric.name}, median [min–max]" if metric == work.metrics[0] else metric.name for metric in work.metrics
    ]
    lines = [
        f"### {result.case.name}",
        "",
        f"{when}, {rounds} rounds.",
        "",
        f"| client | {' | '.join(heads)} | requests | ours is … times better | bar |",
        "|" + "---|" * (len(heads) + 4),
    ]
    for client, samples in result.samples.items():
        cells = [
            _shown(values_of(work, result, metric)[client], metric, wide=i == 0)
            for i, metric in enumerate(work.metrics)
        ]
        row = verdicts.get(client)
        around = f"{row.value:.2f} [{row.spread[0]:.2f}–{row.spread[1]:.2f}]" if row else ""
        bar = "" if row is None or row.bar is None else f"{row.bar:g} {'holds' if row.holds else '**does not hold**'}"
        asked = ", ".join(f"{number} {kind}" for kind, number in sorted(samples[-1].cost.requests.items()))
        lines.append(f"| {client} | {' | '.join(cells)} | {asked} | {around} | {bar} |")
    lines.append("")
    for row in made:
        if row.peer == "bar":
            verdict = "holds" if row.holds else "**does not hold**"
            name = row.case.removeprefix(f"{result.case.name}: ")
            lines.append(f"- {name}: ours {row.ours:g}, bar {row.bar:g}: {verdict}")
    lines += [f"- {client} is dropped: {reason}" for client, reason in result.dropped.items() if reason]
    memory = result.samples[OURS][-1].cost.memory if OURS in result.samples else {}
    if memory:
        each = ", ".join(f"{name.partition('/')[0]} {size >> 20}" for name, size in memory.items())
        lines.append(f"- Our processes, peak MiB each: {each}")
    lines += [f"- Not here: {client}, {reason}" for client, reason in missing.items()]
    return [*lines, ""]


def preface(date: str, commit: str, versions: Mapping[str, str]) -> list[str]:
    told = ", ".join(f"{name} {version}".strip() for name, version in versions.items())
    absent = [f"- {name} takes no part: it {reason}." for name, reason in ABSENT.items()]
    return [
        "Written by `make bench` (docs/benchmarks.md says how it measures). Compare within a table only: the machine",
        "is shared, and not always of the same kind.",
        "",
        f"- Last run: {date}, commit {commit}, on {machine()}",
        f"- Clients: {told}",
        *absent,
    ]


def write_section(results: Path, name: str, lines: Sequence[str], after: str = "") -> None:
    """Put `lines` where the section `name` stands in the results; a new one goes after section `after`, or last."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    text = results.read_text() if results.exists() else "# Results\n"
    whole = "\n".join([begin, *lines, end])
    before, found, rest = text.partition(begin)
    if found:
        results.write_text(before + whole + rest.partition(end)[2])
        return
    place = f"<!-- end {after} -->"
    head, found, tail = text.partition(place)
    if after and found:
        results.write_text(f"{head}{place}\n\n{whole}{tail}")
    else:
        results.write_text(f"{text.rstrip()}\n\n{whole}\n")


def _shown(values: Sequence[float], metric: Metric, *, wide: bool = True) -> str:
    low, high = spread(values)
    middle = f"{median(values):.{metric.digits}f}"
    return f"{middle} [{low:.{metric.digits}f}–{high:.{metric.digits}f}]" if wide else middle
