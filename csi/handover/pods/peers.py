"""Whether a process belongs to a pod: what the kernel says, not what the process says.

kubelet puts every container into a cgroup below one that names the pod's UID: `…/pod<uid>/…` with the cgroupfs driver,
`…-pod<uid with '_' for '-'>.slice/…` with systemd's, on cgroup v1 and v2 alike. A user id would say less: in a pod with
a user namespace of its own it is another one on the node. cgroup v1 shows a process that is exiting as one of no group;
it is known by the IPC namespace, which the containers of a pod share (ipc_namespaces(7)). With hostIPC that is the
node's, and says nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

NODE_IPC_NAMESPACE: Final = "ipc:[4026531839]"
"""Always that of the first one (IPC_NS_INIT_INO in include/uapi/linux/nsfs.h). Process 1 may not be ours to look at."""


def read_membership(pid: int) -> str:
    """The text of /proc/<pid>/cgroup (cgroups(7)). Raises OSError when there is no such process."""
    return Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")


def read_ipc_namespace(pid: int) -> str:
    """Which IPC namespace a process is in. Raises OSError when there is no such process."""
    return os.readlink(f"/proc/{pid}/ns/ipc")


def in_pod(membership: str, uid: str) -> bool:
    """Whether a process with this `membership` runs in a container of the pod `uid`."""
    if not uid:
        return False
    names = "|".join(re.escape(name) for name in {uid, uid.replace("-", "_")})
    of_pod = re.compile(rf"(?:^|/|-)pod(?:{names})(?:\.slice)?(?:/|$)")
    paths = (line.split(":", 2)[2] for line in membership.splitlines() if line.count(":") >= 2)
    return any(of_pod.search(path) for path in paths)
