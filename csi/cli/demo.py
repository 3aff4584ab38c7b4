"""`ossfuse demo`: the whole way of a volume on this machine, told step by step.

It starts the embedded OSS server with a sample data set and the node and controller services on Unix sockets, reads a
PersistentVolume file, calls CSI as a kubelet would, works in the mounted folder with ordinary file calls, shows what
serves it, and takes everything away again. It ends with `demo: OK`, or with the reason of the failure and status 1.
What it proves about the volume is in `csi/cli/demo_work.py`; this module starts, asks and stops.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import click
import grpc

from csi.cli.demo_work import DemoFailed, Samples, list_and_read, write_and_check
from csi.cli.descriptions import Description, read_descriptions
from csi.cli.printing import print_table
from csi.handover.mountinfo import read_mountinfo
from csi.handover.state import state_identity
from csi.oss.client import OssClient
from csi.oss.credentials import Credentials, StaticCredentials
from csi.v1 import csi_pb2, csi_pb2_grpc
from csi.volume.parse import ParsedVolume, parse_volume

_EXAMPLE: Final = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "pv-fast.yaml"
_STATE: Final = "state"
_START_SECONDS: Final = 20.0
_CALL_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 15.0


@click.command()
@click.option(
    "--example",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=_EXAMPLE,
    help="The PersistentVolume to publish.  [default: deploy/examples/pv-fast.yaml]",
)
def command(example: Path) -> None:
    """Mount a bucket of the embedded OSS server through CSI, use it, clean up. Needs root."""
    root = Path(tempfile.mkdtemp(prefix="ossfuse-demo-")).resolve()
    with ExitStack() as stack:
        stack.callback(_remove, root)
        demo = _Demo(root, stack)
        try:
            demo.run(example)
        except grpc.RpcError as error:
            demo.show_logs()
            raise DemoFailed(f"a CSI call failed: {error.code().name}: {error.details()}") from error
        except BaseException:
            demo.show_logs()
            raise
    _nothing_is_left(root, state_identity(root / _STATE))
    click.echo("\nnothing is left behind: no mount, no process, no cgroup, no file")
    click.echo("demo: OK")


class _Demo:
    """The steps, in order; `stack` undoes what they start, newest first."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root = root
        self._stack = stack
        self._key = Credentials("demo" + secrets.token_hex(6), secrets.token_hex(16))
        self._step = 0

    def run(self, file: Path) -> None:
        self._announce("Start an OSS server on this machine")
        volume = self._point_at_emulator(_first_volume(file))
        parsed = parse_volume(volume.attributes, cpu_count=os.cpu_count() or 1)
        spec = parsed.spec
        client = OssClient(spec.location, spec.http, spec.write, StaticCredentials(self._key))
        self._stack.callback(client.close)
        self._announce("Put a sample data set into its bucket")
        samples = Samples.upload(client, spec.location)

        self._announce("Start the node and the controller service on Unix sockets")
        node, controller = self._start_services()

        self._announce(f"Effective options of {file.name} (`ossfuse volume explain {file.name}`)")
        _show_options(parsed)

        self._announce("ValidateVolumeCapabilities and NodePublishVolume, as a cluster calls them")
        target = self._publish(volume, node, controller)

        self._announce("List and read")
        list_and_read(target, samples)

        self._announce("Write, append, rename, remove")
        write_and_check(target, client, spec.location.prefix)

        self._announce("The sidecar that serves it")
        self._show_sidecar(volume, node, target)

        self._announce("NodeUnpublishVolume")
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume.volume_id, target_path=str(target))
        node.NodeUnpublishVolume(request, timeout=_CALL_SECONDS)
        if target.exists():
            raise DemoFailed(f"{target} is still there after NodeUnpublishVolume")
        click.echo("unmounted, target directory removed")

    def show_logs(self) -> None:
        for log in sorted(self._root.glob("*.log")):
            click.echo(f"--- {log.name}, last lines", err=True)
            click.echo("\n".join(log.read_text(errors="replace").splitlines()[-20:]), err=True)

    # --- steps ---

    def _announce(self, text: str) -> None:
        self._step += 1
        click.secho(f"\n[{self._step}] {text}", bold=True)

    def _point_at_emulator(self, volume: Description) -> Description:
        """Start the emulator with the volume's bucket; the same volume, its endpoint replaced."""
        keys = self._root / "access-keys"
        keys.touch(mode=0o600)
        keys.write_text(f"{self._key.access_key_id}:{self._key.access_key_secret}\n")
        given = parse_volume(volume.attributes, cpu_count=1).spec.location
        arguments = ["--data", str(self._root / "oss"), "--port", "0", "--bucket", given.bucket]
        process = self._start("emulator", *arguments, "--access-key-file", str(keys), stdout=subprocess.PIPE)
        endpoint = _announced_endpoint(process)
        click.echo(f"{endpoint} stands in for {given.endpoint}")
        location = {"bucket": given.bucket, "url": endpoint, "path": f"/{given.prefix}"}
        others = {key: value for key, value in volume.attributes.items() if key not in ("uri", "endpoint")}
        return replace(volume, attributes={**others, **location})

    def _start_services(self) -> tuple[csi_pb2_grpc.NodeStub, csi_pb2_grpc.ControllerStub]:
        sockets = {name: self._root / f"{name}.sock" for name in ("node", "controller")}
        state = ["--node-id", "demo-node", "--state-dir", str(self._root / _STATE), "--sidecar", "process"]
        processes = {
            "node": self._start("node", "--endpoint", f"unix://{sockets['node']}", *state),
            "controller": self._start("controller", "--endpoint", f"unix://{sockets['controller']}"),
        }
        channels = {}
        for name, socket in sockets.items():
            channels[name] = self._stack.enter_context(grpc.insecure_channel(f"unix:{socket}"))
            identity = csi_pb2_grpc.IdentityStub(channels[name])  # type: ignore[no-untyped-call]  # generated
            _wait_until(partial(_is_ready, identity), processes[name], name)
            info = identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest(), timeout=_CALL_SECONDS)
            click.echo(f"{name}: {info.name} {info.vendor_version} on {socket}")
        return csi_pb2_grpc.NodeStub(channels["node"]), csi_pb2_grpc.ControllerStub(channels["controller"])  # type: ignore[no-untyped-call]  # generated

    def _publish(
        self, volume: Description, node: csi_pb2_grpc.NodeStub, controller: csi_pb2_grpc.ControllerStub
    ) -> Path:
        modes = csi_pb2.VolumeCapability.AccessMode
        capability = csi_pb2.VolumeCapability(
            mount=csi_pb2.VolumeCapability.MountVolume(),
            access_mode=modes(mode=modes.MULTI_NODE_MULTI_WRITER),
        )
        keys = {"akId": self._key.access_key_id, "akSecret": self._key.access_key_secret}
        validation = csi_pb2.ValidateVolumeCapabilitiesRequest(
            volume_id=volume.volume_id,
            volume_capabilities=[capability],
            volume_context=volume.attributes,
            secrets=keys,
        )
        confirmed = controller.ValidateVolumeCapabilities(validation, timeout=_CALL_SECONDS)
        if not confirmed.HasField("confirmed"):
            raise DemoFailed(f"the controller does not confirm the volume: {confirmed.message}")
        target = self._root / "pods" / "demo" / "volumes" / volume.volume_id / "mount"
        target.parent.mkdir(parents=True)
        request = csi_pb2.NodePublishVolumeRequest(
            volume_id=volume.volume_id,
            target_path=str(target),
            volume_capability=capability,
            secrets=keys,
            volume_context={
                **volume.attributes,
                "csi.storage.k8s.io/pod.name": "demo",
                "csi.storage.k8s.io/pod.namespace": "default",
            },
        )
        start = time.monotonic()
        node.NodePublishVolume(request, timeout=_CALL_SECONDS)
        click.echo(f"mounted at {target} in {time.monotonic() - start:.2f} s")
        node.NodePublishVolume(request, timeout=_CALL_SECONDS)
        click.echo("published a second time, as kubelets do: nothing changed")
        return target

    def _show_sidecar(self, volume: Description, node: csi_pb2_grpc.NodeStub, target: Path) -> None:
        request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=volume.volume_id, volume_path=str(target))
        answer = node.NodeGetVolumeStats(request, timeout=_CALL_SECONDS)
        if answer.volume_condition.abnormal:
            raise DemoFailed(f"the volume is not well: {answer.volume_condition.message}")
        click.echo(answer.volume_condition.message)

    # --- processes ---

    def _start(self, name: str, *arguments: str, stdout: int | None = None) -> subprocess.Popen[str]:
        """`ossfuse NAME …` with its log beside the sockets, stopped when the demo ends."""
        log = self._stack.enter_context((self._root / f"{name}.log").open("w"))
        command_line = [sys.executable, "-m", "csi.cli.main", name, *arguments]
        process = subprocess.Popen(command_line, stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log, text=True)
        self._stack.callback(_stop, process)
        return process


def _first_volume(file: Path) -> Description:
    descriptions, _ = read_descriptions(file.read_text(encoding="utf-8"))
    volume = descriptions[0]
    if not volume.volume_id:
        raise DemoFailed(f"{file}: {volume.name} has no volumeHandle", hint="give a file with a PersistentVolume")
    return volume


def _show_options(parsed: ParsedVolume) -> None:
    rows = [(one.key, one.value, one.origin, one.note) for one in parsed.settings if one.origin != "default"]
    print_table(("KEY", "VALUE", "FROM", "NOTE"), rows)
    click.echo(f"and {len(parsed.settings) - len(rows)} defaults, see docs/options.md")
    for warning in parsed.warnings:
        click.echo(f"Warning: {warning}")


def _announced_endpoint(process: subprocess.Popen[str]) -> str:
    """What the emulator prints when it accepts connections; gives up when it says nothing in time."""
    if process.stdout is None:
        raise TypeError("the process was started without a pipe")
    watch = threading.Timer(_START_SECONDS, process.kill)
    watch.start()
    try:
        line = process.stdout.readline()
    finally:
        watch.cancel()
        process.stdout.close()
    if not line.startswith("listening "):
        raise DemoFailed(f"the emulator did not start within {_START_SECONDS:.0f} s", hint="its log is above")
    return line.split()[1]


def _is_ready(identity: csi_pb2_grpc.IdentityStub) -> bool:
    try:
        return bool(identity.Probe(csi_pb2.ProbeRequest(), timeout=1.0).ready.value)
    except grpc.RpcError:
        return False


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[str], name: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None:
            raise DemoFailed(f"the {name} service ended with status {process.returncode}", hint="its log is above")
        if time.monotonic() > deadline:
            raise DemoFailed(f"the {name} service was not ready within {_START_SECONDS:.0f} s", hint="its log is above")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _remove(root: Path) -> None:
    """Everything the demo made; what is still mounted there is left, because it may be data in a bucket."""
    if any(entry.target.startswith(f"{root}/") for entry in read_mountinfo()):
        return
    for directory, directories, files in os.walk(root, topdown=False):
        for name in files:
            os.unlink(os.path.join(directory, name))
        for name in directories:
            os.rmdir(os.path.join(directory, name))
    root.rmdir()


def _nothing_is_left(root: Path, cgroup_name: str) -> None:
    """Raises DemoFailed when a mount, a process, a cgroup or a file of the demo is still there."""
    mounts = read_mountinfo()
    left = [f"mount {entry.target}" for entry in mounts if entry.target.startswith(f"{root}/")]
    hierarchies = [Path(entry.target) for entry in mounts if entry.fstype in ("cgroup", "cgroup2")]
    left += [f"cgroup {path}" for top in hierarchies for path in top.rglob(f"ossfuse/{cgroup_name}-*")]
    left += [f"file {root}"] if root.exists() else []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if os.fsencode(root) + b"/" in words:
            left.append(f"process {pid}")
    if left:
        raise DemoFailed(f"left behind: {', '.join(left)}")
