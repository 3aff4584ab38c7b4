"""`ossfuse doctor`: whether this machine can mount buckets, one line a check, each with what to do about it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import click

from csi.cli.endpoint_check import check_endpoint
from csi.cli.machine_checks import Level, Machine, check_machine
from csi.cli.options import OUTPUT
from csi.cli.printing import print_table
from csi.errors import InvalidOption
from csi.volume.uri import Endpoint, parse_endpoint


@click.command()
@click.option(
    "--endpoint",
    metavar="URL",
    help="Also ask this OSS endpoint (https://oss-cn-hangzhou.aliyuncs.com): name, connection, certificate, clock.",
)
@click.option("--timeout", type=click.FloatRange(0.1, 300), default=5.0, show_default=True, help="Seconds to wait.")
@OUTPUT
@click.pass_context
def command(ctx: click.Context, endpoint: str | None, timeout: float, output: str) -> None:
    """Check whether this machine can mount buckets, and say what to fix.

    Exit status 1 when a check failed, 0 when there are at most warnings.
    """
    address = _address(endpoint) if endpoint is not None else None
    findings = check_machine(Machine(Path("/")))
    if address is not None:
        findings += check_endpoint(address, timeout=timeout, clock=time.time)
    if output == "json":
        rows = [{**asdict(finding), "level": finding.level.value} for finding in findings]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print_table(
            ("CHECK", "RESULT", "FOUND", "FIX"),
            [(finding.check, finding.level.value, finding.found, finding.fix) for finding in findings],
        )
    ctx.exit(1 if any(finding.level is Level.FAIL for finding in findings) else 0)


def _address(endpoint: str) -> Endpoint:
    """Raises InvalidOption, also for '': it was meant to be asked, and would pass unasked."""
    if not endpoint.strip():
        raise InvalidOption(
            "--endpoint",
            endpoint,
            "an endpoint such as https://oss-cn-hangzhou.aliyuncs.com",
            hint="is a variable unset? without --endpoint only this machine is checked",
        )
    return parse_endpoint(endpoint, key="--endpoint")
