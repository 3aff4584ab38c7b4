"""The commands of `ossfuse`, each loaded when it is used, and how their failures are told.

A failure that the project knows is one line that says what failed and one that says what to do, with exit status 1.
Anything else is a defect: it is told in one line too, and with `--debug` as a traceback. Listing the commands loads
none of them, so that help and shell completion are quick.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import importlib.util
import io
import os
import sys
from dataclasses import dataclass
from typing import IO, Any

import click
from click.shell_completion import CompletionItem

from csi.errors import OssFuseError
from csi.volume.redaction import redacted


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is: `module` holds it under the name `command`."""

    module: str
    summary: str


COMMANDS = {
    "completion": Entry("csi.cli.completion", "Print the completion script of a shell."),
    "controller": Entry("csi.cli.controller", "Serve the CSI controller service."),
    "demo": Entry("csi.cli.demo", "Mount a bucket of the embedded OSS server through CSI, use it, clean up."),
    "doctor": Entry("csi.cli.doctor", "Check whether this machine can mount buckets, and say what to fix."),
    "emulator": Entry("csi.cli.emulator", "Run an OSS server for development."),
    "mount": Entry("csi.cli.mount", "Mount a bucket on this machine until Ctrl-C."),
    "node": Entry("csi.cli.node", "Serve the CSI node service."),
    "sidecar": Entry("csi.cli.sidecar", "Serve one volume handed over by a node plugin."),
    "volume": Entry("csi.cli.volume", "Explain the description of a volume."),
}

_SERVICES = frozenset({"controller", "emulator", "mount", "node", "sidecar"})
"""Commands that are run for what they do: they go on where nobody reads what they print."""


class Failure(click.ClickException):
    """What failed and what to do about it; exit status 1."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Error: {self.message}", file=file, err=file is None)
        if self.hint:
            click.echo(f"Hint: {self.hint}", file=file, err=file is None)


class LazyGroup(click.Group):
    """A group whose commands are imported one by one, when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if importlib.util.find_spec(entry.module) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name].module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=COMMANDS[name].summary) for name in names]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], known, n=1)
            ctx.fail(f"No such command {args[0]!r}.{f' Did you mean {near[0]!r}?' if near else ''}")
        return super().resolve_command(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        given = list(args)  # parsing takes them away
        if sys.stdout is None and next((word for word in given if not word.startswith("-")), "") not in _SERVICES:
            sys.stdout = _ClosedOutput()
        try:
            return super().make_context(info_name, args, parent, **extra)
        except OSError as error:  # help and version are printed while the arguments are parsed
            if error.errno == errno.EPIPE or "--debug" in given:
                raise
            raise Failure(f"standard output: {error.strerror}") from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OssFuseError as error:
            if ctx.params.get("debug"):
                raise
            raise Failure(redacted(error.message), redacted(error.hint)) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except OSError as error:
            if error.errno == errno.EPIPE or ctx.params.get("debug"):
                raise
            raise Failure(redacted(str(error))) from None
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            raise Failure(
                f"unexpected {type(error).__name__}: {redacted(str(error))}",
                "this is a defect; run it again as `ossfuse --debug …` and report what it prints",
            ) from None


class _ClosedOutput(io.TextIOBase):
    """What stands in for a standard output that is closed: writing fails, as it does for any other program."""

    def write(self, text: str, /) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard output")


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="docs/options.md lists every option of a volume.",
)
@click.version_option(package_name="ossfuse-csi", message="ossfuse %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks of failures.")
def ossfuse(debug: bool) -> None:
    """Buckets of Alibaba Cloud OSS as folders: a Kubernetes CSI driver, and the same on one machine."""
