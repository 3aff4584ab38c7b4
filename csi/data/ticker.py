"""Calls things at an interval, on one thread: what `fs.oss.flush.interval.millisecond` needs.

Promises: a registered call is made at least once per interval until it is taken out, calls never overlap, an exception
in one is logged and stops nothing. The thread lives only while something is registered.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from csi.volume.units import Seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TickerStatistics:
    """Things that are called at the interval now."""

    calls: int


class Ticker:
    """`_changed` guards `_calls` and `_thread`; calls are made without it."""

    def __init__(self, interval: Seconds) -> None:
        self._interval = interval
        self._changed = threading.Condition()
        self._calls: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None

    def add(self, call: Callable[[], None]) -> None:
        with self._changed:
            self._calls.append(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ossfuse-flush", daemon=True)
                self._thread.start()

    def remove(self, call: Callable[[], None]) -> None:
        with self._changed:
            if call in self._calls:
                self._calls.remove(call)
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._calls.clear()
            self._changed.notify_all()

    def statistics(self) -> TickerStatistics:
        with self._changed:
            return TickerStatistics(len(self._calls))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._calls, self._interval)
                if not self._calls:
                    self._thread = None
                    return
                calls = list(self._calls)
            for call in calls:
                try:
                    call()
                except Exception:
                    log.exception("a periodic flush failed in a way nobody foresaw")
