"""Thirty pods with volumes of ours start and end at once: all run, and nothing of them is left."""

from __future__ import annotations

import pytest

from tests.cluster import workloads
from tests.cluster.harness.driver import Driver
from tests.cluster.tenant import SECRET, Tenant
from tests.cluster.workloads import Folder

PODS = 30

pytestmark = pytest.mark.timeout(1200)  # on a busy machine


def test_thirty_pods_start_and_end_at_once_and_leave_nothing(tenant: Tenant, driver: Driver) -> None:
    tenant.put("shared/hello", "hello")
    tenant.give_volume("shared", attributes=small(tenant, "shared/"), access="ReadOnlyMany")
    own = {**small(tenant, "runs/"), "onDelete": "delete", "pathPattern": "${.PVC.name}"}
    name = tenant.give_class(own, secrets_in=driver.namespace)
    tenant.apply(*(workloads.claim(f"own-{n}", storage_class=name) for n in range(PODS)))
    script = "cat /shared/hello > /own/copy; sleep 1d"
    pods = [
        workloads.pod(
            f"app-{n}",
            workloads.pod_spec(
                f"trap exit TERM; {{ {script}; }} & wait",
                {"own": Folder(f"own-{n}", "/own"), "shared": Folder("shared", "/shared")}
                if n % 2
                else {"own": Folder(f"own-{n}", "/own"), "shared": Folder(path="/shared", source=inline(tenant))},
            ),
        )
        for n in range(PODS)
    ]
    tenant.apply(*pods)
    for n in range(PODS):
        tenant.space.wait_pod(f"app-{n}", "Ready", 600)
    tenant.until(
        lambda: (
            {key for key in tenant.keys("runs/") if key.endswith("/copy")}
            == {f"runs/own-{n}/copy" for n in range(PODS)}
        ),
        "every pod wrote its copy",
        seconds=120,
    )
    uids = [one["metadata"]["uid"] for one in tenant.space.list("pods")]
    running = left_on_the_node(tenant, uids)
    assert len(uids) == PODS
    assert {what for what, count in running.items() if count >= PODS} == _TRACES.keys()
    tenant.space.delete("pods", "--all", wait=False)
    tenant.until(lambda: tenant.space.list("pods") == [], "the end of every pod", seconds=600)
    tenant.space.delete("pvc", *(f"own-{n}" for n in range(PODS)))
    tenant.until(lambda: volumes_of(tenant, name) == [], f"no PersistentVolume of {name}", seconds=120)
    tenant.until(
        lambda: not any(left_on_the_node(tenant, uids).values()), "nothing of the pods on the node", seconds=120
    )
    assert tenant.keys("runs/") == set()


def small(tenant: Tenant, path: str, **options: str) -> dict[str, str]:
    """Attributes of volumes that fit into one node thirty times."""
    resources = {"fs__jindo__fuse__pod__mem__limit": "128Mi", "fs__jindo__fuse__pod__cpu__request": "10m"}
    return tenant.attributes(path, **resources, **options)


def inline(tenant: Tenant) -> workloads.Manifest:
    source = {
        "driver": workloads.DRIVER,
        "readOnly": True,
        "nodePublishSecretRef": {"name": SECRET},
        "volumeAttributes": small(tenant, "shared/", mode="readonly"),
    }
    return {"csi": source}


def volumes_of(tenant: Tenant, storage_class: str) -> list[str]:
    found = tenant.cluster.list("pv")
    return [one["metadata"]["name"] for one in found if one["spec"].get("storageClassName") == storage_class]


def left_on_the_node(tenant: Tenant, uids: list[str]) -> dict[str, int]:
    """What pods with volumes of ours leave traces in, and how many. Looked for by the pods' UIDs: other clusters on the
    same machine have pods of their own. FUSE connections have no name; the node plugin holds
    that of each sidecar that runs, for the next one."""
    script = f"pods='{'|'.join(uids)}'\n" + "\n".join(_TRACES.values())
    counts = tenant.cluster.node_exec("sh", "-c", script).split()
    return dict(zip(_TRACES, map(int, counts), strict=True))


_TRACES = {
    "mounts": 'grep -cE "$pods" /proc/self/mountinfo',
    "directories of kubelet": 'ls /var/lib/kubelet/pods | grep -cE "$pods"',
    "cgroups": 'find /sys/fs/cgroup -maxdepth 5 -type d -name "pod*" | grep -cE "$pods"',
    "processes": 'cat /proc/[0-9]*/cgroup 2>/dev/null | grep -E "$pods" | cut -d: -f3 | sort -u | wc -l',
    "states of the driver": 'grep -rlE "$pods" /run/ossfuse | wc -l',
    "connections held": 'ls -l $(pgrep -f "ossfuse node" | sed "s|.*|/proc/&/fd|") | grep -c /dev/fuse; true',
}
