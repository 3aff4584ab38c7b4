"""A sidecar's life from the descriptor to the end: serve, report, and leave without losing what was written.

There are three ways out, all with exit status 0. The node plugin says DRAIN, or SIGTERM comes: open writers are
finished within the grace period, but for those that are being killed, while requests go on being answered. Or the mount
is gone: unmounted, and then nothing is open that close(2) has not finished; or aborted, and then what was open stays
unfinished, because whoever wrote it was told of an error and half a file must not look like a whole one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from csi.fuse.session import KernelSession
from csi.handover.cgroup import MemoryCgroup
from csi.handover.wire import Bye, Lasting, Mount, Ready
from csi.sidecar.health import Activity, HealthReports
from csi.sidecar.logs import SidecarLog
from csi.sidecar.node_link import NodeLink
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)


class Serving(Protocol):
    """A volume ready to be served (`csi/sidecar/assemble.py`)."""

    @property
    def session(self) -> KernelSession: ...

    def activity(self) -> Activity: ...

    def flush(self, grace: Seconds) -> None:
        """Finish every open writer within `grace`; what does not become an object is logged by name."""

    def bequeath(self) -> tuple[int, int] | None:
        """Once INIT is answered: the descriptors that LASTING needs, which stay its own. None: nobody can go on."""

    def close(self) -> None:
        """Close everything below the session."""


@dataclass(frozen=True, slots=True)
class Departure:
    """A request to leave: why, and the seconds that finishing files may take."""

    reason: str
    grace: Seconds


class SidecarService:
    """`leave` may be called from any thread and more than once: the first counts. `run` is for the main thread.

    `announce` is called, once, when the volume can be used; `memory` is what the sidecar is limited by.
    """

    def __init__(
        self,
        volume: Mount,
        link: NodeLink,
        log: SidecarLog,
        *,
        announce: Callable[[], None] = lambda: None,
        memory: MemoryCgroup | None = None,
    ) -> None:
        self._announce = announce
        self._memory = memory
        self._volume = volume
        self._link = link
        self._log = log
        self._asked = threading.Condition()
        self._departure: Departure | None = None
        self._over = False
        self._ready = threading.Event()
        self._serving: Serving | None = None

    def leave(self, reason: str, grace: Seconds | None = None) -> None:
        with self._asked:
            if self._departure is None:
                self._departure = Departure(reason, Seconds(self._volume.grace) if grace is None else grace)
                self._asked.notify_all()

    def started(self) -> None:
        """INIT is answered."""
        _log.info("ready %.2f s after this process began", _age())
        self._ready.set()
        self._bequeath()
        self._announce()
        self._link.send(Ready())

    def run(self, serving: Serving) -> int:
        """Serve until the end; the exit status."""
        self._serving = serving
        self._link.attend(self._volume, lambda grace: self.leave("the node plugin asked", grace), self._returned)
        reports = HealthReports(serving.activity, lambda: self._log.last_problem, self._link.send, self._memory)
        reports.start()
        leaver = threading.Thread(target=self._see_off, args=(serving,), name="leaver", daemon=True)
        leaver.start()
        try:
            serving.session.serve()
        finally:
            with self._asked:
                asked, self._over = self._departure, True
                self._asked.notify_all()
            reason = asked.reason if asked is not None else "the mount is gone"
            _log.info("leaving: %s", reason)
            leaver.join(asked.grace if asked is not None else None)
            self._link.send(Bye(reason=reason))  # before what takes time: nobody shall wait for another sidecar
            serving.close()
            reports.close()
        return 0

    def _returned(self) -> None:
        if self._ready.is_set():
            self._bequeath()
            self._link.send(Ready())

    def _bequeath(self) -> None:
        """Before it is said to be ready: whoever uses the volume then needs not fear the death of this process."""
        left = self._serving.bequeath() if self._link.keeps and self._serving is not None else None
        if left is not None:
            self._link.send(Lasting(), left)

    def _see_off(self, serving: Serving) -> None:
        with self._asked:
            self._asked.wait_for(lambda: self._departure is not None or self._over)
            asked = self._departure
        if asked is not None:
            _log.info("finishing files: %s", asked.reason)
            try:
                serving.flush(asked.grace)
            finally:
                serving.session.stop()


def _age() -> float:
    """Seconds since the kernel made this process; proc_pid_stat(5)."""
    began = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")
