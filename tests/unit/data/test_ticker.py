"""The ticker calls until it is told not to."""

from __future__ import annotations

import threading

import pytest

from csi.data.ticker import Ticker
from csi.volume.units import Seconds
from tests.support.engines import LONG, until


def test_a_call_is_made_again_and_again_until_it_is_removed(caplog: pytest.LogCaptureFixture) -> None:
    ticker = Ticker(Seconds(0.001))
    calls = threading.Semaphore(0)

    def broken() -> None:
        raise RuntimeError("on purpose")

    ticker.add(broken)
    ticker.add(calls.release)
    for _ in range(3):
        assert calls.acquire(timeout=LONG)
    ticker.remove(broken)
    ticker.remove(calls.release)
    until(lambda: ticker._thread is None)
    assert "on purpose" in caplog.text


def test_closing_ends_the_thread_at_once() -> None:
    ticker = Ticker(Seconds(3600))
    ticker.add(lambda: None)
    ticker.close()
    until(lambda: ticker._thread is None)
