"""Tells the node plugin, every two seconds, how the sidecar is: what VOLUME_CONDITION and `ossfuse` show.

On a thread of its own, so that a busy event loop still reports, and reports that it is busy.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from csi.handover.wire import Health
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

INTERVAL: Final = Seconds(2.0)
_STATM: Final = Path("/proc/self/statm")


@dataclasses.dataclass(frozen=True, slots=True)
class Activity:
    """What the sidecar is doing now. `oldest_request` in seconds; `figures` are statistics objects by name."""

    open_files: int
    inflight: int
    oldest_request: Seconds
    figures: Mapping[str, object]


def resident_bytes() -> int:
    """proc_pid_statm(5), second field."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flat_figures(figures: Mapping[str, object]) -> dict[str, int | float]:
    """Numbers of nested statistics dataclasses and mappings, under dotted names."""
    return dict(_numbers("", figures))


class HealthReports:
    """`look` is asked for every report; one that fails is logged and the next one tried."""

    def __init__(
        self, look: Callable[[], Activity], last_problem: Callable[[], str], send: Callable[[Health], bool]
    ) -> None:
        self._look = look
        self._last_problem = last_problem
        self._send = send
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(INTERVAL)

    def report(self) -> None:
        """Send one report now."""
        now = self._look()
        self._send(
            Health(
                memory=resident_bytes(),
                open_files=now.open_files,
                inflight=now.inflight,
                oldest_request=float(now.oldest_request),
                last_error=self._last_problem(),
                statistics=flat_figures(now.figures),
            )
        )

    def _run(self) -> None:
        while True:
            try:
                self.report()
            except Exception:
                _log.exception("a health report failed")
            if self._stop.wait(INTERVAL):
                return


def _numbers(name: str, value: object) -> Iterator[tuple[str, int | float]]:
    if isinstance(value, bool):
        yield name, int(value)
    elif isinstance(value, int | float):
        if math.isfinite(value):  # JSON has no other numbers
            yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{name}.{key}" if name else str(key), inner)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for item in dataclasses.fields(value):
            yield from _numbers(f"{name}.{item.name}" if name else item.name, getattr(value, item.name))
