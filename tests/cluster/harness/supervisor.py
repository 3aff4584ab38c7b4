"""Process 1 of a cluster: makes the node's mounts and network, then starts, stops and reaps its processes on request.

`python -m tests.cluster.harness.supervisor STATE LOGS ADDRESS`, in new mount, network and pid namespaces. Prints
`ready` when it takes requests on the socket STATE/control: a line of JSON each, `{"start": NAME, "command": [...],
"log": PATH}`, `{"stop": NAME, "signal": N}`, `{"restart": NAME}` or `{"state": ""}`, answered by a line of JSON. With
`--until-stdin-closes` it ends when its standard input does, and everything inside with it: the kernel sees to that.

Nothing it does is seen outside: /run is a new tmpfs, /var/lib an overlay of the machine's, /var/log the directory LOGS,
and the three settings of the kernel that kubelet would change for the whole machine are covered by files that say that
it has done so.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csi.handover.mountinfo import read_mountinfo
from tests.cluster.harness.places import RUN, SERVICE_ADDRESS

_KUBELET_WANTS = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
_STOPPING = 20.0
"""Seconds until a component that was asked to end is killed."""


@dataclass
class Component:
    """`process` is None, and `status` its exit status, once it has ended."""

    command: list[str]
    log: str
    process: subprocess.Popen[bytes] | None = None
    status: int | None = None


@dataclass
class Supervisor:
    components: dict[str, Component] = field(default_factory=dict)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request:
            case {"start": name, "command": command, "log": log}:
                self._start(name, Component(command, log))
            case {"stop": name, "signal": number}:
                self._stop(self.components[name], number)
            case {"restart": name}:
                self._stop(self.components[name], signal.SIGTERM)
                self._start(name, self.components[name])
        return {name: self._state(component) for name, component in self.components.items()}

    def reap(self) -> None:
        """Of all that ended, also orphans such as containers' shims."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                self._ended(*found)

    def _start(self, name: str, component: Component) -> None:
        with open(component.log, "ab") as log:
            component.process = subprocess.Popen(
                component.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )
        component.status = None
        self.components[name] = component

    def _stop(self, component: Component, number: int) -> None:
        if component.process is None:
            return
        process = component.process
        os.kill(process.pid, number)
        try:
            status = process.wait(_STOPPING)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        component.process, component.status = None, status

    def _ended(self, pid: int, status: int) -> None:
        for component in self.components.values():
            if component.process is not None and component.process.pid == pid:
                component.process.returncode = component.status = os.waitstatus_to_exitcode(status)
                component.process = None

    def _state(self, component: Component) -> dict[str, int | None]:
        return {"pid": None if component.process is None else component.process.pid, "status": component.status}


def main() -> None:
    state, logs, address = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    _make_mounts(state, logs)
    _make_network(address)
    _serve(state, until_stdin_closes="--until-stdin-closes" in sys.argv)


def _make_mounts(state: Path, logs: Path) -> None:
    _run("mount", "--make-rprivate", "/")  # first: a machine whose mounts are shared must not see ours
    _leave_foreign_mounts(state)
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "cluster-run", "/run")
    RUN.mkdir(mode=0o755)
    _run("mount", "--bind", str(logs), "/var/log")
    upper, work = RUN / "var-lib", RUN / "var-lib-work"
    for directory in (upper, work):
        directory.mkdir(mode=0o755)
    _run(
        "mount", "-t", "overlay", "-o", f"lowerdir=/var/lib,upperdir={upper},workdir={work}", "cluster-lib", "/var/lib"
    )
    _bind(state / "kubelet", Path("/var/lib/kubelet"))
    if _is_overlay(state):  # a checkout inside a container: overlayfs takes no overlayfs to write to
        (state / "containerd").mkdir(mode=0o755)
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "cluster-images", str(state / "containerd"))
    for name, value in _KUBELET_WANTS.items():
        stand_in = RUN / name.replace("/", "-")
        stand_in.write_text(value + "\n")
        _run("mount", "--bind", str(stand_in), f"/proc/sys/{name}")
    if not os.path.ismount("/sys/fs/fuse/connections"):
        _run("mount", "-t", "fusectl", "fusectl", "/sys/fs/fuse/connections")
    _run("mount", "--make-rshared", "/")


def _leave_foreign_mounts(state: Path) -> None:
    """Of FUSE, but for one this checkout lies on: as long as a copy is mounted here, its server waits for more work,
    also when everybody else has unmounted it."""
    mounts = [entry for entry in read_mountinfo() if entry.fstype == "fuse" or entry.fstype.startswith("fuse.")]
    for entry in reversed(mounts):
        if not state.is_relative_to(entry.target):
            _run("umount", "--lazy", "--no-canonicalize", "--", entry.target)


def _bind(source: Path, target: Path) -> None:
    source.mkdir(mode=0o755)
    target.mkdir(mode=0o755, exist_ok=True)
    _run("mount", "--bind", str(source), str(target))


def _is_overlay(directory: Path) -> bool:
    found = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=True)
    return found.stdout.strip() == "overlayfs"


def _make_network(address: str) -> None:
    """kubelet wants a node address that is not loopback, the API server a default route; both lead nowhere."""
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "node0", "type", "veth", "peer", "name", "node0-peer")
    _run("ip", "address", "add", f"{address}/24", "dev", "node0")
    _run("ip", "address", "add", f"{SERVICE_ADDRESS}/32", "dev", "node0")
    for end in ("node0", "node0-peer"):
        _run("ip", "link", "set", end, "up")
    _run("ip", "route", "add", "default", "dev", "node0")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _serve(state: Path, until_stdin_closes: bool) -> None:
    supervisor = Supervisor()
    wakeup, notify = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(notify)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    os.chdir(state)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("control")  # relative: the whole path may be longer than a socket's name can be
    listener.listen()
    os.chdir("/")
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(wakeup, selectors.EVENT_READ)
        if until_stdin_closes:
            selector.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    for line, connection in _requests(listener):
                        connection.sendall(json.dumps(_answer(supervisor, line)).encode() + b"\n")
                elif key.fileobj == wakeup:
                    os.read(wakeup, 4096)
                    supervisor.reap()
                elif not os.read(sys.stdin.fileno(), 4096):
                    return


def _requests(listener: socket.socket) -> Iterator[tuple[str, socket.socket]]:
    connection, _ = listener.accept()
    with connection, connection.makefile() as lines:
        for line in lines:
            yield line, connection


def _answer(supervisor: Supervisor, line: str) -> dict[str, Any]:
    try:
        supervisor.reap()
        return {"components": supervisor.answer(json.loads(line))}
    except (OSError, KeyError, ValueError) as refused:
        return {"error": f"{line.strip()}: {refused!r}"}


def _run(*command: str) -> None:
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"the cluster's namespaces: {' '.join(command)}: {done.stdout.strip()}")


if __name__ == "__main__":
    main()
