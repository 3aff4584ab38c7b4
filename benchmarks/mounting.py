"""A client's mount for one run: started in the foreground, found serving, taken down with all of its processes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.clients import FOR_ONE_WORK, FOR_TRAINING, Client, Mounting, Place
from benchmarks.processes import ENVIRONMENT, descendants

READY_SECONDS = 60
END_SECONDS = 120
"""Some clients finish uploads while they unmount."""


class MountFailed(Exception):
    """A client did not come up; the text names its log."""


@dataclass(frozen=True, slots=True)
class Mounted:
    root: Path
    pid: int

    @property
    def processes(self) -> tuple[int, ...]:
        return descendants(self.pid)


def _serves(path: Path) -> bool:
    """Whether the mount is there and answers, which a daemon does only once it serves."""
    try:
        return is_mounted(path) and path.stat().st_ino > 0
    except OSError:
        return False


def is_mounted(path: Path) -> bool:
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


@contextmanager
def mounted(client: Client, wanted: Mounting, place: Place) -> Iterator[Mounted]:
    """A fresh mount; unmounted, its processes gone, on leaving. Raises MountFailed."""
    assert client.command is not None
    wanted.target.mkdir(parents=True, exist_ok=True)
    log_path = wanted.scratch / f"{client.name.replace(' ', '-')}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            client.command(wanted, place),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=ENVIRONMENT | dict(client.environment),
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _serves(wanted.target):
            if process.poll() is not None or time.monotonic() > deadline:
                raise MountFailed(f"{client.name} did not mount: {_last_line(log_path)}")
            time.sleep(0.02)
        yield Mounted(wanted.target, process.pid)
    finally:
        _end(client, wanted.target, process)


def _end(client: Client, target: Path, process: subprocess.Popen[bytes]) -> None:
    if client.kind in ("ours", FOR_ONE_WORK, FOR_TRAINING):
        process.terminate()
    elif subprocess.run(["umount", str(target)], check=False, stderr=subprocess.DEVNULL).returncode:
        process.terminate()  # somebody still holds the mount; most daemons unmount when told to end
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    while is_mounted(target):
        if subprocess.run(["umount", "-l", str(target)], check=False, stderr=subprocess.DEVNULL).returncode:
            break


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"it said nothing; see {log}"
