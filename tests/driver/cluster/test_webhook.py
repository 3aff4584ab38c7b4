"""The webhook as it runs: aiohttp, TLS, threads and the official client, against a stand-in API server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import http.client
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from csi.cluster.api import KubernetesApi, resource_path
from csi.cluster.webhook.certificates import (
    CertificateSource,
    DirectoryCertificates,
    SelfMadeCertificates,
    WebhookNames,
)
from csi.cluster.webhook.issuing import make_certificate
from csi.cluster.webhook.review import PodReviewer
from csi.cluster.webhook.server import ServerConfig, WebhookServer, utc_now
from csi.cluster.webhook.sidecar import SidecarSettings
from csi.cluster.webhook.volumes import VolumeResolver
from csi.errors import PluginNotHealthy
from csi.volume.units import Seconds
from tests.support.memory_cluster import patched
from tests.support.stand_in_cluster import StandInCluster, api_of, stand_in_cluster

NAMES = WebhookNames("ossfuse-csi", "ossfuse-csi-webhook", "ossfuse-csi")
SERVER = NAMES.server_name()
CONFIGURATION = resource_path("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", name="ossfuse-csi")
SECRET = resource_path("v1", "secrets", namespace="ossfuse-csi", name="ossfuse-csi-webhook-cert")
CLAIM = resource_path("v1", "persistentvolumeclaims", namespace="train", name="data")
VOLUME = resource_path("v1", "persistentvolumes", name="pv-data")
POD = {
    "metadata": {"generateName": "train-"},
    "spec": {
        "containers": [{"name": "main", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    },
}


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: Any

    @property
    def response(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.text)
        return dict(body["response"])


@dataclass
class Webhook:
    """A running webhook; `bundle` gives the CAs that the API server trusts at the moment."""

    server: WebhookServer
    bundle: Callable[[], bytes]

    def send(self, method: str, path: str, body: bytes | None = None, *, trusting: bytes | None = None) -> Answer:
        context = ssl.create_default_context(cadata=(trusting or self.bundle()).decode())
        with _connection(self.server.port, context) as connection:
            return _exchange(connection, method, path, body)

    def look(self, path: str) -> Answer:
        """As a probe of kubelet, which trusts everybody."""
        with _connection(self.server.port, ssl._create_unverified_context()) as connection:
            return _exchange(connection, "GET", path, None)

    def review(self, pod: Any, **request: Any) -> Answer:
        return self.send("POST", "/mutate", review_of(pod, **request))

    def wait_ready(self) -> None:
        for _ in range(1000):
            if self.look("/readyz").status == 200:
                return
            threading.Event().wait(0.01)
        raise AssertionError(f"not ready: {self.look('/readyz').text}")


@contextlib.contextmanager
def _connection(port: int, context: ssl.SSLContext) -> Iterator[http.client.HTTPSConnection]:
    connection = http.client.HTTPSConnection(SERVER, port, context=context, timeout=30)
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    with plain, contextlib.closing(connection):
        connection.sock = context.wrap_socket(plain, server_hostname=SERVER)
        yield connection


def _exchange(connection: http.client.HTTPSConnection, method: str, path: str, body: bytes | None) -> Answer:
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    return Answer(answer.status, answer.read().decode(), answer.headers)


def review_of(pod: Any, **request: Any) -> bytes:
    body = {"uid": "a-review", "operation": "CREATE", "namespace": "train", "object": pod, **request}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": body}).encode()


@contextlib.contextmanager
def webhook(
    api: KubernetesApi,
    certificates: CertificateSource,
    bundle: Callable[[], bytes],
    *,
    patience: float = 8.0,
    look: float = 0.02,
    clock: Callable[[], datetime.datetime] = utc_now,
) -> Iterator[Webhook]:
    """A webhook on a loop of its own thread, until the end of the block."""
    reviewer = PodReviewer(VolumeResolver(api), SidecarSettings("registry.example/ossfuse-csi:0.1.0"))
    config = ServerConfig(0, "127.0.0.1", Seconds(patience), look=Seconds(look), retry=Seconds(look))
    server = WebhookServer(reviewer, certificates, config, clock)
    started: threading.Event = threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def run() -> None:
        async with server.running():
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), name="webhook")
    thread.start()
    try:
        assert started.wait(30)
        yield Webhook(server, bundle)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture
def cluster() -> Iterator[StandInCluster]:
    with stand_in_cluster() as running:
        hook = {"name": "inject.ossfuse.csi.dev", "clientConfig": {"service": {"name": "ossfuse-csi-webhook"}}}
        running.put(CONFIGURATION, {"metadata": {"name": "ossfuse-csi"}, "webhooks": [hook]})
        running.put(SECRET, {"metadata": {"name": "ossfuse-csi-webhook-cert"}, "type": "Opaque"})
        running.put(CLAIM, {"metadata": {"name": "data"}, "spec": {"volumeName": "pv-data"}})
        csi = {"driver": "ossfuse.csi.dev", "volumeAttributes": {"uri": "oss://b.oss-cn-hangzhou.aliyuncs.com/"}}
        running.put(VOLUME, {"metadata": {"name": "pv-data"}, "spec": {"csi": csi}})
        yield running


def trusted_by(cluster: StandInCluster) -> Callable[[], bytes]:
    return lambda: base64.b64decode(cluster.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"])


@pytest.fixture
def api(cluster: StandInCluster, tmp_path: Path) -> Iterator[KubernetesApi]:
    api = api_of(cluster, tmp_path, token="the-token")
    yield api
    api.close()


@pytest.fixture
def running(cluster: StandInCluster, api: KubernetesApi) -> Iterator[Webhook]:
    with webhook(api, SelfMadeCertificates(api, NAMES, utc_now), trusted_by(cluster)) as server:
        server.wait_ready()
        yield server


def test_a_pod_gets_its_sidecar_over_tls_that_the_api_server_trusts(running: Webhook) -> None:
    answer = running.review(POD)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    response = answer.response
    assert (response["uid"], response["allowed"], response["patchType"]) == ("a-review", True, "JSONPatch")
    after = patched(POD, json.loads(base64.b64decode(response["patch"])))
    assert [item["name"] for item in after["spec"]["initContainers"]] == ["ossfuse-data"]


def test_a_dry_run_is_answered_like_any_other_and_changes_nothing(running: Webhook, cluster: StandInCluster) -> None:
    before = dict(cluster.objects)
    assert running.review(POD, dryRun=True).response["patch"] == running.review(POD).response["patch"]
    assert cluster.objects == before


def test_a_pod_without_volumes_that_may_be_ours_costs_no_request(running: Webhook, cluster: StandInCluster) -> None:
    pod = {"metadata": {}, "spec": {"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {}}]}}
    assert running.review(pod).response == {"uid": "a-review", "allowed": True}
    assert not [request for request in cluster.requests if "persistentvolume" in request]


def test_a_bad_annotation_is_a_refusal_in_words(running: Webhook) -> None:
    pod = {**POD, "metadata": {"annotations": {"ossfuse.csi.dev/memory-limit": "1Mi"}}}
    response = running.review(pod).response
    assert response["allowed"] is False
    assert response["status"] == {
        "code": 422,
        "reason": "Invalid",
        "message": "ossfuse.csi.dev/memory-limit: '1Mi' is not accepted, expected at least 128Mi, "
        "the least a sidecar can work in",
    }


def test_a_mistake_in_the_volume_is_a_warning(running: Webhook, cluster: StandInCluster) -> None:
    csi = {"driver": "ossfuse.csi.dev", "volumeAttributes": {"uri": "nonsense"}}
    cluster.put(VOLUME, {"metadata": {"name": "pv-data"}, "spec": {"csi": csi}})
    response = running.review(POD).response
    assert response["allowed"] is True
    assert response["warnings"][0].startswith("volume data (PersistentVolume pv-data): uri: 'nonsense'")


@pytest.mark.parametrize("request_", [{"operation": "UPDATE"}, {"subResource": "ephemeralcontainers"}])
def test_what_is_no_creation_is_let_through(running: Webhook, request_: dict[str, str]) -> None:
    assert running.review(POD, **request_).response == {"uid": "a-review", "allowed": True}


# --- errors of the call, which failurePolicy decides about ---


def test_a_refused_lookup_is_an_error_that_says_what_was_refused(running: Webhook, cluster: StandInCluster) -> None:
    cluster.order("GET", CLAIM, 403, reason="Forbidden", message="cannot get resource")
    answer = running.review(POD)
    assert answer.status == 500
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert f"GET {CLAIM}: the API server refused (403 Forbidden): cannot get resource" in answer.text


def test_an_api_server_that_keeps_silent_ends_in_time(cluster: StandInCluster, api: KubernetesApi) -> None:
    certificates = SelfMadeCertificates(api, NAMES, utc_now)
    with webhook(api, certificates, trusted_by(cluster), patience=0.3, look=3600) as server:
        server.wait_ready()
        cluster.silent.set()
        answer = server.review(POD)
        cluster.released.set()
    assert answer.status in (503, 504)
    assert "did not end within 0.3 s" in answer.text or "no answer of the API server" in answer.text


def test_what_the_api_server_says_of_its_patience_counts(cluster: StandInCluster, api: KubernetesApi) -> None:
    certificates = SelfMadeCertificates(api, NAMES, utc_now)
    with webhook(api, certificates, trusted_by(cluster), patience=3600, look=3600) as server:
        server.wait_ready()
        cluster.silent.set()
        answer = server.send("POST", "/mutate?timeout=1s", review_of(POD))
        cluster.released.set()
    assert answer.status in (503, 504)
    assert f"GET {CLAIM}: no answer of the API server" in answer.text or "did not end within 0.8 s" in answer.text


def test_a_slow_pod_keeps_no_other_waiting(cluster: StandInCluster, api: KubernetesApi) -> None:
    certificates = SelfMadeCertificates(api, NAMES, utc_now)
    with webhook(api, certificates, trusted_by(cluster), patience=20.0, look=3600) as server:
        server.wait_ready()
        cluster.silent.set()
        with ThreadPoolExecutor(8) as pool:
            slow = [pool.submit(server.review, POD) for _ in range(8)]
            quick = server.review({"metadata": {}, "spec": {"containers": []}})
            assert not any(future.done() for future in slow)
            cluster.released.set()
        assert quick.response["allowed"] is True
        assert {future.result().status for future in slow} == {503}


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b"{}",
        json.dumps({"apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "u"}}).encode(),
        review_of({"kind": "Deployment", "spec": {}}),
        review_of(None),
    ],
)
def test_a_body_that_is_no_review_of_a_pod_is_refused(running: Webhook, body: bytes) -> None:
    assert running.send("POST", "/mutate", body).status == 400


def test_a_pod_nobody_has_thought_of_is_an_error_without_details(
    running: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = running.review({"metadata": {}, "spec": {"volumes": 7, "containers": []}})
    assert answer.status == 500
    assert answer.text == "unexpected failure; the log of the Deployment ossfuse-csi-controller has the details"
    assert "Traceback" in caplog.text


def test_a_body_beyond_all_measure_is_refused(running: Webhook) -> None:
    assert running.send("POST", "/mutate", b" " * (9 * 2**20)).status in (400, 413)


# --- starting, certificates ---


def test_until_there_is_a_certificate_it_is_alive_and_not_ready(cluster: StandInCluster, api: KubernetesApi) -> None:
    configuration = cluster.objects.pop(CONFIGURATION)
    with webhook(api, SelfMadeCertificates(api, NAMES, utc_now), trusted_by(cluster)) as server:
        for _ in range(1000):
            if "MutatingWebhookConfiguration" in (told := server.look("/readyz")).text:
                break
            threading.Event().wait(0.01)
        assert told.status == 503
        assert told.text.startswith("there is no MutatingWebhookConfiguration ossfuse-csi")
        assert server.look("/healthz").status == 200
        cluster.put(CONFIGURATION, configuration)
        server.wait_ready()
        assert server.review(POD).status == 200


def test_a_rotated_certificate_is_served_without_a_refused_connection(
    cluster: StandInCluster, api: KubernetesApi
) -> None:
    now = [datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=300)]
    certificates = SelfMadeCertificates(api, NAMES, lambda: now[0])
    with webhook(api, certificates, trusted_by(cluster), clock=lambda: now[0]) as server:
        server.wait_ready()
        before = cluster.objects[SECRET]["data"]["tls.crt"]
        assert server.review(POD).status == 200
        now[0] += datetime.timedelta(days=300)
        served = before
        while served == before:
            assert server.review(POD).status == 200  # with what the API server trusts at this moment
            served = _served(server)
        assert served == cluster.objects[SECRET]["data"]["tls.crt"]


def _served(server: Webhook) -> str:
    """The certificate that a connection gets, as it stands in the Secret."""
    context = ssl._create_unverified_context()
    with _connection(server.server.port, context) as connection:
        assert isinstance(connection.sock, ssl.SSLSocket)
        found = connection.sock.getpeercert(binary_form=True)
        assert found is not None
        return base64.b64encode(ssl.DER_cert_to_PEM_cert(found).encode()).decode()


def test_a_directory_s_certificate_is_reloaded_when_it_changes(api: KubernetesApi, tmp_path: Path) -> None:
    made = [make_certificate((SERVER,), utc_now())]
    store = lambda: [  # noqa: E731
        (tmp_path / name).write_bytes(content)
        for name, content in (("tls.key", made[-1].key), ("tls.crt", made[-1].certificate))
    ]
    store()
    with webhook(api, DirectoryCertificates(tmp_path, NAMES, utc_now), lambda: made[-1].authorities) as server:
        server.wait_ready()
        assert server.look("/readyz").status == 200
        made.append(make_certificate((SERVER,), utc_now()))
        store()
        for _ in range(1000):
            with contextlib.suppress(ssl.SSLCertVerificationError):
                assert server.send("GET", "/healthz").status == 200
                break
            threading.Event().wait(0.01)
        else:
            raise AssertionError("the new certificate is never served")


def test_a_client_that_trusts_another_ca_is_not_served(running: Webhook) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        running.send("GET", "/healthz", trusting=make_certificate((SERVER,), utc_now()).authorities)


def test_a_certificate_that_ended_makes_it_not_ready(cluster: StandInCluster, api: KubernetesApi) -> None:
    now = [utc_now()]
    certificates = SelfMadeCertificates(api, NAMES, lambda: now[0])
    with webhook(api, certificates, trusted_by(cluster), clock=lambda: now[0], look=3600) as server:
        server.wait_ready()
        now[0] += datetime.timedelta(days=366)
        assert server.look("/readyz").text.startswith("the certificate ended on")


def test_at_the_end_it_goes_on_for_a_while_without_being_ready(api: KubernetesApi, tmp_path: Path) -> None:
    async def run() -> tuple[Answer, Answer]:
        lingering, released = asyncio.Event(), asyncio.Event()

        async def linger(_: float) -> None:
            lingering.set()
            await released.wait()

        reviewer = PodReviewer(VolumeResolver(api), SidecarSettings("i"))
        certificates = DirectoryCertificates(tmp_path, NAMES, utc_now)
        server = WebhookServer(reviewer, certificates, ServerConfig(0, "127.0.0.1"), utc_now, linger=linger)

        async def serve() -> None:
            async with server.running():
                pass

        serving = asyncio.create_task(serve())
        await lingering.wait()
        probe = Webhook(server, lambda: b"")
        answers = await asyncio.to_thread(probe.look, "/readyz"), await asyncio.to_thread(probe.look, "/healthz")
        released.set()
        await serving
        return answers

    ready, healthy = asyncio.run(run())
    assert (ready.status, ready.text) == (503, "ending\n")
    assert healthy.status == 200


def test_a_port_that_is_taken_is_named(api: KubernetesApi, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        reviewer = PodReviewer(VolumeResolver(api), SidecarSettings("i"))
        server = WebhookServer(
            reviewer, DirectoryCertificates(tmp_path, NAMES, utc_now), ServerConfig(port, "127.0.0.1"), utc_now
        )

        async def run() -> None:
            async with server.running():
                raise AssertionError("it listens all the same")

        with pytest.raises(PluginNotHealthy, match=f"cannot listen on port {port}"):
            asyncio.run(run())


def test_no_key_and_no_token_is_in_the_log(
    cluster: StandInCluster, api: KubernetesApi, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        with webhook(api, SelfMadeCertificates(api, NAMES, utc_now), trusted_by(cluster)) as server:
            server.wait_ready()
            server.review(POD)
    key = base64.b64decode(cluster.objects[SECRET]["data"]["tls.key"]).decode().splitlines()[1]
    assert key not in caplog.text
    assert cluster.objects[SECRET]["data"]["tls.key"] not in caplog.text
    assert "the-token" not in caplog.text
