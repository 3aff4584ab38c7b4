"""Credentials in a cluster: rotated under a reader, exchanged for a pod's own identity, never another's."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest

from tests.cluster import workloads
from tests.cluster.harness.emulators import PROVIDER
from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.tenant import Tenant
from tests.cluster.workloads import Folder
from tests.support.emulator import IssuedToken

OBJECTS = 10_000
"""More than are read in that time: what was read once would not be asked for again."""
ROLE = "acs:ram::1000000000000000:role/training"


def reader(seconds: int) -> str:
    """Reads one object after the other, dozens a second, says which failed, and ends after `seconds`."""
    return (
        f"end=$(($(date +%s) + {seconds})); n=0; while [ $(date +%s) -lt $end ]; do "
        "cat /data/$n > /dev/null || echo FAILED $n; n=$((n+1)); sleep 0.01; done; echo done $n"
    )


def rrsa(tenant: Tenant, **more: str) -> dict[str, str]:
    return tenant.attributes(authType="RRSA", roleArn=ROLE, oidcProviderArn=PROVIDER, **more)


def test_keys_are_rotated_under_a_reader_without_one_error(tenant: Tenant) -> None:
    tenant.oss.seed("{n}", count=OBJECTS, size=100)
    token = tenant.oss.issue_token(3600)
    tenant.apply(sts_secret(token))
    tenant.give_volume(attributes=tenant.attributes(), secret="sts")
    tenant.start_pod("app", reader(60), restart_policy="Never")
    renewed = tenant.oss.issue_token(3600)
    tenant.apply(sts_secret(renewed))
    poke(tenant, until=lambda: signed_with(tenant, renewed))
    tenant.oss.admin("DELETE", f"/tokens?access_key_id={token.access_key_id}")
    tenant.space.wait_pod("app", "Succeeded", 180)
    said = tenant.logs("app")
    assert "FAILED" not in said
    assert "done" in said
    assert tenant.sidecar_status("app")["restartCount"] == 0


def test_a_pod_reads_with_its_own_service_account(tenant: Tenant) -> None:
    tenant.put("hello", "hello")
    tenant.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "trainer"}})
    tenant.give_volume(attributes=rrsa(tenant), secret="")
    tenant.start_pod("app", service_account="trainer")
    assert tenant.sh("app", "cat /data/hello") == "hello"
    exchanged = tenant.oss.requests("AssumeRoleWithOIDC")
    assert len(exchanged) == 1


def test_short_lived_credentials_are_renewed_under_a_reader(tenant: Tenant) -> None:
    """Roles last 20 s here, of a reader's 40. Kubelet republishes once in 70 to 90 s, and whenever the pod changes."""
    tenant.oss.seed("{n}", count=OBJECTS, size=100)
    with tenant.oss.tokens_live_for(20):
        tenant.give_volume(attributes=rrsa(tenant), secret="")
        tenant.start_pod("app", reader(40), restart_policy="Never")
        poke(tenant, until=lambda: tenant.pod("app")["status"]["phase"] == "Succeeded")
    assert "FAILED" not in tenant.logs("app")
    assert len(tenant.oss.requests("AssumeRoleWithOIDC")) > 1


def test_another_pods_service_account_is_not_borrowed(tenant: Tenant) -> None:
    tenant.give_volume(attributes=rrsa(tenant, serviceAccountName="somebody-else"), secret="")
    tenant.start_pod("app", wait=False)
    event = tenant.space.wait_event("app", "FailedMount", "somebody-else")
    assert "serviceAccountName" in event["message"]


def test_a_refused_exchange_is_told_and_the_pod_starts_once_it_is_allowed(tenant: Tenant) -> None:
    fault = tenant.oss.fault(operation="AssumeRoleWithOIDC", status=403)
    tenant.give_volume(attributes=rrsa(tenant), secret="")
    tenant.start_pod("app", wait=False)
    event = tenant.space.wait_event("app", "FailedMount", ROLE)
    assert PROVIDER in event["message"]
    assert fault
    tenant.oss.clear_faults()
    tenant.wait_ready("app")


def test_the_application_has_no_way_to_the_keys(tenant: Tenant) -> None:
    """Neither files, nor environment, nor the sidecar's folder: a pod that asks for that is refused."""
    tenant.put("hello", "hello")
    tenant.give_volume()
    tenant.start_pod("app", folders={"data": Folder("data")})
    mounts = tenant.sh("app", "cat /proc/mounts; env")
    assert "/run/ossfuse" not in mounts
    assert tenant.oss.access_key_secret not in mounts
    thief = workloads.pod("thief", workloads.pod_spec("sleep 1d", {"data": Folder("data")}))
    thief["spec"]["containers"][0]["volumeMounts"].append({"name": "ossfuse-data", "mountPath": "/steal"})
    thief["spec"]["volumes"].append({"name": "ossfuse-data", "emptyDir": {"medium": "Memory"}})
    with pytest.raises(ClusterFailed, match="ossfuse-data"):
        tenant.apply(thief)


def poke(tenant: Tenant, *, until: Callable[[], bool]) -> None:
    """Change the pod `app` every few seconds, which makes kubelet publish its volumes again."""
    turns = itertools.count()

    def look() -> bool:
        annotation = f"test/turn={next(turns)}"
        tenant.cluster.kubectl("annotate", "pod", "app", annotation, "--overwrite", f"--namespace={tenant.namespace}")
        time.sleep(4)
        return until()

    tenant.until(look, "what was waited for while the pod was published again and again", 240)


def signed_with(tenant: Tenant, token: IssuedToken) -> bool:
    return any(entry["caller"] == token.access_key_id for entry in tenant.oss.requests("GetObject"))


def sts_secret(token: IssuedToken) -> workloads.Manifest:
    return workloads.secret("sts", token.pairs())
