"""Events on pods, written by the reporter's thread to an API server over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from csi.cluster.events import Pace, PodEvents
from csi.handover.types import Incident, IncidentKind
from csi.volume.units import MIB, Bytes, Seconds
from tests.support.cluster_pods import EVENTS_PATH, POD, POD_PATH, pod_object, status_of
from tests.support.stand_in_cluster import StandInCluster, api_of, stand_in_cluster

QUICK = Pace(look_for=Seconds(60.0), look_every=Seconds(0.02), pause=Seconds(0.02), farewell=Seconds(20.0))
CSI = {"name": "data", "csi": {}}


@pytest.fixture
def cluster() -> Iterator[StandInCluster]:
    with stand_in_cluster() as running:
        running.put(POD_PATH, pod_object([CSI], injected=("data",)))
        yield running


class Reporter:
    """A reporter whose work is over when `finish` returns."""

    def __init__(self, cluster: StandInCluster, directory: Path, pace: Pace = QUICK) -> None:
        self.cluster = cluster
        self.events = PodEvents(api_of(cluster, directory, timeout=1.0), "node-1", pace)
        self.events.start()

    def tell(
        self,
        kind: IncidentKind = IncidentKind.MEMORY_HIGH,
        message: str = "95 % of 512Mi",
        container: str = "ossfuse-data",
    ) -> None:
        self.events.report(POD, Incident(kind, "pv-1", container, message, Bytes(512 * MIB)))

    def finish(self) -> list[dict[str, Any]]:
        """Every event that was written."""
        self.events.close()
        return self.written()

    def written(self) -> list[dict[str, Any]]:
        with self.cluster.lock:
            return [item for path, item in self.cluster.objects.items() if path.startswith(f"{EVENTS_PATH}/")]

    def wait_for(self, count: int) -> None:
        """Until that many incidents are told or dropped."""
        ends = time.monotonic() + 30
        while self.events.statistics().told + self.events.statistics().dropped < count:
            assert time.monotonic() < ends, self.events.statistics()
            time.sleep(0.01)


@pytest.fixture
def reporter(cluster: StandInCluster, tmp_path: Path) -> Iterator[Reporter]:
    running = Reporter(cluster, tmp_path)
    yield running
    running.events.close()


def finished_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def end_sidecar(cluster: StandInCluster, run: str = "1", **terminated: Any) -> None:
    """Kubelet reports that the sidecar ended and runs again."""
    ended = {"exitCode": 137, "reason": "Error", "containerID": run, "finishedAt": finished_now(), **terminated}
    status = status_of("data", state={"running": {}}, last={"terminated": ended})
    cluster.put(POD_PATH, {**pod_object([CSI], injected=("data",)), "status": status})


def test_an_incident_is_an_event_on_the_container_that_describe_shows(reporter: Reporter) -> None:
    reporter.tell()

    (event,) = reporter.finish()

    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "team",
        "name": "train-0",
        "uid": "uid-1",
        "fieldPath": "spec.initContainers{ossfuse-data}",
    }
    assert (event["reason"], event["message"], event["type"]) == ("SidecarMemoryHigh", "95 % of 512Mi", "Warning")
    assert event["source"] == {"component": "ossfuse.csi.dev", "host": "node-1"}
    assert event["count"] == 1
    assert event["firstTimestamp"] == event["lastTimestamp"]


def test_an_incident_of_no_container_is_an_event_on_the_pod(reporter: Reporter) -> None:
    reporter.tell(IncidentKind.CREDENTIALS_NOT_RENEWED, container="")

    (event,) = reporter.finish()

    assert "fieldPath" not in event["involvedObject"]


def test_the_same_thing_again_is_counted_in_one_event(reporter: Reporter) -> None:
    for _ in range(3):
        reporter.tell()

    (event,) = reporter.finish()

    assert event["count"] == 3


def test_other_words_are_another_event(reporter: Reporter) -> None:
    reporter.tell(message="95 % of 512Mi")
    reporter.tell(message="97 % of 512Mi")

    assert len(reporter.finish()) == 2


def test_an_event_of_the_process_before_is_counted_on(
    cluster: StandInCluster, reporter: Reporter, tmp_path: Path
) -> None:
    reporter.tell()
    reporter.tell()
    reporter.finish()
    successor = Reporter(cluster, tmp_path)

    successor.tell()

    (event,) = successor.finish()
    assert event["count"] == 3


def test_an_event_that_has_lapsed_is_made_again(cluster: StandInCluster, reporter: Reporter) -> None:
    reporter.tell()
    reporter.wait_for(1)
    with cluster.lock:
        del cluster.objects[next(path for path in cluster.objects if path.startswith(EVENTS_PATH))]

    reporter.tell()

    (event,) = reporter.finish()
    assert event["count"] == 1


def test_an_end_is_told_once_kubelet_says_why(cluster: StandInCluster, reporter: Reporter) -> None:
    reporter.tell(IncidentKind.SIDECAR_ENDED, "the sidecar ended")
    ends = time.monotonic() + 30
    while cluster.requests.count(f"GET {POD_PATH}") < 3:
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert reporter.written() == []

    end_sidecar(cluster, reason="OOMKilled")
    reporter.wait_for(1)

    (event,) = reporter.finish()
    assert event["reason"] == "SidecarOutOfMemory"
    assert "limit 512Mi; set fs.jindo.fuse.pod.mem.limit" in event["message"]


def test_waiting_for_one_end_keeps_no_other_incident(cluster: StandInCluster, reporter: Reporter) -> None:
    reporter.tell(IncidentKind.SIDECAR_ENDED, "the sidecar ended")
    reporter.tell(IncidentKind.MEMORY_HIGH)
    reporter.wait_for(1)

    assert [event["reason"] for event in reporter.written()] == ["SidecarMemoryHigh"]


def test_an_earlier_end_is_not_taken_for_this_one(cluster: StandInCluster, reporter: Reporter) -> None:
    end_sidecar(cluster, run="1", reason="OOMKilled")
    reporter.tell(IncidentKind.SIDECAR_ENDED, "the first")
    reporter.wait_for(1)
    reporter.tell(IncidentKind.SIDECAR_ENDED, "the second")
    end_sidecar(cluster, run="2", exitCode=139)
    reporter.wait_for(2)

    assert {event["reason"] for event in reporter.finish()} == {"SidecarOutOfMemory", "SidecarEnded"}


def test_an_end_long_ago_is_not_taken_for_this_one(cluster: StandInCluster, tmp_path: Path) -> None:
    reporter = Reporter(cluster, tmp_path, replace(QUICK, look_for=Seconds(1.0)))
    end_sidecar(cluster, reason="OOMKilled", finishedAt="2020-01-01T00:00:00Z")

    reporter.tell(IncidentKind.SIDECAR_ENDED, "the sidecar ended")

    (event,) = reporter.finish()
    assert (event["reason"], event["message"]) == ("SidecarEnded", "the sidecar ended")


def test_an_end_that_kubelet_never_explains_is_told_all_the_same(cluster: StandInCluster, tmp_path: Path) -> None:
    reporter = Reporter(cluster, tmp_path, replace(QUICK, look_for=Seconds(0.2)))

    reporter.tell(IncidentKind.SIDECAR_ENDED, "the sidecar ended")
    reporter.wait_for(1)

    assert [event["message"] for event in reporter.finish()] == ["the sidecar ended"]


@pytest.mark.parametrize("there", [False, True], ids=["deleted", "made again under its name"])
def test_a_pod_that_is_gone_is_told_nothing(cluster: StandInCluster, reporter: Reporter, there: bool) -> None:
    with cluster.lock:
        del cluster.objects[POD_PATH]
    if there:
        cluster.put(POD_PATH, pod_object([CSI], injected=("data",), uid="uid-2"))

    reporter.tell(IncidentKind.SIDECAR_ENDED)
    reporter.wait_for(1)

    assert reporter.finish() == []


def test_the_sidecar_of_a_pod_being_deleted_may_end(cluster: StandInCluster, reporter: Reporter) -> None:
    end_sidecar(cluster)
    with cluster.lock:
        cluster.objects[POD_PATH]["metadata"]["deletionTimestamp"] = finished_now()

    reporter.tell(IncidentKind.SIDECAR_ENDED)
    reporter.wait_for(1)

    assert reporter.finish() == []


def test_a_pod_is_told_so_much_and_no_more(cluster: StandInCluster, tmp_path: Path) -> None:
    reporter = Reporter(cluster, tmp_path, replace(QUICK, burst=3, refill=Seconds(3600.0)))

    for number in range(10):
        reporter.tell(message=f"thing {number}")
    reporter.wait_for(10)

    assert len(reporter.finish()) == 3
    assert reporter.events.statistics().dropped == 7


def test_an_api_server_that_was_away_is_told_later(cluster: StandInCluster, tmp_path: Path) -> None:
    reporter = Reporter(cluster, tmp_path, replace(QUICK, tries=100))
    reporter.events.api._timeout = Seconds(0.1)
    cluster.silent.set()
    reporter.tell()
    ends = time.monotonic() + 30
    while not cluster.tokens:
        assert time.monotonic() < ends
        time.sleep(0.01)

    cluster.silent.clear()
    reporter.wait_for(1)

    assert len(reporter.finish()) == 1


def test_an_api_server_that_stays_away_is_given_up(cluster: StandInCluster, tmp_path: Path) -> None:
    reporter = Reporter(cluster, tmp_path, replace(QUICK, tries=2))
    reporter.events.api._timeout = Seconds(0.1)
    cluster.silent.set()

    reporter.tell()
    reporter.wait_for(1)

    assert reporter.events.statistics().dropped == 1


@pytest.mark.parametrize("status", [403, 422, 500])
def test_a_refusal_is_logged_and_the_next_incident_told(
    cluster: StandInCluster, reporter: Reporter, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level("INFO")
    cluster.order("POST", EVENTS_PATH, status, message="not now")

    reporter.tell(message="the first")
    reporter.tell(message="the second")

    assert [event["message"] for event in reporter.finish()] == ["the second"]
    assert "not now" in caplog.text


def test_a_pod_of_a_shape_nobody_foresaw_does_not_end_the_thread(cluster: StandInCluster, reporter: Reporter) -> None:
    cluster.put(POD_PATH, {"metadata": {"uid": POD.uid}, "status": {"initContainerStatuses": "none"}})
    reporter.tell(IncidentKind.SIDECAR_ENDED)

    reporter.tell(message="after it")

    assert [event["message"] for event in reporter.finish()] == ["after it"]


def test_reporting_never_waits_and_what_does_not_fit_is_counted(cluster: StandInCluster, tmp_path: Path) -> None:
    reporter = Reporter(cluster, tmp_path, replace(QUICK, waiting=4, farewell=Seconds(0.1)))
    cluster.silent.set()
    told = threading.Thread(target=lambda: [reporter.tell(message=str(number)) for number in range(20)])

    told.start()
    told.join(20)

    assert not told.is_alive()
    assert reporter.events.statistics().dropped >= 15
    reporter.events.close()


def test_a_reporter_that_is_closed_drops_what_comes_later(reporter: Reporter) -> None:
    reporter.finish()

    reporter.tell()

    assert reporter.events.statistics().dropped == 1
