"""The conversation with the sidecars of one volume of one pod: containers that kubelet starts, ends and starts again.

The node plugin does not start them and is not told when they end; it knows them by their connections, and sees the end
of a process it has once seen (a pidfd). The first sidecar that comes for the volume gets the kernel session of the
publish. One that comes after another has died goes on with that one's session, if it was left to it in time
(`csi/handover/inheritance.py`); otherwise it gets a fresh one, mounted upon the others. A session that nobody has left
may have lost requests, and even the kernel's first one, so it is never given twice; the node plugin keeps no copy of
it, and with the sidecar's last breath the kernel frees whoever waits for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from csi.errors import OssFuseError
from csi.handover.channel import Peer
from csi.handover.connections import FuseConnections
from csi.handover.conversation import Conversation, Handover, Situation
from csi.handover.inheritance import WAIT, Inheritance
from csi.handover.listener import SidecarListener
from csi.handover.mounting import KernelSession
from csi.handover.pods.incidents import START_LIMIT, Incidents
from csi.handover.pods.layers import Layers
from csi.handover.pods.notes import Note, Notes
from csi.handover.pods.peers import NODE_IPC_NAMESPACE, in_pod
from csi.handover.process import SidecarFinder, SidecarProcess
from csi.handover.registrar import KernelFiles, LinuxKernelFiles, Registrar
from csi.handover.types import Incident, IncidentReporter
from csi.handover.wire import Bye, Failed, Health, Hello, Ready
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the attendants of a node share. `membership` is `read_membership`, `ipc_namespace` `read_ipc_namespace`. A
    sidecar silent for `silence` is hung, one not ready `start_limit` after it got the volume too. `session` is which
    code is to serve the volumes, '' if that is left to the sidecars. `files` is where files of disk caches are
    registered. For `patience` a volume whose sidecar has died waits for the next."""

    layers: Layers
    connections: FuseConnections
    reporter: IncidentReporter
    find: SidecarFinder
    membership: Callable[[int], str]
    ipc_namespace: Callable[[int], str]
    silence: Seconds
    start_limit: Seconds = START_LIMIT
    session: str = ""
    files: KernelFiles = LinuxKernelFiles()
    patience: Seconds = WAIT


class PodAttendant(Conversation):
    """`session` is a fresh one to give away, None for a volume that an earlier node plugin published. The attendant
    owns its descriptor and the listener from then on."""

    def __init__(
        self, note: Note, notes: Notes, listener: SidecarListener, session: KernelSession | None, around: Surroundings
    ) -> None:
        frame = note.frame
        registrar = Registrar(
            frame.volume_id,
            read_only=note.order.read_only,
            minors=lambda: around.layers.minors(note.order.target),
            files=around.files,
        )
        name = f"attendant {note.place.container}"
        self._left = Inheritance(around.patience)
        super().__init__(
            *(frame.volume_id, frame.spec_hash, listener, Situation(), name, registrar), inheritance=self._left
        )
        self.note = note
        self._notes = notes
        self._fresh = session
        self._around = around
        self._incidents = Incidents(frame.volume_id, note.place)
        self._served = notes.served
        self._renewed = False
        self._went_on = False
        self._serving = False
        self._given_at = 0.0

    @property
    def pid(self) -> int | None:
        """The sidecar's process, when one is known to run."""
        process = self._process
        return process.pid if process is not None else None

    @property
    def waits(self) -> bool:
        """The sidecar has died, and who uses the volume waits for the next."""
        return self._left.left is not None

    # --- who connects ---

    def _refusal(self, peer: Peer) -> str:
        process = self._process
        if process is not None and process.poll() is not None:
            self._bury(process)  # its successor was quicker than the news of its end
        elif process is not None and process.pid == peer.pid:
            return ""
        if peer.pid == 0:
            return "the node plugin cannot see the process that connects: its pod needs hostPID: true"
        try:
            found = self._around.find(peer.pid)
        except OSError:
            return f"process {peer.pid} has ended"
        try:
            belongs = in_pod(self._around.membership(peer.pid), self.note.pod.uid)
        except OSError:
            belongs = False
        if not belongs:
            found.close()
            return f"process {peer.pid} does not belong to pod {self.note.pod.uid}"
        self._forget_process()
        self._watch(found)
        self._update(ended=False, exit_status=None)
        return ""

    def _session(self) -> str:
        return self._around.session

    def _may_tell(self, pid: int) -> bool:
        return in_pod(self._around.membership(pid), self.note.pod.uid) or self._shares_namespace(pid)

    def _shares_namespace(self, pid: int) -> bool:
        sidecar = self.pid
        if sidecar is None:
            return False
        of_pod = self._around.ipc_namespace(sidecar)
        return of_pod != NODE_IPC_NAMESPACE and of_pod == self._around.ipc_namespace(pid)

    def _hand_over(self, hello: Hello) -> Handover | None:
        left = self._left.take() if hello.lasts else None
        self._went_on = left is not None
        given = left if left is not None else self._new_session()
        if given is None:
            return None
        self._update(ready=False, failure=None, farewell="", health=None)
        self._serving = True
        self._given_at = time.monotonic()
        return Handover(self.note.frame, given)

    def _new_session(self) -> int | None:
        session = self._take_fresh() or self._renew()
        return session.descriptor if session is not None else None

    def _renew(self) -> KernelSession | None:
        order = self.note.order
        self._left.drop()
        try:
            session = self._around.layers.renew(order)
        except OssFuseError as error:
            _log.exception("%s cannot be mounted anew for a restarted sidecar", order.target)
            self._report(self._incidents.not_mounted(str(error)))
            return None
        self._renewed = True
        _log.info("a sidecar came anew for %s at %s: mounted a fresh session", self._volume_id, order.target)
        return session

    def _resumed(self) -> None:
        self._serving = True
        self._given_at = time.monotonic()

    # --- what it says ---

    def _heard(self, message: Ready | Failed | Health | Bye) -> None:
        if isinstance(message, Ready):
            self._left.serves()
            self._is_ready()
        elif isinstance(message, Bye):
            self._left.drop()
        elif isinstance(message, Failed):
            self._report(self._incidents.failed(message))
        elif isinstance(message, Health):
            self._report(self._incidents.memory(message))

    def _is_ready(self) -> None:
        _log.info("volume %s at %s is served", self._volume_id, self.note.order.target)
        for minor in self._around.layers.minors(self.note.order.target)[-1:]:
            self._around.connections.tune(minor)
        if (self._renewed or self._went_on) and self._served:
            self._report(self._incidents.restarted(went_on=self._went_on))
        self._renewed = self._went_on = False
        if not self._served:
            self._served = True
            with contextlib.suppress(OSError):  # costs an event after a restart of both, no more
                self._notes.mark_served()

    # --- its end ---

    def _lost(self) -> None:
        if self.situation.farewell:
            self._end_session()

    def _buried(self, process: SidecarProcess) -> None:
        process.close()
        now = self.situation
        said = now.farewell or (now.failure.message if now.failure is not None else "")
        _log.info("sidecar %d of %s ended%s", process.pid, self._volume_id, f": {said}" if said else "")
        told = self.waits
        waits = self._serving and not now.farewell and self._left.died()
        if self._serving and not said and not (told and waits):
            self._report(self._incidents.ended(waits=waits))
        if not waits:
            self._end_session()

    def _end_session(self) -> None:
        """Nobody serves the session any more, and nobody shall wait for it: also if a child of the dead holds it."""
        self._left.drop()
        serving, self._serving = self._serving, False
        if serving:
            self._around.layers.end(self.note.order.target)

    # --- silence ---

    def _next_look(self) -> Seconds | None:
        left = self._left.left
        if self._process is None or not self._serving:
            return left
        now = self.situation
        due = [now.heard + self._around.silence]
        if not now.ready:
            due.append(self._given_at + self._around.start_limit)
        waits = [moment - time.monotonic() for moment in due]
        # one that is over was told already
        look = min((wait + 0.01 for wait in waits if wait > -0.01), default=self._around.silence)
        return Seconds(look if left is None else min(look, left))

    def _look(self) -> None:
        if self._left.is_over:
            _log.warning("no sidecar goes on with %s: who waits for it is told", self._volume_id)
            self._report(self._incidents.ended(waits=False))
            self._end_session()
        process = self._process
        if process is None or not self._serving:
            return
        now, clock = self.situation, time.monotonic()
        if clock - now.heard > self._around.silence:
            self._report(self._incidents.silent(process.pid, clock - now.heard, stopped=process.stopped()))
        elif not now.ready and now.failure is None and clock - self._given_at > self._around.start_limit:
            self._report(self._incidents.not_ready(process.pid, clock - self._given_at))
        else:
            self._incidents.well()

    # --- small things ---

    def _report(self, incident: Incident | None) -> None:
        if incident is not None:
            self._around.reporter.report(self.note.pod, incident)

    def _update(self, **changes: object) -> None:
        with self._changed:
            self._situation = replace(self._situation, **changes)  # type: ignore[arg-type]  # names of Situation
            self._changed.notify_all()

    def _take_fresh(self) -> KernelSession | None:
        session, self._fresh = self._fresh, None
        return session

    def _forget_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(process.fileno())
            process.close()

    def _let_go(self) -> None:
        self._left.drop()
        self._forget_process()
        session = self._take_fresh()
        if session is not None:
            os.close(session.descriptor)
