"""`ossfuse node`: the CSI node service of one machine, with sidecars as local processes or in the pods of a cluster."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import click

from csi.cli.options import CACHE_HOST_PATH, ENDPOINT, logging_options, start_logging
from csi.driver.server import NodeConfig, serve_node
from csi.driver.stores import check_volume
from csi.errors import InvalidOption
from csi.handover.local import local_mounts
from csi.handover.process import LocalLauncher
from csi.handover.types import VolumeMounts
from csi.volume.naming import SESSIONS


@click.command()
@ENDPOINT
@click.option(
    "--node-id",
    envvar="NODE_NAME",
    show_envvar=True,
    default=socket.gethostname,
    show_default="the host name",
    help="Name of this node in the cluster.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/run/ossfuse"),
    show_default=True,
    help="Sockets and credential files of running sidecars; a tmpfs is mounted there when it is none.",
)
@click.option(
    "--sidecar",
    type=click.Choice(["process", "pod"]),
    default="process",
    show_default=True,
    help="Where sidecars run: as processes of this machine, or in the pods that use the volume.",
)
@click.option(
    "--kubelet-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/lib/kubelet"),
    show_default=True,
    help="With --sidecar pod: kubelet's root directory, at the same path here as on the node.",
)
@click.option(
    "--sts-endpoint",
    default="",
    show_default="https://sts.REGION.aliyuncs.com, sts-vpc for a bucket with an internal endpoint",
    help="Where service accounts take on roles (authType: rrsa).",
)
@click.option(
    "--session",
    type=click.Choice(SESSIONS),
    show_default="own",
    help="Which code talks to the kernel in sidecars started from now on: our own, or libfuse through pyfuse3 (slower, "
    "conservative).",
)
@click.option(
    "--namespace",
    envvar="POD_NAMESPACE",
    show_envvar=True,
    default="",
    help="With --sidecar pod: the namespace of this driver, whose pods get no sidecars.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --sidecar pod: how to reach the API server, where this process is in no pod itself.",
)
@CACHE_HOST_PATH
@logging_options("json", "info")
def command(
    endpoint: str,
    node_id: str,
    state_dir: Path,
    sidecar: str,
    kubelet_dir: Path,
    sts_endpoint: str,
    session: str | None,
    namespace: str,
    kubeconfig: Path | None,
    cache_host_path: tuple[str, ...],
    log_format: str,
    log_level: str,
) -> None:
    """Serve the CSI Identity and Node services until SIGTERM or SIGINT.

    Mounts and sidecars go on when this process ends; the next one finds them again.
    """
    _check_sts_endpoint(sts_endpoint)
    start_logging(log_format, log_level)
    config = NodeConfig(
        endpoint,
        node_id,
        cpu_count=os.cpu_count() or 1,
        state_directory=state_dir,
        in_pods=sidecar == "pod",
        sts_endpoint=sts_endpoint.rstrip("/"),
        cache_host_paths=cache_host_path,
    )
    if config.in_pods:
        # the Kubernetes client costs a machine without a cluster time and memory
        from csi.cli.node_in_cluster import serve_in_cluster  # noqa: PLC0415

        serve_in_cluster(config, kubelet_dir, namespace, kubeconfig, session or "")
        return

    def open_mounts() -> VolumeMounts:
        launcher = LocalLauncher(log_format=log_format, log_level=log_level, session=session or SESSIONS[0])
        mounts = local_mounts(state_dir, check_volume, launcher=launcher)
        mounts.open()
        return mounts

    serve_node(config, open_mounts=open_mounts)


def _check_sts_endpoint(text: str) -> None:
    expected = "a URL such as https://sts-vpc.cn-hangzhou.aliyuncs.com"
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise InvalidOption.stating("sts-endpoint", f"sts-endpoint: expected {expected}, without a user")
    if text and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query):
        raise InvalidOption("sts-endpoint", text, expected)
