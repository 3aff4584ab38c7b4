"""Taking a volume away: first so that nothing that was written is lost, then so that nothing of it is left.

`finish` is for a sidecar that can still answer, and costs at most twice the grace period; `clear` is for whatever state
things are in, never waits for a sidecar, and is also how leftovers of an earlier node plugin are removed.
"""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import dataclass

from csi.errors import MountError
from csi.handover.attendant import Attendant
from csi.handover.cgroup import CgroupRoom, MemoryCgroup
from csi.handover.condition import SILENCE
from csi.handover.process import SidecarProcess, reap
from csi.handover.state import RuntimeDirectory
from csi.handover.unmount import Unmounter
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take when a volume is taken away. `grace`: for the kernel to write back what is dirty, and
    again for a sidecar to finish uploads; `silence`: a sidecar not heard of for this long is not waited for."""

    grace: Seconds = Seconds(30.0)
    silence: Seconds = SILENCE


@dataclass(frozen=True, slots=True)
class Served:
    """A volume with a sidecar, as far as this process knows."""

    attendant: Attendant
    process: SidecarProcess
    memory: MemoryCgroup


class Removal:
    """Stateless; one thread per target at a time."""

    def __init__(self, unmounter: Unmounter, room: CgroupRoom, patience: Patience) -> None:
        self._unmounter = unmounter
        self._room = room
        self._patience = patience

    def finish(self, target: str, served: Served) -> None:
        """Let a sidecar that answers finish what is being written. Returns when it has ended or has had its chance."""
        if not self._answers(served):
            return
        attendant, grace = served.attendant, self._patience.grace
        unmounted = self._unmounter.ask(target, grace, lambda: self._answers(served))
        if unmounted and attendant.wait_ended(Seconds(1.0)):
            return
        # still mounted somewhere (a process uses it, or another mount namespace has it): ask the sidecar itself
        if not attendant.drain(grace):
            served.process.signal(signal.SIGTERM)
        end = time.monotonic() + grace
        while not attendant.wait_ended(Seconds(0.5)):
            if time.monotonic() > end or not self._answers(served):
                _log.warning("sidecar %d of %s did not finish in time and is ended", served.process.pid, target)
                return

    def clear(self, target: str, runtime: RuntimeDirectory, served: Served | None) -> None:
        """Remove mounts, processes, cgroup and runtime directory. `target` may be '' when it is not known.

        Raises MountError; what could be removed is removed all the same.
        """
        memory = served.memory if served is not None else self._room.adopt(runtime.noted("cgroup"))
        try:
            if target:
                self._unmounter.force(target)
        finally:
            if served is not None:
                served.attendant.close()
                reap(served.process, served.memory)
        if memory is not None and memory.exists:
            remove_cgroup(memory)
        runtime.remove()

    def _answers(self, served: Served) -> bool:
        silent = time.monotonic() - served.attendant.situation.heard > self._patience.silence
        return not silent and served.process.poll() is None and not served.process.stopped()


def remove_cgroup(memory: MemoryCgroup) -> None:
    """End what is in it and remove it; one that stays is logged, because it costs little and a later start retries."""
    memory.kill()
    try:
        memory.remove()
    except MountError as error:
        _log.warning("%s", error)
