"""What goes wrong at the start is an event on the pod that says what, with which value, and what to do; once it is
mended the pod starts by itself."""

from __future__ import annotations

import uuid
from dataclasses import replace

from tests.cluster import workloads
from tests.cluster.tenant import SECRET, Tenant

KEY = "fs.oss.download.thread.concurency"


def test_a_wrong_key_is_told_and_the_pod_starts_once_the_secret_is_mended(tenant: Tenant) -> None:
    tenant.put("hello", "hello")
    tenant.give_secret(secret="w" + uuid.uuid4().hex)
    tenant.give_volume()
    tenant.start_pod("app", wait=False)
    event = tenant.space.wait_event("app", "FailedMount", "SignatureDoesNotMatch")
    assert tenant.oss.access_key_secret not in event["message"]
    tenant.give_secret()
    tenant.wait_ready("app")
    assert tenant.sh("app", "cat /data/hello") == "hello"


def test_a_missing_bucket_is_told_and_the_pod_starts_once_it_exists(tenant: Tenant) -> None:
    bucket = f"late-{uuid.uuid4().hex[:12]}"
    elsewhere = replace(tenant, oss=replace(tenant.oss, bucket=bucket))
    tenant.give_volume(attributes=elsewhere.attributes())
    tenant.start_pod("app", wait=False)
    event = tenant.space.wait_event("app", "FailedMount", "NoSuchBucket")
    assert bucket in event["message"]
    tenant.oss.create_bucket(bucket)
    tenant.wait_ready("app")
    tenant.sh("app", "echo here > /data/note")
    assert elsewhere.get("note") == b"here\n"


def test_a_typo_in_an_option_is_told_with_the_nearest_name(tenant: Tenant) -> None:
    tenant.give_volume(attributes={**tenant.attributes(), KEY: "8"})
    tenant.start_pod("app", wait=False)
    event = tenant.space.wait_event("app", "FailedMount", KEY)
    assert "fs.oss.download.thread.concurrency" in event["message"]


def test_a_missing_secret_is_told_and_the_pod_starts_once_it_exists(tenant: Tenant) -> None:
    tenant.give_volume(secret="later")
    tenant.start_pod("app", wait=False)
    tenant.space.wait_event("app", "FailedMount", "later")
    tenant.give_secret("later")
    tenant.wait_ready("app")


def test_half_a_secret_is_told(tenant: Tenant) -> None:
    tenant.give_volume()
    tenant.space.delete("secret", SECRET)
    tenant.apply(workloads.secret(SECRET, {"akId": tenant.oss.access_key_id}))
    tenant.start_pod("app", wait=False)
    tenant.space.wait_event("app", "FailedMount", "akSecret")
    tenant.give_secret()
    tenant.wait_ready("app")


def test_a_pod_that_opted_out_is_told_why_it_waits(tenant: Tenant) -> None:
    tenant.give_volume()
    tenant.start_pod("app", wait=False, annotations={"ossfuse.csi.dev/inject": "false"})
    tenant.space.wait_event("app", "FailedMount", "ossfuse.csi.dev/inject")
    assert tenant.sidecars("app") == []
