"""`webhook.certificates: cert-manager`, with cert-manager's own controllers running in the cluster."""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from tests.cluster.harness.api import Object
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.driver import NAMESPACE, Driver
from tests.cluster.harness.node import Node
from tests.cluster.tenant import Tenant

_CERTIFICATES = f"/apis/cert-manager.io/v1/namespaces/{NAMESPACE}/certificates"
_AUTHORITY = "ossfuse-csi-webhook-ca"
_WEBHOOK = "ossfuse-csi-webhook"


@pytest.fixture
def cert_manager(cluster: Cluster, node: Node, certificate_kinds: None) -> Iterator[None]:
    node.start_program("cert-manager", [str(node.places.program("cert-manager")), str(node.places.kubeconfig)])
    yield
    node.stop("cert-manager")
    cluster.delete("secret", _AUTHORITY, "ossfuse-csi-webhook-tls", namespace=NAMESPACE)  # it leaves them


def made(cluster: Cluster, certificate: str) -> Object | None:
    """What cert-manager has put into the Secret of `certificate`, once that is Ready."""
    found = cluster.api.request("GET", f"{_CERTIFICATES}/{certificate}")
    conditions = found.get("status", {}).get("conditions", [])
    if not any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
        return None
    secret = cluster.get("secret", found["spec"]["secretName"], NAMESPACE)
    return secret and dict(secret["data"])


def renewed(cluster: Cluster, certificate: str, before: Object) -> Object:
    """A new certificate, as `cmctl renew` asks for one."""
    path = f"{_CERTIFICATES}/{certificate}"
    condition = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "by a test"}
    status = {"status": {"conditions": [*cluster.api.request("GET", path)["status"]["conditions"], condition]}}
    cluster.api.request("PATCH", f"{path}/status", status, form="application/merge-patch+json")

    def look() -> Object | None:
        found = made(cluster, certificate)
        return found if found and found["tls.crt"] != before["tls.crt"] else None

    return cluster.wait_for(look, f"another certificate {certificate}")


def trusted(cluster: Cluster) -> bytes:
    """What the API server holds the webhook's certificate against."""
    found = cluster.get("mutatingwebhookconfiguration", "ossfuse-csi")
    assert found is not None
    return base64.b64decode(found["webhooks"][0]["clientConfig"].get("caBundle", ""))


def is_verified(certificate: str, authorities: bytes) -> bool:
    """Whether who trusts `authorities` (PEM) accepts `certificate`, as it stands in a Secret."""
    leaf = x509.load_pem_x509_certificate(base64.b64decode(certificate))
    for authority in x509.load_pem_x509_certificates(authorities):
        with contextlib.suppress(InvalidSignature, ValueError):  # ValueError: the issuer has another name
            leaf.verify_directly_issued_by(authority)
            return True
    return False


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
        first = cluster.wait_for(lambda: made(cluster, _WEBHOOK), "a certificate by cert-manager")
        authority = base64.b64decode(first["ca.crt"])
        cluster.wait_for(lambda: authority in trusted(cluster), "trust in cert-manager's CA")
        assert served(driver) == first["tls.crt"]
        reads("first")

        # cert-manager may do so by itself in the first second, when it looks before it sees the Secret it made
        ca = cluster.wait_for(lambda: made(cluster, _AUTHORITY), "the CA's own certificate")
        renewed(cluster, _AUTHORITY, ca)
        second = renewed(cluster, _WEBHOOK, first)

        for old_or_new in (authority, base64.b64decode(second["ca.crt"]), trusted(cluster)):
            assert is_verified(first["tls.crt"], old_or_new)
            assert is_verified(second["tls.crt"], old_or_new)
        reads("second")  # whichever the controller serves: kubelet may not have brought it the second yet
    finally:
        driver.upgrade()
    own = cluster.get("secret", "ossfuse-csi-webhook-cert", NAMESPACE)
    assert own is not None
    assert served(driver) == own["data"]["tls.crt"]
    reads("third")
