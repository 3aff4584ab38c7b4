"""FUSE arguments and ownership of one volume: mode, arguments and attributes merged into what the mount shows.

Arguments are merged one by one: what a source does not mention stays as the weaker source had it, so that a mode keeps
its promises when a guide's `-oattr_timeout=0` is added to it. Read-only access of the pod is the strongest of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from csi.errors import InvalidOption
from csi.volume.args import ParsedArguments
from csi.volume.spec import CachePolicy, MountArguments, Ownership
from csi.volume.table.argument_table import ARGUMENTS

ACCESS = "read-only access"
MOUNT_GROUP = "fsGroup"
DEFAULT = "default"
_UMASK = 0o022
_GROUP_UMASK = 0o002


@dataclass(slots=True)
class Mounting:
    """The merge so far: values, the texts users know them by, where each came from, what was overruled."""

    values: dict[str, object] = field(default_factory=dict)
    ownership: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def merge(sources: Sequence[tuple[str, ParsedArguments]], *, quiet: str, read_only: bool) -> Mounting:
    """Merge `sources`, the weakest first; `quiet` is the origin (the mode) that is overruled without a warning.

    Raises InvalidOption when two sources contradict each other about read-only.
    """
    merged = Mounting()
    for origin, parsed in sources:
        for name, value in (*parsed.values.items(), *parsed.ownership.items()):
            before = merged.values.get(name, merged.ownership.get(name))
            if before is not None and before != value and merged.origins[name] != quiet:
                merged.warnings.append(
                    f"{parsed.texts[name]} ({origin}) wins over {merged.texts[name]} ({merged.origins[name]})"
                )
            if name == "read_only" and before is True and value is False:
                raise InvalidOption.stating(
                    origin,
                    f"{origin}: -orw contradicts -oro of {merged.origins[name]}",
                    hint="remove one of them, or choose a mode that writes",
                )
            merged.origins[name] = origin
            merged.texts[name] = parsed.texts[name]
        merged.values |= parsed.values
        merged.ownership |= parsed.ownership
    if read_only and merged.values.get("read_only") is not True:
        merged.values["read_only"] = True
        merged.origins["read_only"] = ACCESS
    return merged


def mount_arguments(merged: Mounting) -> MountArguments:
    """The merged arguments over JindoFuse's defaults."""
    return replace(MountArguments(), **merged.values)  # type: ignore[arg-type]  # keys and types are the table's


def argument_texts(arguments: MountArguments) -> Mapping[str, tuple[str, str]]:
    """Every field as an argument and its value: `attr_timeout` is `-oattr_timeout` and `3`."""
    texts: dict[str, tuple[str, str]] = {}
    for item in fields(MountArguments):
        value = getattr(arguments, item.name)
        name = next(f"-o{argument.name}" for argument in ARGUMENTS if argument.sets == item.name)
        if isinstance(value, CachePolicy):
            texts[item.name] = ("page cache", value.value)
        elif isinstance(value, bool):
            negated = name.startswith("-ono_")
            texts[item.name] = (name, "true" if value != negated else "false")
        else:
            texts[item.name] = (name, f"{value:g}")
    return texts


def ownership(merged: Mounting, attributes: Mapping[str, int], mount_group: int | None) -> Ownership:
    """Who owns what the mount shows. `attributes` are uid, gid, umask, fileMode and dirMode as far as given; they win
    over arguments. With a mount group and no permissions given, the group may write, as `fsGroup` promises."""
    for name, value in attributes.items():
        before = merged.ownership.get(name)
        if before is not None and before != value:
            merged.warnings.append(f"{name} (attribute) wins over {merged.texts[name]} ({merged.origins[name]})")
    both = {**merged.ownership, **attributes}
    umask = both.get("umask", _UMASK if mount_group is None else _GROUP_UMASK)
    if mount_group is not None and both.get("gid", mount_group) != mount_group:
        merged.warnings.append(f"the pod's fsGroup {mount_group} wins over gid {both['gid']}")
    return Ownership(
        uid=both.get("uid", 0),
        gid=both.get("gid", 0) if mount_group is None else mount_group,
        file_mode=both.get("fileMode", 0o666 & ~both.get("fmask", umask)),
        dir_mode=both.get("dirMode", 0o777 & ~both.get("dmask", umask)),
    )
