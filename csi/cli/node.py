"""`ossfuse node`: the CSI node service of one machine, with sidecars as local processes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from csi.cli.options import ENDPOINT, logging_options, start_logging
from csi.driver.server import NodeConfig, serve_node
from csi.driver.stores import check_volume
from csi.errors import UnsupportedVolume
from csi.handover.local import local_mounts
from csi.handover.process import LocalLauncher
from csi.handover.types import VolumeMounts


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
@logging_options("json", "info")
def command(endpoint: str, node_id: str, state_dir: Path, sidecar: str, log_format: str, log_level: str) -> None:
    """Serve the CSI Identity and Node services until SIGTERM or SIGINT.

    Mounts and sidecars go on when this process ends; the next one finds them again.
    """
    if sidecar == "pod":
        raise UnsupportedVolume(
            "--sidecar pod: sidecars in the pods that use a volume are not supported by this version",
            hint="use --sidecar process",
        )
    start_logging(log_format, log_level)

    def open_mounts() -> VolumeMounts:
        launcher = LocalLauncher(log_format=log_format, log_level=log_level)
        mounts = local_mounts(state_dir, check_volume, launcher=launcher)
        mounts.open()
        return mounts

    config = NodeConfig(endpoint, node_id, cpu_count=os.cpu_count() or 1, state_directory=state_dir)
    serve_node(config, open_mounts=open_mounts)
