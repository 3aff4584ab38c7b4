"""Volumes of every kind, in pods on a real kubelet: what a pod sees, and what another client finds in the bucket."""

from __future__ import annotations

import pytest

from tests.cluster import workloads
from tests.cluster.harness.driver import Driver
from tests.cluster.tenant import SECRET, Tenant
from tests.cluster.workloads import Folder

WRITABLE = ("fast", "incremental", "consistent", "custom")
EROFS = "Read-only file system"


@pytest.mark.parametrize("mode", WRITABLE)
def test_a_writable_mode_reads_and_writes(tenant: Tenant, mode: str) -> None:
    tenant.put("in/hello", "hello from the bucket")
    tenant.give_volume(attributes=tenant.attributes("in/", mode=mode))
    tenant.start_pod("app")
    assert tenant.sh("app", "cat /data/hello") == "hello from the bucket"
    tenant.sh("app", "echo one > /data/new && echo two >> /data/new && mkdir /data/d && cp /data/new /data/d/copy")
    assert tenant.get("in/new") == b"one\ntwo\n"
    assert tenant.get("in/d/copy") == b"one\ntwo\n"


def test_mode_readonly_reads_and_refuses_writes(tenant: Tenant) -> None:
    tenant.put("in/hello", "hello")
    tenant.give_volume(attributes=tenant.attributes("in/", mode="readonly"), access="ReadOnlyMany")
    tenant.start_pod("app")
    assert tenant.sh("app", "cat /data/hello") == "hello"
    assert EROFS in tenant.fails("app", "touch /data/new")
    assert tenant.keys() == {"in/hello"}


def test_the_pod_has_one_sidecar_first_in_line_with_the_volumes_memory_limit(tenant: Tenant) -> None:
    tenant.give_volume(attributes=tenant.attributes(fs__jindo__fuse__pod__mem__limit="300Mi"))
    tenant.start_pod("app", init_scripts=["ls /data && echo early > /data/early"])
    pod = tenant.pod("app")
    first = pod["spec"]["initContainers"][0]
    assert first["name"] == "ossfuse-data"
    assert first["restartPolicy"] == "Always"
    assert first["resources"]["limits"]["memory"] == "300Mi"
    assert tenant.get("early") == b"early\n"
    v1, v2 = "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"
    limit = tenant.sh("app", f"cat {v1} 2>/dev/null || cat {v2}", container="ossfuse-data")
    assert int(limit) == 300 << 20


def test_a_claim_of_a_storage_class_gets_a_prefix_of_its_own(tenant: Tenant, driver: Driver) -> None:
    tenant.put("runs/other", "stays")
    parameters = tenant.attributes(
        "runs/", mode="consistent", pathPattern="${.PVC.namespace}/${.PVC.name}", onDelete="delete"
    )
    name = tenant.give_class(parameters, secrets_in=driver.namespace)  # where the provisioner may read them
    tenant.apply(workloads.claim("data", storage_class=name))
    tenant.start_pod("app")  # the webhook meets the claim bound or unbound, as it comes
    tenant.sh("app", "echo 1 > /data/checkpoint")
    assert tenant.get(f"runs/{tenant.namespace}/data/checkpoint") == b"1\n"
    volume = (tenant.space.get("pvc", "data") or {})["spec"]["volumeName"]
    tenant.delete_pod("app")
    tenant.space.delete("pvc", "data")
    tenant.cluster.wait_gone("pv", volume)
    assert tenant.keys() == {"runs/other"}


def test_an_inline_volume_lives_with_its_pod(tenant: Tenant) -> None:
    tenant.put("set/a", "a")
    source = {
        "csi": {
            "driver": workloads.DRIVER,
            "nodePublishSecretRef": {"name": SECRET},
            "volumeAttributes": tenant.attributes("set/"),
        }
    }
    tenant.start_pod("app", folders={"scratch": Folder(source=source)})
    assert tenant.sidecars("app") == ["ossfuse-scratch"]
    tenant.sh("app", "cat /data/a > /data/b")
    assert tenant.get("set/b") == b"a"


def test_two_pods_share_a_volume_and_each_has_a_sidecar(tenant: Tenant) -> None:
    tenant.give_volume(attributes=tenant.attributes(mode="consistent"))
    tenant.start_pod("one", wait=False)
    tenant.start_pod("two", wait=False)
    for name in ("one", "two"):
        tenant.wait_ready(name)
    tenant.sh("one", "echo from one > /data/note")
    assert tenant.sh("two", "cat /data/note") == "from one\n"
    tenant.delete_pod("one")
    assert tenant.sh("two", "cat /data/note && echo more > /data/note && cat /data/note") == "from one\nmore\n"


def test_two_volumes_of_one_bucket_in_one_pod(tenant: Tenant) -> None:
    tenant.put("a/name", "a")
    tenant.put("b/name", "b")
    tenant.give_volume("first", attributes=tenant.attributes("a/", mode="readonly"))
    tenant.give_volume("second", attributes=tenant.attributes("b/", fs__jindo__fuse__pod__mem__limit="400Mi"))
    folders = {"first": Folder("first", "/a"), "second": Folder("second", "/b"), "again": Folder("first", "/again")}
    tenant.start_pod("app", folders={key: folders[key] for key in ("first", "second")})
    assert tenant.sidecars("app") == ["ossfuse-first", "ossfuse-second"]
    assert tenant.sh("app", "cat /a/name /b/name") == "ab"
    assert EROFS in tenant.fails("app", "touch /a/new")
    tenant.sh("app", "touch /b/new")


@pytest.mark.parametrize("level", ["mode", "access-mode", "claim-in-pod", "volume-mount"])
def test_read_only_is_enforced_by_the_kernel(tenant: Tenant, level: str) -> None:
    tenant.put("hello", "hello")
    tenant.give_volume(
        attributes=tenant.attributes(mode="readonly" if level == "mode" else "fast"),
        access="ReadOnlyMany" if level == "access-mode" else "ReadWriteMany",
    )
    folder = Folder("data", claim_read_only=level == "claim-in-pod", read_only=level == "volume-mount")
    tenant.start_pod("app", folders={"data": folder})
    assert tenant.sh("app", "cat /data/hello") == "hello"
    options = tenant.sh("app", "awk '$2 == \"/data\" { print $4 }' /proc/mounts").strip().split(",")
    assert "ro" in options
    assert EROFS in tenant.fails("app", "echo new > /data/new")
    assert tenant.keys() == {"hello"}


def test_a_sub_path_is_a_folder_of_the_volume(tenant: Tenant) -> None:
    tenant.put("runs/7/state", "seven")
    tenant.give_volume(attributes=tenant.attributes("runs/", mode="consistent"))
    folders = {"data": Folder("data", sub_path="7")}
    tenant.start_pod("app", folders=folders)
    assert tenant.sh("app", "cat /data/state") == "seven"
    tenant.sh("app", "echo done > /data/result")
    assert tenant.get("runs/7/result") == b"done\n"
    # one that is not there yet is made by kubelet, as on any other volume
    tenant.start_pod("fresh", folders={"data": Folder("data", sub_path="8")})
    tenant.sh("fresh", "echo new > /data/result")
    assert tenant.get("runs/8/result") == b"new\n"


def test_the_pods_fs_group_owns_the_files_for_a_non_root_user(tenant: Tenant) -> None:
    tenant.put("hello", "hello")
    tenant.give_volume(attributes=tenant.attributes(umask="0002"))
    tenant.start_pod(
        "app",
        pod_security={"fsGroup": 4321, "runAsUser": 1234, "runAsGroup": 1234},
        container_security={"runAsUser": 1234},
    )
    assert tenant.sh("app", "id -u; stat -c %g /data /data/hello").split() == ["1234", "4321", "4321"]
    tenant.sh("app", "echo mine > /data/mine")
    assert tenant.sh("app", "stat -c %g /data/mine").strip() == "4321"
    assert tenant.get("mine") == b"mine\n"


def test_user_and_group_of_the_attributes_are_shown(tenant: Tenant) -> None:
    tenant.put("hello", "hello")
    tenant.give_volume(attributes=tenant.attributes(uid="1000", gid="2000", fileMode="0640", dirMode="0750"))
    tenant.start_pod("app", pod_security={})
    assert tenant.sh("app", "stat -c %u:%g:%a /data/hello").strip() == "1000:2000:640"
    tenant.sh("app", "echo mine > /data/mine")


def test_a_pod_without_our_volumes_is_left_alone(tenant: Tenant) -> None:
    tenant.start_pod("app", folders={"tmp": Folder(source={"emptyDir": {}})})
    assert "initContainers" not in tenant.pod("app")["spec"]
