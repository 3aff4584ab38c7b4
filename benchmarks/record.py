"""What a run leaves: rows in results.json, sections of RESULTS.md, pictures and tables in docs."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import clients, report, results
from benchmarks.digest import digest
from benchmarks.model import Row, Work
from benchmarks.plots import write_plots
from benchmarks.runner import CaseResult, Setting

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "benchmarks" / "results.json"
TEXT = ROOT / "benchmarks" / "RESULTS.md"
PICTURES = ROOT / "docs" / "benchmarks"
PYTORCH = ROOT / "docs" / "pytorch.md"
SHOWN = {
    "torch-images": ("images/s", "CPU-s/GB", "requests an object"),
    "torch-checkpoint": ("MB/s", "CPU-s/GB", "memory beyond the tensors, MiB"),
}
"""Works, and which of their metrics, in the page about PyTorch."""


def record_case(
    work: Work, result: CaseResult, rows: Sequence[Row], missing: Mapping[str, str], setting: Setting, heading: str
) -> str:
    """The rows and the section of a case, which goes behind the section `heading`; returns the name of its own."""
    _merge(rows)
    versions = {
        client.name: clients.version_of(client, setting.place)
        for client in clients.CLIENTS
        if client.name not in clients.WITHOUT_VERSION and not clients.why_missing(client, setting.place)
    }
    report.write_section(TEXT, "preface", report.preface(_date(), _commit(), versions))
    report.write_section(TEXT, work.name, [f"## {work.title}"], after="preface")
    section = f"{work.name}: {result.case.name}"
    ours = "".join(f", {name}" for name in (setting.session, setting.mode) if name)
    lines = report.section(work, result, rows, setting.rounds, missing, f"{_occasion()}{ours}")
    report.write_section(TEXT, section, lines, after=heading)
    return section


def record_lines(name: str, rows: Sequence[Row], lines: Sequence[str]) -> None:
    """The rows and the section of what is no comparison of clients, and always measured as a whole."""
    _merge(rows, whole=name)
    report.write_section(TEXT, name, [*lines, f"{_occasion()}.", ""], after="preface")


def draw() -> None:
    """The pictures and the tables of the documents, of all that was ever measured."""
    document = results.read(ROWS)
    write_plots(document, PICTURES)
    for work, metrics in SHOWN.items():
        lines = digest(work, metrics, document, PICTURES.relative_to(PYTORCH.parent).as_posix())
        if lines:
            report.write_section(PYTORCH, work, lines)


def _merge(rows: Sequence[Row], *, whole: str = "") -> None:
    before = results.read(ROWS)
    results.write(ROWS, results.merged(before, rows, report.machine(), _date(), _commit(), whole=whole))


def _occasion() -> str:
    return f"{_date()}, commit {_commit()}, {report.processor()}"


def _date() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _commit() -> str:
    """The commit that is measured, with + where files of the product differ from it."""
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "-uno", "csi"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
