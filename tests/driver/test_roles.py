"""authType: rrsa through the CSI services and a real STS (the emulator), with what kubelet sends and pods are told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from csi.driver.stores import check_volume
from csi.handover.types import Incident, IncidentKind, PodReference
from csi.v1 import csi_pb2
from csi.volume.units import Seconds
from tests.support.csi_services import (
    SECRETS,
    Services,
    credential_supply,
    csi_services,
    publish_request,
    refused,
    unpublish_request,
)
from tests.support.emulator import RunningEmulator
from tests.support.recording_mounts import RecordingMounts
from tests.support.service_accounts import PROVIDER, ROLE, TokenIssuer, pod_context, tokens_of


@dataclass
class Incidents:
    told: list[tuple[PodReference, Incident]] = field(default_factory=list)

    def report(self, pod: PodReference, incident: Incident) -> None:
        self.told.append((pod, incident))


@pytest.fixture(scope="module")
def issuer() -> TokenIssuer:
    return TokenIssuer()


@pytest.fixture
def incidents() -> Incidents:
    return Incidents()


@pytest.fixture
def plugin(
    tmp_path: Path, mounts: RecordingMounts, incidents: Incidents, emulator: RunningEmulator, issuer: TokenIssuer
) -> Iterator[Services]:
    issuer.register(emulator)
    emulator.admin("PUT", "/token-lifetime", {"seconds": None})
    supply = credential_supply(incidents, endpoint=emulator.sts_endpoint)
    with csi_services(tmp_path, mounts, supply=supply, in_pods=True) as running:
        yield running


def attributes(emulator: RunningEmulator, **more: str) -> dict[str, str]:
    return {
        "bucket": emulator.bucket,
        "url": emulator.endpoint,
        "authType": "RRSA",
        "roleArn": ROLE,
        "oidcProviderArn": PROVIDER,
        **more,
    }


def publish(
    plugin: Services,
    emulator: RunningEmulator,
    target: Path,
    context: dict[str, str],
    *,
    secrets: dict[str, str] | None = None,
    **more: str,
) -> None:
    request = publish_request(target, attributes={**attributes(emulator, **more), **context}, secrets=secrets or {})
    plugin.node.NodePublishVolume(request, timeout=30)


def test_the_role_that_was_taken_on_may_use_the_bucket(
    plugin: Services, mounts: RecordingMounts, emulator: RunningEmulator, issuer: TokenIssuer, tmp_path: Path
) -> None:
    publish(plugin, emulator, tmp_path / "t", pod_context(token=issuer.token()))

    (request,) = mounts.requests
    assert sorted(request.credentials) == ["AccessKeyId", "AccessKeySecret", "Expiration", "SecurityToken"]
    assert request.pod == PodReference("uid-1", "train-0", "team", "trainer")
    check_volume(request, Seconds(10.0))


def test_a_token_among_the_secrets_is_taken_too(
    plugin: Services, mounts: RecordingMounts, emulator: RunningEmulator, issuer: TokenIssuer, tmp_path: Path
) -> None:
    publish(plugin, emulator, tmp_path / "t", pod_context(), secrets=tokens_of(issuer.token()))

    check_volume(mounts.requests[0], Seconds(10.0))


def test_republishing_asks_sts_no_second_time(
    plugin: Services, mounts: RecordingMounts, emulator: RunningEmulator, issuer: TokenIssuer, tmp_path: Path
) -> None:
    for _ in range(4):
        publish(plugin, emulator, tmp_path / "t", pod_context(token=issuer.token()))

    assert emulator.count("AssumeRoleWithOIDC") == 1
    assert len({request.credentials["AccessKeyId"] for request in mounts.requests}) == 1
    assert len({request.given for request in mounts.requests}) == 1


@pytest.mark.parametrize(
    ("claims", "code", "words"),
    [
        ({"exp": 1_000_000}, grpc.StatusCode.UNAUTHENTICATED, ["OIDCToken.Expired", "clock"]),
        ({"aud": ["elsewhere"]}, grpc.StatusCode.UNAUTHENTICATED, ["OIDCToken.Invalid", "client id sts.aliyuncs.com"]),
        (
            {"sub": "system:serviceaccount:other:stranger"},
            grpc.StatusCode.PERMISSION_DENIED,
            ["NoPermission", "trust policy of the role", "oidc:sub"],
        ),
    ],
)
def test_a_token_that_sts_refuses_is_an_answer_that_says_what_to_check(
    plugin: Services,
    mounts: RecordingMounts,
    emulator: RunningEmulator,
    issuer: TokenIssuer,
    tmp_path: Path,
    claims: dict[str, object],
    code: grpc.StatusCode,
    words: list[str],
) -> None:
    role = f"{ROLE}-of-the-team"
    emulator.admin("PUT", "/roles", {"arn": role, "subjects": ["system:serviceaccount:team:*"]})

    with refused(code, "service account team/trainer", role, PROVIDER, emulator.sts_endpoint, *words):
        publish(plugin, emulator, tmp_path / "t", pod_context(token=issuer.token(**claims)), roleArn=role)

    assert mounts.requests == []


def test_a_cluster_that_ram_does_not_know_is_refused_by_its_provider(
    plugin: Services, emulator: RunningEmulator, tmp_path: Path
) -> None:
    stranger = TokenIssuer()

    with refused(grpc.StatusCode.UNAUTHENTICATED, "issuer"):
        publish(plugin, emulator, tmp_path / "t", pod_context(token=stranger.token()))


def test_sts_that_is_away_is_unavailable_within_kubelets_patience(
    plugin: Services, emulator: RunningEmulator, issuer: TokenIssuer, tmp_path: Path
) -> None:
    emulator.fault(operation="AssumeRoleWithOIDC", blackhole=True)

    with refused(grpc.StatusCode.UNAVAILABLE, "AssumeRoleWithOIDC", "--sts-endpoint"):
        publish(plugin, emulator, tmp_path / "t", pod_context(token=issuer.token()))


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (pod_context(), ["tokenRequests", "CSIDriver object ossfuse.csi.dev", "sts.aliyuncs.com"]),
        ({}, ["podInfoOnMount", "CSIDriver object ossfuse.csi.dev"]),
    ],
)
def test_a_csidriver_object_that_lacks_a_field_is_named_with_the_field(
    plugin: Services, emulator: RunningEmulator, tmp_path: Path, context: dict[str, str], words: list[str]
) -> None:
    with refused(grpc.StatusCode.FAILED_PRECONDITION, *words):
        publish(plugin, emulator, tmp_path / "t", context, secrets=SECRETS)


def test_a_pod_of_another_service_account_is_refused(
    plugin: Services, emulator: RunningEmulator, issuer: TokenIssuer, tmp_path: Path
) -> None:
    context = pod_context(token=issuer.token())

    with refused(grpc.StatusCode.INVALID_ARGUMENT, "serviceAccountName", "'analyst'", "'trainer'"):
        publish(plugin, emulator, tmp_path / "t", context, serviceAccountName="analyst")


def test_an_outage_of_sts_leaves_a_published_volume_alone_and_tells_the_pod_once(
    plugin: Services,
    mounts: RecordingMounts,
    incidents: Incidents,
    emulator: RunningEmulator,
    issuer: TokenIssuer,
    tmp_path: Path,
) -> None:
    emulator.admin("PUT", "/token-lifetime", {"seconds": 1})
    publish(plugin, emulator, tmp_path / "t", pod_context(token=issuer.token()))
    threading.Event().wait(0.6)  # until a second's half life is over
    emulator.fault(operation="AssumeRoleWithOIDC", status=500)

    for _ in range(3):
        publish(plugin, emulator, tmp_path / "t", pod_context(token=issuer.token()))
    emulator.clear_faults()
    publish(plugin, emulator, tmp_path / "t", pod_context(token=issuer.token()))

    first, *kept, renewed = [request.credentials for request in mounts.requests]
    assert kept == [None, None, None]
    assert renewed["AccessKeyId"] != first["AccessKeyId"]
    kinds = {incident.kind for _, incident in incidents.told}
    assert kinds == {IncidentKind.CREDENTIALS_NOT_RENEWED}
    assert 1 <= len(incidents.told) <= 2  # once as kept; once more when they had expired meanwhile
    assert "could not be renewed" in incidents.told[0][1].message


def test_a_secret_that_was_broken_leaves_a_published_volume_alone(
    plugin: Services, mounts: RecordingMounts, incidents: Incidents, tmp_path: Path
) -> None:
    good = publish_request(tmp_path / "t", attributes={"bucket": "data", "url": "http://h:1", **pod_context()})
    plugin.node.NodePublishVolume(good, timeout=30)
    half = {"akId": SECRETS["akId"]}
    broken = publish_request(
        tmp_path / "t", attributes={"bucket": "data", "url": "http://h:1", **pod_context()}, secrets=half
    )

    for _ in range(2):
        plugin.node.NodePublishVolume(broken, timeout=30)

    assert [request.credentials for request in mounts.requests] == [SECRETS, None, None]
    ((pod, incident),) = incidents.told
    assert pod.name == "train-0"
    assert "lacks akSecret" in incident.message
    assert SECRETS["akId"] not in incident.message


def test_a_volume_published_anew_starts_with_a_role_of_its_own(
    plugin: Services, mounts: RecordingMounts, emulator: RunningEmulator, issuer: TokenIssuer, tmp_path: Path
) -> None:
    publish(plugin, emulator, tmp_path / "t", pod_context(token=issuer.token()))
    plugin.node.NodeUnpublishVolume(unpublish_request(tmp_path / "t"), timeout=30)

    publish(plugin, emulator, tmp_path / "t", pod_context(token=issuer.token()))

    assert emulator.count("AssumeRoleWithOIDC") == 2
    assert len({request.credentials["AccessKeyId"] for request in mounts.requests}) == 2


def test_neither_token_nor_credentials_are_in_the_log(
    plugin: Services,
    mounts: RecordingMounts,
    emulator: RunningEmulator,
    issuer: TokenIssuer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    token, in_secrets = issuer.token(), issuer.token()
    publish(plugin, emulator, tmp_path / "t", pod_context(token=token))
    publish(plugin, emulator, tmp_path / "u", pod_context(), secrets=tokens_of(in_secrets))
    with pytest.raises(grpc.RpcError):
        publish(plugin, emulator, tmp_path / "v", pod_context(token=token + "x"))

    hidden = {token, in_secrets, token.split(".")[2]}
    for request in mounts.requests:
        hidden |= {request.credentials["AccessKeySecret"], request.credentials["SecurityToken"]}
        assert request.credentials["AccessKeySecret"] not in repr(request)
    assert "NodePublishVolume OK" in caplog.text
    assert "took on acs:ram::1000000000000000:role/training" in caplog.text
    assert [secret for secret in hidden if secret in caplog.text] == []


def test_condition_is_answered_while_sts_and_bucket_are_away(
    plugin: Services, emulator: RunningEmulator, issuer: TokenIssuer, tmp_path: Path
) -> None:
    publish(plugin, emulator, tmp_path / "t", pod_context(token=issuer.token()))
    emulator.fault(blackhole=True)

    asked = csi_pb2.NodeGetVolumeStatsRequest(volume_id="pv-1", volume_path=str(tmp_path / "t"))

    assert not plugin.node.NodeGetVolumeStats(asked, timeout=5).volume_condition.abnormal
