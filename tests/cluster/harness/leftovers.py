"""What a cluster leaves outside its namespaces, cgroups and a directory, and how the next one removes it.

A cluster whose process 1 has ended, whatever ended it, has no process, mount or network device left: the kernel saw to
that. Its lock file is then free, which tells this module that the rest may go.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.harness.places import CGROUPS, Places

_SUBNETS = 50
_LOGS_KEPT = 24 * 3600.0
_TRIES, _PAUSE = 50, 0.1
"""The kernel takes a moment to forget the processes of a cgroup."""


def alive(places: Places) -> bool:
    try:
        with places.lock.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def claimed(places: Places) -> Iterator[tuple[Places, tuple[int, ...]]]:
    """The places of a new cluster, with a subnet that no other one has, and descriptors that say so as long as any
    process holds them; process 1 inherits them in the block. What killed clusters left is removed first.
    """
    places.state.parent.mkdir(parents=True, exist_ok=True)
    with (places.state.parent / ".starting").open("wb") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)  # nobody removes what has just been made and is not yet locked
        for name in os.listdir(places.state.parent):
            if not name.startswith("."):
                remove_leftovers(dataclasses.replace(places, name=name))
        _remove_old_logs(places)
        if alive(places):
            raise ClusterFailed(
                f"the cluster {places.name!r} is running already; `make cluster-down` ends a developer's"
            )
        places.state.mkdir()
        lock = places.lock.open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock:
        subnet, held = _free_subnet()
        with held:
            yield dataclasses.replace(places, subnet=subnet), (lock.fileno(), held.fileno())


def remove_leftovers(places: Places) -> None:
    """Of this name, unless a cluster of it is alive."""
    if alive(places):
        return
    remove_cgroups(places.cgroup)
    shutil.rmtree(places.state, ignore_errors=True)


def make_cgroups(name: str) -> None:
    """An empty cgroup in each hierarchy; kubelet wants the one that it is given to exist."""
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)


def _remove_old_logs(places: Places) -> None:
    """Of failed runs that nobody looks at any more."""
    places.logs.parent.mkdir(parents=True, exist_ok=True)
    for name in os.listdir(places.logs.parent):
        earlier = dataclasses.replace(places, name=name)
        if earlier.logs.stat().st_mtime < time.time() - _LOGS_KEPT and not alive(earlier):
            shutil.rmtree(earlier.logs, ignore_errors=True)


def remove_cgroups(name: str) -> None:
    for hierarchy in _hierarchies():
        for directory, _, _ in os.walk(hierarchy / name, topdown=False):
            _remove_cgroup(Path(directory))


def cgroups_left(name: str) -> list[Path]:
    return [hierarchy / name for hierarchy in _hierarchies() if (hierarchy / name).exists()]


def _free_subnet() -> tuple[int, socket.socket]:
    """The socket's name, which is known on the whole machine and vanishes with it, says that the subnet is in use."""
    for subnet in range(_SUBNETS):
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0ossfuse-cluster-{subnet}")
        except OSError:
            held.close()
        else:
            return subnet, held
    raise ClusterFailed(f"{_SUBNETS} clusters run on this machine already")


def _hierarchies() -> list[Path]:
    """One of cgroup v2, or those of v1; `cpu` and `cpuacct` may be two names of one."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [entry for entry in sorted(CGROUPS.iterdir()) if (entry / "cgroup.procs").exists()]


def _remove_cgroup(directory: Path) -> None:
    for attempt in range(_TRIES):
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as failed:
            if failed.errno != errno.EBUSY or attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE)
        else:
            return
