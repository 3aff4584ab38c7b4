from __future__ import annotations

import base64
import copy
import datetime
from pathlib import Path
from typing import Any

import pytest

from csi.cluster.api import JsonObject
from csi.cluster.webhook.certificates import DirectoryCertificates, SelfMadeCertificates, WebhookNames
from csi.cluster.webhook.issuing import (
    LIFETIME,
    RENEWAL,
    CertificateUnusable,
    ServingCertificate,
    check,
    joined,
    make_certificate,
)
from csi.errors import ApiConflict, ApiRefused, PluginNotHealthy
from tests.support.memory_cluster import patched

NAMES = WebhookNames("ossfuse-csi", "ossfuse-csi-webhook", "ossfuse-csi")
SERVER = "ossfuse-csi-webhook.ossfuse-csi.svc"
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SECRET = "/api/v1/namespaces/ossfuse-csi/secrets/ossfuse-csi-webhook-cert"
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ossfuse-csi"


class Cluster:
    """A Secret as the chart makes it and a configuration, with resource versions; `before_write` runs once."""

    def __init__(self) -> None:
        self.objects: dict[str, JsonObject] = {
            SECRET: {"metadata": {"name": "ossfuse-csi-webhook-cert", "labels": {"a": "b"}, "resourceVersion": "1"}},
            CONFIGURATION: {
                "metadata": {"name": "ossfuse-csi"},
                "webhooks": [{"name": "inject.ossfuse.csi.dev", "clientConfig": {"service": {"name": "x"}}}],
            },
        }
        self.writes: list[str] = []
        self.before_write: Any = None

    def get(self, path: str) -> JsonObject | None:
        return copy.deepcopy(self.objects.get(path))

    def create(self, path: str, item: JsonObject) -> JsonObject:
        return self._write(SECRET, item)

    def replace(self, path: str, item: JsonObject) -> JsonObject:
        path = path.partition("?")[0]
        if self.before_write is not None:
            action, self.before_write = self.before_write, None
            action()
        if item["metadata"]["resourceVersion"] != self.objects[path]["metadata"]["resourceVersion"]:
            raise ApiConflict("changed", status=409, reason="Conflict")
        return self._write(path, item)

    def patch(self, path: str, item: Any, *, kind: str) -> JsonObject:
        assert kind == "json"
        path = path.partition("?")[0]
        return self._write(path, patched(self.objects[path], item))

    def _write(self, path: str, item: JsonObject) -> JsonObject:
        self.writes.append(path)
        version = str(len(self.writes) + 1)
        self.objects[path] = {**item, "metadata": {**item["metadata"], "resourceVersion": version}}
        return self.objects[path]

    def trusted(self) -> bytes:
        return base64.b64decode(self.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"])


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime.datetime:
        return self.now


def replica(cluster: Cluster, clock: Clock) -> SelfMadeCertificates:
    return SelfMadeCertificates(cluster, NAMES, clock)


def trusts(bundle: bytes, serving: ServingCertificate) -> bool:
    try:
        check(ServingCertificate(serving.certificate, serving.key, bundle), SERVER, serving.expiry() - RENEWAL)
    except CertificateUnusable:
        return False
    return True


# --- the first certificate ---


def test_the_first_certificate_is_kept_in_the_secret_and_trusted_by_the_api_server() -> None:
    cluster, clock = Cluster(), Clock()
    served = replica(cluster, clock).current()
    check(served, SERVER, clock.now)
    assert trusts(cluster.trusted(), served)
    secret = cluster.objects[SECRET]
    assert set(secret["data"]) == {"tls.crt", "tls.key", "ca.crt"}
    assert secret["metadata"]["labels"] == {"a": "b"}
    assert cluster.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["service"] == {"name": "x"}


def test_a_secret_that_is_missing_is_made() -> None:
    cluster = Cluster()
    del cluster.objects[SECRET]
    served = replica(cluster, Clock()).current()
    assert base64.b64decode(cluster.objects[SECRET]["data"]["tls.crt"]) == served.certificate
    assert cluster.objects[SECRET]["type"] == "Opaque"


def test_a_second_replica_serves_what_the_first_made() -> None:
    cluster, clock = Cluster(), Clock()
    first = replica(cluster, clock).current()
    writes = list(cluster.writes)
    assert replica(cluster, clock).current() == first
    assert cluster.writes == writes


def test_of_two_replicas_that_start_at_once_the_slower_takes_the_other_s_certificate() -> None:
    cluster, clock = Cluster(), Clock()
    made: list[ServingCertificate] = []
    cluster.before_write = lambda: made.append(replica(cluster, clock).current())
    assert replica(cluster, clock).current() == made[0]
    assert cluster.writes.count(SECRET) == 1


def test_a_secret_that_changes_under_every_attempt_is_told() -> None:
    cluster, clock = Cluster(), Clock()

    def interfere() -> None:
        cluster.objects[SECRET]["metadata"]["resourceVersion"] += "x"
        cluster.before_write = interfere

    cluster.before_write = interfere
    with pytest.raises(PluginNotHealthy, match="changes faster than it can be written"):
        replica(cluster, clock).current()


def test_without_a_configuration_the_webhook_says_so() -> None:
    cluster = Cluster()
    del cluster.objects[CONFIGURATION]
    with pytest.raises(PluginNotHealthy, match="no MutatingWebhookConfiguration ossfuse-csi"):
        replica(cluster, Clock()).current()


def test_a_refusal_to_write_the_secret_reaches_the_caller() -> None:
    class Forbidding(Cluster):
        def replace(self, path: str, item: JsonObject) -> JsonObject:
            raise ApiRefused("no", status=403, reason="Forbidden")

    with pytest.raises(ApiRefused):
        replica(Forbidding(), Clock()).current()


# --- rotation ---


def test_a_certificate_is_left_alone_until_a_third_of_its_life_is_left() -> None:
    cluster, clock = Cluster(), Clock()
    source = replica(cluster, clock)
    first = source.current()
    writes = list(cluster.writes)
    clock.now = START + LIFETIME - RENEWAL - datetime.timedelta(seconds=1)
    assert source.current() == first
    assert cluster.writes == writes


def test_a_new_certificate_is_served_only_when_the_api_server_has_known_its_ca_for_a_look() -> None:
    cluster, clock = Cluster(), Clock()
    source = replica(cluster, clock)
    old = source.current()
    clock.now = START + LIFETIME - RENEWAL + datetime.timedelta(seconds=1)
    assert source.current() == old  # made and published in this look
    assert trusts(cluster.trusted(), old)
    new = source.current()
    assert new != old
    assert trusts(cluster.trusted(), new)
    assert trusts(cluster.trusted(), old)  # another replica may serve it still


def test_a_replica_that_learns_of_a_new_certificate_waits_a_look_too() -> None:
    cluster, clock = Cluster(), Clock()
    one, other = replica(cluster, clock), replica(cluster, clock)
    old = one.current()
    assert other.current() == old
    clock.now = START + LIFETIME - RENEWAL + datetime.timedelta(seconds=1)
    one.current()
    assert other.current() == old
    assert other.current() == one.current() != old


def test_a_replica_that_has_not_looked_yet_never_takes_a_new_ca_away() -> None:
    cluster, clock = Cluster(), Clock()
    one = replica(cluster, clock)
    one.current()
    stale = dict(cluster.objects[SECRET])
    clock.now = START + LIFETIME - RENEWAL + datetime.timedelta(seconds=1)
    one.current()
    new = one.current()
    fresh, cluster.objects[SECRET] = cluster.objects[SECRET], stale
    clock.now = START  # the other one's clock is behind, so the old Secret satisfies it
    replica(cluster, clock).current()
    cluster.objects[SECRET] = fresh
    assert trusts(cluster.trusted(), new)


def test_a_ca_leaves_the_bundle_when_it_has_expired() -> None:
    cluster, clock = Cluster(), Clock()
    source = replica(cluster, clock)
    old = source.current()
    clock.now = START + LIFETIME - RENEWAL + datetime.timedelta(seconds=1)
    source.current()
    clock.now = START + LIFETIME + datetime.timedelta(hours=2)
    source.current()
    assert not trusts(cluster.trusted(), old)


def test_a_bundle_that_an_upgrade_emptied_is_filled_again() -> None:
    cluster, clock = Cluster(), Clock()
    source = replica(cluster, clock)
    served = source.current()
    del cluster.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"]
    assert source.current() == served
    assert trusts(cluster.trusted(), served)


def _damaged(key: str, value: bytes) -> Any:
    def damage(secret: JsonObject) -> None:
        secret["data"][key] = base64.b64encode(value).decode()

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        _damaged("tls.crt", b"nonsense"),
        _damaged("tls.key", b"nonsense"),
        _damaged("tls.key", make_certificate((SERVER,), START).key),
        _damaged("ca.crt", b""),
        _damaged("ca.crt", make_certificate((SERVER,), START).authorities),
        lambda secret: secret["data"].pop("tls.key"),
        lambda secret: secret.pop("data"),
        lambda secret: secret["data"].update({"tls.crt": "%%%"}),
    ],
)
def test_a_damaged_secret_is_replaced(damage: Any) -> None:
    cluster, clock = Cluster(), Clock()
    old = replica(cluster, clock).current()
    damage(cluster.objects[SECRET])
    new = replica(cluster, clock).current()
    assert new.certificate != old.certificate
    check(new, SERVER, clock.now)
    assert trusts(cluster.trusted(), new)
    assert trusts(cluster.trusted(), old)


def test_a_certificate_for_another_service_is_replaced() -> None:
    cluster, clock = Cluster(), Clock()
    other = WebhookNames("ossfuse-csi", "another", "ossfuse-csi")
    SelfMadeCertificates(cluster, other, clock).current()
    check(replica(cluster, clock).current(), SERVER, clock.now)


def test_the_key_is_in_no_repr() -> None:
    made = make_certificate((SERVER,), START)
    assert "PRIVATE" not in repr(made)


def test_foreign_and_repeated_cas_are_not_carried_along() -> None:
    made = make_certificate((SERVER,), START)
    assert joined([made.authorities, made.certificate, made.authorities, b"nonsense"], START) == made.authorities


# --- from a directory ---


def store(directory: Path, made: ServingCertificate) -> None:
    (directory / "tls.crt").write_bytes(made.certificate)
    (directory / "tls.key").write_bytes(made.key)


def test_a_directory_s_certificate_is_read_anew_at_every_look(tmp_path: Path) -> None:
    source = DirectoryCertificates(tmp_path, NAMES, Clock())
    for _ in range(2):
        made = make_certificate((SERVER,), START)
        store(tmp_path, made)
        assert source.current().certificate == made.certificate


def test_a_directory_without_a_certificate_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CertificateUnusable, match=r"tls\.crt: No such file"):
        DirectoryCertificates(tmp_path, NAMES, Clock()).current()


@pytest.mark.parametrize(
    ("names", "at", "why"),
    [
        (("another.svc",), START, "is not for ossfuse-csi-webhook.ossfuse-csi.svc, but for another.svc"),
        ((SERVER,), START + LIFETIME, "is valid from 2025-12-31 to 2027-01-01"),
    ],
)
def test_a_directory_s_certificate_that_will_not_do_says_why(
    tmp_path: Path, names: tuple[str, ...], at: datetime.datetime, why: str
) -> None:
    store(tmp_path, make_certificate(names, START))
    clock = Clock()
    clock.now = at
    with pytest.raises(CertificateUnusable, match=why):
        DirectoryCertificates(tmp_path, NAMES, clock).current()


def test_a_pair_of_which_one_half_is_new_is_not_taken(tmp_path: Path) -> None:
    store(tmp_path, make_certificate((SERVER,), START))
    (tmp_path / "tls.crt").write_bytes(make_certificate((SERVER,), START).certificate)
    with pytest.raises(CertificateUnusable, match="belongs to another certificate"):
        DirectoryCertificates(tmp_path, NAMES, Clock()).current()
