"""The start-up taint of a node, taken off through an API server over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csi.cluster.taint import TAINT, StartupTaint
from tests.support.stand_in_cluster import StandInCluster, api_of, stand_in_cluster

NODE = "/api/v1/nodes/node-1"
CSI_NODE = "/apis/storage.k8s.io/v1/csinodes/node-1"
OURS = {"key": TAINT, "effect": "NoSchedule"}
THEIRS = {"key": "gpu", "value": "a100", "effect": "NoSchedule"}


@pytest.fixture
def cluster() -> Iterator[StandInCluster]:
    with stand_in_cluster() as running:
        yield running


def put_node(cluster: StandInCluster, *taints: dict[str, Any], registered: bool = True) -> None:
    cluster.put(NODE, {"metadata": {"name": "node-1"}, "spec": {"taints": list(taints)} if taints else {}})
    drivers = [{"name": "ossfuse.csi.dev"}] if registered else [{"name": "other.csi.dev"}]
    cluster.put(CSI_NODE, {"metadata": {"name": "node-1"}, "spec": {"drivers": drivers}})


def taints(cluster: StandInCluster) -> object:
    return cluster.objects[NODE]["spec"].get("taints")


class Waits:
    """What happens while the thread pauses; it is closed when there is nothing more to happen."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.pauses: list[float] = []

    def __call__(self, pause: float) -> bool:
        self.pauses.append(pause)
        if not self.steps:
            return True
        self.steps.pop(0)()
        return False


def run(cluster: StandInCluster, tmp_path: Path, waits: Waits) -> None:
    taint = StartupTaint(api_of(cluster, tmp_path, timeout=1.0), "node-1", wait=waits)
    taint.start()
    assert taint.join(20.0)


def test_the_taint_is_taken_off_and_others_stay(cluster: StandInCluster, tmp_path: Path) -> None:
    put_node(cluster, THEIRS, OURS)

    run(cluster, tmp_path, Waits())

    assert taints(cluster) == [THEIRS]


def test_a_node_whose_only_taint_it_was_has_none_afterwards(cluster: StandInCluster, tmp_path: Path) -> None:
    put_node(cluster, OURS)

    run(cluster, tmp_path, Waits())

    assert taints(cluster) is None


def test_every_effect_of_the_taint_is_taken_off(cluster: StandInCluster, tmp_path: Path) -> None:
    put_node(cluster, OURS, {**OURS, "effect": "NoExecute"}, THEIRS)

    run(cluster, tmp_path, Waits())

    assert taints(cluster) == [THEIRS]


def test_a_node_without_the_taint_is_not_changed(cluster: StandInCluster, tmp_path: Path) -> None:
    put_node(cluster, THEIRS)

    run(cluster, tmp_path, Waits())

    assert not [request for request in cluster.requests if request.startswith("PATCH")]


def test_nothing_happens_before_kubelet_has_registered_the_driver(cluster: StandInCluster, tmp_path: Path) -> None:
    put_node(cluster, OURS, registered=False)

    def still_there() -> None:
        assert taints(cluster) == [OURS]

    run(cluster, tmp_path, Waits(still_there, lambda: put_node(cluster, OURS)))

    assert taints(cluster) is None


def test_a_taint_added_by_others_at_the_same_moment_is_kept(cluster: StandInCluster, tmp_path: Path) -> None:
    put_node(cluster, OURS)
    cluster.order("PATCH", NODE, 422, message="testing value failed")
    waits = Waits(lambda: put_node(cluster, OURS, THEIRS))

    run(cluster, tmp_path, waits)

    assert taints(cluster) == [THEIRS]
    assert waits.pauses == [0.5]


def test_a_patch_that_meets_other_taints_changes_nothing(cluster: StandInCluster, tmp_path: Path) -> None:
    put_node(cluster, OURS)
    api = api_of(cluster, tmp_path)
    stale = [{"op": "test", "path": "/spec/taints", "value": [OURS]}, {"op": "remove", "path": "/spec/taints"}]
    put_node(cluster, OURS, THEIRS)

    with pytest.raises(Exception, match="422"):
        api.patch(NODE, stale, kind="json")

    assert taints(cluster) == [OURS, THEIRS]


@pytest.mark.parametrize("status", [500, 403])
def test_an_api_server_that_refuses_is_asked_again_ever_more_rarely(
    cluster: StandInCluster, tmp_path: Path, status: int
) -> None:
    put_node(cluster, OURS)
    for _ in range(3):
        cluster.order("GET", CSI_NODE, status)
    waits = Waits(lambda: None, lambda: None, lambda: None)

    run(cluster, tmp_path, waits)

    assert taints(cluster) is None
    assert waits.pauses == [0.5, 1.0, 2.0]


def test_closing_ends_a_wait_that_would_never_end(cluster: StandInCluster, tmp_path: Path) -> None:
    put_node(cluster, OURS, registered=False)
    taint = StartupTaint(api_of(cluster, tmp_path), "node-1")
    taint.start()

    taint.close()

    assert taint.join(10.0)
    assert taints(cluster) == [OURS]


def test_a_plugin_that_may_not_look_at_nodes_stops_asking(cluster: StandInCluster, tmp_path: Path) -> None:
    put_node(cluster, OURS)
    for _ in range(20):
        cluster.order("GET", CSI_NODE, 403)

    run(cluster, tmp_path, Waits(*[lambda: None] * 20))

    assert taints(cluster) == [OURS]
    assert len(cluster.requests) == 8
