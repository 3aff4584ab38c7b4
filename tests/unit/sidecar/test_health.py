from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import pytest

from csi.handover.cgroup import MemoryCgroup
from csi.handover.wire import encode
from csi.sidecar.health import Activity, HealthReports, flat_figures, limit_of, own_memory, resident_bytes
from csi.volume.units import Seconds


@dataclass(frozen=True)
class Inner:
    hits: int
    rate: float
    on: bool
    name: str


def test_figures_are_flattened_to_numbers_under_dotted_names():
    figures = {"engine": Inner(3, 0.5, True, "x"), "kinds": {"read": 2}, "bad": float("nan"), "none": None}
    assert flat_figures(figures) == {"engine.hits": 3, "engine.rate": 0.5, "engine.on": 1, "kinds.read": 2}


def test_a_report_says_what_the_sidecar_is_doing():
    sent = []
    activity = Activity(4, 2, Seconds(1.5), {"engine": {"hits": 1}})
    HealthReports(lambda: activity, lambda: "GetObject: 503", sent.append).report()
    (health,) = sent
    assert (health.open_files, health.inflight, health.oldest_request) == (4, 2, 1.5)
    assert (health.last_error, health.statistics) == ("GetObject: 503", {"engine.hits": 1})
    assert health.memory == resident_bytes() or health.memory > 1 << 20
    assert encode(health)


def test_a_look_that_fails_is_logged_and_does_not_end_the_reports(caplog):
    failed = threading.Event()

    def look():
        failed.set()
        raise RuntimeError("statistics are broken")

    reports = HealthReports(look, lambda: "", lambda _health: True)
    reports.start()
    assert failed.wait(10)
    reports.close()
    assert "a health report failed" in caplog.text


def test_reports_that_were_never_started_can_be_closed():
    HealthReports(lambda: Activity(0, 0, Seconds(0), {}), lambda: "", lambda _health: True).close()


@pytest.mark.parametrize(
    ("version", "files", "used", "limit"),
    [
        (1, {"memory.usage_in_bytes": "900", "memory.limit_in_bytes": "1000"}, 880, 1000),
        (1, {"memory.usage_in_bytes": "900", "memory.limit_in_bytes": "9223372036854771712"}, 880, 0),
        (2, {"memory.current": "900", "memory.max": "1000"}, 890, 1000),
        (2, {"memory.current": "900", "memory.max": "max"}, 890, 0),
    ],
    ids=["v1", "v1 without limit", "v2", "v2 without limit"],
)
def test_a_report_says_what_the_kernel_counts_and_the_limit_it_counts_against(tmp_path, version, files, used, limit):
    files["memory.stat"] = "inactive_file 10\ntotal_inactive_file 20\n"
    for name, content in files.items():
        (tmp_path / name).write_text(content + "\n")
    sent = []
    activity = Activity(0, 0, Seconds(0.0), {})
    HealthReports(lambda: activity, lambda: "", sent.append, MemoryCgroup(tmp_path, version)).report()
    assert (sent[0].working_set, sent[0].memory_limit) == (used, limit)


def test_a_sidecar_finds_the_cgroup_that_limits_it():
    memory = own_memory()
    assert memory is not None
    assert os.getpid() in memory.pids()
    assert memory.usage() > 1 << 20
    assert limit_of(None) == 0
