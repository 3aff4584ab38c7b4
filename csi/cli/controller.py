"""`ossfuse controller`: the CSI controller service of a cluster."""

from __future__ import annotations

import os

import click

from csi.cli.options import ENDPOINT, logging_options, start_logging
from csi.driver.server import ControllerConfig, serve_controller


@click.command()
@ENDPOINT
@logging_options("json", "info")
def command(endpoint: str, log_format: str, log_level: str) -> None:
    """Serve the CSI Identity and Controller services until SIGTERM or SIGINT."""
    start_logging(log_format, log_level)
    serve_controller(ControllerConfig(endpoint, cpu_count=os.cpu_count() or 1))
