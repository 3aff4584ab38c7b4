"""A node of a cluster for tests, without a cluster: pods' directories as kubelet makes them, and containers that are
processes in mount and PID namespaces of their own, started as nobody inside a cgroup that names the pod.

The test plays kubelet: it makes pods, starts and ends their containers, and calls the node plugin. `leftovers` looks at
the machine itself, never at what the product says.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from csi.errors import MountError, SidecarNotInjected
from csi.handover.cgroup import CgroupRoom, MemoryCgroup
from csi.handover.kernel import MNT_DETACH, UMOUNT_NOFOLLOW, Kernel, LinuxKernel
from csi.handover.local import this_hierarchy
from csi.handover.mountinfo import layers_at, read_mountinfo
from csi.handover.pods.factory import pod_mounts
from csi.handover.pods.pod_mounts import PodMounts
from csi.handover.process import sidecar_environment
from csi.handover.types import Incident, IncidentKind, PodReference, PublishRequest, SidecarPlace
from csi.volume.naming import SIDECAR_DIRECTORY, sidecar_name
from csi.volume.spec import Location, MountArguments, SidecarResources, VolumeSpec
from csi.volume.units import MIB, Bytes, Seconds
from tests.support.node import DEADLINE, STAND_IN
from tests.support.published_volume import SOURCE_ROOT, until

REAL = SOURCE_ROOT / "csi" / "sidecar" / "__main__.py"
VOLUME = "data"
SILENCE = Seconds(4.0)
"""For tests of hung sidecars. In others a busy machine may be slow."""
_MS_BIND, _MS_SHARED, _MS_PRIVATE = 4096, 1 << 20, 1 << 18

_CONTAINER = f"""
set -e
mount -t tmpfs run /run
mkdir -p {SIDECAR_DIRECTORY}
mount --bind "$1" {SIDECAR_DIRECTORY}
shift
mount -t proc proc /proc
mount -o remount,bind,ro /
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs "$@"
"""
_APPLICATION = """
set -e
mount --bind "$1" "$2"
shift 2
exec "$@"
"""


def _begin_ipc_namespace() -> tuple[subprocess.Popen[bytes], Path]:
    """A process that does nothing in an IPC namespace of its own, as the first one of every pod, and that namespace."""
    process = subprocess.Popen(["unshare", "--ipc", "sleep", "1d"])
    namespace = Path(f"/proc/{process.pid}/ns/ipc")
    until(lambda: namespace.readlink() != Path("/proc/self/ns/ipc").readlink())
    return process, namespace


@dataclass
class Reporter:
    """Keeps what users of the pods would read."""

    told: list[tuple[str, Incident]] = field(default_factory=list)

    def report(self, pod: PodReference, incident: Incident) -> None:
        self.told.append((pod.uid, incident))

    def kinds(self) -> list[IncidentKind]:
        return [incident.kind for _, incident in self.told]

    def of(self, kind: IncidentKind) -> list[Incident]:
        return [incident for _, incident in self.told if incident.kind is kind]


class Sidecar:
    """One run of a sidecar container. `pid` is its first process (PID 1 inside) as the node sees it."""

    def __init__(self, shell: subprocess.Popen[bytes], cgroup: MemoryCgroup) -> None:
        self._shell = shell
        self._cgroup = cgroup

    @property
    def pid(self) -> int:
        found: list[int] = []

        def look() -> bool:
            found[:] = [pid for pid in self._cgroup.pids() if _is_sidecar(pid)]
            return bool(found)

        until(look)
        return found[0]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._shell.wait(20)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Until it ended by itself: its exit status."""
        return self._shell.wait(40)

    def end(self) -> None:
        self._shell.kill()  # takes the container with it (--kill-child)
        self._shell.wait(20)


class Application:
    """A container that uses the volume: `ask` says one line to it and returns its answer.

    Reading happens in a process of its own, so that a mount that hangs makes a test fail and not hang.
    """

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process = process
        self.path = path
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        assert self.answer() == "started"

    def ask(self, *words: str) -> str:
        self.say(*words)
        return self.answer()

    def say(self, *words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def answer(self, timeout: float = 20.0) -> str:
        return self._answers.get(timeout=timeout)

    def waits(self) -> bool:
        """Whether it sits in a request to the mount."""
        try:
            where = Path(f"/proc/{self.process.pid}/wchan").read_text()
            return "fuse" in where or where == "request_wait_answer" or _sleeps_in_kernel(self.process.pid)
        except OSError:
            return False

    def end(self) -> None:
        """SIGKILL; fails when the process is stuck in the kernel."""
        self.process.kill()
        self.process.wait(20)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in self.process.stdout:
                self._answers.put(line.rstrip("\n"))


class Pod:
    """A pod with one volume of ours, as far as kubelet has made it: its directories and the tmpfs of the sidecar."""

    def __init__(self, node: PodNode, name: str, limit: int) -> None:
        self.node = node
        self.reference = PodReference(str(uuid.uuid4()), name, "default", "default")
        self.directory = node.kubelet / "pods" / self.reference.uid
        self.container = sidecar_name(VOLUME)
        self.shared = self.directory / "volumes" / "kubernetes.io~empty-dir" / self.container
        self.target = self.directory / "volumes" / "kubernetes.io~csi" / f"pv-{name}" / "mount"
        self.limit = Bytes(limit)
        self.shared.mkdir(parents=True)
        self.target.parent.mkdir(parents=True)
        self.mount_shared()
        self._pause, self._namespace = _begin_ipc_namespace()
        self.cgroup = node.room.create(f"pod{self.reference.uid}", self.limit)
        self.sidecars: list[Sidecar] = []
        self.applications: list[Application] = []

    def mount_shared(self) -> None:
        LinuxKernel().mount("tmpfs", str(self.shared), "tmpfs", 0, "size=1024k,mode=1777")

    def unmount_shared(self) -> None:
        """As kubelet does it: not lazily, so it fails when somebody keeps the tmpfs busy. Raises MountError."""
        LinuxKernel().umount2(str(self.shared), UMOUNT_NOFOLLOW)

    def command(self, *command: str) -> list[str]:
        """What runs `command` in the pod's cgroup and IPC namespace."""
        enter = 'echo 0 > "$0/cgroup.procs" && exec "$@"'
        return ["/bin/sh", "-c", enter, str(self.cgroup.path), "nsenter", f"--ipc={self._namespace}", *command]

    def start_sidecar(self, entry: Path = STAND_IN) -> Sidecar:
        """The sidecar's container, started (again) by kubelet; returns at once."""
        command = [sys.executable, "-I", str(entry), "--socket", SIDECAR_DIRECTORY, "--log-format", "text"]
        shell = subprocess.Popen(
            self.command(
                *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
                *("/bin/sh", "-c", _CONTAINER, "container", str(self.shared), *command),
            ),
            stdin=subprocess.DEVNULL,
            stdout=self.node.log_stream,
            stderr=self.node.log_stream,
            env=sidecar_environment(self.limit),
            cwd="/",
            start_new_session=True,
        )
        sidecar = Sidecar(shell, self.cgroup)
        self.sidecars.append(sidecar)
        return sidecar

    def start_application(self) -> Application:
        """A container with the volume in it, `mountPropagation: HostToContainer`."""
        path = self.node.home / f"container-{uuid.uuid4().hex[:8]}"
        path.mkdir()
        process = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation", "slave"),
                *("/bin/sh", "-c", _APPLICATION, "container", str(self.target), str(path)),
                *(sys.executable, "-m", "tests.support.container_program", str(path)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=SOURCE_ROOT,
        )
        application = Application(process, path)
        self.applications.append(application)
        return application

    def is_ready(self) -> bool:
        """What the containers after the sidecar wait for."""
        return (self.shared / "READY").exists()

    def layers(self) -> int:
        return len(layers_at(read_mountinfo(), str(self.target)))

    def minors(self) -> list[int]:
        return [entry.minor for entry in layers_at(read_mountinfo(), str(self.target))]

    def end_containers(self) -> None:
        for application in self.applications:
            application.end()
        for sidecar in self.sidecars:
            sidecar.end()
        self.cgroup.kill()
        self._pause.kill()
        self._pause.wait(20)

    def remove(self) -> None:
        """What kubelet does at last; fails when something is left in the pod's directories."""
        self.end_containers()
        if layers_at(read_mountinfo(), str(self.shared)):
            self.unmount_shared()
        self.cgroup.remove()
        for path in (self.target.parent, self.shared):
            path.rmdir()
        for path in (self.target.parents[1], self.shared.parent, self.directory / "volumes", self.directory):
            path.rmdir()


class PodNode:
    """One machine with a kubelet directory, on which pods and node plugins come and go.

    It is the plugins' SidecarLocator and counts how often it is asked; `not_injected` holds UIDs of pods to refuse.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.kubelet = home / "kubelet"
        self.state = home / "state"
        self.kubelet.mkdir()
        self.log_file = home / "sidecars.log"
        self.log_stream = self.log_file.open("ab")
        self.room = CgroupRoom(this_hierarchy, f"test{uuid.uuid4().hex[:8]}")
        self.reporter = Reporter()
        self.located = 0
        self.not_injected: set[str] = set()
        self.pods: list[Pod] = []
        self._plugins: list[PodMounts] = []
        kernel = LinuxKernel()
        kernel.mount(str(self.kubelet), str(self.kubelet), "none", _MS_BIND, "")
        kernel.mount("none", str(self.kubelet), "none", _MS_PRIVATE, "")
        kernel.mount("none", str(self.kubelet), "none", _MS_SHARED, "")

    def locate(self, pod: PodReference, volume_id: str, target: Path) -> SidecarPlace:
        self.located += 1
        found = next(one for one in self.pods if one.reference == pod)
        if pod.uid in self.not_injected:
            raise SidecarNotInjected(f"pod {pod.name} has no container {found.container}", hint="create it again")
        return SidecarPlace(found.container, found.shared, found.limit, Seconds(30.0))

    def start(
        self,
        *,
        preflight: Callable[[PublishRequest, Seconds], None] = lambda _request, _deadline: None,
        kernel: Kernel | None = None,
        silence: Seconds = Seconds(60.0),  # noqa: B008 - a number
    ) -> PodMounts:
        """A node plugin, opened."""
        plugin = pod_mounts(self.state, preflight, self, self.reporter, self.kubelet, kernel=kernel, silence=silence)
        self._plugins.append(plugin)
        plugin.open()
        return plugin

    def pod(self, name: str = "pod", limit: int = 192 * MIB) -> Pod:
        made = Pod(self, name, limit)
        self.pods.append(made)
        return made

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def leftovers(self) -> list[str]:
        """Mounts, notes, processes and cgroups of this node that are still there, but for the kubelet directory."""
        found = [f"mount {entry.target}" for entry in read_mountinfo() if entry.target.startswith(f"{self.kubelet}/")]
        found += [f"file {path}" for path in sorted(self.state.rglob("*"))] if self.state.exists() else []
        found += [f"cgroup {group.path}" for group in self.room.leftovers()]
        return found + [f"file {path}" for path in sorted(self.kubelet.glob("pods/*"))]

    def clean(self) -> None:
        """Remove by force whatever a failed test left."""
        kernel = LinuxKernel()
        for entry in read_mountinfo():
            if entry.fstype == "fuse.ossfuse" and entry.target.startswith(f"{self.home}/"):
                with contextlib.suppress(OSError):
                    Path(f"/sys/fs/fuse/connections/{entry.minor}/abort").write_text("1")
        for plugin in self._plugins:
            plugin.close()
        for pod in self.pods:
            with contextlib.suppress(subprocess.TimeoutExpired):
                pod.end_containers()
        for group in self.room.leftovers():
            group.kill()
            group.remove()
        for entry in reversed([entry for entry in read_mountinfo() if entry.target.startswith(f"{self.home}/")]):
            with contextlib.suppress(MountError):
                kernel.umount2(entry.target, MNT_DETACH)
        self.log_stream.close()


@contextlib.contextmanager
def running_pod_node(home: Path) -> Iterator[PodNode]:
    """A node on which nothing must be left at the end but pods that the test did not remove."""
    node = PodNode(home)
    try:
        yield node
        for pod in node.pods:
            if pod.directory.exists():
                pod.end_containers()
                for plugin in node._plugins[-1:]:
                    plugin.unpublish(f"vol-{pod.reference.name}", pod.target)
                pod.remove()
        for plugin in node._plugins:
            plugin.close()
        left = node.leftovers()
        assert left == [], left
        assert "Traceback" not in node.log(), node.log()
    finally:
        node.clean()


def request_for(
    pod: Pod,
    behaviour: str = "well",
    *,
    credentials: dict[str, str] | None = None,
    read_only: bool = False,
    given: str = "as asked",
    spec: VolumeSpec | None = None,
) -> PublishRequest:
    """What kubelet's call for the pod's volume becomes; the bucket's name tells the stand-in how to behave."""
    spec = spec or VolumeSpec(
        Location(behaviour, "http://127.0.0.1:1"),
        arguments=MountArguments(read_only=read_only),
        resources=SidecarResources(memory_limit=Bytes(1 << 30), memory_request=Bytes(1 << 30)),
    )
    secret = {"akId": "LTAI-pod-test", "akSecret": "s3cr3t-pod-test"} if credentials is None else credentials
    return PublishRequest(
        f"vol-{pod.reference.name}", pod.target, spec, read_only, None, secret, pod=pod.reference, given=given
    )


def serve(plugin: PodMounts, pod: Pod, behaviour: str = "well", entry: Path = STAND_IN, **more: object) -> Sidecar:
    """Publish and start the sidecar, as kubelet does it one after the other; returns when the volume is served."""
    plugin.publish(request_for(pod, behaviour, **more), DEADLINE)  # type: ignore[arg-type]
    sidecar = pod.start_sidecar(entry)
    until(lambda: is_served(plugin, pod))
    return sidecar


def is_served(plugin: PodMounts, pod: Pod) -> bool:
    """READY was said, the connection is there and the sidecar has said how it is."""
    found = [a for a in plugin._attendants.values() if a.note.pod == pod.reference]
    return bool(found) and all(
        a.situation.ready and a.situation.connected and a.situation.health is not None for a in found
    )


def _is_sidecar(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return Path(f"/proc/{pid}/status").read_text().count("Uid:\t65534") == 1 and b"--socket" in command
    except OSError:
        return False


def _sleeps_in_kernel(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "D"
