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
    before = left_on_the_node(tenant)
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
    tenant.space.delete("pods", "--all", wait=False)
    tenant.until(lambda: tenant.space.list("pods") == [], "the end of every pod", seconds=600)
    tenant.space.delete("pvc", *(f"own-{n}" for n in range(PODS)))
    tenant.until(lambda: volumes_of(tenant, name) == [], f"no PersistentVolume of {name}", seconds=120)
    tenant.until(lambda: left_on_the_node(tenant) == before, "nothing more on the node than before", seconds=120)
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


def left_on_the_node(tenant: Tenant) -> list[str]:
    """What pods with volumes of ours leave traces in: mounts, sockets, pod cgroups, containers, state files."""
    script = (
        "grep -c 'fuse.ossfuse\\|ossfuse:' /proc/self/mountinfo; "
        "grep -c kubernetes.io~ /proc/self/mountinfo; "
        "find /sys/fs/cgroup -maxdepth 4 -type d -name 'pod*' | wc -l; "
        "ls /sys/fs/fuse/connections | wc -l; "
        "ls /var/lib/kubelet/pods | wc -l; "
        "grep -c /pods/ /proc/net/unix; "
        "pgrep -fc 'ossfuse sidecar'; "
        "find /run/ossfuse -mindepth 1 | wc -l; true"
    )
    found: str = tenant.cluster.node_exec("sh", "-c", script)
    return found.split()
