"""What `helm test` says about installations that are well, and about those that are not."""

import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.unit.deploy.test_examples import not_restricted
from tools.chart_readme import CHART

Object = dict[str, Any]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_installation", CHART / "files" / "check_installation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ApiServer:
    """Answers as an API server with a working installation; `refusals` maps the beginning of a path to an error."""

    def __init__(self, script: ModuleType, **changes: Any) -> None:
        self._refused: Callable[[str], Exception] = script.Refused
        self.refusals: dict[str, str] = {}
        self.sidecars: list[Object] = [{"name": "ossfuse-data", "restartPolicy": "Always", "image": "registry/o:1"}]
        self.drivers: list[list[str]] = [["ossfuse.csi.dev", "other"], ["other"], []]
        self.pods: list[Object] = []
        self.__dict__.update(changes)

    def __call__(self, method: str, path: str, body: Object | None) -> Object:
        for beginning, text in self.refusals.items():
            if path.startswith(beginning):
                raise self._refused(text)
        if method == "POST":
            assert path == "/api/v1/namespaces/team/pods?dryRun=All"
            assert body is not None
            self.pods.append(body)
            return {"spec": {**body["spec"], "initContainers": self.sidecars}}
        if path == "/apis/storage.k8s.io/v1/csinodes":
            return {"items": [{"spec": {"drivers": [{"name": name} for name in names]}} for names in self.drivers]}
        assert path == "/apis/storage.k8s.io/v1/csidrivers/ossfuse.csi.dev"
        return {}


def test_a_working_installation_is_described(script: ModuleType) -> None:
    server = ApiServer(script)
    well, wrong = script.check(server, "team")
    assert wrong == []
    assert well == [
        "the cluster knows the driver ossfuse.csi.dev",
        "a pod with a volume of ours gets the sidecar registry/o:1",
        "1 of 3 nodes can mount",
    ]
    assert not_restricted(server.pods[0]["spec"]) == []


def test_an_unreachable_webhook_is_told_with_what_the_api_server_said(script: ModuleType) -> None:
    server = ApiServer(script, refusals={"/api/v1/namespaces/team/pods": "failed calling webhook: timeout"})
    well, wrong = script.check(server, "team")
    assert len(well) == 2
    assert "failed calling webhook: timeout" in wrong[0]
    assert "kubectl logs deploy/ossfuse-csi-controller" in wrong[0]


@pytest.mark.parametrize("sidecars", [[], [{"name": "ossfuse-data"}], [{"name": "other", "restartPolicy": "Always"}]])
def test_a_pod_without_its_sidecar_is_a_failure(script: ModuleType, sidecars: list[Object]) -> None:
    _, wrong = script.check(ApiServer(script, sidecars=sidecars), "team")
    assert [line for line in wrong if "gets no sidecar in namespace team" in line] == wrong != []


def test_nodes_that_cannot_mount_are_a_failure(script: ModuleType) -> None:
    _, wrong = script.check(ApiServer(script, drivers=[["other"], []]), "team")
    assert wrong == ["no node can mount yet: look at `kubectl get pods` of the DaemonSet ossfuse-csi-node"]


def test_a_missing_driver_does_not_keep_the_rest_from_being_checked(script: ModuleType) -> None:
    server = ApiServer(script, refusals={"/apis/storage.k8s.io/v1/csidrivers": "not found"})
    well, wrong = script.check(server, "team")
    assert wrong == ["not found"]
    assert len(well) == 2


def test_an_installation_that_is_still_starting_gets_its_time(script: ModuleType) -> None:
    server = ApiServer(script, drivers=[[]])
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        server.drivers = [["ossfuse.csi.dev"]]

    assert script.settled(lambda: script.check(server, "team"), pause)[1] == []
    assert len(pauses) == 1


def test_what_stays_wrong_is_told_after_two_minutes(script: ModuleType) -> None:
    pauses: list[float] = []
    server = ApiServer(script, drivers=[[]])
    _, wrong = script.settled(lambda: script.check(server, "team"), pauses.append)
    assert [line for line in wrong if line.startswith("no node can mount yet")] == wrong != []
    assert 60 < sum(pauses) <= 120
