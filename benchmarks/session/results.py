"""Samples as rows of benchmarks/results.json, and as tables for a person."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.session.cases import MB, Case
from benchmarks.session.compare import Sample, Samples
from benchmarks.session.mounting import C_MULTI, C_SINGLE, PYFUSE3

C_BAR, PYFUSE3_BAR, BUSY_BAR = 0.9, 2.5, 0.7


@dataclass(frozen=True, slots=True)
class Row:
    """One figure that is held against a bar. `value` is ours ÷ the peer's, of medians; `spread` the smallest and the
    largest of that ratio within a round."""

    work: str
    case: str
    ours: float
    peer: str
    peer_value: float
    value: float
    bar: float
    holds: bool
    rounds: int
    spread: tuple[float, float]


def rows(samples: Samples, ours: str) -> list[Row]:
    """Against the better C program for every quiet case, against pyfuse3 for small files, against ourselves for busy
    ones."""
    found = []
    for case, by_server in samples.items():
        own = _rates(by_server[ours])
        if case.busy:
            quiet = [sample.quiet or 0.0 for sample in by_server[ours]]
            found.append(_row(case, own, "without the spinning thread", quiet, BUSY_BAR))
            continue
        references = [name for name in (C_SINGLE, C_MULTI) if name in by_server]
        if references:
            better = max(references, key=lambda name: statistics.median(_rates(by_server[name])))
            found.append(_row(case, own, better, _rates(by_server[better]), C_BAR))
        if case.kind == "small" and ours != PYFUSE3 and PYFUSE3 in by_server:
            found.append(_row(case, own, PYFUSE3, _rates(by_server[PYFUSE3]), PYFUSE3_BAR))
    return found


def tables(samples: Samples, ours: str) -> list[Table]:
    """Rates with their spread and what they cost the server; then the same beside a spinning thread."""
    quiet = {case: by_server for case, by_server in samples.items() if not case.busy}
    busy = {case: by_server for case, by_server in samples.items() if case.busy}
    made = []
    if quiet:
        made.append(_quiet_table(quiet, rows(quiet, ours)))
    if busy:
        made.append(_busy_table(busy))
    return made


def _rates(samples: Iterable[Sample]) -> list[float]:
    return [sample.rate for sample in samples]


def _row(case: Case, ours: Sequence[float], peer: str, peers: Sequence[float], bar: float) -> Row:
    own, other = statistics.median(ours), statistics.median(peers)
    ratios = [mine / theirs for mine, theirs in zip(ours, peers, strict=True)]
    value = round(own / other, 3)
    return Row(
        work="session",
        case=case.name,
        ours=round(own, 1),
        peer=peer,
        peer_value=round(other, 1),
        value=value,
        bar=bar,
        holds=value >= bar,
        rounds=len(ours),
        spread=(round(min(ratios), 3), round(max(ratios), 3)),
    )


def _quiet_table(samples: Samples, found: Sequence[Row]) -> Table:
    servers = list(next(iter(samples.values())))
    table = Table(title="The session alone: median [min–max] | server CPU, s/GiB or µs/op")
    table.add_column("case")
    for name in servers:
        table.add_column(name, justify="right")
    table.add_column("ours ÷ better C [rounds]", justify="right")
    for case, by_server in samples.items():
        cells = [_cell(by_server[name], case) for name in servers]
        ratios = [
            f"{row.value:.2f} [{row.spread[0]:.2f}–{row.spread[1]:.2f}]"
            for row in found
            if row.case == case.name and row.peer != PYFUSE3
        ]
        table.add_row(f"{case.name} {case.unit}", *cells, *(ratios or ["–"]))
    return table


def _busy_table(samples: Samples) -> Table:
    servers = list(next(iter(samples.values())))
    table = Table(title="With a spinning thread (C: a program beside it): median, and share of the quiet figure")
    table.add_column("case")
    for name in servers:
        table.add_column(name, justify="right")
    for case, by_server in samples.items():
        cells = []
        for name in servers:
            busy = statistics.median(_rates(by_server[name]))
            quiet = statistics.median(sample.quiet or 0.0 for sample in by_server[name])
            cells.append(f"{busy:,.0f} = {busy / quiet:.2f} × {quiet:,.0f}")
        table.add_row(f"{case.name} {case.unit}", *cells)
    return table


def _cell(samples: Sequence[Sample], case: Case) -> str:
    rates = _rates(samples)
    cpu = statistics.median(sample.cpu for sample in samples)
    cost = f"{cpu:.2f}" if case.unit == MB else f"{cpu:.1f}"
    return f"{statistics.median(rates):,.0f} [{min(rates):,.0f}–{max(rates):,.0f}] | {cost}"
