"""The memory cgroup of a sidecar, for cgroup v1 and v2: made before the sidecar starts, removed after it is gone.

A sidecar's processes are those in its cgroup: that is how a restarted node plugin finds and ends them. The room
`ossfuse/` that holds the cgroups lies as near to the node plugin's own cgroup as the kernel's rules allow, so that
limits set on the node plugin by others go on covering them. v1: Documentation/admin-guide/cgroup-v1/memory.rst; v2:
Documentation/admin-guide/cgroup-v2.rst ("no internal processes").
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from csi.errors import MountError
from csi.handover.mountinfo import MountEntry
from csi.volume.units import Bytes, Seconds

_log = logging.getLogger(__name__)

_ROOM: Final = "ossfuse"
_LEAF: Final = "ossfuse-node"
_REMOVE_TRIES: Final = 100
_PAUSE: Final = Seconds(0.05)


@dataclass(frozen=True, slots=True)
class MemoryHierarchy:
    """Where memory cgroups live: `version` 1 or 2, the `mount` point, and the directory `own` of this process."""

    version: int
    mount: Path
    own: Path


def memory_hierarchy(entries: Sequence[MountEntry], membership: str) -> MemoryHierarchy:
    """From the mount table and the text of /proc/self/cgroup (cgroups(7)). Raises MountError when there is none."""
    lines = [line.split(":", 2) for line in membership.splitlines() if line.count(":") >= 2]
    for entry in entries:
        if entry.fstype == "cgroup" and "memory" in entry.super_options:
            own = next((path for _, controllers, path in lines if "memory" in controllers.split(",")), "/")
            return MemoryHierarchy(1, Path(entry.target), _below(entry, own))
    for entry in entries:
        if entry.fstype == "cgroup2" and "memory" in _words(Path(entry.target) / "cgroup.controllers"):
            own = next((path for number, controllers, path in lines if number == "0" and not controllers), "/")
            return MemoryHierarchy(2, Path(entry.target), _below(entry, own))
    raise MountError(
        "no memory cgroup hierarchy is mounted",
        hint="mount cgroup2 on /sys/fs/cgroup, or enable the memory controller (kernel argument cgroup_enable=memory)",
    )


class MemoryCgroup:
    """One cgroup directory. Reading never raises: a file that is not there reads as 0. Safe from any thread."""

    def __init__(self, path: Path, version: int, sleep: Callable[[float], None] = time.sleep) -> None:
        self.path = path
        self._version = version
        self._sleep = sleep

    @property
    def exists(self) -> bool:
        return self.path.is_dir()

    def set_limit(self, limit: Bytes) -> None:
        """Hard limit; no swap beside it where the kernel lets us say so. Raises OSError."""
        if self._version == 2:
            _write(self.path / "memory.max", str(limit))
            _write_if_there(self.path / "memory.swap.max", "0")
            _write_if_there(self.path / "memory.oom.group", "1")
        else:
            _write(self.path / "memory.limit_in_bytes", str(limit))
            _write_if_there(self.path / "memory.memsw.limit_in_bytes", str(limit))

    def limit(self) -> Bytes:
        name = "memory.max" if self._version == 2 else "memory.limit_in_bytes"
        return Bytes(_number(self.path / name))

    def usage(self) -> Bytes:
        """Bytes in use, without file cache that the kernel would drop first (what `kubectl top` calls working set)."""
        if self._version == 2:
            used, idle = _number(self.path / "memory.current"), _counter(self.path / "memory.stat", "inactive_file")
        else:
            used = _number(self.path / "memory.usage_in_bytes")
            idle = _counter(self.path / "memory.stat", "total_inactive_file")
        return Bytes(max(0, used - idle))

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for memory."""
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        return _counter(self.path / name, "oom_kill")

    def pids(self) -> list[int]:
        return [int(word) for word in _words(self.path / "cgroup.procs")]

    def kill(self) -> None:
        """SIGKILL to everything in it; returns when it is empty or five seconds have passed."""
        with contextlib.suppress(OSError):
            _write(self.path / "cgroup.kill", "1")
        for _ in range(_REMOVE_TRIES):
            pids = self.pids()
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._sleep(_PAUSE)
        _log.warning("cgroup %s still has processes %s", self.path, self.pids())

    def remove(self) -> None:
        """rmdir, tried again while the kernel is still letting go of dead processes. Raises MountError."""
        for _ in range(_REMOVE_TRIES):
            try:
                self.path.rmdir()
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise MountError(
                        f"cgroup {self.path} cannot be removed: {error.strerror}", errno=error.errno or 0
                    ) from error
                self._sleep(_PAUSE)
            else:
                break
        else:
            raise MountError(
                f"cgroup {self.path} cannot be removed: it still has processes {self.pids()}",
                errno=errno.EBUSY,
                hint="end those processes; the directory can then be removed with rmdir",
            )
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()  # the room, when this was the last one


class CgroupRoom:
    """Makes and finds the cgroups named `<owner>-<name>`. Effects go through the file system only."""

    def __init__(
        self,
        hierarchy: Callable[[], MemoryHierarchy],
        owner: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._hierarchy = hierarchy
        self._owner = owner
        self._sleep = sleep

    def create(self, name: str, limit: Bytes) -> MemoryCgroup:
        """A new, empty cgroup limited to `limit`. Raises MountError."""
        hierarchy = self._hierarchy()
        parent = _room_parent(hierarchy)
        room = parent / _ROOM
        group = self._at(room / f"{self._owner}-{name}", hierarchy.version)
        try:
            for _ in range(3):  # another process may be removing the room as its last cgroup goes
                with contextlib.suppress(FileNotFoundError):
                    room.mkdir(mode=0o755, exist_ok=True)
                    if hierarchy.version == 2:
                        _enable_memory(room)
                    group.path.mkdir(mode=0o755, exist_ok=True)
                    break
            group.set_limit(limit)
        except OSError as error:
            with contextlib.suppress(OSError):
                group.path.rmdir()
            raise MountError(
                f"memory cgroup {group.path} with limit {limit} cannot be made: {error.strerror}",
                errno=error.errno or 0,
                hint="the node plugin needs root and a writable /sys/fs/cgroup (in a container: privileged)",
            ) from error
        return group

    def adopt(self, path: str) -> MemoryCgroup | None:
        """The cgroup at `path` as an earlier node plugin with the same state directory made it; None for any other."""
        found = Path(path)
        if not path or not found.name.startswith(f"{self._owner}-") or found.parent.name != _ROOM:
            return None
        return self._at(found, self._hierarchy().version)

    def leftovers(self) -> list[MemoryCgroup]:
        """Every cgroup of this owner that is there."""
        hierarchy = self._hierarchy()
        rooms = {ancestor / _ROOM for ancestor in (hierarchy.own, *hierarchy.own.parents)}
        found = [path for room in sorted(rooms) for path in sorted(room.glob(f"{self._owner}-*"))]
        return [self._at(path, hierarchy.version) for path in found]

    def _at(self, path: Path, version: int) -> MemoryCgroup:
        return MemoryCgroup(path, version, self._sleep)


def _below(entry: MountEntry, own: str) -> Path:
    """Directory of cgroup path `own` under a mount whose root may itself be a cgroup (containers)."""
    mount = Path(entry.target)
    if entry.root != "/" and (own == entry.root or own.startswith(entry.root + "/")):
        own = own[len(entry.root) :] or "/"
    here = mount / own.lstrip("/")
    return here if ".." not in here.parts and here.is_dir() else mount


def _room_parent(hierarchy: MemoryHierarchy) -> Path:
    """v1: our own cgroup. v2: our own if it may have children with controllers, else the nearest ancestor that
    distributes memory, else our own after our processes have moved into a leaf of it."""
    if hierarchy.version == 1:
        return hierarchy.own
    for candidate in (hierarchy.own, *hierarchy.own.parents):
        if not candidate.is_relative_to(hierarchy.mount):
            break
        if "memory" in _words(candidate / "cgroup.subtree_control"):
            return candidate
        if not (candidate / "cgroup.type").exists():  # the root of the machine: free of the rule
            return candidate
    _move_into_leaf(hierarchy.own)
    return hierarchy.own


def _move_into_leaf(own: Path) -> None:
    leaf = own / _LEAF
    try:
        leaf.mkdir(exist_ok=True)
        for pid in _words(own / "cgroup.procs"):
            with contextlib.suppress(ProcessLookupError):
                _write(leaf / "cgroup.procs", pid)
        _write(own / "cgroup.subtree_control", "+memory")
    except OSError as error:
        raise MountError(
            f"cgroup {own} cannot hand memory limits to sidecars: {error.strerror}",
            errno=error.errno or 0,
            hint="run the node plugin as root with a writable /sys/fs/cgroup; under systemd set Delegate=yes",
        ) from error


def _enable_memory(room: Path) -> None:
    for directory in (room.parent, room):
        if "memory" not in _words(directory / "cgroup.subtree_control"):
            _write(directory / "cgroup.subtree_control", "+memory")


def _write(path: Path, value: str) -> None:
    # no O_CREAT: a control file exists or the feature does not
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _write_if_there(path: Path, value: str) -> None:
    with contextlib.suppress(OSError):
        _write(path, value)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []


def _number(path: Path) -> int:
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else 0


def _counter(path: Path, name: str) -> int:
    words = _words(path)
    try:
        value = words[words.index(name) + 1]
    except (ValueError, IndexError):
        return 0
    return int(value) if value.isdigit() else 0
