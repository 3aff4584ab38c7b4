"""Whether a process belongs to a pod: what the kernel says, not what the process says.

kubelet puts every container into a cgroup below one that names the pod's UID: `…/pod<uid>/…` with the cgroupfs driver,
`…-pod<uid with '_' for '-'>.slice/…` with systemd's, on cgroup v1 and v2 alike. A user id would say less: in a pod with
a user namespace of its own it is another one on the node.
"""

from __future__ import annotations

import re
from pathlib import Path


def read_membership(pid: int) -> str:
    """The text of /proc/<pid>/cgroup (cgroups(7)). Raises OSError when there is no such process."""
    return Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")


def in_pod(membership: str, uid: str) -> bool:
    """Whether a process with this `membership` runs in a container of the pod `uid`."""
    if not uid:
        return False
    names = "|".join(re.escape(name) for name in {uid, uid.replace("-", "_")})
    of_pod = re.compile(rf"(?:^|/|-)pod(?:{names})(?:\.slice)?(?:/|$)")
    paths = (line.split(":", 2)[2] for line in membership.splitlines() if line.count(":") >= 2)
    return any(of_pod.search(path) for path in paths)
