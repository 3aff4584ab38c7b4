from __future__ import annotations

from typing import Any

import pytest

from csi.cluster.incident_words import termination_of, told
from csi.handover.types import Incident, IncidentKind
from csi.volume.units import MIB, Bytes
from tests.support.cluster_pods import mount, pod_object, sidecar_container, status_of

CSI = {"name": "data", "csi": {}}
KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "containerID": "containerd://1"}}
CRASHED = {"terminated": {"exitCode": 139, "reason": "Error", "message": "Segmentation fault\n"}}


def incident(kind: IncidentKind, message: str = "it happened", *, lasting: bool = False) -> Incident:
    return Incident(kind, "pv-corpus", "ossfuse-data", message, Bytes(512 * MIB), lasting)


def pod(**status: Any) -> dict[str, Any]:
    return {**pod_object([CSI], injected=("data",)), "status": status}


def test_a_kill_for_memory_names_the_limit_and_the_option_that_sets_it() -> None:
    found = pod(**status_of("data", state={"running": {}}, last=KILLED))

    event = told(incident(IncidentKind.SIDECAR_ENDED), found, termination_of(found, "ossfuse-data"))

    assert event.reason == "SidecarOutOfMemory"
    assert "sidecar ossfuse-data of volume pv-corpus was killed for memory, limit 512Mi" in event.message
    assert "set fs.jindo.fuse.pod.mem.limit" in event.message
    assert "ENOTCONN" in event.message


def test_a_kill_for_memory_says_that_programs_wait_where_they_do() -> None:
    found = pod(**status_of("data", state={"running": {}}, last=KILLED))

    event = told(incident(IncidentKind.SIDECAR_ENDED, lasting=True), found, termination_of(found, "ossfuse-data"))

    assert "Programs wait until kubelet has started it again" in event.message
    assert "ENOTCONN" not in event.message


def test_of_a_restart_that_nobody_noticed_no_container_is_named() -> None:
    found = pod()
    found["spec"]["containers"].append({"name": "log-shipper", "volumeMounts": [mount("data", subPath="a")]})

    assert told(incident(IncidentKind.SIDECAR_RESTARTED, lasting=True), found, None).message == "it happened"


@pytest.mark.parametrize("place", ["state", "last"])
def test_another_end_names_exit_code_signal_and_last_words(place: str) -> None:
    found = pod(**status_of("data", **{"state": {"running": {}}, place: CRASHED}))

    event = told(incident(IncidentKind.SIDECAR_ENDED), found, termination_of(found, "ossfuse-data"))

    assert event.reason == "SidecarEnded"
    assert event.message.startswith("it happened; exit code 139, SIGSEGV: Segmentation fault. ")
    assert "kubectl logs train-0 -c ossfuse-data --previous" in event.message


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            '{"level": "info", "message": "connected"}\n{"level": "error", "message": "bucket b: gone"}\n',
            ": bucket b: gone.",
        ),
        ('{"level": "error", "message": "a retry"}\n{"level": "info", "message": "ready"}\n', "SIGKILL. "),
        ("Traceback\n  line 1\nValueError: no", ": Traceback line 1 ValueError: no."),
        ("12", ": 12."),
    ],
)
def test_the_last_words_are_a_complaint_in_plain_text(log: str, words: str) -> None:
    found = pod(**status_of("data", state={"terminated": {"exitCode": 137, "reason": "Error", "message": log}}))

    event = told(incident(IncidentKind.SIDECAR_ENDED), found, termination_of(found, "ossfuse-data"))

    assert words in event.message
    assert "level" not in event.message


def test_an_end_that_kubelet_does_not_tell_of_is_told_as_it_was_seen() -> None:
    assert told(incident(IncidentKind.SIDECAR_ENDED), pod(), None).message == "it happened"


def test_the_status_of_another_container_says_nothing() -> None:
    assert termination_of(pod(**status_of("other", state=KILLED)), "ossfuse-data") is None


def test_a_restart_says_what_becomes_of_open_files() -> None:
    event = told(incident(IncidentKind.SIDECAR_RESTARTED), pod(), None)

    assert event.reason == "SidecarRestarted"
    assert "open answer ENOTCONN" in event.message
    assert "cannot see" not in event.message


@pytest.mark.parametrize(
    "blind",
    [{"mountPropagation": None}, {"mountPropagation": "None"}, {"subPath": "a"}, {"subPathExpr": "$(POD)"}],
    ids=lambda value: next(iter(value)),
)
def test_a_restart_names_the_containers_that_cannot_see_the_new_mount(blind: dict[str, Any]) -> None:
    found = pod()
    found["spec"]["containers"].append({"name": "log-shipper", "volumeMounts": [mount("data", **blind)]})
    found["spec"]["containers"].append({"name": "proxy", "volumeMounts": [{"name": "other", "subPath": "x"}]})
    found["spec"]["initContainers"].append({"name": "done", "volumeMounts": [mount("data", **blind)]})

    message = told(incident(IncidentKind.SIDECAR_RESTARTED), found, None).message

    assert "cannot see the new mount: log-shipper (" in message
    assert "delete the pod" in message


def test_a_sidecar_of_the_users_own_that_mounts_the_volume_counts_too() -> None:
    found = pod()
    own = {**sidecar_container("x"), "name": "tracer", "volumeMounts": [mount("data", subPath="logs")]}
    found["spec"]["initContainers"].append(own)

    assert "new mount: tracer (" in told(incident(IncidentKind.SIDECAR_RESTARTED), found, None).message


@pytest.mark.parametrize("kind", list(IncidentKind))
def test_every_kind_is_told_under_its_own_reason_and_fits_an_event(kind: IncidentKind) -> None:
    event = told(incident(kind, "x" * 5000), pod(), None)

    assert event.reason == kind.value
    assert len(event.message) <= 1024
