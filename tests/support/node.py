"""A node plugin for tests: SidecarMounts as on a real node, in a directory of its own, and proof that nothing is left.

`leftovers` looks at the machine itself (mount table, cgroups, processes), never at what the product says about them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from csi.errors import MountError
from csi.fuse.choice import OWN
from csi.handover.cgroup import MemoryCgroup
from csi.handover.inheritance import Inheritance
from csi.handover.kernel import MNT_DETACH, Kernel, LinuxKernel
from csi.handover.local import local_mounts
from csi.handover.mountinfo import layers_at, read_mountinfo
from csi.handover.mounts import SidecarMounts
from csi.handover.process import Launcher, LocalLauncher
from csi.handover.removal import Patience
from csi.handover.types import PublishRequest
from csi.volume.spec import Location, MountArguments, SidecarResources, VolumeSpec
from csi.volume.units import MIB, Bytes, Seconds

STAND_IN = Path(__file__).with_name("stand_in_sidecar.py")
DEADLINE = Seconds(20.0)
SHORT = Patience(grace=Seconds(2.0))


class Node:
    """One directory of a machine on which volumes are published; several node plugins may follow one another on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = home / "state"
        self.log_file = home / "sidecars.log"
        self._log = self.log_file.open("ab")
        self._plugins: list[SidecarMounts] = []

    def start(
        self,
        *,
        kernel: Kernel | None = None,
        launcher: Launcher | None = None,
        preflight: Callable[[PublishRequest, Seconds], None] = lambda _request, _deadline: None,
        patience: Patience = SHORT,
        inheritances: Callable[[], Inheritance] | None = None,
    ) -> SidecarMounts:
        """A node plugin, opened."""
        plugin = local_mounts(
            *(self.state, preflight),
            kernel=kernel,
            launcher=launcher or self.stand_in(),
            patience=patience,
            inheritances=inheritances,
        )
        self._plugins.append(plugin)
        plugin.open()
        return plugin

    def stand_in(self) -> LocalLauncher:
        return LocalLauncher(log_format="text", log_level="info", stderr=self._log.fileno(), entry=STAND_IN)

    def real(self, session: str = OWN) -> LocalLauncher:
        return LocalLauncher(log_format="text", log_level="info", stderr=self._log.fileno(), session=session)

    @property
    def target(self) -> Path:
        return self.home / "target"

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def layers(self) -> int:
        return len(layers_at(read_mountinfo(), str(self.target)))

    def minor(self) -> int:
        return layers_at(read_mountinfo(), str(self.target))[-1].minor

    def leftovers(self) -> list[str]:
        """Mounts, cgroups and processes of this node that are still there."""
        home = str(self.home)
        found = [f"mount {entry.target}" for entry in read_mountinfo() if entry.target.startswith(home + "/")]
        found += [f"process {pid}" for pid in self.sidecars()]
        found += [f"cgroup {path}" for path in self.cgroups()]
        found += [f"file {path}" for path in sorted(self.state.rglob("*"))] if self.state.exists() else []
        return found

    def sidecars(self) -> list[int]:
        """Processes whose command line names this node's directory."""
        pids = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    command = Path(f"/proc/{entry}/cmdline").read_bytes()
                    if b"sidecar" in command and os.fsencode(self.state) + b"/" in command:
                        pids.append(int(entry))
        return pids

    def cgroups(self) -> list[Path]:
        """Cgroups of this node's volumes, wherever the kernel has them."""
        identity = local_mounts(self.state, lambda _r, _d: None)._state.identity
        roots = [Path(entry.target) for entry in read_mountinfo() if entry.fstype in ("cgroup", "cgroup2")]
        # not rglob: groups of others come and go meanwhile
        walked = (Path(directory) for root in roots for directory, _, _ in os.walk(root))
        return sorted(
            {path for path in walked if path.parent.name == "ossfuse" and path.name.startswith(f"{identity}-")}
        )

    def clean(self) -> None:
        """Close the node plugins and remove by force whatever a failed test left."""
        for plugin in self._plugins:
            plugin.close()
        for pid in self.sidecars():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in self.cgroups():
            group = MemoryCgroup(path, 2)
            group.kill()
            group.remove()
        kernel = LinuxKernel()
        for entry in reversed([entry for entry in read_mountinfo() if entry.target.startswith(f"{self.home}/")]):
            with contextlib.suppress(MountError):
                kernel.umount2(entry.target, MNT_DETACH)
        self._log.close()


def request_for(
    node: Node,
    behaviour: str = "well",
    *,
    volume_id: str = "vol-1",
    target: Path | None = None,
    read_only: bool = False,
    credentials: dict[str, str] | None = None,
    limit: int = 192 * MIB,
) -> PublishRequest:
    """A publish for the stand-in sidecar; its bucket's name says how it shall behave."""
    spec = VolumeSpec(
        Location(behaviour, "http://127.0.0.1:1"),
        arguments=MountArguments(read_only=read_only),
        resources=SidecarResources(memory_limit=Bytes(limit), memory_request=Bytes(limit)),
    )
    given = {"akId": "LTAI-node-test", "akSecret": "s3cr3t-node-test"} if credentials is None else credentials
    return PublishRequest(volume_id, node.target if target is None else target, spec, read_only, None, given)


@contextlib.contextmanager
def running_node(home: Path) -> Iterator[Node]:
    """A node that must have nothing left at the end."""
    node = Node(home)
    try:
        yield node
        for plugin in node._plugins:
            plugin.close()
        left = node.leftovers()
        assert left == [], left
    finally:
        node.clean()


def run_bounded(command: list[str], timeout: float = 10.0) -> subprocess.CompletedProcess[str]:
    """A program that touches a mount, in a process of its own so that a hung mount cannot hang the test."""
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
