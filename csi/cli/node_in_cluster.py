"""The node service of a cluster, put together: sidecars in pods, and the API server to ask and to tell.

Nothing of the start waits for the API server, because kubelet must be able to unmount while it is away; nor does Probe.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from csi.cluster.api import KubernetesApi
from csi.cluster.events import PodEvents
from csi.cluster.pods import PodSidecars
from csi.cluster.taint import StartupTaint
from csi.driver.server import NodeConfig, serve_node
from csi.driver.stores import check_volume
from csi.handover.pods.factory import pod_mounts
from csi.handover.types import VolumeMounts

NEVER_INJECTED: Final = ("kube-system", "kube-public", "kube-node-lease")
"""Namespaces the webhook leaves alone, besides the driver's own."""


def serve_in_cluster(
    config: NodeConfig, kubelet_directory: Path, namespace: str, kubeconfig: Path | None, session: str = ""
) -> None:
    """Serve until SIGTERM or SIGINT. `namespace` is the driver's own; without a `kubeconfig` the API server is reached
    as the service account of this pod. `session` is which code serves volumes, '' if that is left to the sidecars.
    Raises ApiUnreachable when there is no way to it."""
    excluded = {*NEVER_INJECTED, namespace} - {""}
    with contextlib.ExitStack() as ending:
        api = KubernetesApi.from_kubeconfig(str(kubeconfig)) if kubeconfig else KubernetesApi.in_cluster()
        ending.callback(api.close)
        events = PodEvents(api, config.node_id)
        events.start()
        ending.callback(events.close)
        taint = StartupTaint(api, config.node_id)
        ending.callback(taint.close)

        def open_mounts() -> VolumeMounts:
            locator = PodSidecars(api, kubelet_directory, excluded=excluded)
            mounts = pod_mounts(
                config.state_directory, check_volume, locator, events, kubelet_directory, session=session
            )
            mounts.open()
            return mounts

        serve_node(config, open_mounts=open_mounts, incidents=events, on_ready=taint.start)
