"""`ossfuse volume explain FILE`: what a description of a volume means, value by value, without touching the bucket."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

import click

from csi.cli.descriptions import Description, read_descriptions
from csi.cli.options import OUTPUT
from csi.cli.printing import print_table
from csi.driver.attributes import refuse_contradiction
from csi.driver.capabilities import Access, parse_access
from csi.driver.provisioning.creation import parse_wanted
from csi.errors import OssFuseError
from csi.v1 import csi_pb2
from csi.volume.encode import spec_hash
from csi.volume.parse import ParsedVolume, parse_volume

_CLAIM = {"csi.storage.k8s.io/pvc/name": "name", "csi.storage.k8s.io/pvc/namespace": "namespace"}


@dataclass(frozen=True, slots=True)
class Explanation:
    """One volume: parsed, or why it is refused."""

    description: Description
    parsed: ParsedVolume | None
    error: OssFuseError | None

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.description.remarks, *(self.parsed.warnings if self.parsed else ()))


@click.group()
def command() -> None:
    """Explain the description of a volume."""


@command.command()
@click.argument("file", type=click.File("r", encoding="utf-8", errors="replace"))
@OUTPUT
@click.option(
    "--cpus",
    type=click.IntRange(1, 4096),
    default=lambda: os.cpu_count() or 1,
    show_default="those of this machine",
    help="Processors of the node, on which the threads of a mode depend.",
)
@click.option("--fs-group", type=click.IntRange(0, 2**32 - 2), help="fsGroup of the pod that uses the volume.")
@click.pass_context
def explain(ctx: click.Context, file: IO[str], output: str, cpus: int, fs_group: int | None) -> None:
    """Show the effective options of each volume in FILE, and where each value comes from.

    FILE is YAML or JSON with PersistentVolumes, StorageClasses, Pods with inline volumes or PAI datasets; `-` is
    standard input. Exit status 1 when a volume would be refused.
    """
    descriptions, others = read_descriptions(file.read())
    explanations = [_explain(description, cpus, fs_group) for description in descriptions]
    if output == "json":
        click.echo(json.dumps([_as_json(explanation) for explanation in explanations], indent=2, ensure_ascii=False))
    else:
        _print(explanations, others)
    ctx.exit(1 if any(explanation.error for explanation in explanations) else 0)


def _explain(description: Description, cpus: int, fs_group: int | None) -> Explanation:
    access = Access(
        mode=description.access_mode,
        read_only=description.read_only,
        one_target=False,
        mount_flags=description.mount_flags,
        mount_group=fs_group,
    )
    try:
        parsed = parse_volume(
            description.attributes,
            cpu_count=cpus,
            read_only=access.read_only,
            mount_group=fs_group,
            mount_flags=access.mount_flags,
        )
        if access.mode:
            refuse_contradiction(parsed, access)
        if description.is_block:
            parse_access(_capability(block=csi_pb2.VolumeCapability.BlockVolume()), readonly=False)
        if description.parameters is not None:
            parse_wanted(_creation(description.parameters), cpu_count=cpus)
    except OssFuseError as error:
        return Explanation(description, None, error)
    return Explanation(description, parsed, None)


def _creation(parameters: Mapping[str, str]) -> csi_pb2.CreateVolumeRequest:
    """What the provisioner asks the controller for when a claim names the class, with names that stand for any."""
    return csi_pb2.CreateVolumeRequest(
        name="pvc-00000000-0000-0000-0000-000000000000",
        volume_capabilities=[_capability(mount=csi_pb2.VolumeCapability.MountVolume())],
        parameters={**parameters, **_CLAIM},
    )


def _capability(**access_type: Any) -> csi_pb2.VolumeCapability:
    """One that writes nothing, which no argument of a volume contradicts: the mode is the claim's to choose."""
    mode = csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.MULTI_NODE_READER_ONLY)
    return csi_pb2.VolumeCapability(access_mode=mode, **access_type)


def _print(explanations: Sequence[Explanation], others: Sequence[str]) -> None:
    for explanation in explanations:
        if explanation.parsed is not None:
            rows = [(one.key, one.value, one.origin, one.note) for one in explanation.parsed.settings]
            print_table(("KEY", "VALUE", "FROM", "NOTE"), rows, title=explanation.description.name)
        else:
            click.echo(explanation.description.name)
        for note in explanation.description.notes:
            click.echo(f"Note: {note}")
        for warning in explanation.warnings:
            click.secho(f"Warning: {warning}", fg="yellow")
        if explanation.error is not None:
            click.secho(f"Error: {explanation.error.message}", fg="red")
            if explanation.error.hint:
                click.echo(f"Hint: {explanation.error.hint}")
        click.echo()
    if others:
        click.echo(f"Not volumes, passed over: {', '.join(others)}")


def _as_json(explanation: Explanation) -> dict[str, Any]:
    parsed, error = explanation.parsed, explanation.error
    return {
        "name": explanation.description.name,
        "settings": [asdict(setting) for setting in parsed.settings] if parsed else [],
        "notes": list(explanation.description.notes),
        "warnings": list(explanation.warnings),
        "readOnly": parsed.spec.arguments.read_only if parsed else None,
        "specHash": spec_hash(parsed.spec) if parsed else None,
        "error": {"message": error.message, "hint": error.hint} if error else None,
    }
