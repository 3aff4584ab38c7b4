"""`python -m benchmarks.session`: the kernel session alone, beside C on libfuse. Prints tables, and writes rows."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks import report
from benchmarks.session.cases import selected
from benchmarks.session.compare import measure
from benchmarks.session.mounting import COMPARED, OURS, SERVERS
from benchmarks.session.results import rows, tables

_SECONDS, _QUICK_SECONDS = 0.9, 0.3
_WIDTH = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default="", help="kinds, names or quiet and busy, with commas; default: all")
    parser.add_argument("--servers", default=",".join(COMPARED), help=f"of {', '.join(SERVERS)}")
    parser.add_argument("--ours", default=OURS if OURS in SERVERS else "pyfuse3", help="which of them is compared")
    parser.add_argument(
        "--quick", action="store_true", help="a quarter of a second a case: is it alive, roughly how fast"
    )
    parser.add_argument("--json", type=Path, help="write the rows there")
    options = parser.parse_args()
    servers = options.servers.split(",")
    if unknown := set(servers) - set(SERVERS):
        parser.error(f"no such server: {', '.join(sorted(unknown))}")
    if options.ours not in servers:
        parser.error(f"--ours {options.ours} is not among --servers")
    try:
        cases = selected(frozenset(word for word in options.cases.split(",") if word))
    except ValueError as error:
        parser.error(str(error))

    samples = measure(
        options.rounds,
        cases,
        servers,
        _QUICK_SECONDS if options.quick else _SECONDS,
        said=lambda line: print(line, file=sys.stderr, flush=True),
    )

    console = Console(width=_WIDTH)
    console.print(report.machine())
    for table in tables(samples, options.ours):
        console.print(table)
    found = rows(samples, options.ours)
    for row in found:
        if not row.holds:
            console.print(f"below the bar of {row.bar}: {row.case} is {row.value} × {row.peer}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
