"""Where a sidecar runs: as a local process of this machine.

The process is put into its memory cgroup before Python starts, so that every byte it ever uses counts. It starts as
root only because the interpreter may lie where nobody else can read (a virtual environment under /root): it imports
what it needs and then gives up every right before it says HELLO (`csi/sidecar/privileges.py`), which the node plugin
checks by SO_PEERCRED. It has a session of its own, so it outlives the node plugin. Its argv and
environment hold no secret.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from csi.errors import SidecarFailed
from csi.handover.cgroup import MemoryCgroup
from csi.volume.naming import SESSIONS
from csi.volume.units import GIB, Bytes, Seconds

_log = logging.getLogger(__name__)

_PATIENCE: Final = Seconds(300.0)
"""How long a local sidecar waits for its volume: a node plugin that has died will not offer it one."""
_REAPING: Final = Seconds(5.0)
SIDECAR_UID: Final = 65534
SIDECAR_GID: Final = 65534
_STANDARD_ERROR: Final = 2
_ENTER_CGROUP: Final = 'echo 0 > "$0/cgroup.procs" && exec "$@"'


class SidecarProcess(Protocol):
    """A sidecar that was started, or found running. `fileno()` (a pidfd) becomes readable when it has ended."""

    pid: int

    def fileno(self) -> int: ...

    def poll(self) -> int | None:
        """None while it runs; then its exit status as `subprocess` gives it (0 when not known: not our child)."""

    def wait(self, timeout: Seconds) -> bool:
        """Whether it ended within `timeout`."""

    def signal(self, number: int) -> None:
        """Send a signal; one that has ended is no error."""

    def stopped(self) -> bool:
        """Whether it is stopped (SIGSTOP) and so cannot answer anybody."""

    def holds_device(self) -> bool:
        """Whether it has a /dev/fuse descriptor open, so that some mount still has a server."""

    def close(self) -> None:
        """Let go of the descriptor; the process goes on."""


class Launcher(Protocol):
    def launch(self, runtime: Path, memory: MemoryCgroup, limit: Bytes) -> SidecarProcess:
        """Start a sidecar that connects to the socket in `runtime`. Raises SidecarFailed."""


class LocalProcess:
    """`child` is None for a process that an earlier node plugin started. A pidfd cannot mean another process."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        """Raises ProcessLookupError when there is no such process."""
        self.pid = pid
        self._child = child
        self._pidfd = os.pidfd_open(pid)
        self._status: int | None = None

    def fileno(self) -> int:
        return self._pidfd

    def poll(self) -> int | None:
        if self._status is None:
            if self._child is not None:
                self._status = self._child.poll()
            elif self._ended(0):
                self._status = 0
        return self._status

    def wait(self, timeout: Seconds) -> bool:
        return self.poll() is not None or (self._ended(timeout) and self.poll() is not None)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self._pidfd, number)

    def stopped(self) -> bool:
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return False
        return state.rpartition(")")[2].split()[:1] in (["T"], ["t"])

    def holds_device(self) -> bool:
        directory = f"/proc/{self.pid}/fd"
        with contextlib.suppress(OSError):
            for name in os.listdir(directory):
                with contextlib.suppress(OSError):
                    if os.readlink(f"{directory}/{name}").endswith("/fuse"):
                        return True
        return False

    def close(self) -> None:
        if self._pidfd >= 0:
            self.poll()
            os.close(self._pidfd)
            self._pidfd = -1

    def _ended(self, timeout: float) -> bool:
        if self._pidfd < 0:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout) * 1000))


@dataclass(frozen=True, slots=True)
class LocalLauncher:
    """Starts sidecars as `python -I <entry>`; by path, so that it works installed or not. `stderr` is where their log
    goes (a descriptor; None: the node plugin's own), `session` which code serves the mount."""

    log_format: str = "json"
    log_level: str = "info"
    stderr: int | None = None
    session: str = SESSIONS[0]
    interpreter: str = sys.executable
    entry: Path = Path(__file__).resolve().parent.parent / "sidecar" / "__main__.py"

    def launch(self, runtime: Path, memory: MemoryCgroup, limit: Bytes) -> SidecarProcess:
        command = [self.interpreter, "-I", str(self.entry), "--socket", str(runtime)]
        command += ["--patience", f"{_PATIENCE:g}", "--ready-file", ""]
        command += ["--session", self.session, "--log-format", self.log_format, "--log-level", self.log_level]
        return start_in_cgroup(command, memory, environment=sidecar_environment(limit), stderr=self.stderr)


def start_in_cgroup(
    command: Sequence[str], memory: MemoryCgroup, *, environment: dict[str, str], stderr: int | None = None
) -> LocalProcess:
    """Run `command` in a session of its own, inside `memory` from its first instruction on. Raises SidecarFailed."""
    log = _STANDARD_ERROR if stderr is None else stderr
    try:
        child = subprocess.Popen(
            ["/bin/sh", "-c", _ENTER_CGROUP, str(memory.path), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd="/",
            close_fds=True,
            start_new_session=True,
        )
    except OSError as error:
        raise SidecarFailed(
            f"the sidecar could not be started: {error.strerror}",
            hint="the node may be out of processes or memory: look at pids.max and dmesg",
        ) from error
    try:
        return LocalProcess(child.pid, child)
    except OSError as error:
        child.kill()
        child.wait()
        raise SidecarFailed(f"pidfd_open failed: {error.strerror}", hint="Linux 5.3 or newer is needed") from error


def sidecar_environment(limit: Bytes) -> dict[str, str]:
    """All of a local sidecar's environment."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        **allocator_environment(limit),
    }


def allocator_environment(limit: Bytes) -> dict[str, str]:
    """What any sidecar needs in its environment: the allocator keeps a little freed memory instead of giving each
    written MiB back to the kernel and fetching it again (a quarter of the CPU on writes), and opens no arena a
    thread."""
    keep = (limit // 16) if limit < GIB else GIB // 16
    return {
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024),
        "MALLOC_TRIM_THRESHOLD_": str(keep),
        "MALLOC_TOP_PAD_": str(keep // 4),
    }


def reap(process: SidecarProcess, memory: MemoryCgroup, *, patience: Seconds = _REAPING) -> None:
    """Make sure nothing of a sidecar runs any more."""
    memory.kill()
    process.signal(signal.SIGKILL)
    if not process.wait(patience):
        _log.warning("sidecar %d does not end; it is waiting inside the kernel", process.pid)
    process.close()


SidecarFinder = Callable[[int], SidecarProcess]
"""How a running sidecar is taken over by its pid: LocalProcess, or a stand-in in tests."""
