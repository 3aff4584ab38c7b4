"""Giving up every right, and making sure that it worked.

A local sidecar starts as root because the interpreter may lie where only root can read; it must be nobody before it
hears a word from anybody. In a pod it starts as nobody, and only the last two steps are left to do. capabilities(7),
prctl(2).
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

from csi.errors import MountError
from csi.handover.kernel import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    Kernel,
)

_LAST_CAPABILITY: Final = Path("/proc/sys/kernel/cap_last_cap")
_STATUS: Final = Path("/proc/self/status")


def give_up_rights(kernel: Kernel, uid: int, gid: int) -> None:
    """Become `uid`:`gid` with no groups, no capabilities, no way to get new ones, no core dumps.

    Raises MountError when any of it did not happen. Must be called while the process has one thread: prctl(2) and
    capset(2) act on the calling thread only.
    """
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise MountError(f"rights cannot be given up with {threads} threads", hint="start no thread before this")
    was_root = os.geteuid() == 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if was_root:
        _drop_bounding_set(kernel)
        kernel.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        kernel.drop_capabilities()
    kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(PR_SET_DUMPABLE, 0)  # other processes of this user, other volumes' sidecars, cannot look inside
    _verify(_STATUS.read_text(encoding="ascii"), uid, gid, was_root=was_root)


def _drop_bounding_set(kernel: Kernel) -> None:
    last = int(_LAST_CAPABILITY.read_text(encoding="ascii"))
    for capability in range(last + 1):
        if kernel.prctl(PR_CAPBSET_READ, capability):
            kernel.prctl(PR_CAPBSET_DROP, capability)


def _verify(status: str, uid: int, gid: int, *, was_root: bool) -> None:
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    wanted = {"CapInh": "0", "CapPrm": "0", "CapEff": "0", "CapAmb": "0", "NoNewPrivs": "1"}
    if was_root:
        wanted |= {"CapBnd": "0", "Uid": f"{uid} {uid} {uid} {uid}", "Gid": f"{gid} {gid} {gid} {gid}", "Groups": ""}
    for name, value in wanted.items():
        found = " ".join(fields.get(name, "missing").split())
        if name.startswith("Cap"):
            found = found.lstrip("0") or "0"
        if found != value:
            raise MountError(
                f"the sidecar still has rights it must not have: {name} is {found!r}, expected {value!r}",
                hint="run the sidecar as root (it gives its rights up) or as a user without capabilities",
            )
