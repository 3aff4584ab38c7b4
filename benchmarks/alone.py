"""The kernel session alone (benchmarks/session) as rows and a section of this harness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from benchmarks.model import Row
from benchmarks.session.cases import selected
from benchmarks.session.compare import measure as measure_session
from benchmarks.session.mounting import COMPARED, OURS, SERVERS
from benchmarks.session.results import rows as session_rows

NAME = "session"
TITLE = "The kernel session alone, an in-memory filesystem behind it"
SECONDS, QUICK_SECONDS = 0.7, 0.25


def measure(rounds: int, tell: Callable[[str], None], *, quick: bool) -> tuple[list[Row], list[str]]:
    ours = OURS if OURS in SERVERS else "pyfuse3"
    samples = measure_session(rounds, selected(frozenset()), COMPARED, QUICK_SECONDS if quick else SECONDS, tell)
    rows = [Row(**asdict(row)) for row in session_rows(samples, ours)]
    lines = [
        f"## {TITLE}",
        "",
        f"Ours is the layer {ours}; {rounds} rounds. The better of single- and multi-threaded C on libfuse is the",
        "peer; busy cases have one pure-Python thread spinning in the process, the quiet figure is the peer.",
        "",
        "| case | ours | peer | its figure | ours ÷ it [rounds] | bar |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        verdict = f"{row.bar:g} {'holds' if row.holds else '**does not hold**'}"
        around = f"{row.value:.2f} [{row.spread[0]:.2f}–{row.spread[1]:.2f}]"
        lines.append(f"| {row.case} | {row.ours:g} | {row.peer} | {row.peer_value:g} | {around} | {verdict} |")
    return rows, [*lines, ""]
