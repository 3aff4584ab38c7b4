"""The conversation with a sidecar that is a local process: started or found by the node plugin, which sees it end."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from csi.errors import DeadlineExceeded, SidecarFailed
from csi.handover.cgroup import MemoryCgroup
from csi.handover.channel import Peer
from csi.handover.condition import in_mebibytes
from csi.handover.conversation import Conversation, Handover, Situation
from csi.handover.inheritance import Inheritance
from csi.handover.listener import SidecarListener
from csi.handover.process import SidecarProcess
from csi.handover.registrar import KernelFiles, LinuxKernelFiles, Registrar
from csi.handover.wire import Bye, Failed, Hello, Ready
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attended:
    """What one attendant attends: `memory` is the sidecar's cgroup, `minor` the connection of the mount."""

    volume_id: str
    spec_hash: str
    process: SidecarProcess
    memory: MemoryCgroup
    listener: SidecarListener
    read_only: bool
    minor: int


class Attendant(Conversation):
    """`handover` is what to give away, None for a sidecar that was found serving already. The attendant owns it, the
    listener and `inheritance` from then on; the process belongs to the caller.
    """

    def __init__(
        self,
        attended: Attended,
        handover: Handover | None,
        files: KernelFiles = LinuxKernelFiles(),  # noqa: B008 - stateless
        inheritance: Inheritance | None = None,
    ) -> None:
        name = f"attendant {attended.process.pid}"
        situation = Situation(ready=handover is None)
        registrar = Registrar(
            attended.volume_id, read_only=attended.read_only, minors=lambda: (attended.minor,), files=files
        )
        super().__init__(
            *(attended.volume_id, attended.spec_hash, attended.listener, situation, name, registrar),
            process=attended.process,
            inheritance=inheritance,
        )
        self.attended = attended
        self._handover = handover
        self.went_on = handover is not None and handover.is_heritage

    def wait_ready(self, deadline: Seconds) -> None:
        """Until the sidecar serves. Raises SidecarFailed when it will not, DeadlineExceeded after `deadline`."""
        with self._changed:
            self._changed.wait_for(self._decided, deadline)
            now = self._situation
        if now.ready:
            return
        if now.failure is not None:
            raise SidecarFailed(f"the sidecar refused the volume: {now.failure.message}", hint=now.failure.hint)
        if now.ended:
            raise self._death(now)
        raise DeadlineExceeded(
            f"the sidecar was not ready after {deadline:.0f} s",
            hint="its log says what it was waiting for; the node may be short of CPU",
        )

    def wait_ended(self, timeout: Seconds) -> bool:
        """Whether the sidecar's process has ended, waiting up to `timeout` for it."""
        with self._changed:
            return self._changed.wait_for(lambda: self._situation.ended, timeout)

    def last_words(self) -> str:
        """How the process ended, for messages: ' with exit status 1', ', killed by signal 9', ''."""
        return self._words(self.situation.exit_status)

    def bequeath(self) -> Inheritance | None:
        """What the sidecar, which has ended, left to the next one; it is the caller's. None if that is nothing."""
        inheritance = self._inheritance
        has_ended = self.attended.process.poll() is not None and not self.situation.farewell
        if inheritance is None or not has_ended or not inheritance.died():
            return None
        self._inheritance = None
        return inheritance

    def leave_inheritance(self) -> None:
        """What is kept for the next one is somebody else's."""
        self._inheritance = None

    # --- the thread ---

    def _refusal(self, peer: Peer) -> str:
        return "" if peer.pid == self.attended.process.pid else f"process {peer.pid} is not the sidecar of this volume"

    def _hand_over(self, hello: Hello) -> Handover | None:
        return self._take_handover() if hello.lasts or not self.went_on else None

    def _take_handover(self) -> Handover | None:
        handover, self._handover = self._handover, None
        return handover

    def _may_tell(self, pid: int) -> bool:
        return True  # a local sidecar sees all processes of the machine anyway

    def _buried(self, process: SidecarProcess) -> None:
        self._give_up()
        inheritance = self._inheritance
        if inheritance is not None and (self.situation.farewell or not inheritance.died()):
            inheritance.drop()
        status = process.poll()
        level = logging.INFO if status == 0 else logging.ERROR
        words = self._words(status)
        _log.log(level, "sidecar %d of %s ended%s", process.pid, self.attended.volume_id, words)

    def _heard(self, message: object) -> None:
        if isinstance(message, Ready | Failed):
            self._give_up()
        inheritance = self._inheritance
        if inheritance is not None and isinstance(message, Ready):
            inheritance.serves()
        elif inheritance is not None and isinstance(message, Bye):
            inheritance.drop()

    def _next_look(self) -> Seconds | None:
        inheritance = self._inheritance
        return inheritance.left if inheritance is not None else None

    def _look(self) -> None:
        inheritance = self._inheritance
        if inheritance is not None and inheritance.is_over:
            _log.warning("no sidecar goes on with %s: who waits for it is told", self.attended.volume_id)
            inheritance.drop()

    def _let_go(self) -> None:
        self._give_up()
        inheritance = self._inheritance
        if inheritance is not None:
            inheritance.drop()

    def _give_up(self) -> None:
        handover = self._take_handover()
        if handover is not None:
            handover.close()

    def _words(self, status: int | None) -> str:
        if self.attended.memory.oom_kills():
            return f", killed for memory at its limit of {in_mebibytes(self.attended.memory.limit())}"
        if status is None or status == 0:
            return ""
        return f", killed by signal {-status}" if status < 0 else f" with exit status {status}"

    def _death(self, now: Situation) -> SidecarFailed:
        oom = self.attended.memory.oom_kills() > 0
        said = f" ({now.farewell})" if now.farewell else ""
        hint = "raise fs.jindo.fuse.pod.mem.limit" if oom else "its log, beside the node plugin's, says why"
        return SidecarFailed(f"the sidecar ended before it was ready{self.last_words()}{said}", oom=oom, hint=hint)

    def _decided(self) -> bool:
        now = self._situation
        return now.ready or now.failure is not None or now.ended
