"""`python -m benchmarks`: the whole harness, or a part of it. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks import alone, clients, growth, loads, record, report, runner
from benchmarks.clients import Client, Place
from benchmarks.model import OURS, QUICK, Case, Ground, Row, Sizes, Work
from benchmarks.nginx import Line
from benchmarks.server import Server, serving
from benchmarks.works import WORKS, by_name, torch_programs

CACHE = record.ROOT / ".cache" / "bench"
ROUNDS = 5


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # mounts and servers are taken down on the way out
    options = _options()
    if options.draw:
        record.draw()
        return
    console = Console()
    sizes = QUICK if options.quick else Sizes()
    wanted = options.work.split(",") if options.work else [*(work.name for work in WORKS), alone.NAME, growth.NAME]
    works = [by_name(name) for name in wanted if name not in (alone.NAME, growth.NAME)]
    place = Place(CACHE / "bin", CACHE / "venv", torch_programs.VENV)
    chosen, missing = _clients(options.peers, place)
    for name, reason in missing.items():
        console.print(f"[yellow]{name}[/] takes no part: {reason}")
    latencies = sorted({0, *(case.latency_ms for work in works for case in work.cases(sizes))})
    with tempfile.TemporaryDirectory(prefix="ossfuse-bench-") as directory:
        load = loads.build(place.built)
        python = place.venv / "bin" / "python"
        python = python if python.exists() else Path(sys.executable)
        ground = Ground(load, "", "", Path(directory), python, sizes)
        with serving(Path(directory), load, [Line(latency, options.rate) for latency in latencies]) as server:
            setting = runner.Setting(
                1 if options.quick and not options.rounds else options.rounds or ROUNDS,
                options.session,
                options.mode,
                options.rate,
                place,
                _at(ground, server),
                lambda text: console.print(text, style="dim", highlight=False, soft_wrap=True),
            )
            for number, work in enumerate(works, 1):
                _run_work(work, _cases(work, sizes, options.cases), chosen, missing, server, setting, options, console)
                _forget(work, works[number:], server, sizes)
            if growth.NAME in wanted:
                _finish(growth.NAME, growth.measure(server, setting), setting, options, console)
    if alone.NAME in wanted:
        found = alone.measure(setting.rounds, setting.tell, quick=options.quick)
        _finish(alone.NAME, found, setting, options, console)
    if options.write or not options.quick:
        record.draw()


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
    heading = work.name
    for case in cases:
        result = runner.run_case(work, case, _taking_part(work, chosen), server, setting)
        made = report.rows_of(work, result, kinds)
        report.show(console, work, result, made)
        if options.write or not options.quick:
            heading = record.record_case(work, result, made, missing, setting, heading)


def _forget(work: Work, later: Sequence[Work], server: Server, sizes: Sizes) -> None:
    """Give back the memory of objects that no later work reads."""
    wanted = {files.prefix for other in later for files in other.files(sizes)}
    for files in work.files(sizes):
        if files.prefix not in wanted:
            server.remove(files.prefix)


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
    if options.write or not options.quick:
        record.record_lines(name, rows, lines)


def _at(ground: Ground, server: Server) -> Ground:
    return replace(ground, endpoint=server.emulator, bucket=server.bucket)


def _clients(names: str, place: Place) -> tuple[list[Client], dict[str, str]]:
    """Those that were asked for and are here, ours among them, and why the others are not."""
    wanted = [clients.by_name(name.strip()) for name in names.split(",")] if names else list(clients.CLIENTS)
    if not any(client.name == OURS for client in wanted):
        wanted.insert(0, clients.by_name(OURS))
    missing = {client.name: reason for client in wanted if (reason := clients.why_missing(client, place))}
    return [client for client in wanted if client.name not in missing], missing


def _taking_part(work: Work, chosen: Sequence[Client]) -> list[Client]:
    """Of those that were asked for: the ones a work names, or all but those that are for some works only."""
    if work.only:
        return [client for client in chosen if client.name in work.only]
    return [client for client in chosen if client.kind not in (clients.FOR_ONE_WORK, clients.FOR_TRAINING)]


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
    parser.add_argument("--mode", default="", help="mode of ours (fast, readonly, …); its default, fast")
    parser.add_argument("--rate", type=int, default=0, help="bytes a second a connection may have; without it any")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, nothing written")
    parser.add_argument(
        "--draw", action="store_true", help="measure nothing: pictures and tables of docs from the results"
    )
    parser.add_argument("--write", action="store_true", help="write results also with --quick")
    return parser.parse_args()


if __name__ == "__main__":
    main()
