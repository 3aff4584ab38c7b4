"""Files of a disk cache that the kernel reads itself, the way the product has it: the sidecar may nothing, and the node
plugin registers them for it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from csi.handover.cache_places import CachePlaces
from csi.handover.channel import Channel
from csi.handover.kernel import MNT_DETACH, LinuxKernel
from csi.handover.mountinfo import layers_at, read_mountinfo
from csi.handover.mounts import SidecarMounts
from csi.handover.pods.pod_mounts import PodMounts
from csi.handover.registrar import LinuxKernelFiles, Registrar
from csi.handover.types import PublishRequest
from csi.handover.wire import Health, Register, Registered
from csi.volume.parse import parse_volume
from csi.volume.units import KIB, MIB
from tests.support.emulator import RunningEmulator
from tests.support.linux_releases import needs_linux
from tests.support.node import DEADLINE, Node
from tests.support.pods import REAL, PodNode
from tests.support.published_volume import Bucket, until

pytestmark = needs_linux(6, 9, "FUSE passthrough")

Plugin = SidecarMounts | PodMounts

OLD, NEW = (b"0123456789abcdef" * (3 * MIB // 16 + 7))[: 3 * MIB + 77], b"new" * (4 * MIB // 3)
FRESH = "-oro -oattr_timeout=0 -oentry_timeout=0 -onegative_timeout=0"


class Passing:
    """A file in a volume, one node plugin after another, and what the sidecar tells of itself."""

    def __init__(self, emulator: RunningEmulator, target: Path, start: Callable[[], Plugin]) -> None:
        self.bucket = Bucket(emulator)
        self.bucket.put("file", OLD)
        self.target = target
        self.start = start
        self.plugin = start()
        self.passed: int | float = 0

    def figures(self) -> Mapping[str, int | float]:
        """As the next report of the sidecar has them, which comes every two seconds."""
        before = self.health()
        until(lambda: self.health() is not before)
        health = self.health()
        return health.statistics if health is not None else {}

    def health(self) -> Health | None:
        plugin = self.plugin
        if isinstance(plugin, SidecarMounts):
            (served,) = plugin._served.values()
            return served.attendant.situation.health
        (attendant,) = plugin._attendants.values()
        return attendant.situation.health

    def read(self) -> bytes:
        return (self.target / "file").read_bytes()

    def read_until_passed(self, data: bytes) -> Mapping[str, int | float]:
        """The file is looked at once, in the background, before the kernel may have it. Returns the last figures."""
        for _ in range(10):
            found = []
            for _ in range(4):
                found.append(self.read())
                time.sleep(0.05)
            assert found == [data] * 4
            now = self.figures()
            if now["session.passthrough.passed"] > self.passed:
                self.passed = now["session.passthrough.passed"]
                return now
        pytest.fail("the kernel never got the file")


def request_for(emulator: RunningEmulator, target: Path, cache: Path) -> PublishRequest:
    """A volume whose versions are looked for at every open."""
    given = {"bucket": emulator.bucket, "url": emulator.endpoint, "path": "/data/", "mode": "readonly"}
    spec = parse_volume({**given, "fs.jindo.args": FRESH, "cache": str(cache)}, cpu_count=2).spec
    CachePlaces(None, in_pods=False).prepare(spec.cache)
    secret = {"akId": emulator.access_key_id, "akSecret": emulator.access_key_secret}
    return PublishRequest("pv-passed", target, spec, spec.arguments.read_only, None, secret)


@pytest.fixture
def cache() -> Iterator[Path]:
    """Where nobody may look for it, which the sidecar is; writable in a container of `pods` too."""
    made = Path(tempfile.mkdtemp(dir="/dev/shm"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def passing(node: Node, emulator: RunningEmulator, cache: Path) -> Iterator[Passing]:
    passing = Passing(emulator, node.target, lambda: node.start(launcher=node.real()))
    passing.plugin.publish(request_for(emulator, node.target, cache), DEADLINE)
    yield passing
    passing.plugin.unpublish("pv-passed", node.target)
    assert "Traceback" not in node.log()


def test_a_file_that_is_wholly_cached_is_read_by_the_kernel_itself(passing: Passing) -> None:
    before = passing.read_until_passed(OLD)

    for _ in range(5):
        assert passing.read() == OLD

    after = passing.figures()
    assert after["session.answered.read"] == before["session.answered.read"]
    assert after["session.passthrough.passed"] == before["session.passthrough.passed"] + 5
    assert after["session.passthrough.inodes"] == 0


def test_another_version_is_read_by_the_next_open(passing: Passing) -> None:
    passing.read_until_passed(OLD)
    with (passing.target / "file").open("rb") as old:
        passing.bucket.put("file", NEW)
        assert passing.read() == NEW
        assert old.read() == OLD
    passing.read_until_passed(NEW)


def test_a_small_file_is_never_passed(passing: Passing) -> None:
    passing.bucket.put("file", OLD[: 500 * KIB])
    for _ in range(5):
        assert passing.read() == OLD[: 500 * KIB]
        time.sleep(0.05)
    assert passing.figures()["session.passthrough.passed"] == 0


def test_while_no_node_plugin_runs_files_are_read_and_the_next_one_goes_on(passing: Passing) -> None:
    passing.read_until_passed(OLD)
    with (passing.target / "file").open("rb") as registered:
        passing.plugin.close()

        assert passing.read() == OLD
        assert registered.read() == OLD
    assert passing.read() == OLD  # through the sidecar
    passing.plugin = passing.start()

    before = passing.read_until_passed(OLD)
    assert passing.read() == OLD
    after = passing.figures()
    assert after["session.answered.read"] == before["session.answered.read"]
    assert after["session.passthrough.inodes"] == 0


def test_the_sidecar_of_a_pod_has_its_files_registered_too(
    pods: PodNode, emulator: RunningEmulator, cache: Path
) -> None:
    pod = pods.pod()
    passing = Passing(emulator, pod.target, pods.start)
    request = replace(request_for(emulator, pod.target, cache), volume_id="vol-pod", pod=pod.reference)
    passing.plugin.publish(request, DEADLINE)
    pod.start_sidecar(REAL)
    until(lambda: passing.health() is not None)
    application = pod.start_application()

    passing.read_until_passed(OLD)
    passing.plugin.close()
    passing.plugin = passing.start()
    before = passing.read_until_passed(OLD)
    assert application.ask("read", "file") == OLD.decode()
    after = passing.figures()
    assert after["session.answered.read"] == before["session.answered.read"]
    assert after["session.passthrough.passed"] == before["session.passthrough.passed"] + 1


def test_a_file_is_registered_for_the_connection_of_its_own_volume_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kernel, target = LinuxKernel(), tmp_path / "m"
    target.mkdir()
    (tmp_path / "block").touch()
    with ExitStack() as stack:
        device = kernel.open_fuse_device()
        stack.callback(os.close, device)
        kernel.mount("theirs", str(target), "fuse", 0, f"fd={device},rootmode=40000,user_id=0,group_id=0")
        stack.callback(kernel.umount2, str(target), MNT_DETACH)
        (minor,) = (entry.minor for entry in layers_at(read_mountinfo(), str(target)))
        file = os.open(tmp_path / "block", os.O_RDONLY)
        stack.callback(os.close, file)
        sidecar, plugin = (Channel(end) for end in socket.socketpair())
        for end in (sidecar, plugin):
            stack.callback(end.close)
        for number, minors in enumerate(([minor + 1], [minor])):
            registrar = Registrar("vol", read_only=True, minors=lambda m=minors: m, files=LinuxKernelFiles())
            registrar.serve(plugin, Register(number), (device, file))
        answers = [sidecar.receive(DEADLINE).message for _ in range(2)]
    # the kernel itself has not agreed to anything with this one
    assert answers == [Registered(0, error=errno.EPERM), Registered(1, error=errno.EPERM)]
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == [
        f"the device is of connection {minor}, which is not this volume's"
    ]
