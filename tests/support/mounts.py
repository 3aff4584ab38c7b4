"""Real FUSE mounts for tests: mounted here, served by another process, always gone at the end.

The server must be another process: a test that waits in a system call on a mount which its own process serves waits for
ever. Whatever happens in the test, the connection is aborted (which frees every caller), the mount is detached and the
server is killed and reaped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from csi.errors import MountError
from csi.handover.kernel import MNT_DETACH, MS_NODEV, MS_NOSUID, MS_RDONLY, LinuxKernel
from tests.support.secret_watch import search_log

SOURCE_ROOT = Path(__file__).resolve().parents[2]
_MOUNT_DATA = "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"


class ServerFailed(AssertionError):
    """The process that should serve the mount did not get ready, or ended badly."""


@dataclass
class ServedMount:
    """`path` is the mount point, `log` what the server wrote to stderr (complete only after the end)."""

    path: Path
    process: subprocess.Popen[bytes]
    connection: Path
    log_file: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def abort(self) -> None:
        """End the connection as the node plugin does: every caller gets ENOTCONN."""
        (self.connection / "abort").write_text("1")

    def unmount(self, timeout: float = 30.0) -> int:
        """Plain umount, then wait for the server: its exit status."""
        LinuxKernel().umount2(str(self.path), 0)
        return self.process.wait(timeout)

    def terminate(self, timeout: float = 30.0) -> int:
        """SIGTERM, then wait for the server: its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def mountpoint_minor(path: Path) -> int | None:
    """Minor device number of the topmost mount on `path` (the name of its fusectl directory), from mountinfo."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split(" ")
            if fields[4] == str(path):
                found = int(fields[2].split(":")[1])
    return found


@contextlib.contextmanager
def served_mount(
    directory: Path,
    command: Sequence[str],
    *,
    read_only: bool = False,
    ready_timeout: float = 20.0,
    patience: float = 150.0,
    tuning: bool = False,
) -> Iterator[ServedMount]:
    """Mount below `directory` and serve with `python -m command… --descriptor N`.

    The server prints one line on stdout when it has answered INIT. `tuning` raises the mount's read-ahead as the node
    plugin does. After `patience` seconds the connection is aborted, so that a test stuck in a system call fails instead
    of hanging for ever. Raises ServerFailed with the server's stderr when the line does not come.
    """
    path, control, log_file = directory / "mount", directory / "fusectl", directory / "server.log"
    path.mkdir(parents=True)
    control.mkdir()
    kernel = LinuxKernel()
    with contextlib.ExitStack() as stack:
        stack.callback(search_log, log_file)
        # a fusectl of our own: this machine may not have it on /sys/fs/fuse/connections
        kernel.mount("fusectl", str(control), "fusectl", MS_NODEV | MS_NOSUID, "")
        stack.callback(kernel.umount2, str(control), MNT_DETACH)
        with contextlib.closing(_Descriptor(kernel.open_fuse_device())) as device:
            flags = MS_NODEV | MS_NOSUID | (MS_RDONLY if read_only else 0)
            kernel.mount("ossfuse:test", str(path), "fuse.ossfuse", flags, _MOUNT_DATA.format(device.number))
            stack.callback(_detach, path)
            minor = mountpoint_minor(path)
            connection = control / str(minor)
            stack.callback(_abort, path, connection)
            process = _start([*command, "--descriptor", str(device.number)], device.number, log_file)
            stack.callback(_kill, process)
            watchdog = threading.Timer(patience, _abort, [path, connection])
            watchdog.start()
            stack.callback(watchdog.cancel)
        mount = ServedMount(path, process, connection, log_file)
        _await_ready(mount, ready_timeout)
        if tuning:
            Path(f"/sys/class/bdi/0:{minor}/read_ahead_kb").write_text("1024")
        # callers that hang must be freed first, before anything waits for them or for the server
        stack.callback(_abort, path, connection)
        yield mount


@dataclass
class _Descriptor:
    number: int

    def close(self) -> None:
        os.close(self.number)


def _start(arguments: list[str], descriptor: int, log_file: Path) -> subprocess.Popen[bytes]:
    with log_file.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,  # the server ends when this closes, however the test process dies
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=[descriptor],
            cwd=SOURCE_ROOT,
            start_new_session=True,
        )


def _await_ready(mount: ServedMount, timeout: float) -> None:
    assert mount.process.stdout is not None
    watchdog = threading.Timer(timeout, mount.process.kill)
    watchdog.start()
    try:
        line = mount.process.stdout.readline()
    finally:
        watchdog.cancel()
        watchdog.join()
    if line != b"ready\n":
        mount.process.kill()
        mount.process.wait()
        raise ServerFailed(f"the server said {line!r} instead of ready:\n{mount.log()}")


def _abort(path: Path, connection: Path) -> None:
    """Unless it has gone with its mount: its number may be that of another mount by now."""
    if mountpoint_minor(path) != int(connection.name):
        return
    with contextlib.suppress(OSError):
        (connection / "abort").write_text("1")


def _detach(path: Path) -> None:
    while mountpoint_minor(path) is not None:
        with contextlib.suppress(MountError):  # gone in between
            LinuxKernel().umount2(str(path), MNT_DETACH)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
