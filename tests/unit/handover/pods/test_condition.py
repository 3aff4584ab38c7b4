from __future__ import annotations

import re
from pathlib import Path

import pytest

from csi.handover.conversation import Situation
from csi.handover.pods.condition import pod_condition
from csi.handover.types import SidecarPlace
from csi.handover.wire import Failed, Health
from csi.volume.units import MIB, Bytes, Seconds

PLACE = SidecarPlace("ossfuse-data", Path("/shared"), Bytes(512 * MIB), Seconds(30.0))
WELL = Health(1, 2, 3, 0.5, working_set=100 * MIB, memory_limit=256 * MIB)


def condition(pid=7, now=1005.0, **fields):
    return pod_condition("vol", PLACE, Situation(heard=1000.0, **fields), pid, now, Seconds(15.0))


def test_a_sidecar_that_serves_is_well_and_says_what_it_uses():
    found = condition(ready=True, connected=True, health=WELL)
    assert not found.abnormal
    assert found.message == "sidecar 7 serves volume vol, using 100Mi of 256Mi"
    assert (found.sidecar_pid, found.memory_limit, found.memory_used) == (7, 256 * MIB, 100 * MIB)


def test_one_that_has_not_come_yet_is_waited_for():
    found = condition(pid=None)
    assert (found.abnormal, found.sidecar_pid, found.memory_limit) == (False, None, 512 * MIB)
    assert found.message == "volume vol waits for its sidecar ossfuse-data to start"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pid": None, "now": 1020.0}, "has waited for its sidecar ossfuse-data for 20 s"),
        ({"pid": None, "ended": True}, "ended: accesses fail until kubelet has started it again"),
        ({"pid": None, "ended": True, "farewell": "SIGTERM"}, r"has left \(SIGTERM\): the pod ends"),
        ({"pid": None, "ended": True, "failure": Failed("X", "no key", "give one")}, "failed: no key; give one"),
        ({"failure": Failed("X", "no key", "give one")}, "failed: no key; give one"),
        ({"ready": True, "now": 1020.0, "health": WELL}, "sidecar 7 of volume vol has not answered for 20 s"),
        ({"ready": True, "health": Health(1, 1, 4, 130.0, "timed out")}, "waited for 130 s, 4 under way; .*timed out"),
    ],
    ids=["never came", "ended", "left", "failed and ended", "failed", "silent", "stuck request"],
)
def test_what_is_wrong_is_said(fields, words):
    found = condition(**fields)
    assert found.abnormal
    assert re.search(words, found.message), found.message
