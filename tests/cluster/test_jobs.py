"""Pods that end: Jobs complete with their last write in the bucket, and a deleted pod leaves whole files or none."""

from __future__ import annotations

import hashlib

from tests.cluster import workloads
from tests.cluster.tenant import Tenant
from tests.cluster.workloads import Folder


def test_a_job_completes_and_its_last_write_is_in_the_bucket(tenant: Tenant) -> None:
    tenant.give_volume(attributes=tenant.attributes("job/"))
    script = (
        "dd if=/dev/urandom of=/tmp/part bs=1M count=20 2>/dev/null; cat /tmp/part > /data/model; md5sum < /tmp/part"
    )
    folders = {"data": Folder("data"), "tmp": Folder(source={"emptyDir": {}}, path="/tmp")}
    tenant.apply(workloads.job("train", workloads.pod_spec(script, folders)))
    tenant.until(lambda: ended(tenant, "Complete"), "the Job's completion", 120)
    name = tenant.space.list("pods", "job-name=train")[0]["metadata"]["name"]
    assert tenant.pod(name)["status"]["phase"] == "Succeeded"
    digest = tenant.logs(name).split()[0]
    assert hashlib.md5(tenant.get("job/model")).hexdigest() == digest
    assert tenant.keys() == {"job/model"}


def test_a_failing_job_fails(tenant: Tenant) -> None:
    tenant.give_volume()
    tenant.apply(
        workloads.job("train", workloads.pod_spec("echo started > /data/log; exit 7", {"data": Folder("data")}))
    )
    tenant.until(lambda: ended(tenant, "Failed"), "the Job's failure", 120)
    assert tenant.get("log") == b"started\n"


def start_writer(tenant: Tenant) -> None:
    """A pod that writes one file after the other, and one that it never closes; three files are closed."""
    tenant.give_volume(attributes=tenant.attributes(fs__oss__blocklet__size__mb="1"))
    writer = (
        "n=0; while :; do n=$((n+1)); head -c 3000000 /dev/zero > /data/closed-$n; echo closed-$n; done & "
        "while :; do head -c 100000 /dev/zero; sleep 0.01; done | dd of=/data/never-closed 2>/dev/null"
    )
    spec = workloads.pod_spec(writer, {"data": Folder("data")}, restart_policy="Never")
    tenant.apply(workloads.pod("app", spec))
    tenant.wait_ready("app")
    tenant.until(lambda: len(tenant.logs("app").split()) >= 3, "three files closed")


def require_whole_files(tenant: Tenant) -> None:
    """In the bucket, now that the writer is gone."""
    stored = tenant.keys()
    assert "never-closed" not in stored
    assert {"closed-1", "closed-2", "closed-3"} <= stored
    assert {len(tenant.get(key)) for key in stored} == {3_000_000}


def test_a_pod_deleted_during_writes_leaves_closed_files_whole_and_no_others(tenant: Tenant) -> None:
    start_writer(tenant)
    tenant.delete_pod("app")
    require_whole_files(tenant)


def ended(tenant: Tenant, condition: str) -> bool:
    found = tenant.space.get("job", "train") or {"status": {}}
    return any(each["type"] == condition and each["status"] == "True" for each in found["status"].get("conditions", []))
