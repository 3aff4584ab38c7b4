"""Medians, spreads and ratios: samples of a case become rows. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.model import OURS, Metric, Row

BAR = "bar"
"""The peer of a row that compares ours with a fixed number."""

Values = Mapping[str, Sequence[float]]
"""Client → one figure a round."""


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def ratio(ours: float, theirs: float, *, higher: bool) -> float:
    """How many times better ours is; infinite when the worse one is nothing at all."""
    better, worse = (ours, theirs) if higher else (theirs, ours)
    return better / worse if worse else float("inf") if better else 1.0


def rows(work: str, case: str, metric: Metric, first: bool, values: Values, kinds: Mapping[str, str]) -> list[Row]:
    """The rows of one metric. Ratios of the spread are of the same round; `kinds`: client → kind, for bars by kind. The
    `first` metric of a work is the case itself; others are named behind it."""
    ours = values.get(OURS)
    if not ours:
        return []
    label = case if first else f"{case}: {metric.name}"
    made = [
        _against(work, label, metric, ours, peer, theirs, kinds.get(peer, ""))
        for peer, theirs in values.items()
        if peer != OURS and theirs and metric.compare
    ]
    if metric.limit is not None:
        middle = median(ours)
        holds = middle >= metric.limit if metric.higher else middle <= metric.limit
        made.append(_row(work, label, middle, BAR, None, middle, metric.limit, holds, len(ours), spread(ours)))
    return made


def _against(
    work: str, case: str, metric: Metric, ours: Sequence[float], peer: str, theirs: Sequence[float], kind: str
) -> Row:
    value = ratio(median(ours), median(theirs), higher=metric.higher)
    each = [ratio(a, b, higher=metric.higher) for a, b in zip(ours, theirs, strict=False)]
    bar = metric.bars.get(peer, metric.bars.get(kind))
    holds = None if bar is None else value >= bar
    rounds = min(len(ours), len(theirs))
    return _row(work, case, median(ours), peer, median(theirs), value, bar, holds, rounds, spread(each))


def _row(
    work: str,
    case: str,
    ours: float,
    peer: str,
    peer_value: float | None,
    value: float,
    bar: float | None,
    holds: bool | None,
    rounds: int,
    around: tuple[float, float],
) -> Row:
    kept = None if peer_value is None else round(peer_value, 4)
    low, high = around
    return Row(
        work, case, round(ours, 4), peer, kept, round(value, 4), bar, holds, rounds, (round(low, 4), round(high, 4))
    )
