"""Tells the node plugin, every two seconds, how the sidecar is: what VOLUME_CONDITION and `ossfuse` show.

On a thread of its own, so that a busy event loop still reports, and reports that it is busy. Memory is what the
kernel counts against the sidecar's own limit, as seen from within its container.
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

from csi.errors import MountError
from csi.handover.cgroup import MemoryCgroup, memory_hierarchy
from csi.handover.mountinfo import read_mountinfo
from csi.handover.wire import Health
from csi.volume.units import Bytes, Seconds

_log = logging.getLogger(__name__)

INTERVAL: Final = Seconds(2.0)
_STATM: Final = Path("/proc/self/statm")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_NO_LIMIT: Final = 1 << 60
"""cgroup v1 writes "no limit" as the largest number of pages there is."""


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


def own_memory() -> MemoryCgroup | None:
    """The memory cgroup of this process, as seen from here; None where the kernel shows none."""
    try:
        membership = _MEMBERSHIP.read_text(encoding="utf-8", errors="replace")
        hierarchy = memory_hierarchy(read_mountinfo(), membership)
    except (MountError, OSError) as error:
        _log.info("the memory limit of this sidecar is not known: %s", error)
        return None
    return MemoryCgroup(hierarchy.own, hierarchy.version)


def limit_of(memory: MemoryCgroup | None) -> Bytes:
    """0 when there is none, or none that is known."""
    limit = memory.limit() if memory is not None else 0
    return Bytes(limit if limit < _NO_LIMIT else 0)


def flat_figures(figures: Mapping[str, object]) -> dict[str, int | float]:
    """Numbers of nested statistics dataclasses and mappings, under dotted names."""
    return dict(_numbers("", figures))


class HealthReports:
    """`look` is asked for every report; one that fails is logged and the next one tried."""

    def __init__(
        self,
        look: Callable[[], Activity],
        last_problem: Callable[[], str],
        send: Callable[[Health], bool],
        memory: MemoryCgroup | None = None,
    ) -> None:
        self._memory = memory
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
                working_set=self._memory.usage() if self._memory is not None else 0,
                memory_limit=limit_of(self._memory),
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
