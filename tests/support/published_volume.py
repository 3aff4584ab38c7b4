"""A volume published by a node plugin of this process and served by a real sidecar, for tests that break things.

What is in the bucket is read with oss2, past the mount; programs that touch the mount run in processes of their own, so
that a mount that hangs makes a test fail and not hang.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import oss2

from csi.handover.inheritance import Inheritance
from csi.handover.mounts import SidecarMounts
from csi.handover.removal import Patience
from csi.handover.types import PublishRequest
from csi.volume.parse import parse_volume
from tests.support.emulator import RunningEmulator
from tests.support.node import DEADLINE, SHORT, Node

SOURCE_ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "fs.oss.retry.count": "3",
    "fs.oss.retry.interval.millisecond": "50",
    "fs.oss.timeout.millisecond": "2000",
    "fs.oss.connection.timeout.millisecond": "1000",
}
"""Options of an impatient volume: no operation of its takes longer than a few seconds to fail."""
VOLUME_ID = "pv-broken"


def until(condition: Callable[[], object], timeout: float = 30.0) -> None:
    """Wait for something other processes bring about."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Bucket:
    """The objects of a test as another client sees them, keys without the volume's prefix."""

    def __init__(self, emulator: RunningEmulator, prefix: str = "data/") -> None:
        auth = oss2.Auth(emulator.access_key_id, emulator.access_key_secret)
        self.client = oss2.Bucket(auth, emulator.endpoint, emulator.bucket, is_path_style=True)
        self.prefix = prefix

    def get(self, name: str) -> bytes | None:
        """The whole object, None when there is none; its checksum is the one OSS has."""
        try:
            answer = self.client.get_object(self.prefix + name)
        except oss2.exceptions.NoSuchKey:
            return None
        data = bytes(answer.read())
        assert answer.client_crc == answer.server_crc
        return data

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(self.prefix + name, data)

    def names(self) -> set[str]:
        found = oss2.ObjectIteratorV2(self.client, prefix=self.prefix)
        return {entry.key.removeprefix(self.prefix) for entry in found}

    def uploads(self) -> list[str]:
        """Keys of multipart uploads that were begun and neither completed nor aborted."""
        return [upload.key for upload in self._begun()]

    def kept_uploads(self) -> list[str]:
        """Keys of those that hold parts. One without may stay after an outage: begun by a server that died before it
        told the id, which nobody can tell from one that another client has just begun."""
        return [begun.key for begun in self._begun() if self._holds_parts(begun)]

    def _holds_parts(self, begun: oss2.models.MultipartUploadInfo) -> bool:
        try:
            return any(oss2.PartIterator(self.client, begun.key, begun.upload_id))
        except oss2.exceptions.NoSuchUpload:  # ended since it was listed
            return False

    def _begun(self) -> Iterable[oss2.models.MultipartUploadInfo]:
        return oss2.MultipartUploadIterator(self.client)


class PublishedVolume:
    """`path` is the mount. `plugin` may be replaced by another one on the same node."""

    def __init__(self, node: Node, plugin: SidecarMounts, emulator: RunningEmulator, attributes: dict[str, str]):
        given = {"bucket": emulator.bucket, "url": emulator.endpoint, "path": "/data/", **attributes}
        self.node = node
        self.plugin = plugin
        self.bucket = Bucket(emulator)
        secret = {"akId": emulator.access_key_id, "akSecret": emulator.access_key_secret}
        self.request = PublishRequest(
            VOLUME_ID, node.target, parse_volume(given, cpu_count=2).spec, False, None, secret
        )

    @property
    def path(self) -> Path:
        return self.node.target

    def publish(self) -> None:
        self.plugin.publish(self.request, DEADLINE)

    def unpublish(self) -> None:
        self.plugin.unpublish(VOLUME_ID, self.path)

    def remains(self) -> list[str]:
        """What of the volume is on the machine: layers of mounts, processes, cgroups, runtime directories."""
        found = [f"mount layer {number}" for number in range(self.node.layers())]
        found += [f"process {pid}" for pid in self.node.sidecars()]
        found += [f"cgroup {path}" for path in self.node.cgroups()]
        return found + [f"runtime directory {name}" for name in self.plugin._state.names()]

    @property
    def sidecar(self) -> int:
        condition = self.plugin.condition(VOLUME_ID, self.path)
        assert condition is not None and condition.sidecar_pid is not None, condition
        return condition.sidecar_pid

    def kill_sidecar(self) -> None:
        """SIGKILL; returns when the node plugin has noticed."""
        os.kill(self.sidecar, signal.SIGKILL)
        until(self.is_abnormal)

    def is_abnormal(self) -> bool:
        condition = self.plugin.condition(VOLUME_ID, self.path)
        return condition is None or condition.abnormal


@contextlib.contextmanager
def published_volume(
    node: Node,
    emulator: RunningEmulator,
    *,
    patience: Patience = SHORT,
    inheritances: Callable[[], Inheritance] | None = None,
    **attributes: str,
) -> Iterator[PublishedVolume]:
    """Publish, and unpublish at the end; option keys with '__' for '.', which Python names cannot hold."""
    given = {key.replace("__", "."): value for key, value in attributes.items()}
    plugin = node.start(launcher=node.real(), patience=patience, inheritances=inheritances)
    volume = PublishedVolume(node, plugin, emulator, given)
    volume.publish()
    try:
        yield volume
    finally:
        volume.unpublish()


class Program:
    """`python -m tests.support.MODULE ARGUMENTS…`, whose lines on standard output are read one by one."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.support.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=SOURCE_ROOT,
            bufsize=0,
        )
        self._pending = b""

    def line(self, timeout: float = 60.0) -> str | None:
        """The next line, None at the end. A program that says nothing for so long hangs."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            ready, _, _ = select.select([descriptor], [], [], timeout)
            assert ready, f"{self._process.args} hangs"
            data = os.read(descriptor, 65536)
            if not data:
                return None
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def lines(self) -> Iterator[str]:
        while (line := self.line()) is not None:
            yield line

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def wait(self, timeout: float = 60.0) -> int:
        return self._process.wait(timeout)

    def end(self) -> None:
        """SIGKILL; fails when the process is stuck in the kernel."""
        self._process.kill()
        self._process.wait(30)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def program(module: str, *arguments: str) -> Iterator[Program]:
    running = Program(module, *arguments)
    try:
        yield running
    finally:
        running.end()
