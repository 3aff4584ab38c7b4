from __future__ import annotations

import threading
from dataclasses import dataclass

from csi.handover.wire import encode
from csi.sidecar.health import Activity, HealthReports, flat_figures, resident_bytes
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
