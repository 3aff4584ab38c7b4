"""`ossfuse sidecar` as it appears in help and completion.

The program itself never comes here: `csi/cli/main.py` starts a sidecar before any library of the command line is
loaded. What is given is passed on unread.
"""

from __future__ import annotations

import click

from csi.sidecar.main import main


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []}, short_help="Serve one volume."
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Serve one volume handed over by a node plugin (`ossfuse sidecar --help`)."""
    ctx.exit(main(arguments))
