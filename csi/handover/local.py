"""SidecarMounts as this machine runs them: real kernel, real cgroups, local sidecar processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from csi.handover.cgroup import CgroupRoom, MemoryHierarchy, memory_hierarchy
from csi.handover.connections import FuseConnections
from csi.handover.inheritance import Inheritance
from csi.handover.kernel import Kernel, LinuxKernel
from csi.handover.mountinfo import read_mountinfo
from csi.handover.mounts import Preflight, SidecarMounts
from csi.handover.process import SIDECAR_GID, SIDECAR_UID, Launcher, LocalLauncher, LocalProcess
from csi.handover.removal import Patience
from csi.handover.state import StateDirectory

_MEMBERSHIP = Path("/proc/self/cgroup")


def local_mounts(
    state_directory: Path,
    preflight: Preflight,
    *,
    launcher: Launcher | None = None,
    kernel: Kernel | None = None,
    patience: Patience = Patience(),  # noqa: B008 - frozen
    inheritances: Callable[[], Inheritance] | None = None,
) -> SidecarMounts:
    """Not opened yet: `open` takes the state directory and recovers what an earlier process left, `close` ends it.
    `inheritances`: see `SidecarMounts`."""
    kernel = kernel if kernel is not None else LinuxKernel()
    state = StateDirectory(state_directory, kernel, read_mountinfo, uid=SIDECAR_UID, gid=SIDECAR_GID)
    return SidecarMounts(
        state,
        kernel=kernel,
        connections=FuseConnections(kernel, read_mountinfo, state.path / ".connections"),
        room=CgroupRoom(this_hierarchy, state.identity),
        launcher=launcher if launcher is not None else LocalLauncher(),
        find=LocalProcess,
        preflight=preflight,
        entries=read_mountinfo,
        patience=patience,
        inheritances=inheritances,
    )


def this_hierarchy() -> MemoryHierarchy:
    """The memory cgroups of this process, looked up now. Raises MountError."""
    return memory_hierarchy(read_mountinfo(), _MEMBERSHIP.read_text(encoding="utf-8", errors="replace"))
