"""How a volume is asked to be used, parsed from CSI's VolumeCapability into one frozen value.

OSS gives directories, so every filesystem access mode is accepted and block access is refused. The reading modes and
the `readonly` flag mean the same: nothing may be written through this mount.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from csi.errors import InvalidOption, UnsupportedVolume
from csi.v1 import csi_pb2

_Mode = csi_pb2.VolumeCapability.AccessMode

_READING = frozenset({_Mode.SINGLE_NODE_READER_ONLY, _Mode.MULTI_NODE_READER_ONLY})
_ONE_TARGET = frozenset({_Mode.SINGLE_NODE_WRITER, _Mode.SINGLE_NODE_READER_ONLY, _Mode.SINGLE_NODE_SINGLE_WRITER})
"""Modes in which a second target path on one node is refused (CSI, second table of NodePublishVolume)."""

_LARGEST_GROUP = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Access:
    """`read_only`: the request lets nothing be written. `one_target`: no second target path on this node.

    `mount_group` is the group that owns the files, None when not given. `mode` is the access mode's name.
    """

    mode: str
    read_only: bool
    one_target: bool
    mount_flags: tuple[str, ...]
    mount_group: int | None


def parse_access(capability: csi_pb2.VolumeCapability | None, *, readonly: bool) -> Access:
    """Raises InvalidOption (something missing or malformed), UnsupportedVolume (block access)."""
    if capability is None:
        raise InvalidOption("volume_capability", "", "an access type and an access mode")
    kind = capability.WhichOneof("access_type")
    if kind == "block":
        raise UnsupportedVolume(
            "volume_capability.block: OSS holds objects, not block devices", hint="use volumeMode: Filesystem"
        )
    if kind is None:
        raise InvalidOption("volume_capability.access_type", "", "mount", hint="use volumeMode: Filesystem")
    mode = capability.access_mode.mode
    if mode == _Mode.UNKNOWN or mode not in _Mode.Mode.values():
        raise InvalidOption("volume_capability.access_mode", mode, f"one of {', '.join(_Mode.Mode.keys()[1:])}")
    return Access(
        mode=_Mode.Mode.Name(mode),
        read_only=readonly or mode in _READING,
        one_target=mode in _ONE_TARGET,
        mount_flags=tuple(capability.mount.mount_flags),
        mount_group=_group(capability.mount.volume_mount_group),
    )


def parse_all(capabilities: Iterable[csi_pb2.VolumeCapability]) -> list[Access]:
    """Every way of use that was asked for; raises InvalidOption when there is none."""
    found = [parse_access(capability, readonly=False) for capability in capabilities]
    if not found:
        raise InvalidOption("volume_capabilities", "", "at least one capability")
    return found


def _group(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > _LARGEST_GROUP:
        raise InvalidOption(
            "volume_capability.mount.volume_mount_group", text, "a numeric group id", hint="set fsGroup of the pod"
        )
    return int(text)
