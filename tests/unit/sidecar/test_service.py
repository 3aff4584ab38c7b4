from __future__ import annotations

import logging
import os
import re
import subprocess
import threading

import pytest

from csi.handover.wire import Bye, Health, Lasting, Mount, Ready
from csi.sidecar.health import Activity
from csi.sidecar.logs import LastProblem, SidecarLog, TextFormatter
from csi.sidecar.service import SidecarService
from csi.volume.units import Seconds

MOUNT = Mount(1, "vol", "hash", "{}", False, "", 1 << 28, 12.0)


class Session:
    def __init__(self, steps):
        self.steps = steps
        self.ended = threading.Event()
        self.serving = threading.Event()
        self.error = None

    def serve(self):
        self.serving.set()
        assert self.ended.wait(10)
        if self.error is not None:
            raise self.error

    def stop(self):
        self.steps.append("stop")
        self.ended.set()


class Volume:
    def __init__(self):
        self.steps = []
        self.left = (7, 8)
        self.session = Session(self.steps)

    def activity(self):
        return Activity(1, 0, Seconds(0.0), {})

    def bequeath(self):
        return self.left

    def flush(self, grace):
        self.steps.append(f"flush {grace:g}")

    def close(self):
        self.steps.append("close")


class Link:
    def __init__(self):
        self.sent = []
        self.left = []
        self.keeps = False
        self.on_drain = self.on_return = None

    def attend(self, _volume, on_drain, on_return):
        self.on_drain, self.on_return = on_drain, on_return

    def send(self, message, descriptors=()):
        if not isinstance(message, Health):
            self.sent.append(message)
            self.left += descriptors
        return True


@pytest.fixture
def parts():
    link, volume = Link(), Volume()
    service = SidecarService(MOUNT, link, SidecarLog(TextFormatter(), LastProblem()))
    return service, link, volume


def run(service, volume):
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(service.run(volume)))
    thread.start()
    assert volume.session.serving.wait(10)
    return thread, statuses


def test_how_long_the_start_took_is_in_the_log(parts, caplog):
    caplog.set_level(logging.INFO)
    service, _, _ = parts
    service.started()
    (said,) = caplog.messages
    seconds = float(re.fullmatch(r"ready ([\d.]+) s after this process began", said)[1])
    ps = subprocess.run(["ps", "-o", "etimes=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    assert abs(int(ps.stdout) - seconds) < 30


def test_asked_to_leave_it_finishes_files_first_and_then_stops_serving(parts):
    service, link, volume = parts
    thread, statuses = run(service, volume)
    service.leave("SIGTERM")
    thread.join(10)
    assert statuses == [0]
    assert volume.steps == ["flush 12", "stop", "close"]
    assert link.sent[-1] == Bye("SIGTERM")


def test_the_node_plugin_may_give_another_grace(parts):
    service, link, volume = parts
    thread, _ = run(service, volume)
    link.on_drain(Seconds(3.0))
    thread.join(10)
    assert volume.steps == ["flush 3", "stop", "close"]
    assert link.sent[-1] == Bye("the node plugin asked")


def test_only_the_first_request_to_leave_counts(parts):
    service, link, volume = parts
    service.leave("SIGTERM", Seconds(1.0))
    service.leave("SIGINT", Seconds(2.0))
    thread, _ = run(service, volume)
    thread.join(10)
    assert volume.steps == ["flush 1", "stop", "close"]
    assert link.sent[-1] == Bye("SIGTERM")


def test_a_mount_that_is_gone_ends_it_without_making_objects_of_half_files(parts, caplog):
    caplog.set_level(logging.INFO)
    service, link, volume = parts
    thread, statuses = run(service, volume)
    volume.session.ended.set()
    thread.join(10)
    assert statuses == [0]
    assert volume.steps == ["close"]
    assert link.sent[-1] == Bye("the mount is gone")
    assert "leaving: the mount is gone" in caplog.text


def test_a_session_that_fails_is_closed_and_the_error_goes_on(parts):
    service, _, volume = parts
    volume.session.error = RuntimeError("libfuse refused")
    volume.session.ended.set()
    with pytest.raises(RuntimeError, match="libfuse refused"):
        service.run(volume)
    assert volume.steps == ["close"]


def test_ready_is_said_again_to_a_node_plugin_that_comes_back(parts):
    service, link, volume = parts
    thread, _ = run(service, volume)
    link.on_return()
    assert Ready() not in link.sent
    service.started()
    link.on_return()
    assert link.sent == [Ready(), Ready()]
    service.leave("done")
    thread.join(10)


def test_the_volume_is_announced_when_it_can_be_used_and_before_the_node_plugin_hears_of_it(parts):
    _, link, volume = parts
    announced = []
    service = SidecarService(
        MOUNT, link, SidecarLog(TextFormatter(), LastProblem()), announce=lambda: announced.append(list(link.sent))
    )
    thread, _ = run(service, volume)
    assert announced == []
    service.started()
    assert (announced, link.sent) == ([[]], [Ready()])
    service.leave("done")
    thread.join(10)


# --- what it leaves ---


def test_what_it_leaves_is_said_before_it_is_ready_and_again_to_a_node_plugin_that_comes_back(parts):
    service, link, volume = parts
    link.keeps = True
    thread, _ = run(service, volume)
    service.started()
    assert (link.sent, link.left) == ([Lasting(), Ready()], [7, 8])
    link.on_return()
    assert link.sent == [Lasting(), Ready()] * 2
    volume.session.ended.set()
    thread.join(10)


@pytest.mark.parametrize(("keeps", "left"), [(False, (7, 8)), (True, None)])
def test_nothing_is_said_of_it_where_nobody_keeps_it_or_there_is_nothing(parts, keeps, left):
    service, link, volume = parts
    link.keeps, volume.left = keeps, left
    thread, _ = run(service, volume)
    service.started()
    assert link.sent == [Ready()]
    volume.session.ended.set()
    thread.join(10)
