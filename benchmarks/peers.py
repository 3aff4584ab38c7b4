"""How each client is mounted on the same server: ours, s3fs and rclone, each with its defaults unless said here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 30
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"}
"""Nothing of the caller's: proxies and cloud settings would bend a client."""


@dataclass(frozen=True, slots=True)
class Mounted:
    root: Path
    daemons: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """Where the bucket is: `endpoint` is http://host:port, anonymous reads are allowed."""

    endpoint: str
    bucket: str
    credential_file: Path


def is_mounted(path: Path) -> bool:
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def command_for(name: str, server: Server, prefix: str, target: Path, scratch: Path) -> list[str]:
    """The command line that mounts `prefix` of the bucket in the foreground."""
    if name == "ossfuse":
        return [
            str(Path(sys.executable).with_name("ossfuse")),
            "mount",
            f"oss://{server.bucket}/{prefix}",
            str(target),
            "--url",
            server.endpoint,
            "--credentials",
            str(server.credential_file),
        ]
    if name == "s3fs":
        options = f"url={server.endpoint},use_path_request_style,public_bucket=1,allow_other"
        return ["s3fs", f"{server.bucket}:/{prefix.rstrip('/')}", str(target), "-f", "-o", options]
    if name == "rclone":
        remote = f":s3,provider=Other,env_auth=false,endpoint='{server.endpoint}':{server.bucket}/{prefix.rstrip('/')}"
        return [
            "rclone", "mount", remote, str(target), "--read-only", "--use-server-modtime", "--allow-other",
            "--config", str(scratch / "rclone.conf"), "--cache-dir", str(scratch / "rclone-cache"),
        ]  # fmt: skip
    raise ValueError(f"no such client: {name}")


def descendants(pid: int) -> tuple[int, ...]:
    """`pid` and the processes below it (proc(5), /proc/PID/task/TID/children)."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found.extend(descendants(int(child)))
    return tuple(found)


@contextmanager
def mounted(name: str, server: Server, prefix: str, scratch: Path) -> Iterator[Mounted]:
    """A fresh mount; unmounted, its process gone, on leaving."""
    target = scratch / f"mnt-{name}"
    target.mkdir(exist_ok=True)
    with (scratch / f"{name}.log").open("ab") as log:
        command = command_for(name, server, prefix, target, scratch)
        process = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not is_mounted(target):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not mount; see {scratch / f'{name}.log'}")
            time.sleep(0.05)
        target.stat()  # answered only once the daemon serves
        yield Mounted(target, descendants(process.pid))
    finally:
        if name == "ossfuse":
            process.terminate()
        else:
            subprocess.run(["umount", str(target)], check=False)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        subprocess.run(["umount", "-l", str(target)], check=False, stderr=subprocess.DEVNULL)
