from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from kubernetes.config import incluster_config

from csi.cluster.api import KubernetesApi, resource_path
from csi.cluster.webhook.issuing import make_certificate
from csi.cluster.webhook.server import load
from csi.errors import ApiConflict, ApiRefused, ApiUnreachable, ObjectMissing
from tests.support.stand_in_cluster import StandInCluster, api_of, stand_in_cluster

PODS = resource_path("v1", "pods", namespace="default")
SECRETS = resource_path("v1", "secrets", namespace="default")


@pytest.fixture
def cluster() -> Iterator[StandInCluster]:
    with stand_in_cluster() as running:
        yield running


@pytest.fixture
def api(cluster: StandInCluster, tmp_path: Path) -> Iterator[KubernetesApi]:
    api = api_of(cluster, tmp_path, token="the-token")
    yield api
    api.close()


def pod(name: str, **more: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **more}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (resource_path("v1", "pods", namespace="a", name="b"), "/api/v1/namespaces/a/pods/b"),
        (resource_path("v1", "persistentvolumes", name="pv"), "/api/v1/persistentvolumes/pv"),
        (resource_path("storage.k8s.io/v1", "storageclasses"), "/apis/storage.k8s.io/v1/storageclasses"),
        (resource_path("v1", "pods", namespace="a", name="x/../y?z"), "/api/v1/namespaces/a/pods/x%2F..%2Fy%3Fz"),
        (resource_path("v1", "pods", namespace="a", name=".."), "/api/v1/namespaces/a/pods/%2E%2E"),
    ],
)
def test_a_path_leads_to_the_object_it_names(path: str, expected: str) -> None:
    assert path == expected


def test_an_object_that_is_not_there_is_an_answer(api: KubernetesApi) -> None:
    assert api.get(f"{PODS}/nobody") is None
    assert api.delete(f"{PODS}/nobody") is False


def test_objects_are_made_read_changed_and_removed(api: KubernetesApi) -> None:
    made = api.create(PODS, pod("a"))
    assert api.get(f"{PODS}/a") == made
    replaced = api.replace(f"{PODS}/a", {**made, "spec": {"x": 1}})
    assert replaced["spec"] == {"x": 1}
    assert api.patch(f"{PODS}/a", {"spec": {"y": 2}}, kind="merge")["spec"] == {"x": 1, "y": 2}
    assert api.delete(f"{PODS}/a") is True
    assert api.get(f"{PODS}/a") is None


def test_a_list_is_read_to_its_last_page(api: KubernetesApi, cluster: StandInCluster) -> None:
    for number in range(1100):
        cluster.put(f"{PODS}/p{number:04}", pod(f"p{number:04}"))
    assert [item["metadata"]["name"] for item in api.list(PODS)] == [f"p{number:04}" for number in range(1100)]


def test_a_second_creation_and_a_stale_replacement_are_conflicts(api: KubernetesApi) -> None:
    first = api.create(PODS, pod("a"))
    with pytest.raises(ApiConflict) as again:
        api.create(PODS, pod("a"))
    assert (again.value.status, again.value.reason) == (409, "AlreadyExists")
    api.replace(f"{PODS}/a", first)
    with pytest.raises(ApiConflict) as stale:
        api.replace(f"{PODS}/a", first)
    assert stale.value.reason == "Conflict"


def test_changing_what_is_not_there_is_refused_as_missing(api: KubernetesApi) -> None:
    with pytest.raises(ObjectMissing):
        api.patch(f"{PODS}/nobody", {}, kind="merge")


def test_a_refusal_says_what_was_asked_and_what_the_server_said(api: KubernetesApi, cluster: StandInCluster) -> None:
    cluster.order("GET", PODS, 403, reason="Forbidden", message="pods is forbidden")
    with pytest.raises(ApiRefused) as refused:
        api.get(f"{PODS}/a")
    assert str(refused.value) == (
        "GET /api/v1/namespaces/default/pods/a: the API server refused (403 Forbidden): pods is forbidden; "
        "the service account may not do that; compare its ClusterRole with the chart's"
    )


def test_what_is_said_about_a_secret_is_not_repeated(api: KubernetesApi, cluster: StandInCluster) -> None:
    cluster.order("POST", SECRETS, 422, reason="Invalid", message='data: Invalid value: "c2VjcmV0LWJ5dGVz"')
    with pytest.raises(ApiRefused) as refused:
        api.create(SECRETS, pod("s"))
    assert "c2VjcmV0" not in str(refused.value)
    assert "422 Invalid" in str(refused.value)


def test_a_silent_server_ends_in_unreachable(cluster: StandInCluster, tmp_path: Path) -> None:
    api = api_of(cluster, tmp_path, token="the-token", timeout=0.2)
    cluster.silent.set()
    with pytest.raises(ApiUnreachable) as silent:
        api.get(f"{PODS}/a")
    assert "no answer of the API server" in silent.value.message
    assert "the-token" not in str(silent.value)
    api.close()


def test_nobody_listening_is_unreachable(tmp_path: Path) -> None:
    with stand_in_cluster() as gone:
        pass
    api = api_of(gone, tmp_path)
    with pytest.raises(ApiUnreachable):
        api.get(f"{PODS}/a")


def test_an_answer_that_is_no_json_object_is_unreachable(api: KubernetesApi, cluster: StandInCluster) -> None:
    cluster.objects[f"{PODS}/a"] = ["not", "an", "object"]  # type: ignore[assignment]
    with pytest.raises(ApiUnreachable, match="no JSON object"):
        api.get(f"{PODS}/a")


def test_the_token_of_the_kubeconfig_is_sent(api: KubernetesApi, cluster: StandInCluster) -> None:
    api.get(f"{PODS}/a")
    assert cluster.tokens == ["Bearer the-token"]


def test_a_kubeconfig_that_cannot_be_read_is_named_and_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_text("users: [{token: the-token")
    with pytest.raises(ApiUnreachable) as broken:
        KubernetesApi.from_kubeconfig(str(path))
    assert str(path) in str(broken.value)
    assert "the-token" not in str(broken.value)


def test_in_a_pod_the_token_of_its_service_account_is_read_again_when_it_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_certificate(("localhost",), datetime.datetime.now(datetime.UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load(context, made)
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first")
    authority.write_bytes(made.authorities)
    now = [datetime.datetime(2026, 1, 1)]
    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: now[0]), timedelta=datetime.timedelta)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    monkeypatch.setattr(incluster_config, "datetime", clock)
    with stand_in_cluster(context) as cluster:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", cluster.url.rsplit(":", 1)[1])
        api = KubernetesApi.in_cluster()
        api.get(f"{PODS}/a")
        token.write_text("second")
        now[0] += datetime.timedelta(minutes=2)
        api.get(f"{PODS}/a")
        api.close()
        assert cluster.tokens == ["bearer first", "bearer second"]


def test_outside_a_pod_there_is_no_service_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ApiUnreachable, match="no Kubernetes service account"):
        KubernetesApi.in_cluster()
