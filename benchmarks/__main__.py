"""`python -m benchmarks`: the whole harness, or a part of it. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import datetime
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import alone, clients, growth, loads, report, results, runner
from benchmarks.clients import Client, Place
from benchmarks.model import OURS, QUICK, Case, Ground, Row, Sizes, Work
from benchmarks.nginx import Line
from benchmarks.plots import write_plots
from benchmarks.server import Server, serving
from benchmarks.works import WORKS, by_name

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
CACHE = ROOT / ".cache" / "bench"
ROUNDS = 5


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # mounts and servers are taken down on the way out
    options = _options()
    console = Console()
    sizes = QUICK if options.quick else Sizes()
    wanted = options.work.split(",") if options.work else [*(work.name for work in WORKS), alone.NAME, growth.NAME]
    works = [by_name(name) for name in wanted if name not in (alone.NAME, growth.NAME)]
    place = Place(CACHE / "bin", CACHE / "venv")
    chosen, missing = _clients(options.peers, place)
    for name, reason in missing.items():
        console.print(f"[yellow]{name}[/] takes no part: {reason}")
    latencies = sorted({0, *(case.latency_ms for work in works for case in work.cases(sizes))})
    with tempfile.TemporaryDirectory(prefix="ossfuse-bench-") as directory:
        load = loads.build(place.built)
        python = place.venv / "bin" / "python"
        ground = Ground(load, "", "", Path(directory), python if python.exists() else Path(sys.executable), sizes)
        with serving(Path(directory), load, [Line(latency, options.rate) for latency in latencies]) as server:
            setting = runner.Setting(
                1 if options.quick and not options.rounds else options.rounds or ROUNDS,
                options.session,
                options.rate,
                place,
                _at(ground, server),
                lambda text: console.print(text, style="dim", highlight=False, soft_wrap=True),
            )
            for work in works:
                _run_work(work, _cases(work, sizes, options.cases), chosen, missing, server, setting, options, console)
            if growth.NAME in wanted:
                _finish(growth.NAME, growth.measure(server, setting), setting, options, console)
    if alone.NAME in wanted:
        found = alone.measure(setting.rounds, setting.tell, quick=options.quick)
        _finish(alone.NAME, found, setting, options, console)
    if not options.quick or options.write:
        write_plots(results.read(HERE / "results.json"), ROOT / "docs" / "benchmarks")


def _run_work(
    work: Work,
    cases: Sequence[Case],
    chosen: Sequence[Client],
    missing: Mapping[str, str],
    server: Server,
    setting: runner.Setting,
    options: argparse.Namespace,
    console: Console,
) -> None:
    if not cases:
        return
    server.provide(work.files(setting.ground.sizes))
    kinds = {client.name: client.kind for client in clients.CLIENTS}
    for case in cases:
        result = runner.run_case(work, case, _taking_part(work, chosen), server, setting)
        made = report.rows_of(work, result, kinds)
        report.show(console, work, result, made)
        if options.quick and not options.write:
            continue
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        _write(
            work, result, made, missing, setting, date, [client for client in chosen if client.name in result.samples]
        )


def _finish(
    name: str,
    found: tuple[list[Row], list[str]],
    setting: runner.Setting,
    options: argparse.Namespace,
    console: Console,
) -> None:
    """The rows and the section of what is no comparison of clients."""
    rows, lines = found
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    if options.quick and not options.write:
        return
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    _merge(rows, date)
    report.write_section(HERE / "RESULTS.md", name, lines, after="preface")


def _merge(rows: Sequence[Row], date: str) -> None:
    path = HERE / "results.json"
    results.write(path, results.merged(results.read(path), rows, report.machine(), date, commit()))


def _write(
    work: Work,
    result: runner.CaseResult,
    made: Sequence[Row],
    missing: Mapping[str, str],
    setting: runner.Setting,
    date: str,
    present: Sequence[Client],
) -> None:
    text = HERE / "RESULTS.md"
    _merge(made, date)
    versions = {client.name: clients.version_of(client, setting.place) for client in clients.CLIENTS}
    here = {
        name: version
        for name, version in versions.items()
        if clients.why_missing(clients.by_name(name), setting.place) == ""
    }
    report.write_section(text, "preface", report.preface(date, commit(), here, setting.session))
    report.write_section(text, work.name, [f"## {work.title}"], after="preface")
    report.write_section(
        text,
        f"{work.name}: {result.case.name}",
        report.section(work, result, made, setting.rounds, missing, f"{date}, commit {commit()}"),
        after=work.name,
    )


def _at(ground: Ground, server: Server) -> Ground:
    return Ground(ground.load, server.emulator, server.bucket, ground.scratch, ground.python, ground.sizes)


def _clients(names: str, place: Place) -> tuple[list[Client], dict[str, str]]:
    """Those that were asked for and are here, ours among them, and why the others are not."""
    wanted = [clients.by_name(name.strip()) for name in names.split(",")] if names else list(clients.CLIENTS)
    if not any(client.name == OURS for client in wanted):
        wanted.insert(0, clients.by_name(OURS))
    missing = {client.name: reason for client in wanted if (reason := clients.why_missing(client, place))}
    return [client for client in wanted if client.name not in missing], missing


def _taking_part(work: Work, chosen: Sequence[Client]) -> list[Client]:
    """A work names its clients, or takes all that were asked for but those that are for one work only."""
    if work.only:
        return [client for client in clients.CLIENTS if client.name in work.only]
    return [client for client in chosen if client.kind != clients.FOR_ONE_WORK]


def _cases(work: Work, sizes: Sizes, wanted: str) -> Sequence[Case]:
    """The cases with one of these texts (separated by semicolons) in their name, and none of those after a `!`."""
    texts = [text.strip() for text in wanted.split(";") if text.strip()]
    asked = [text for text in texts if not text.startswith("!")]
    unwanted = [text[1:] for text in texts if text.startswith("!")]
    return [
        case
        for case in work.cases(sizes)
        if (not asked or any(text in case.name for text in asked)) and not any(text in case.name for text in unwanted)
    ]


def commit() -> str:
    """The commit that is measured, with + where files differ from it."""
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "-uno", "csi"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--work", default="", help=f"of {', '.join(work.name for work in WORKS)}, session, growth; commas; all"
    )
    parser.add_argument(
        "--cases", default="", help="only cases with this text in their name; several with ;, not with !"
    )
    parser.add_argument("--peers", default="", help="only these clients, with commas; ours is always there")
    parser.add_argument("--rounds", type=int, default=0, help=f"{ROUNDS}, or 1 with --quick")
    parser.add_argument("--session", default="", help="session layer of ours: pyfuse3 or the other; its default")
    parser.add_argument("--rate", type=int, default=0, help="bytes a second a connection may have; without it any")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, nothing written")
    parser.add_argument("--write", action="store_true", help="write results also with --quick")
    return parser.parse_args()


if __name__ == "__main__":
    main()
