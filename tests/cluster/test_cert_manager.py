"""`webhook.certificates: cert-manager`, with cert-manager's own controllers running in the cluster."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator

import pytest

from tests.cluster.harness.api import Object
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.driver import NAMESPACE, Driver
from tests.cluster.harness.node import Node
from tests.cluster.tenant import Tenant

_CERTIFICATE = f"/apis/cert-manager.io/v1/namespaces/{NAMESPACE}/certificates/ossfuse-csi-webhook"


@pytest.fixture
def cert_manager(cluster: Cluster, node: Node, certificate_kinds: None) -> Iterator[None]:
    node.start_program("cert-manager", [str(node.places.program("cert-manager")), str(node.places.kubeconfig)])
    yield
    node.stop("cert-manager")
    cluster.delete("secret", "ossfuse-csi-webhook-ca", "ossfuse-csi-webhook-tls", namespace=NAMESPACE)  # it leaves them


def made(cluster: Cluster) -> Object | None:
    """What cert-manager has put into the certificate's Secret, once that is Ready."""
    conditions = cluster.api.request("GET", _CERTIFICATE).get("status", {}).get("conditions", [])
    if not any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
        return None
    secret = cluster.get("secret", "ossfuse-csi-webhook-tls", NAMESPACE)
    return secret and dict(secret["data"])


def renewed(cluster: Cluster, before: Object) -> Object:
    """A new certificate, as `cmctl renew` asks for one."""
    condition = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "by a test"}
    status = {"status": {"conditions": [*cluster.api.request("GET", _CERTIFICATE)["status"]["conditions"], condition]}}
    cluster.api.request("PATCH", f"{_CERTIFICATE}/status", status, form="application/merge-patch+json")

    def look() -> Object | None:
        found = made(cluster)
        return found if found and found["tls.crt"] != before["tls.crt"] else None

    return cluster.wait_for(look, "another certificate")


def trusted(cluster: Cluster) -> bytes:
    """What the API server holds the webhook's certificate against."""
    found = cluster.get("mutatingwebhookconfiguration", "ossfuse-csi")
    assert found is not None
    return base64.b64decode(found["webhooks"][0]["clientConfig"].get("caBundle", ""))


def served(driver: Driver) -> str:
    """The certificate of the webhook, as it stands in a Secret."""
    (address,) = {pod["status"]["podIP"] for pod in driver.pods("controller")}
    with driver.cluster.network():
        found = ssl.get_server_certificate((address, 9443))
    return base64.b64encode(found.encode()).decode()


def test_cert_manager_makes_and_renews_the_webhooks_certificate_and_can_be_left_again(
    tenant: Tenant, driver: Driver, cert_manager: None
) -> None:
    cluster = tenant.cluster
    tenant.put("a", "of the bucket")
    tenant.give_volume()

    def reads(pod: str) -> None:
        tenant.start_pod(pod)
        assert tenant.sh(pod, "cat /data/a") == "of the bucket"

    driver.upgrade("--set", "webhook.certificates=cert-manager")
    try:
        first = cluster.wait_for(lambda: made(cluster), "a certificate by cert-manager")
        authority = base64.b64decode(first["ca.crt"])
        cluster.wait_for(lambda: authority in trusted(cluster), "trust in cert-manager's CA")
        assert served(driver) == first["tls.crt"]
        reads("first")
        before = trusted(cluster)

        second = renewed(cluster, first)

        assert second["ca.crt"] == first["ca.crt"]
        reads("second")  # whichever the controller serves: kubelet may not have brought it the second yet
        assert trusted(cluster) == before
    finally:
        driver.upgrade()
    own = cluster.get("secret", "ossfuse-csi-webhook-cert", NAMESPACE)
    assert own is not None
    assert served(driver) == own["data"]["tls.crt"]
    reads("third")
