"""What a page of the documents shows of a work, from results.json: a picture, and tables of ours and each peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]

_MARKS = {True: " ✓", False: " ✗", None: ""}


def digest(work: str, metrics: Sequence[str], document: Mapping[str, Any], pictures: str) -> list[str]:
    """The lines about `work`, of which `metrics` are shown; [] when it was not measured. `pictures`: where they lie."""
    rows = [row for row in document.get("rows", []) if row["work"] == work]
    tables = [table for metric in metrics if (table := _table(metric, metric == metrics[0], rows))]
    if not tables:
        return []
    lines = [f"![{work}]({pictures}/{work}.svg)", ""]
    for table in tables:
        lines += [*table, ""]
    return lines


def _table(metric: str, is_first: bool, rows: Rows) -> list[str]:
    """A line for each case; the first metric is the case itself, others are named behind it (`figures.rows`)."""
    cases: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        case, _, of = row["case"].partition(": ")
        if of == ("" if is_first else metric):
            cases.setdefault(case, {})[row["peer"]] = row
    if not cases:
        return []
    peers = list(dict.fromkeys(peer for found in cases.values() for peer in found))
    heads = ["the bar" if peer == "bar" else peer for peer in peers]
    lines = [f"| {metric} | ours | {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) + 1)]
    for case, found in cases.items():
        ours = next(iter(found.values()))["ours"]
        cells = [_cell(found[peer]) if peer in found else "" for peer in peers]
        lines.append(f"| {case} | {_number(ours)} | {' | '.join(cells)} |")
    return lines


def _cell(row: Mapping[str, Any]) -> str:
    """A peer's figure, how many times better ours is, and whether that is what was promised."""
    if row["peer"] == "bar":
        return f"{row['bar']:g}{_MARKS[row['holds']]}"
    return f"{_number(row['peer_value'])} ({row['value']:.2f} ×{_MARKS[row['holds']]})"


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.4g}"
