from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from csi.driver.credentials import CredentialSupply, Offer
from csi.errors import (
    ClusterMisconfigured,
    CredentialsMissing,
    EndpointUnreachable,
    InvalidOption,
    OssFuseError,
    PermissionDenied,
)
from csi.handover.types import Incident, IncidentKind, PodReference, PublishRequest
from csi.oss.assume_role import RoleClaim
from csi.oss.credentials import Credentials
from csi.volume.spec import AuthType, CredentialOptions, Location, VolumeSpec
from csi.volume.units import Seconds
from tests.support.service_accounts import tokens_of

POD = PodReference("uid-1", "train-0", "team", "trainer")
RRSA = CredentialOptions(AuthType.RRSA, role_arn="acs:ram::1:role/r", oidc_provider_arn="acs:ram::1:oidc-provider/p")
SPEC = VolumeSpec(Location("b", "https://oss-cn-hangzhou.aliyuncs.com", region="cn-hangzhou"), credentials=RRSA)
TARGET = Path("/t/mount")
ORDER = PublishRequest("pv-1", TARGET, SPEC, False, None, None, pod=POD)
SECRET_ORDER = replace(ORDER, spec=replace(SPEC, credentials=CredentialOptions()))
TOKEN = "a.token.of-the-pod"
OFFER = Offer({}, tokens_of(TOKEN), [TOKEN])
PATIENCE = Seconds(100.0)
LIFE = 3600.0


@dataclass
class Exchange:
    """STS: gives numbered credentials, or fails with `failure`."""

    now: float = 1_000_000.0
    failure: OssFuseError | None = None
    claims: list[tuple[str, RoleClaim]] = field(default_factory=list)
    patience: float = 0.0

    def assume(self, endpoint: str, claim: RoleClaim, patience: Seconds) -> Credentials:
        self.claims.append((endpoint, claim))
        self.patience = patience
        if self.failure is not None:
            raise self.failure
        return Credentials(f"STS.{len(self.claims)}", "secret", "token", self.now + LIFE)

    def close(self) -> None:
        pass


@dataclass
class Incidents:
    told: list[tuple[PodReference, Incident]] = field(default_factory=list)

    def report(self, pod: PodReference, incident: Incident) -> None:
        self.told.append((pod, incident))


@dataclass
class Node:
    exchange: Exchange = field(default_factory=Exchange)
    incidents: Incidents = field(default_factory=Incidents)
    chance: float = 1.0

    def __post_init__(self) -> None:
        self.supply = CredentialSupply(
            self.exchange,  # type: ignore[arg-type]  # answers as one
            self.incidents,
            clock=lambda: self.exchange.now,
            random=lambda: self.chance,
        )

    def obtain(self, order: PublishRequest = ORDER, offer: Offer = OFFER):
        return self.supply.obtain(order, offer, PATIENCE)

    def renew(self, order: PublishRequest = ORDER, offer: Offer = OFFER):
        return self.supply.renew(order, offer, PATIENCE)


@pytest.fixture
def node() -> Node:
    return Node()


# --- roles ---


def test_a_role_becomes_the_pairs_of_a_secret_with_their_expiration(node: Node) -> None:
    assert node.obtain() == {
        "AccessKeyId": "STS.1",
        "AccessKeySecret": "secret",
        "SecurityToken": "token",
        "Expiration": "1970-01-12T14:46:40Z",
    }


def test_the_claim_is_the_pods_own(node: Node) -> None:
    node.obtain()

    ((endpoint, claim),) = node.exchange.claims
    assert endpoint == "https://sts.cn-hangzhou.aliyuncs.com"
    assert (claim.role_arn, claim.provider_arn) == (RRSA.role_arn, RRSA.oidc_provider_arn)
    assert (claim.service_account, claim.session, claim.token) == ("team/trainer", "team.train-0", TOKEN)
    assert node.exchange.patience <= 10


def test_a_token_among_the_secrets_is_as_good(node: Node) -> None:
    node.obtain(offer=Offer(tokens_of(TOKEN), {}, [TOKEN]))

    assert node.exchange.claims[0][1].token == TOKEN


def test_a_fresh_role_is_not_taken_on_again(node: Node) -> None:
    first = node.obtain()

    assert node.renew() == (first, None)
    assert len(node.exchange.claims) == 1


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.4), (1.0, 0.5)])
def test_a_role_is_taken_on_again_around_half_its_life(chance: float, share: float) -> None:
    node = Node(chance=chance)
    node.obtain()
    node.exchange.now += LIFE * share - 1
    assert node.renew()[0]["AccessKeyId"] == "STS.1"

    node.exchange.now += 2

    assert node.renew()[0]["AccessKeyId"] == "STS.2"


@pytest.mark.parametrize(
    "other",
    [
        replace(ORDER, target=Path("/t2/mount")),
        replace(ORDER, pod=replace(POD, uid="uid-2")),
        replace(ORDER, pod=replace(POD, service_account="other")),
        replace(ORDER, pod=replace(POD, namespace="other")),
        replace(ORDER, spec=replace(SPEC, credentials=replace(RRSA, role_arn="acs:ram::1:role/s"))),
        replace(ORDER, spec=replace(SPEC, credentials=replace(RRSA, oidc_provider_arn="acs:ram::1:oidc-provider/q"))),
    ],
    ids=["target", "pod", "account", "namespace", "role", "provider"],
)
def test_credentials_of_one_identity_are_never_anothers(node: Node, other: PublishRequest) -> None:
    node.obtain()

    assert node.obtain(other)["AccessKeyId"] == "STS.2"


def test_what_was_unpublished_is_forgotten(node: Node) -> None:
    node.obtain()

    node.supply.forget(TARGET)

    assert node.obtain()["AccessKeyId"] == "STS.2"


def test_a_service_account_that_the_volume_does_not_name_is_refused_before_sts_is_asked(node: Node) -> None:
    order = replace(ORDER, spec=replace(SPEC, credentials=replace(RRSA, service_account_name="analyst")))

    with pytest.raises(InvalidOption, match=r"serviceAccountName: 'analyst' .*'trainer', the service account of pod"):
        node.obtain(order)

    assert node.exchange.claims == []


def test_the_service_account_that_the_volume_names_is_accepted(node: Node) -> None:
    order = replace(ORDER, spec=replace(SPEC, credentials=replace(RRSA, service_account_name="trainer")))

    assert node.obtain(order)["AccessKeyId"] == "STS.1"


def test_without_a_token_there_is_no_other_way_in(node: Node) -> None:
    secret = {"akId": "LTAI-an-access-key", "akSecret": "secret-of-somebody"}

    with pytest.raises(ClusterMisconfigured, match="tokenRequests"):
        node.obtain(offer=Offer(secret, {}, []))


def test_without_a_pod_there_is_no_role(node: Node) -> None:
    with pytest.raises(ClusterMisconfigured, match="podInfoOnMount"):
        node.obtain(replace(ORDER, pod=None))


def test_a_refusal_at_the_first_publish_is_the_calls(node: Node) -> None:
    node.exchange.failure = PermissionDenied("role r: no")

    with pytest.raises(PermissionDenied):
        node.obtain()

    assert node.incidents.told == []


# --- renewing what is published ---


def test_a_renewal_that_fails_keeps_the_old_credentials_and_tells_the_pod_once(node: Node) -> None:
    node.obtain()
    node.exchange.now += LIFE * 0.6
    node.exchange.failure = EndpointUnreachable("STS is silent", hint="look at the network")

    outcomes = [node.renew() for _ in range(3)]

    assert all(credentials is None and error is node.exchange.failure for credentials, error in outcomes)
    ((pod, incident),) = node.incidents.told
    assert (pod, incident.kind) == (POD, IncidentKind.CREDENTIALS_NOT_RENEWED)
    assert "stay in force until 1970-01-12T14:46:40Z: STS is silent; look at the network" in incident.message


def test_the_pod_is_told_once_more_when_the_old_ones_have_expired(node: Node) -> None:
    node.obtain()
    node.exchange.now += LIFE * 0.6
    node.exchange.failure = EndpointUnreachable("STS is silent")
    node.renew()

    node.exchange.now += LIFE
    node.renew()
    node.renew()

    assert len(node.incidents.told) == 2
    assert "expired at 1970-01-12T14:46:40Z" in node.incidents.told[1][1].message
    assert "Permission denied" in node.incidents.told[1][1].message


def test_a_second_outage_is_told_again(node: Node) -> None:
    node.obtain()
    for _ in range(2):
        node.exchange.now += LIFE * 0.6
        node.exchange.failure = EndpointUnreachable("STS is silent")
        node.renew()
        node.exchange.failure = None
        assert node.renew()[0] is not None

    assert len(node.incidents.told) == 2


def test_a_plugin_that_has_just_started_does_not_know_the_expiration_and_says_nothing_of_it(node: Node) -> None:
    node.exchange.failure = EndpointUnreachable("STS is silent")

    assert node.renew()[0] is None

    assert "the previous ones stay in force: STS is silent" in node.incidents.told[0][1].message


def test_no_incident_repeats_a_secret(node: Node) -> None:
    node.exchange.failure = EndpointUnreachable(f"the peer said {TOKEN}")

    node.renew()

    assert TOKEN not in node.incidents.told[0][1].message


# --- Secrets ---


def test_a_secret_is_handed_on_without_the_tokens_kubelet_put_beside_it(node: Node) -> None:
    secret = {"akId": "LTAI-an-access-key", "akSecret": "secret-of-ours"}

    assert node.obtain(SECRET_ORDER, Offer({**secret, **tokens_of(TOKEN)}, {}, [])) == secret


def test_tokens_alone_are_no_secret(node: Node) -> None:
    with pytest.raises(CredentialsMissing, match="needs a Secret"):
        node.obtain(SECRET_ORDER, Offer(tokens_of(TOKEN), {}, []))


def test_half_a_secret_never_fails_a_published_volume(node: Node) -> None:
    credentials, error = node.renew(SECRET_ORDER, Offer({"akId": "LTAI-an-access-key"}, {}, []))

    assert credentials is None
    assert isinstance(error, CredentialsMissing)
    assert "lacks akSecret" in node.incidents.told[0][1].message


def test_a_machine_without_pods_is_told_in_the_log(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.renew(replace(SECRET_ORDER, pod=None), Offer({"akId": "LTAI-an-access-key"}, {}, []))

    assert node.incidents.told == []
    assert "could not be renewed" in caplog.text
