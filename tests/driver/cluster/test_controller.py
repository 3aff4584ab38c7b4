"""`ossfuse controller` with its webhook, as the process it is."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from csi.cli.group import ossfuse
from csi.v1 import csi_pb2, csi_pb2_grpc
from tests.driver.cluster.test_webhook import CONFIGURATION, POD, review_of
from tests.support.csi_processes import LoggedProcess
from tests.support.stand_in_cluster import StandInCluster, kubeconfig, stand_in_cluster


@pytest.fixture
def cluster() -> Iterator[StandInCluster]:
    with stand_in_cluster() as running:
        hook = {"name": "inject.ossfuse.csi.dev", "clientConfig": {"service": {"name": "ossfuse-csi-webhook"}}}
        running.put(CONFIGURATION, {"metadata": {"name": "ossfuse-csi"}, "webhooks": [hook]})
        yield running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def exchange(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=ssl._create_unverified_context(), timeout=30)
    connection.request(method, path, body)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_one_process_serves_the_controller_and_the_webhook(cluster: StandInCluster, tmp_path: Path) -> None:
    port = free_port()
    arguments = ["controller", "--endpoint", f"unix://{tmp_path}/csi.sock", "--webhook-port", str(port)]
    arguments += ["--sidecar-image", "registry.example/ossfuse:0.1.0", "--namespace", "ossfuse-csi"]
    arguments += ["--kubeconfig", str(kubeconfig(cluster, tmp_path, "a-token-that-nobody-sees"))]
    controller = LoggedProcess(arguments, tmp_path / "log", "serves a certificate")
    try:
        controller.wait_ready()
        assert exchange(port, "GET", "/readyz") == (200, "ok\n")
        with grpc.insecure_channel(f"unix:{tmp_path}/csi.sock") as channel:
            answer = csi_pb2_grpc.IdentityStub(channel).Probe(csi_pb2.ProbeRequest(), timeout=10)
        assert answer.ready.value
        status, text = exchange(port, "POST", "/mutate", review_of(POD))
        assert (status, json.loads(text)["response"]["allowed"]) == (200, True)

        controller.process.terminate()
        assert controller.process.wait(60) == 0, controller.log()
    except subprocess.TimeoutExpired:
        controller.process.kill()
        raise
    finally:
        controller.end()
        controller.join_log()
    assert "a-token-that-nobody-sees" not in controller.log()
    assert not (tmp_path / "csi.sock").exists()


def test_without_a_port_there_is_no_webhook_and_no_need_for_a_cluster(tmp_path: Path) -> None:
    controller = LoggedProcess(["controller", "--endpoint", f"unix://{tmp_path}/csi.sock"], tmp_path / "log", "listens")
    try:
        controller.wait_ready()
    finally:
        assert controller.end() == 0
        controller.join_log()
    assert "webhook" not in controller.log()


def test_a_webhook_needs_the_image_of_its_sidecars() -> None:
    result = CliRunner().invoke(ossfuse, ["controller", "--webhook-port", "9443"])
    assert result.exit_code == 1
    assert "--sidecar-image: '' is not accepted" in result.output


def test_outside_a_pod_a_webhook_asks_for_a_kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    result = CliRunner().invoke(ossfuse, ["controller", "--webhook-port", "9443", "--sidecar-image", "i"])
    assert result.exit_code == 1
    assert "or give --kubeconfig" in result.output
