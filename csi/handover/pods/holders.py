"""Which containers were started on a mount, and so would not see what is mounted on one below it.

A container's copy of a mount follows the mount it was made from (mount_namespaces(7), "slave"). One that was made
while a volume had a second mount on top of its first is a copy of the second: to be seen there, a third must be
mounted on the second. The mount tables of other mount namespaces tell; no mount is touched.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from csi.handover.mountinfo import MountEntry, parse_mountinfo


def has_followers(minor: int, stack: Collection[int], proc: Path = Path("/proc")) -> bool:
    """Whether in some mount namespace the FUSE connection `minor` is mounted by itself and follows; `stack` are the
    numbers of all connections of the volume, upon which copies of it lie elsewhere."""
    return any(_follows(entries, minor, stack) for entries in _tables(proc))


def _follows(entries: list[MountEntry], minor: int, stack: Collection[int]) -> bool:
    of_stack = {entry.mount_id for entry in entries if entry.major == 0 and entry.minor in stack}
    return any(
        entry.major == 0
        and entry.minor == minor
        and entry.root == "/"
        and entry.parent_id not in of_stack
        and any(tag.startswith(("master:", "shared:")) for tag in entry.optional)
        for entry in entries
    )


def _tables(proc: Path) -> Iterable[list[MountEntry]]:
    seen: set[str] = set()
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):  # ended meanwhile
            namespace = os.readlink(proc / name / "ns" / "mnt")
            if namespace not in seen:
                table = (proc / name / "mountinfo").read_bytes()
                seen.add(namespace)
                yield parse_mountinfo(table)
