"""Disk caches of pods on a real kubelet: in an emptyDir, in a directory of the node for all pods, and refused ones."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.volume.naming import CACHE_FOLDER
from tests.cluster import workloads
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.driver import CACHES, Driver
from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.harness.node import Node
from tests.cluster.tenant import Tenant
from tests.cluster.workloads import Folder
from tests.support.emulator import RunningEmulator
from tests.support.engines import content, until
from tests.support.linux_releases import needs_linux

SIZE = 24 << 20  # more than a sidecar of 512Mi keeps in memory
READ = "dd if=/data/big bs=1M iflag=direct 2>/dev/null | wc -c; cat /data/small | md5sum"
"""Past the page cache of the kernel, so that the sidecar is asked each time."""


@pytest.fixture
def place(cluster: Cluster) -> Iterator[Path]:
    """A directory of the node below the allowed one, for one test."""
    made = CACHES / uuid.uuid4().hex[:8]
    yield made
    if cluster.node is not None:
        cluster.node_exec("rm", "-rf", str(made))


@pytest.fixture
def free_tenant(cluster: Cluster, oss: RunningEmulator, driver: Driver) -> Iterator[Tenant]:
    """One whose namespace admits host paths."""
    with cluster.namespace({"pod-security.kubernetes.io/enforce": "privileged"}) as space:
        made = Tenant(space, oss)
        made.give_secret()
        yield made
        made.leave()


def give_cached_volume(tenant: Tenant, cache: str) -> None:
    tenant.put("big", content(SIZE))
    tenant.put("small", "small")
    attributes = tenant.attributes(
        mode="readonly", cache=cache, cacheSize="64Mi", fs__jindo__fuse__pod__mem__limit="512Mi"
    )
    tenant.give_volume(attributes=attributes, access="ReadOnlyMany")


def gets(tenant: Tenant) -> int:
    return tenant.oss.count("GetObject")


def test_a_pod_reads_a_second_time_from_its_empty_dir_which_nobody_else_may_mount(tenant: Tenant) -> None:
    give_cached_volume(tenant, "emptyDir")
    tenant.start_pod("app")
    pod = tenant.pod("app")["spec"]
    assert {"name": "ossdisk-data", "emptyDir": {"sizeLimit": "132Mi"}} in pod["volumes"]
    assert pod["initContainers"][0]["resources"]["requests"]["ephemeral-storage"] == "132Mi"
    first = tenant.sh("app", READ)
    assert first.split()[0] == str(SIZE)
    asked = gets(tenant)
    assert asked > 1
    folder = f"/var/cache/ossfuse/{CACHE_FOLDER}"
    used = f"find {folder} -type f -size +100k | wc -l; stat -c %u:%A {folder}"
    assert tenant.sh("app", used, container="ossfuse-data").split() == ["1", "65534:drwx--S---"]  # S: of the fsGroup
    assert tenant.sh("app", READ) == first
    assert gets(tenant) == asked, "the second read cost no request for bytes"
    debug = {
        "name": "debug",
        "image": workloads.BUSYBOX,
        "securityContext": tenant.pod("app")["spec"]["containers"][0]["securityContext"],
        "volumeMounts": [{"name": "ossdisk-data", "mountPath": "/cache"}],
    }
    patch = json.dumps({"spec": {"ephemeralContainers": [debug]}})
    words = ("patch", "pod", "app", f"--namespace={tenant.namespace}", "--subresource=ephemeralcontainers")
    with pytest.raises(ClusterFailed, match="container debug mounts the disk cache of a sidecar"):
        tenant.cluster.kubectl(*words, "--type=strategic", f"--patch={patch}")


@needs_linux(6, 9, "FUSE passthrough")
def test_the_kernel_reads_what_is_whole_in_the_cache_by_itself(node: Node, tenant: Tenant) -> None:
    """The node plugin sees to that, for a sidecar that has no rights at all."""
    give_cached_volume(tenant, "emptyDir")
    tenant.start_pod("app")

    def passed() -> bool:
        assert tenant.sh("app", "cat /data/big | wc -c").strip() == str(SIZE)
        return "the kernel reads files that are whole in the disk cache by itself" in tenant.logs("app", "ossfuse-data")

    until(passed)


def test_pods_of_a_node_share_a_host_path_and_the_second_reads_what_the_first_has_read(
    free_tenant: Tenant, place: Path
) -> None:
    give_cached_volume(free_tenant, str(place))
    free_tenant.start_pod("one")
    first = free_tenant.sh("one", READ)
    free_tenant.delete_pod("one")
    asked = gets(free_tenant)
    free_tenant.start_pod("two")
    assert free_tenant.sh("two", READ) == first
    assert gets(free_tenant) == asked
    assert "ossfuse-data" in free_tenant.sidecars("two")


def test_a_path_that_is_not_allowed_is_an_event_that_says_what_is(tenant: Tenant) -> None:
    give_cached_volume(tenant, "/etc")
    tenant.apply(workloads.job("train", workloads.pod_spec("true", {"data": Folder("data")})))
    event = tenant.space.wait_event("train", "FailedCreate", "the host path '/etc' is not one")
    assert f"use a path below {CACHES}, or cache: emptyDir" in event["message"]


def test_pod_security_has_the_last_word_about_host_paths(tenant: Tenant) -> None:
    give_cached_volume(tenant, f"{CACHES}/any")
    with pytest.raises(ClusterFailed, match=r'violates PodSecurity "restricted.*ossdisk-data.*hostPath'):
        tenant.start_pod("app", wait=False)
