"""Parts die under a pod that works: node plugin, kubelet, sidecar. What the pod sees is what the documents promise."""

from __future__ import annotations

import json

import pytest

from csi.cluster.taint import TAINT
from tests.cluster.harness.driver import Driver
from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.tenant import Tenant
from tests.cluster.test_jobs import require_whole_files, start_writer
from tests.cluster.workloads import Folder

READER = (
    "n=0; while :; do cat /data/big > /dev/null && echo $n > /data/written-$((n % 5)) && n=$((n+1)) || "
    "{ echo FAILED; exit 1; }; echo round $n; sleep 0.05; done"
)

READ_ONLY = (
    "exec 3</data/big; cd /data; n=0; while :; do [ $(cat big | wc -c) = 8388608 ] && [ $(head -c 9 <&3 | wc -c) = 9 ] "
    "&& n=$((n+1)) || { echo FAILED; exit 1; }; echo round $n; sleep 0.05; done"
)
"""Reads a file anew and one that stays open, in a working directory of the volume."""


def rounds(tenant: Tenant) -> int:
    """Rounds that the reader has done; it must not have failed."""
    said = tenant.logs("app")
    assert "FAILED" not in said, said[-2000:]
    return said.count("round")


def further_rounds(tenant: Tenant, more: int = 20) -> None:
    start = rounds(tenant)
    tenant.until(lambda: rounds(tenant) >= start + more, f"{more} more rounds than {start}", seconds=120)


@pytest.fixture
def reader(tenant: Tenant) -> Tenant:
    """A pod that reads 8 MiB and writes a small file, over and over, and ends at the first error."""
    tenant.oss.seed("big", size=8 << 20)
    tenant.give_volume(attributes=tenant.attributes(fs__jindo__args="-odirect_io"))
    tenant.start_pod("app", READER, restart_policy="Never")
    tenant.until(lambda: rounds(tenant) > 3, "the first rounds")
    return tenant


def test_the_node_plugin_is_killed_and_comes_back_under_io(reader: Tenant, driver: Driver) -> None:
    before = driver.node_pod()
    reader.cluster.kubectl("-n", driver.namespace, "delete", "pod", before, "--grace-period=0", "--force")
    further_rounds(reader)
    driver.wait_ready()
    further_rounds(reader)
    # the new plugin is in charge of the volume: it hears the sidecar, and it unpublishes
    reader.start_pod("second")
    reader.sh("second", "cat /data/big > /dev/null")
    reader.delete_pod("app")
    reader.delete_pod("second")


def test_a_pod_deleted_while_the_node_plugin_is_replaced_leaves_whole_files(tenant: Tenant, driver: Driver) -> None:
    start_writer(tenant)
    tenant.cluster.kubectl("-n", driver.namespace, "delete", "pod", driver.node_pod(), "--grace-period=0", "--force")
    tenant.delete_pod("app")
    driver.wait_ready()
    require_whole_files(tenant)


def test_a_new_node_plugin_takes_the_start_up_taint_off_its_node(driver: Driver) -> None:
    node = driver.pods("node")[0]["spec"]["nodeName"]
    driver.cluster.kubectl("taint", "node", node, f"{TAINT}=:NoSchedule", "example.com/stays=:PreferNoSchedule")
    driver.cluster.delete("pod", driver.node_pod(), namespace=driver.namespace)
    driver.cluster.wait_for(lambda: taints(driver, node) == ["example.com/stays"], "the taint's end")
    driver.cluster.kubectl("taint", "node", node, "example.com/stays-")
    driver.wait_ready()


def taints(driver: Driver, node: str) -> list[str]:
    return [taint["key"] for taint in (driver.cluster.get("node", node) or {})["spec"].get("taints", [])]


def test_the_node_plugin_container_crashes_under_io(reader: Tenant, driver: Driver) -> None:
    pod = driver.node_pod()
    reader.cluster.node_exec("sh", "-c", "kill -9 $(pgrep -f '[o]ssfuse node')")
    reader.until(lambda: driver.restarts(pod) >= 1, "the node plugin's container restarted")
    driver.wait_ready()
    further_rounds(reader)


def test_kubelet_restarts_under_io(reader: Tenant) -> None:
    reader.cluster.restart_kubelet()
    further_rounds(reader)
    reader.start_pod("second")
    reader.sh("second", "head -c 10 /data/big > /dev/null")


def test_a_sidecar_killed_is_told_and_the_pod_recovers(tenant: Tenant) -> None:
    tenant.put("hello", "hello")
    tenant.give_volume(attributes=tenant.attributes(mode="consistent"))
    tenant.start_pod("app")
    assert tenant.sh("app", "cat /data/hello") == "hello"
    tenant.cluster.node_exec("sh", "-c", f"kill -9 $({sidecar_pids(tenant, 'app')})")
    tenant.space.wait_event("app", "SidecarEnded", "ossfuse-data")
    tenant.until(lambda: tenant.sidecar_status("app").get("restartCount") == 1, "kubelet restarted the sidecar")
    tenant.space.wait_event("app", "SidecarRestarted", "ossfuse-data")
    tenant.until(lambda: "hello" in tenant.sh("app", "cat /data/hello 2>&1; true"), "the pod reads again")
    tenant.sh("app", "echo after > /data/after")
    assert tenant.get("after") == b"after\n"
    # a second crash is as survivable as the first
    tenant.cluster.node_exec("sh", "-c", f"kill -9 $({sidecar_pids(tenant, 'app')})")
    tenant.until(lambda: tenant.sidecar_status("app").get("restartCount") == 2, "restarted again")
    tenant.until(lambda: "after" in tenant.sh("app", "cat /data/after 2>&1; true"), "the pod reads again")
    tenant.delete_pod("app")


def test_a_pod_that_reads_notices_no_more_than_a_pause_when_its_sidecar_is_killed(tenant: Tenant) -> None:
    tenant.oss.seed("big", size=8 << 20)
    tenant.give_volume(attributes=tenant.attributes(fs__jindo__args="-odirect_io"))
    tenant.start_pod("app", READ_ONLY, restart_policy="Never")
    tenant.until(lambda: rounds(tenant) > 3, "the first rounds")
    for death in (1, 2):
        tenant.cluster.node_exec("sh", "-c", f"kill -9 $({sidecar_pids(tenant, 'app')})")
        tenant.until(
            lambda death=death: tenant.sidecar_status("app").get("restartCount") == death,  # type: ignore[misc]
            "kubelet restarted the sidecar",
        )
        further_rounds(tenant)
    event = tenant.space.wait_event("app", "SidecarRestarted", "ossfuse-data")
    assert "programs go on with what they have open" in event["message"]
    tenant.delete_pod("app")


def test_a_sidecar_out_of_memory_is_told_with_its_limit(tenant: Tenant) -> None:
    tenant.put("hello", "hello")
    tenant.give_volume(attributes=tenant.attributes(mode="consistent", fs__jindo__fuse__pod__mem__limit="128Mi"))
    tenant.start_pod("app")
    # what no file access can do: memory in the sidecar's cgroup, until the kernel kills its largest process
    tenant.cluster.node_exec("sh", "-c", fill_memory_beside(tenant, "app"))
    event = tenant.space.wait_event("app", "SidecarOutOfMemory", "128Mi")
    assert "fs.jindo.fuse.pod.mem.limit" in event["message"]
    tenant.until(lambda: "hello" in tenant.sh("app", "cat /data/hello 2>&1; true"), "the pod reads again")
    terminated = tenant.until(
        lambda: tenant.sidecar_status("app").get("lastState", {}).get("terminated"), "the status telling of the end"
    )
    assert terminated["reason"] == "OOMKilled"


def test_a_memory_limit_too_small_to_work_in_is_refused_with_the_pod(tenant: Tenant) -> None:
    tenant.give_volume()
    with pytest.raises(ClusterFailed, match=r"16Mi.*at least 128Mi"):
        tenant.start_pod("app", wait=False, annotations={"ossfuse.csi.dev/memory-limit": "16Mi"})


def test_a_pod_with_a_hung_sidecar_can_be_deleted(tenant: Tenant) -> None:
    tenant.oss.seed("big", size=8 << 20)
    tenant.give_volume()
    tenant.start_pod("app", folders={"data": Folder("data")})
    tenant.start_pod("other")
    tenant.cluster.node_exec("sh", "-c", f"kill -STOP $({sidecar_pids(tenant, 'app')})")
    tenant.delete_pod("app")
    assert tenant.sh("other", "ls /data") == "big\n"


def sidecar_pids(tenant: Tenant, pod: str) -> str:
    """A shell command printing the pids of a pod's sidecar processes, seen from the node."""
    uid = tenant.pod(pod)["metadata"]["uid"]
    of_pod = f"grep -l pod{uid} /proc/[0-9]*/cgroup | cut -d/ -f3"
    return f"for pid in $({of_pod}); do grep -qa sidecar /proc/$pid/cmdline && echo $pid; done"


def fill_memory_beside(tenant: Tenant, pod: str) -> str:
    """A shell script that takes memory in the sidecar's cgroup and is the kernel's second choice for being killed."""
    find = sidecar_pids(tenant, pod)
    program = json.dumps("x = bytearray(1 << 30)")
    return (
        f"set -e; pid=$({find} | head -n 1); "
        "group=/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/$pid/cgroup); "
        "[ -d $group ] || group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$pid/cgroup); "
        "echo 1000 > /proc/$pid/oom_score_adj; "
        f"(echo 0 > $group/cgroup.procs; exec python3 -c {program}) || true"
    )
