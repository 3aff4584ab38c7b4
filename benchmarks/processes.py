"""What processes cost: CPU seconds and peak memory of a tree of them, from /proc; programs run and charged by wait4."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"}
"""Nothing of the caller's: proxies and cloud settings would bend a client."""


@dataclass(frozen=True, slots=True)
class Finished:
    status: int
    output: str
    seconds: float
    cpu: float
    peak: int


def descendants(pid: int) -> tuple[int, ...]:
    """`pid` and the processes below it (proc(5), /proc/PID/task/TID/children)."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found.extend(descendants(int(child)))
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(found)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User plus system time of processes, all threads and children they waited for (fields 14 to 17 of stat)."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / CLOCK_TICKS


def peak_memory(pids: Iterable[int]) -> dict[str, int]:
    """VmHWM of each process in bytes, by its name and pid."""
    found = {}
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        values = dict(line.split(":", 1) for line in lines if ":" in line)
        if "VmHWM" in values:
            found[f"{values['Name'].strip()}/{pid}"] = int(values["VmHWM"].split()[0]) * 1024
    return found


def drop_caches() -> None:
    """Page cache, dentries and inodes; what others have not written yet stays theirs."""
    Path("/proc/sys/vm/drop_caches").write_text("3")


def run(
    command: Sequence[str], environment: Mapping[str, str], patience: float = 900.0, given: Path | None = None
) -> Finished:
    """Run a program to its end; its CPU and peak memory include the children it waited for. After `patience` seconds it
    is killed, with all it started: status -9. `given` is a file that becomes its standard input."""
    source = None if given is None else given.open("rb")
    start = time.monotonic()
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL if source is None else source,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(ENVIRONMENT) | dict(environment),
        start_new_session=True,
    )
    if source is not None:
        source.close()
    assert process.stdout is not None
    ending = threading.Timer(patience, os.killpg, (process.pid, signal.SIGKILL))
    ending.start()
    try:
        output = process.stdout.read()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:  # told to stop: nothing may hold the mount that is now taken down
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        ending.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    return Finished(process.returncode, output, time.monotonic() - start, cpu, usage.ru_maxrss * 1024)
