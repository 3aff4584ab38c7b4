"""`ossfuse node` and `ossfuse controller` as the processes they are on a machine, gone when the block ends."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import grpc

from csi.v1 import csi_pb2_grpc
from tests.support.node import Node
from tests.support.secret_watch import search_log

OSSFUSE = Path(sys.executable).with_name("ossfuse")


class LoggedProcess:
    """A process whose standard error goes to `log_file`, also what its children write there."""

    def __init__(self, arguments: list[str], log_file: Path, ready: str) -> None:
        self.log_file = log_file
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            [str(OSSFUSE), *arguments, "--log-format", "text", "--log-level", "debug"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self._pump = threading.Thread(target=self._copy, args=(self.process.stderr, ready))
        self._pump.start()

    def wait_ready(self) -> None:
        assert self._ready.wait(30), f"{self.process.args} is not ready; its log: {self.log()}"
        assert self.process.poll() is None, self.log()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def end(self) -> int:
        """SIGTERM; the exit status. May be called again."""
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise

    def join_log(self) -> None:
        """Wait until nobody writes to the log any more."""
        self._pump.join(30)

    def _copy(self, source: IO[str], ready: str) -> None:
        with source, self.log_file.open("a") as log:
            for line in source:
                log.write(line)
                log.flush()
                if ready in line:
                    self._ready.set()
        self._ready.set()


@dataclass
class CsiProcesses:
    """`home` is all they use: sockets, state directory, logs; publish below it. `machine` looks for what is left."""

    home: Path
    machine: Node
    node_process: LoggedProcess
    controller_process: LoggedProcess
    node: csi_pb2_grpc.NodeStub
    controller: csi_pb2_grpc.ControllerStub
    identity: csi_pb2_grpc.IdentityStub

    @property
    def node_socket(self) -> Path:
        return self.home / "node.sock"

    @property
    def controller_socket(self) -> Path:
        return self.home / "controller.sock"

    def log(self) -> str:
        return self.node_process.log() + self.controller_process.log()


@contextlib.contextmanager
def csi_processes(home: Path) -> Iterator[CsiProcesses]:
    """Both services on sockets of their own. Whatever is published must be unpublished by the end of the block."""
    with contextlib.ExitStack() as stack:
        machine = Node(home)
        stack.callback(machine.clean)
        node = _node(home, machine)
        stack.callback(_kill, node)
        controller = LoggedProcess(
            ["controller", "--endpoint", f"unix://{home}/controller.sock"], home / "controller.log", "listens on"
        )
        stack.callback(_kill, controller)
        node.wait_ready()
        controller.wait_ready()
        node_channel = stack.enter_context(grpc.insecure_channel(f"unix:{home}/node.sock"))
        controller_channel = stack.enter_context(grpc.insecure_channel(f"unix:{home}/controller.sock"))
        yield CsiProcesses(
            home,
            machine,
            node,
            controller,
            csi_pb2_grpc.NodeStub(node_channel),
            csi_pb2_grpc.ControllerStub(controller_channel),
            csi_pb2_grpc.IdentityStub(node_channel),
        )
        assert controller.end() == 0, controller.log()
        assert node.end() == 0, node.log()
        left = machine.leftovers()
        assert left == [], left
        controller.join_log()
        node.join_log()


@contextlib.contextmanager
def restarted(before: CsiProcesses) -> Iterator[CsiProcesses]:
    """The node plugin that follows one that has ended, on the same socket and state directory."""
    node = _node(before.home, before.machine)
    try:
        node.wait_ready()
        with grpc.insecure_channel(f"unix:{before.node_socket}") as channel:
            yield replace(
                before,
                node_process=node,
                node=csi_pb2_grpc.NodeStub(channel),
                identity=csi_pb2_grpc.IdentityStub(channel),
            )
        assert node.end() == 0, node.log()
        node.join_log()
    finally:
        _kill(node)


@dataclass
class NodePlugin:
    """`ossfuse node` alone."""

    process: LoggedProcess
    stub: csi_pb2_grpc.NodeStub

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        _kill(self.process)


@contextlib.contextmanager
def node_plugin(home: Path, machine: Node) -> Iterator[NodePlugin]:
    """A node plugin on the socket and the state directory of `home`, after any other one or as the first. What it
    publishes stays when it ends."""
    process = _node(home, machine)
    try:
        process.wait_ready()
        with grpc.insecure_channel(f"unix:{home}/node.sock") as channel:
            yield NodePlugin(process, csi_pb2_grpc.NodeStub(channel))
        if process.process.poll() is None:
            assert process.end() == 0, process.log()
    finally:
        _kill(process)


def _node(home: Path, machine: Node) -> LoggedProcess:
    arguments = ["--endpoint", f"unix://{home}/node.sock", "--node-id", "node-1", "--state-dir", str(machine.state)]
    return LoggedProcess(["node", *arguments], home / "node.log", "is ready")


def _kill(process: LoggedProcess) -> None:
    if process.process.poll() is None:
        process.process.kill()
        process.process.wait(10)
    search_log(process.log_file)
