"""Ctrl-C and SIGTERM while a mount is being made: nothing waits on, and nothing is killed that serves."""

import os
import select
import signal
import threading
import time
from pathlib import Path

import pytest

from csi.cli.ending import EndableLauncher, GivenUp, endable, ending_signals
from csi.errors import EndpointUnreachable
from csi.handover.types import PublishRequest
from csi.volume.spec import Location, VolumeSpec
from csi.volume.units import GIB, Bytes, Seconds

REQUEST = PublishRequest("v", Path("/nowhere"), VolumeSpec(Location("bkt", "http://127.0.0.1:1")), False, None, {})
SOON = Seconds(10.0)


class Process:
    pid = 1

    def __init__(self) -> None:
        self.signals: list[int] = []

    def signal(self, number: int) -> None:
        self.signals.append(number)


class Starting:
    """A launcher whose sidecar is `process`; `meanwhile` is a signal that comes while it starts."""

    def __init__(self, process: Process, meanwhile: int = 0) -> None:
        self._process = process
        self._meanwhile = meanwhile

    def launch(self, *_: object) -> Process:
        if self._meanwhile:
            os.kill(os.getpid(), self._meanwhile)
        return self._process


def test_a_check_that_ends_is_as_if_it_was_called() -> None:
    called: list[tuple[PublishRequest, float]] = []
    with ending_signals() as ending:
        endable(lambda request, deadline: called.append((request, deadline)), ending)(REQUEST, SOON)
    assert called == [(REQUEST, SOON)]


def test_the_failure_of_a_check_is_raised_where_it_was_asked_for() -> None:
    def check(_request: PublishRequest, _deadline: Seconds) -> None:
        raise EndpointUnreachable("nobody")

    with ending_signals() as ending, pytest.raises(EndpointUnreachable, match="nobody"):
        endable(check, ending)(REQUEST, SOON)


def test_a_check_that_takes_longer_than_its_deadline_is_waited_for() -> None:
    with ending_signals() as ending:
        endable(lambda _request, _deadline: time.sleep(0.3), ending)(REQUEST, Seconds(0.01))
        assert ending.signal == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_check_that_hangs_is_given_up_at_the_signal(number: int) -> None:
    release, ended = threading.Event(), threading.Event()

    def check(_request: PublishRequest, _deadline: Seconds) -> None:
        os.kill(os.getpid(), number)
        release.wait(60)
        ended.set()

    try:
        with ending_signals() as ending:
            with pytest.raises(GivenUp):
                endable(check, ending)(REQUEST, Seconds(60.0))
            assert ending.signal == number
        assert not ended.is_set()
    finally:
        release.set()


def test_a_signal_that_does_not_interrupt_the_wait_ends_it_too() -> None:
    """As one that comes just before the wait begins, or is taken by another thread, which can be arranged."""
    readable, writable = os.pipe()
    over = threading.Event()

    def signalled() -> None:
        time.sleep(0.2)  # the main thread waits by then; if it does not, this is the ordinary case
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        if not over.wait(10):
            os.write(writable, b"the wait went on")

    try:
        with ending_signals() as ending:
            thread = threading.Thread(target=signalled)
            thread.start()
            assert ending.wait(None, readable)
            over.set()
            thread.join()
        assert select.select([readable], [], [], 0)[0] == []
    finally:
        os.close(readable)
        os.close(writable)


def test_a_sidecar_that_does_not_serve_yet_is_killed() -> None:
    process = Process()
    with ending_signals() as ending:
        EndableLauncher(Starting(process), ending).launch(Path("/"), None, Bytes(GIB))
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.wait(SOON)
    assert process.signals == [signal.SIGKILL]


def test_a_sidecar_that_was_being_started_at_the_signal_is_killed() -> None:
    process = Process()
    with ending_signals() as ending:
        EndableLauncher(Starting(process, signal.SIGINT), ending).launch(Path("/"), None, Bytes(GIB))
    assert process.signals == [signal.SIGKILL]


def test_a_sidecar_that_serves_is_left_to_the_unmounting() -> None:
    process = Process()
    with ending_signals() as ending:
        EndableLauncher(Starting(process), ending).launch(Path("/"), None, Bytes(GIB))
        ending.serving()
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.wait(SOON)
    assert process.signals == []


def test_no_sidecar_is_started_after_the_signal() -> None:
    process = Process()
    with ending_signals() as ending:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(GivenUp):
            EndableLauncher(Starting(process), ending).launch(Path("/"), None, Bytes(GIB))
    assert process.signals == []


def test_the_handlers_of_before_are_put_back_and_the_first_signal_counts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with ending_signals() as ending:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert ending.wait(SOON)
    assert ending.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) is before
