"""Options that several commands share, and what they set up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from csi.sidecar.logs import LEVELS, configure
from csi.volume.caching import parse_host_path

_Command = TypeVar("_Command", bound=Callable[..., Any])

ENDPOINT = click.option(
    "--endpoint",
    default="unix:///csi/csi.sock",
    show_default=True,
    envvar="CSI_ENDPOINT",
    show_envvar=True,
    help="Unix socket to serve the CSI services on.",
)


def _host_paths(_: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(parse_host_path(option.opts[0], value) for value in values)


CACHE_HOST_PATH = click.option(
    "--cache-host-path",
    multiple=True,
    metavar="PATH",
    callback=_host_paths,
    help="Volumes may have disk caches (cache: PATH/…) in this directory of the host and below; may be repeated.",
)
OUTPUT = click.option(
    "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print."
)


def logging_options(default_format: str, default_level: str) -> Callable[[_Command], _Command]:
    """`--log-format` and `--log-level`; the command calls `csi.sidecar.logs.configure` through `start_logging`."""

    def add(command: _Command) -> _Command:
        style = click.option(
            "--log-format",
            type=click.Choice(["json", "text"]),
            default=default_format,
            show_default=True,
            help="One JSON object or one plain line per record, on standard error.",
        )
        level = click.option(
            "--log-level",
            type=click.Choice(LEVELS),
            default=default_level,
            show_default=True,
            help="Least level that is logged.",
        )
        return style(level(command))

    return add


def start_logging(log_format: str, log_level: str) -> None:
    """Send the log of this process to standard error; what looks like a credential is struck out."""
    configure(log_format, log_level)
