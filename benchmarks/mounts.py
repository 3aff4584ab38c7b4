"""Sequential and small-file reads through the mount, against s3fs and rclone on the same server.

One server for all: nginx sends object bodies, the emulator behind it answers everything else, no latency added.
Every round mounts each client afresh, in rotating order, with the page cache dropped. Writes benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import measure, report
from benchmarks.peers import Server, mounted
from benchmarks.servers import BUCKET, LARGE, SMALL, serve

CLIENTS = ("ossfuse", "s3fs", "rclone")
SMALL_THREADS = 8
RESULTS = Path(__file__).with_name("RESULTS.md")


def sequential(root: Path) -> int:
    return measure.read_file(root / "object")


def small_files(root: Path) -> int:
    return measure.read_tree(root, SMALL_THREADS)


def measure_all(
    server: Server, prefix: str, work: Callable[[Path], int], expected: int, rounds: int, scratch: Path
) -> dict[str, list[measure.Sample]]:
    samples: dict[str, list[measure.Sample]] = {name: [] for name in CLIENTS}
    for turn in range(rounds):
        order = CLIENTS[turn % len(CLIENTS) :] + CLIENTS[: turn % len(CLIENTS)]
        for name in order:
            with mounted(name, server, prefix, scratch) as mount:
                sample = measure.run(lambda root=mount.root: work(root), mount.daemons)  # type: ignore[misc]
            if sample.bytes_read != expected:
                raise SystemExit(f"{name} read {sample.bytes_read} bytes of {prefix}, expected {expected}")
            samples[name].append(sample)
            print(
                f"{prefix} round {turn + 1}/{rounds} {name}: {sample.seconds:.2f} s, cpu {sample.cpu:.2f} s", flush=True
            )
    return samples


def versions() -> str:
    s3fs = (
        subprocess.run(["s3fs", "--version"], capture_output=True, text=True, check=True)
        .stdout.split("V")[1]
        .split()[0]
    )
    rclone = subprocess.run(["rclone", "version"], capture_output=True, text=True, check=True).stdout.split()[1]
    return f"s3fs {s3fs}, rclone {rclone.removeprefix('v')}, Python {sys.version.split()[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large-mib", type=int, default=1024)
    parser.add_argument("--small-count", type=int, default=2000)
    parser.add_argument("--small-kib", type=int, default=100)
    arguments = parser.parse_args()
    large = arguments.large_mib << 20
    small = arguments.small_count * (arguments.small_kib << 10)
    with tempfile.TemporaryDirectory(prefix="ossfuse-bench-") as directory:
        scratch = Path(directory)
        with serve(scratch, large, arguments.small_count, arguments.small_kib << 10) as server:
            streams = measure_all(server, LARGE, sequential, large, arguments.rounds, scratch)
            files = measure_all(server, SMALL, small_files, small, arguments.rounds, scratch)
    mb_per_second = {name: [s.bytes_read / 1e6 / s.seconds for s in runs] for name, runs in streams.items()}
    per_second = {name: [arguments.small_count / s.seconds for s in runs] for name, runs in files.items()}
    lines = [
        "Reads through the mount: written by `make bench` (`benchmarks/mounts.py`). Compare within a table only: the",
        "machine is shared.",
        "",
        f"- Machine: {report.machine()}",
        f"- Date: {datetime.datetime.now(datetime.UTC).date().isoformat()}",
        f"- Clients: {versions()}, pyfuse3 session; each with its defaults, rclone with --use-server-modtime",
        f"- Server: nginx for bodies, the emulator behind it, loopback, no latency, bucket `{BUCKET}`",
        f"- {arguments.rounds} rounds, rotating order, fresh mounts, page cache dropped",
        "",
        f"## Sequential read of one object of {arguments.large_mib} MiB, one reader, 1 MiB calls",
        "",
        *report.table(streams, "MB/s", mb_per_second),
        "",
        f"## {arguments.small_count} files of {arguments.small_kib} KiB, listed once, {SMALL_THREADS} readers",
        "",
        *report.table(files, "files/s", per_second),
        "",
    ]
    report.write_section(RESULTS, "mounts", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
