"""Tables and messages for people: coloured on a terminal, plain lines with aligned columns anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {"OK": "green", "WARN": "yellow", "FAIL": "bold red"}


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Print `rows` under `head`; wrapped to the terminal's width, or one line a row when there is no terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        _print_plain(head, rows, title)
        return
    table = Table(title=Text(title) if title else None, title_justify="left", title_style="bold", box=None)
    for name in head:
        table.add_column(name, header_style="bold", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def _print_plain(head: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    if title:
        click.echo(title)
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
