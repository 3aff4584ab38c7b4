"""A role taken on for a pod's own sidecar: from kubelet's call to the bytes in a container, renewed while it reads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi.driver.stores import check_volume
from csi.handover.types import IncidentKind
from csi.v1 import csi_pb2
from tests.support.csi_services import Services, credential_supply, csi_services, publish_request
from tests.support.emulator import RunningEmulator
from tests.support.pods import REAL, Pod, PodNode, is_served
from tests.support.published_volume import until
from tests.support.service_accounts import PROVIDER, ROLE, TokenIssuer, pod_context

LIFE = 8
"""Seconds of a role."""


@pytest.fixture
def issuer(emulator: RunningEmulator) -> Iterator[TokenIssuer]:
    made = TokenIssuer()
    made.register(emulator)
    with emulator.tokens_live_for(LIFE):
        yield made


def call(pod: Pod, emulator: RunningEmulator, token: str) -> csi_pb2.NodePublishVolumeRequest:
    """Kubelet's call for the pod's volume, with the token that is valid now."""
    reference = pod.reference
    context = pod_context(
        token=token,
        uid=reference.uid,
        name=reference.name,
        namespace=reference.namespace,
        account=reference.service_account,
    )
    attributes = {
        **{"bucket": emulator.bucket, "url": emulator.endpoint, "mode": "consistent"},
        **{"authType": "rrsa", "roleArn": ROLE, "oidcProviderArn": PROVIDER, "fs.jindo.args": "-odirect_io"},
    }
    return publish_request(pod.target, volume_id="vol-pod", attributes={**attributes, **context}, secrets={})


def test_a_container_reads_on_while_roles_expire_and_the_node_plugin_is_replaced(
    pods: PodNode, emulator: RunningEmulator, issuer: TokenIssuer, tmp_path: Path
) -> None:
    emulator.seed("{n}.bin", b"a shard", count=2000)
    pod = pods.pod()
    supply = credential_supply(pods.reporter, endpoint=emulator.sts_endpoint)
    reads = 0

    def read(services: Services, seconds: float) -> None:
        """Reads in the container, and kubelet's calls, for a while."""
        nonlocal reads
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for _ in range(10):
                assert application.ask("read", f"{reads}.bin") == "a shard"
                reads += 1
            services.node.NodePublishVolume(call(pod, emulator, issuer.token()), timeout=30)
            time.sleep(0.1)

    (tmp_path / "first").mkdir()
    first = pods.start(preflight=check_volume)
    with csi_services(tmp_path / "first", first, supply=supply, in_pods=True) as services:
        services.node.NodePublishVolume(call(pod, emulator, issuer.token()), timeout=30)
        pod.start_sidecar(REAL)
        until(lambda: is_served(first, pod))
        application = pod.start_application()
        read(services, 1.5 * LIFE)
    first.close()
    successor = credential_supply(pods.reporter, endpoint=emulator.sts_endpoint)
    (tmp_path / "second").mkdir()
    second = pods.start(preflight=check_volume)
    with csi_services(tmp_path / "second", second, supply=successor, in_pods=True) as services:
        read(services, LIFE)
        emulator.fault(operation="AssumeRoleWithOIDC", status=503)
        time.sleep(LIFE / 2)
        services.node.NodePublishVolume(call(pod, emulator, issuer.token()), timeout=30)
        emulator.clear_faults()
        services.node.NodePublishVolume(call(pod, emulator, issuer.token()), timeout=30)
        read(services, 1.0)

    asked = emulator.requests("GetObject")
    assert [entry["code"] for entry in asked if entry["status"] >= 400] == []
    assert len({entry["caller"] for entry in asked}) >= 4
    assert pods.reporter.kinds() == [IncidentKind.CREDENTIALS_NOT_RENEWED]
    assert pods.located <= 2
    assert pod.layers() == 1
