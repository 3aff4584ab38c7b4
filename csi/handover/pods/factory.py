"""PodMounts as a node of a cluster runs them: real kernel, real mount table, sidecars in pods."""

from __future__ import annotations

from pathlib import Path

from csi.handover.condition import SILENCE
from csi.handover.connections import FuseConnections
from csi.handover.kernel import Kernel, LinuxKernel
from csi.handover.mountinfo import read_mountinfo
from csi.handover.mounting import Mounter
from csi.handover.mounts import Preflight
from csi.handover.pods.attendant import Surroundings
from csi.handover.pods.holders import has_followers
from csi.handover.pods.layers import Layers
from csi.handover.pods.peers import read_ipc_namespace, read_membership
from csi.handover.pods.pod_mounts import PodMounts
from csi.handover.process import SIDECAR_GID, SIDECAR_UID, LocalProcess
from csi.handover.state import StateDirectory
from csi.handover.types import IncidentReporter, SidecarLocator
from csi.handover.unmount import Unmounter
from csi.volume.units import Seconds


def pod_mounts(
    state_directory: Path,
    preflight: Preflight,
    locator: SidecarLocator,
    reporter: IncidentReporter,
    kubelet_directory: Path,
    *,
    kernel: Kernel | None = None,
    silence: Seconds = SILENCE,
    session: str = "",
) -> PodMounts:
    """Not opened yet: `open` takes the state directory and recovers what an earlier process left, `close` ends it.
    `session` is which code serves the volumes, '' if that is left to the sidecars."""
    kernel = kernel if kernel is not None else LinuxKernel()
    state = StateDirectory(state_directory, kernel, read_mountinfo, uid=SIDECAR_UID, gid=SIDECAR_GID, secret=False)
    connections = FuseConnections(kernel, read_mountinfo, state.path / ".connections")
    unmounter = Unmounter(kernel, connections, read_mountinfo)
    layers = Layers(Mounter(kernel, unmounter), unmounter, connections, has_followers)
    return PodMounts(
        state,
        kernel=kernel,
        connections=connections,
        unmounter=unmounter,
        around=Surroundings(
            *(layers, connections, reporter, LocalProcess, read_membership, read_ipc_namespace, silence),
            session=session,
        ),
        locator=locator,
        preflight=preflight,
        kubelet_directory=kubelet_directory,
        entries=read_mountinfo,
    )
