"""What is mounted where, from /proc/self/mountinfo (proc_pid_mountinfo(5)), and which of it is ours.

The mount table is the only record of what is published: the source of each of our mounts names its volume and the
hash of its options. Nothing here touches a mount: a dead or hung FUSE mount would hang whoever does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from csi.handover.types import PublishedVolume

FSTYPE: Final = "fuse.ossfuse"
_SCHEME: Final = "ossfuse:"
_ESCAPE: Final = re.compile(rb"\\([0-3][0-7]{2})")
_CONSISTENT_READS: Final = 5


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line. `optional` are the propagation tags, `minor` the number of the FUSE connection for a FUSE mount."""

    mount_id: int
    parent_id: int
    major: int
    minor: int
    root: str
    target: str
    options: tuple[str, ...]
    optional: tuple[str, ...]
    fstype: str
    source: str
    super_options: tuple[str, ...]

    @property
    def read_only(self) -> bool:
        return "ro" in self.options or "ro" in self.super_options


def mount_source(volume_id: str, spec_hash: str) -> str:
    """The source string of our mount: percent-encoded, so that it holds neither a space nor a second '#'."""
    return f"{_SCHEME}{quote(volume_id, safe='', errors='surrogateescape')}#{spec_hash}"


def published_volume(entry: MountEntry) -> PublishedVolume | None:
    """What of ours `entry` is; None when it is somebody else's."""
    if entry.fstype != FSTYPE or not entry.source.startswith(_SCHEME):
        return None
    quoted, separator, spec_hash = entry.source.removeprefix(_SCHEME).partition("#")
    if not (quoted and separator and spec_hash):
        return None
    volume_id = unquote(quoted, errors="surrogateescape")
    return PublishedVolume(volume_id, spec_hash, Path(entry.target), entry.minor, entry.read_only)


def parse_mountinfo(data: bytes) -> list[MountEntry]:
    """Every well-formed line, in the order of the file; a line cut short by the kernel is left out."""
    return [entry for line in data.split(b"\n") if (entry := _parse_line(line)) is not None]


def read_mountinfo(path: str = "/proc/self/mountinfo") -> list[MountEntry]:
    """The mount table now. The kernel hands it out in pieces and mounts made meanwhile can hide others, so it is read
    until two readings agree (or often enough on a node that never stops mounting)."""
    before = Path(path).read_bytes()
    for _ in range(_CONSISTENT_READS):
        now = Path(path).read_bytes()
        if now == before:
            break
        before = now
    return parse_mountinfo(before)


def layers_at(entries: Iterable[MountEntry], target: str) -> Sequence[MountEntry]:
    """The mounts stacked exactly on `target`, the lowest first."""
    here = [entry for entry in entries if entry.target == target]
    by_parent = {entry.parent_id: entry for entry in here}
    ids = {entry.mount_id for entry in here}
    lowest = [entry for entry in here if entry.parent_id not in ids]
    chain: list[MountEntry] = []
    for entry in lowest:
        current: MountEntry | None = entry
        while current is not None and current not in chain:
            chain.append(current)
            current = by_parent.get(current.mount_id)
    return chain


def filesystem_at(entries: Iterable[MountEntry], path: str) -> MountEntry | None:
    """The mount that holds `path`: the topmost one at the longest mount point that is a prefix of it."""
    found: MountEntry | None = None
    for entry in entries:
        inside = entry.target in ("/", path) or path.startswith(entry.target + "/")
        if inside and (found is None or len(entry.target) >= len(found.target)):
            found = entry
    return found


def _parse_line(line: bytes) -> MountEntry | None:
    fields = line.split(b" ")
    try:
        separator = fields.index(b"-", 6)
        major, minor = fields[2].split(b":")
        fstype, source, super_options = fields[separator + 1 : separator + 4]
        return MountEntry(
            mount_id=int(fields[0]),
            parent_id=int(fields[1]),
            major=int(major),
            minor=int(minor),
            root=_text(fields[3]),
            target=_text(fields[4]),
            options=tuple(_text(fields[5]).split(",")),
            optional=tuple(_text(field) for field in fields[6:separator]),
            fstype=_text(fstype),
            source=_text(source),
            super_options=tuple(_text(super_options).split(",")),
        )
    except (ValueError, IndexError):
        return None


def _text(field: bytes) -> str:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field).decode("utf-8", "surrogateescape")
