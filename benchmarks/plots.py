"""Plots of results.json as SVG: one picture for each work, a bar for each peer, ours being 1. Pure but for writing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

WIDTH = 860
LEFT = 330
RIGHT = 90
BAR_HEIGHT = 16
GAP = 6
GROUP = 26
COLOURS = {True: "#2a7f3f", False: "#b3362b", None: "#5b7fa6"}
"""By whether the bar holds."""


def write_plots(document: Mapping[str, Any], directory: Path) -> None:
    """A picture for each work that has rows against peers."""
    works: dict[str, list[Mapping[str, Any]]] = {}
    for row in document.get("rows", []):
        if row["peer"] != "bar" and ": " not in row["case"] and row["value"]:
            works.setdefault(row["work"], []).append(row)
    directory.mkdir(parents=True, exist_ok=True)
    for work, rows in works.items():
        (directory / f"{work}.svg").write_text(plot(work, rows))


def plot(work: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """How many times better ours is than each peer, on a logarithmic scale, with the bar where there is one."""
    cases: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        cases.setdefault(row["case"], []).append(row)
    values = [row["value"] for row in rows] + [row["bar"] for row in rows if row["bar"]] + [1.0]
    low, high = math.log10(min(values)) - 0.1, math.log10(max(values)) + 0.1

    def x(value: float) -> float:
        return LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts, y = [_text(10, 22, f"{work}: how many times better ossfuse is (1 = equal)", 15, bold=True)], 44.0
    for case, shown in cases.items():
        parts.append(_text(10, y + 12, case, 12, bold=True))
        y += GROUP - GAP
        for row in shown:
            start, end = sorted((x(1.0), x(row["value"])))
            parts.append(_text(26, y + 12, f"{row['peer']} ({row['peer_value']:.4g}; ours {row['ours']:.4g})", 12))
            parts.append(
                f'<rect x="{start:.1f}" y="{y:.1f}" width="{max(end - start, 1):.1f}" height="{BAR_HEIGHT}" '
                f'fill="{COLOURS[row["holds"]]}"/>'
            )
            parts.append(_text(x(max(row["value"], 1.0)) + 6, y + 12, f"{row['value']:.2f}", 12))
            if row["bar"]:
                at = x(row["bar"])
                line = f'x1="{at:.1f}" x2="{at:.1f}" y1="{y - 2:.1f}" y2="{y + BAR_HEIGHT + 2:.1f}"'
                parts.append(f'<line {line} stroke="#000" stroke-width="2"/>')
            y += BAR_HEIGHT + GAP
        y += GAP
    one = f'x1="{x(1.0):.1f}" x2="{x(1.0):.1f}" y1="34" y2="{y:.1f}"'
    parts.append(f'<line {one} stroke="#888" stroke-dasharray="3 3"/>')
    parts.append(_text(10, y + 14, "black mark: the bar; green: it holds; red: it does not; blue: no bar", 11))
    height = y + 26
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, size: int, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}"{weight}>{escape(text)}</text>'
