"""benchmarks/results.json: rows merged by (work, case, peer), written whole and only by the harness."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.model import Row

Document = Mapping[str, Any]


def merged(
    before: Document, rows: Iterable[Row], machine: str, date: str, commit: str, *, whole: str = ""
) -> dict[str, Any]:
    """`before` with `rows` in the place of those of the same work, case and peer; the others stay, in their order, but
    for those of the work `whole`, of which `rows` are all there are."""
    fresh = {(row.work, row.case, row.peer): _plain(row) for row in rows}
    kept = []
    for row in before.get("rows", []):
        key = (row["work"], row["case"], row["peer"])
        if key in fresh or row["work"] != whole:
            kept.append(fresh.pop(key, row))
    return {"machine": machine, "date": date, "commit": commit, "rows": [*kept, *fresh.values()]}


def read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"rows": []}
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def write(path: Path, document: Document) -> None:
    """One row a line, so that a change of one row is a change of one line."""
    head = {name: value for name, value in document.items() if name != "rows"}
    rows = ",\n".join("    " + json.dumps(row, ensure_ascii=False) for row in document["rows"])
    lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)},\n" for name, value in head.items()]
    part = path.with_suffix(".part")
    part.write_text("{\n" + "".join(lines) + '  "rows": [\n' + rows + "\n  ]\n}\n")
    os.replace(part, path)


def _plain(row: Row) -> dict[str, Any]:
    values = asdict(row)
    values["spread"] = [_finite(value) for value in row.spread]
    values["value"] = _finite(row.value)
    return values


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
