"""What a workload cost: wall time, and the CPU seconds and peak memory of the daemons that served it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. `cpu` and `peak_rss` are of the mount's daemon alone (all its processes), in seconds and bytes."""

    seconds: float
    cpu: float
    peak_rss: int
    bytes_read: int


def cpu_seconds(pids: Iterable[int]) -> float:
    """User plus system time of processes, all threads (proc(5), /proc/PID/stat fields 14 and 15)."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / CLOCK_TICKS


def peak_rss(pids: Iterable[int]) -> int:
    """Sum of VmHWM (proc(5), /proc/PID/status), bytes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1]) * 1024
    return total


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def run(work: Callable[[], int], pids: Iterable[int]) -> Sample:
    """Run `work` (returns the bytes it read) with cold caches and charge the daemons for it."""
    daemons = list(pids)
    drop_caches()
    before = cpu_seconds(daemons)
    start = time.monotonic()
    done = work()
    seconds = time.monotonic() - start
    return Sample(seconds, cpu_seconds(daemons) - before, peak_rss(daemons), done)


def read_file(path: Path) -> int:
    """Read a file from start to end in 1 MiB calls into one buffer; returns its length."""
    buffer = bytearray(1 << 20)
    total = 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while count := os.readv(descriptor, [buffer]):
            total += count
    finally:
        os.close(descriptor)
    return total


def read_tree(root: Path, threads: int) -> int:
    """List `root` once, then read every file in it with `threads` threads; returns the bytes read."""
    names = sorted(os.listdir(root))
    totals = [0] * threads
    failures: list[BaseException] = []

    def reader(index: int) -> None:
        try:
            for name in names[index::threads]:
                totals[index] += read_file(root / name)
        except OSError as error:
            failures.append(error)

    workers = [threading.Thread(target=reader, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return sum(totals)
