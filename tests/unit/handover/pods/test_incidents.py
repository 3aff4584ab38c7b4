from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from csi.handover.pods.incidents import Incidents, memory_limit, working_set
from csi.handover.types import IncidentKind, SidecarPlace
from csi.handover.wire import Failed, Health
from csi.volume.units import MIB, Bytes, Seconds

PLACE = SidecarPlace("ossfuse-data", Path("/shared"), Bytes(100 * MIB), Seconds(30.0))


@pytest.fixture
def incidents():
    return Incidents("vol", PLACE)


def using(mebibytes, limit=0):
    return Health(1, 0, 0, 0.0, working_set=mebibytes * MIB, memory_limit=limit * MIB)


def told(incidents, *reports):
    return [incidents.memory(report) is not None for report in reports]


def test_memory_is_told_once_at_95_percent_and_again_only_after_it_was_below_85(incidents):
    reports = [using(used) for used in (50, 94, 95, 99, 86, 96, 84, 94, 95, 100)]
    assert told(incidents, *reports) == [False, False, True, False, False, False, False, False, True, False]


def test_the_message_says_how_much_of_what_and_which_option_helps(incidents):
    incident = incidents.memory(using(96))
    assert (incident.kind, incident.container, incident.memory_limit) == (
        IncidentKind.MEMORY_HIGH,
        "ossfuse-data",
        100 * MIB,
    )
    assert "uses 96Mi of its limit of 100Mi" in incident.message
    assert "set fs.jindo.fuse.pod.mem.limit higher" in incident.message


def test_the_limit_that_the_container_says_it_has_counts(incidents):
    assert told(incidents, using(96, limit=200), using(191, limit=200)) == [False, True]
    assert memory_limit(using(1, limit=200), PLACE) == 200 * MIB
    assert memory_limit(None, PLACE) == 100 * MIB


def test_without_a_limit_no_use_of_memory_is_high():
    unlimited = Incidents("vol", replace(PLACE, memory_limit=Bytes(0)))
    assert told(unlimited, using(96)) == [False]


def test_of_an_older_sidecar_the_resident_bytes_count(incidents):
    assert working_set(Health(96 * MIB, 0, 0, 0.0)) == 96 * MIB
    assert told(incidents, Health(96 * MIB, 0, 0, 0.0)) == [True]


def test_being_degraded_is_told_once_until_it_is_well(incidents):
    assert incidents.silent(7, 16.0, stopped=False) is not None
    assert incidents.silent(7, 26.0, stopped=False) is None
    assert incidents.not_ready(7, 130.0) is None
    incidents.well()
    assert incidents.not_ready(7, 140.0).kind is IncidentKind.VOLUME_DEGRADED


def test_why_it_is_silent_is_said(incidents):
    assert "it is stopped (SIGSTOP)" in incidents.silent(7, 16.0, stopped=True).message
    incidents.well()
    assert "has not answered for 16 s" in (message := incidents.silent(7, 16.2, stopped=False).message)
    assert "it may be starved of CPU" in message


def test_a_sidecars_own_words_fit_into_an_event(incidents):
    message = incidents.failed(Failed("X", "w" * 5000, "h" * 5000)).message
    assert len(message) < 1024
    assert message.endswith("…")


@pytest.mark.parametrize(
    ("kind", "how", "message"),
    [
        ("ended", {"waits": False}, "ended without a word: accesses to the volume fail until kubelet has started it"),
        ("ended", {"waits": True}, "ended without a word: accesses to the volume wait until kubelet has started it"),
        ("restarted", {"went_on": False}, "files that were open fail with ENOTCONN, files opened from now on work"),
        ("restarted", {"went_on": True}, "programs go on with what they have open; what was being written and neither"),
    ],
)
def test_the_others_say_what_it_means_for_programs(incidents, kind, how, message):
    assert message in getattr(incidents, kind)(**how).message
