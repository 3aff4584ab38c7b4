"""The node plugin's side of one sidecar: hands over the descriptor, then listens to how it is.

One thread for each published volume waits on the listening socket, the connection and the process, and turns what
happens there into one `Situation` that others read. It promises that a sidecar gets the descriptor at most once, that
the node plugin's copy of it is closed as soon as it is no longer needed (or a dead sidecar would mean waiting callers
instead of an error), and that a sidecar which lost the connection may come back as long as it serves the same mount.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from dataclasses import dataclass, replace

from csi.errors import DeadlineExceeded, ProtocolError, SidecarFailed
from csi.handover.cgroup import MemoryCgroup
from csi.handover.channel import Channel, Received
from csi.handover.listener import SidecarListener
from csi.handover.process import SidecarProcess
from csi.handover.wire import VERSION, Bye, Drain, Failed, Health, Hello, Mount, Ready
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known about a sidecar. Times are of the monotonic clock; `heard` is when it last said anything."""

    ready: bool = False
    connected: bool = False
    ended: bool = False
    exit_status: int | None = None
    failure: Failed | None = None
    farewell: str = ""
    health: Health | None = None
    heard: float = 0.0


@dataclass(frozen=True, slots=True)
class Attended:
    """What one attendant attends: `memory` is the sidecar's cgroup, `mount` the frame it got or will get."""

    volume_id: str
    spec_hash: str
    process: SidecarProcess
    memory: MemoryCgroup
    listener: SidecarListener


class Attendant:
    """`_changed` guards `_situation` and `_channel` and is notified of every change; no other lock is taken inside it.

    `handover` is the frame and descriptor to give away, None for a sidecar that was found serving already. The
    attendant owns the descriptor and the listener from then on; the process belongs to the caller.
    """

    def __init__(self, attended: Attended, handover: tuple[Mount, int] | None) -> None:
        self.attended = attended
        self._handover = handover
        self._changed = threading.Condition()
        self._situation = Situation(ready=handover is None, heard=time.monotonic())
        self._channel: Channel | None = None
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name=f"attendant {attended.process.pid}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def situation(self) -> Situation:
        with self._changed:
            return self._situation

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

    def drain(self, grace: Seconds) -> bool:
        """Ask the sidecar to finish and leave; False when it cannot be asked."""
        with self._changed:
            channel = self._channel
        if channel is None:
            return False
        try:
            channel.send(Drain(grace=grace), timeout=Seconds(1.0))
        except (OSError, ValueError) as error:
            _log.info("sidecar %d could not be asked to leave: %s", self.attended.process.pid, error)
            return False
        return True

    def close(self) -> None:
        """End the thread, close sockets and the descriptor; the process goes on. Idempotent."""
        with contextlib.suppress(OSError):
            self._woken.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is None:
            self._release()
        else:
            self._thread.join()
        self._wake.close()
        self._woken.close()

    # --- the thread ---

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        try:
            selector.register(self._wake, selectors.EVENT_READ, "wake")
            selector.register(self.attended.listener, selectors.EVENT_READ, "listener")
            selector.register(self.attended.process.fileno(), selectors.EVENT_READ, "process")
            while self._step(selector):
                pass
        except (OSError, ValueError):
            _log.exception("attendant of sidecar %d ended", self.attended.process.pid)
        finally:
            selector.close()
            self._release()

    def _step(self, selector: selectors.BaseSelector) -> bool:
        ready = [key.data for key, _ in selector.select()]
        if "wake" in ready:
            return False
        if "connection" in ready:  # before the process: its last words explain its end
            self._listen(selector)
        if "listener" in ready:
            self._welcome(selector)
        if "process" in ready:
            selector.unregister(self.attended.process.fileno())
            self._bury(selector)
        return True

    def _welcome(self, selector: selectors.BaseSelector) -> None:
        channel = self.attended.listener.accept()
        if channel is None:
            return
        refusal = self._refusal(channel)
        if refusal:
            _log.warning("connection to the volume %s refused: %s", self.attended.volume_id, refusal)
            with contextlib.suppress(OSError):
                channel.send(Bye(reason=refusal), timeout=Seconds(0.2))
            channel.close()
            return
        with self._changed:
            self._channel = channel
            self._situation = replace(self._situation, connected=True, heard=time.monotonic())
            self._changed.notify_all()
        selector.register(channel, selectors.EVENT_READ, "connection")

    def _refusal(self, channel: Channel) -> str:
        with self._changed:
            if self._channel is not None:
                return "this volume has a sidecar already"
        pid = channel.peer.pid
        return "" if pid == self.attended.process.pid else f"process {pid} is not the sidecar of this volume"

    def _listen(self, selector: selectors.BaseSelector) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            for received in channel.receive_ready():
                self._take(channel, received)
            over = channel.ended
        except (ProtocolError, OSError) as error:
            _log.warning("connection of the sidecar of %s dropped: %s", self.attended.volume_id, error)
            over = True
        if over:
            selector.unregister(channel)
            self._hang_up()

    def _take(self, channel: Channel, received: Received) -> None:
        message = received.message
        if isinstance(message, Hello):
            self._answer(channel, message)
            return
        with self._changed:
            now = replace(self._situation, heard=time.monotonic())
            if isinstance(message, Ready):
                now = replace(now, ready=True)
            elif isinstance(message, Failed):
                now = replace(now, failure=message)
            elif isinstance(message, Health):
                now = replace(now, health=message)
            elif isinstance(message, Bye):
                now = replace(now, farewell=message.reason)
            else:
                if received.descriptor is not None:
                    os.close(received.descriptor)
                raise ProtocolError(f"a sidecar does not send {type(message).__name__}")
            self._situation = now
            self._changed.notify_all()
        if isinstance(message, Ready | Failed):
            self._close_descriptor()

    def _answer(self, channel: Channel, hello: Hello) -> None:
        if hello.version != VERSION:
            raise ProtocolError(f"the sidecar speaks version {hello.version}, this node plugin {VERSION}")
        if hello.resume:
            if (hello.volume_id, hello.spec_hash) != (self.attended.volume_id, self.attended.spec_hash):
                raise ProtocolError(f"a sidecar of {hello.volume_id!r} came back to {self.attended.volume_id!r}")
            return
        if self._handover is None:
            raise ProtocolError("a sidecar asks for a descriptor that was given away already")
        frame, descriptor = self._handover
        channel.send(frame, (descriptor,))

    def _bury(self, selector: selectors.BaseSelector) -> None:
        if self._channel is not None:
            self._listen(selector)
        status = self.attended.process.poll()
        self._close_descriptor()
        with self._changed:
            self._situation = replace(self._situation, ended=True, exit_status=status)
            self._changed.notify_all()
            expected = status == 0
        level = logging.INFO if expected else logging.ERROR
        _log.log(
            level, "sidecar %d of %s ended%s", self.attended.process.pid, self.attended.volume_id, self.last_words()
        )

    def last_words(self) -> str:
        """How the process ended, for messages: ' with exit status 1', ', killed by signal 9', ''."""
        status = self.situation.exit_status
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

    def _hang_up(self) -> None:
        with self._changed:
            channel, self._channel = self._channel, None
            self._situation = replace(self._situation, connected=False)
            self._changed.notify_all()
        if channel is not None:
            channel.close()

    def _close_descriptor(self) -> None:
        handover, self._handover = self._handover, None
        if handover is not None:
            os.close(handover[1])

    def _release(self) -> None:
        self._hang_up()
        self._close_descriptor()
        self.attended.listener.close()


def in_mebibytes(count: int) -> str:
    """'256Mi', in the unit people write limits in."""
    return f"{count / (1 << 20):.0f}Mi"
