"""The node plugin's side of the talk with one sidecar, whoever runs it: hand the volume over, then hear how it is.

One thread for each published volume waits on the listening socket and the connection, and turns what happens there
into one `Situation` that others read. It promises that a fresh descriptor is given away at most once and that the node
plugin's copy of it is closed with that (or a dead sidecar would mean callers that nobody can free), but for what the
sidecar itself has left to a successor (`csi/handover/inheritance.py`); that a volume has one sidecar at a time, and
that a sidecar which lost the connection may come back as long as it serves the same mount.
Who may connect, and what a sidecar that comes for the volume gets, is for the classes that build on this one.
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

from csi.errors import ProtocolError
from csi.handover.channel import Channel, Peer, Received
from csi.handover.fates import Answerer, open_status
from csi.handover.inheritance import Bequest, Inheritance
from csi.handover.listener import SidecarListener
from csi.handover.process import SidecarProcess
from csi.handover.registrar import Registrar
from csi.handover.wire import (
    VERSION,
    Answer,
    Answering,
    Bye,
    Drain,
    Failed,
    Health,
    Hello,
    Heritage,
    Identified,
    Keeping,
    Lasting,
    Mount,
    Passing,
    Question,
    Ready,
    Register,
    Session,
    Unregister,
)
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

_REFUSING = Seconds(0.2)


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


class Handover:
    """A frame and the descriptors that go with it, which are closed once, by whoever is first: that of a fresh session,
    or what a sidecar that died has left."""

    def __init__(self, frame: Mount, given: int | Bequest) -> None:
        self._frame = frame
        self._device, self._journal = (given, -1) if isinstance(given, int) else (given.device, given.journal)
        self.is_heritage = self._journal >= 0
        """Only a sidecar that lasts can take it."""

    def give(self, channel: Channel) -> None:
        """Send it. Our copy is closed, whether or not the other side got it: what is under way in the socket is a copy
        of its own, which dies with its receiver. Raises OSError."""
        try:
            if self.is_heritage:
                channel.send(Heritage(), (self._journal,))
            channel.send(self._frame, (self._device,))
        finally:
            self.close()

    def close(self) -> None:
        """Idempotent."""
        for descriptor in (self._device, self._journal):
            if descriptor >= 0:
                os.close(descriptor)
        self._device = self._journal = -1


class Conversation:
    """`_changed` guards `_situation` and `_channel` and is notified of every change; no other lock is taken inside it.

    Owns the listener. `name` is the thread's. `process` is watched if it is known from the start. `inheritance` is
    where what the sidecar leaves is kept, None if nobody would go on with it. What stands below "what differs" runs on
    the thread only.
    """

    def __init__(
        self,
        volume_id: str,
        spec_hash: str,
        listener: SidecarListener,
        situation: Situation,
        name: str,
        registrar: Registrar,
        process: SidecarProcess | None = None,
        inheritance: Inheritance | None = None,
    ) -> None:
        self._volume_id = volume_id
        self._spec_hash = spec_hash
        self._listener = listener
        self._changed = threading.Condition()
        self._situation = replace(situation, heard=time.monotonic())
        self._channel: Channel | None = None
        self._process = process
        self._answerer = Answerer(self._may_tell)
        self._watching = False
        self._registrar = registrar
        self._inheritance = inheritance
        self._wake, self._woken = socket.socketpair()
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether somebody listens to the sidecar."""
        return self._thread.is_alive()

    @property
    def situation(self) -> Situation:
        with self._changed:
            return self._situation

    def drain(self, grace: Seconds) -> bool:
        """Ask the sidecar to finish and leave; False when it cannot be asked."""
        with self._changed:
            channel = self._channel
        if channel is None:
            return False
        try:
            channel.send(Drain(grace=grace), timeout=Seconds(1.0))
        except (OSError, ValueError) as error:
            _log.info("the sidecar of %s could not be asked to leave: %s", self._volume_id, error)
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

    # --- what differs with who runs the sidecar ---

    def _refusal(self, peer: Peer) -> str:
        """Why this peer is not the sidecar of this volume; '' when it is."""
        raise NotImplementedError

    def _hand_over(self, hello: Hello) -> Handover | None:
        """What a sidecar that comes for the volume gets; None when there is nothing to give away."""
        raise NotImplementedError

    def _session(self) -> str:
        """Which code is to serve the volume; '' leaves it to the sidecar."""
        return ""

    def _may_tell(self, pid: int) -> bool:
        """Whether the sidecar may learn how process `pid` ends. May raise OSError when there is none."""
        raise NotImplementedError

    def _buried(self, process: SidecarProcess) -> None:
        """`process` has ended, and is no longer watched."""

    def _resumed(self) -> None:
        """The sidecar that is connected serves the volume already."""

    def _heard(self, message: Ready | Failed | Health | Bye) -> None:
        """`message` has become part of the situation."""

    def _lost(self) -> None:
        """The connection is over."""

    def _next_look(self) -> Seconds | None:
        """When `_look` is to be called if nothing happens before."""
        return None

    def _look(self) -> None:
        """Called after everything that happened, and when `_next_look` is over."""

    def _let_go(self) -> None:
        """Close what this conversation owns beside its sockets. Idempotent."""

    # --- the thread ---

    def _run(self) -> None:
        try:
            self._selector.register(self._wake, selectors.EVENT_READ, "wake")
            self._selector.register(self._listener, selectors.EVENT_READ, "listener")
            if self._process is not None:
                self._watch(self._process)
            while self._step():
                pass
        except (OSError, ValueError):
            _log.exception("the conversation about %s ended", self._volume_id)
        finally:
            self._release()

    def _step(self) -> bool:
        ready = [key.data for key, _ in self._selector.select(self._next_look())]
        if "wake" in ready:
            return False
        if "connection" in ready:  # before the process: its last words explain its end
            self._listen()
        if "listener" in ready:
            self._welcome()
        if "process" in ready and self._process is not None and self._process.poll() is not None:
            self._bury(self._process)
        self._look()
        return True

    def _watch(self, process: SidecarProcess) -> None:
        self._process = process
        self._selector.register(process.fileno(), selectors.EVENT_READ, "process")

    def _welcome(self) -> None:
        channel = self._listener.accept()
        if channel is None:
            return
        with self._changed:
            taken = self._channel is not None
        refusal = "this volume has a sidecar already" if taken else self._refusal(channel.peer)
        if refusal:
            _log.warning("connection to the volume %s refused: %s", self._volume_id, refusal)
            with contextlib.suppress(OSError):
                channel.send(Bye(reason=refusal), timeout=_REFUSING)
            channel.close()
            return
        with self._changed:
            self._channel = channel
            self._situation = replace(self._situation, connected=True, heard=time.monotonic())
            self._changed.notify_all()
        self._selector.register(channel, selectors.EVENT_READ, "connection")

    def _listen(self) -> None:
        channel = self._channel
        if channel is None:
            return
        received: list[Received] = []
        try:
            received += channel.receive_ready()
            while received:
                self._take(channel, received.pop(0))
            over = channel.ended
        except (ProtocolError, OSError) as error:
            _log.warning("connection of the sidecar of %s dropped: %s", self._volume_id, error)
            over = True
        finally:
            for unheard in received:
                unheard.close()
        if over:
            self._hang_up()
            self._lost()

    def _take(self, channel: Channel, received: Received) -> None:
        message = received.message
        if isinstance(message, Hello):
            self._greet(channel, message)
            return
        if isinstance(message, Question):
            with contextlib.suppress(TimeoutError):  # it does not read; then it does not wait for this either
                self._reply(channel, self._answerer.answer(message))
            return
        if isinstance(message, Register | Unregister):
            try:
                self._registrar.serve(channel, message, received.descriptors)
            finally:
                received.close()  # a copy of the device here would keep a dead sidecar's callers waiting
            return
        if isinstance(message, Lasting) and self._inheritance is not None:
            self._keep(self._inheritance, Bequest(*received.descriptors))
            return
        if not isinstance(message, Ready | Failed | Health | Bye):
            received.close()
            raise ProtocolError(f"a sidecar does not send {type(message).__name__}")
        with self._changed:
            now = replace(self._situation, heard=time.monotonic())
            if isinstance(message, Ready):
                now = replace(now, ready=True)
            elif isinstance(message, Failed):
                now = replace(now, failure=message)
            elif isinstance(message, Health):
                now = replace(now, health=message)
            else:
                now = replace(now, farewell=message.reason)
            self._situation = now
            self._changed.notify_all()
        self._heard(message)

    def _keep(self, inheritance: Inheritance, left: Bequest) -> None:
        if left.is_one():
            inheritance.keep(left)
            return
        _log.warning("what the sidecar of %s leaves is of no use to another one", self._volume_id)
        left.close()

    def _reply(self, channel: Channel, answer: Answer) -> None:
        status = open_status(answer.process, answer.started) if answer.process and self._watching else None
        if status is None:
            channel.send(answer, timeout=_REFUSING)
            return
        try:
            channel.send(Identified(answer.serial, answer.process, answer.started), (status,), timeout=_REFUSING)
        finally:
            os.close(status)

    def _greet(self, channel: Channel, hello: Hello) -> None:
        if hello.version != VERSION:
            refusal = f"the sidecar speaks version {hello.version}, this node plugin {VERSION}"
            channel.send(Bye(reason=refusal), timeout=_REFUSING)  # so that it does not try again and again
            raise ProtocolError(refusal)
        if hello.resume:
            if (hello.volume_id, hello.spec_hash) != (self._volume_id, self._spec_hash):
                raise ProtocolError(f"a sidecar of {hello.volume_id!r} came back to {self._volume_id!r}")
            self._resumed()
            self._say_passing(channel, hello)
            self._say_keeping(channel, hello)
        else:
            handover = self._hand_over(hello)
            if handover is None:
                raise ProtocolError("a sidecar asks for a descriptor that was given away already")
            try:
                self._say_session(channel, hello)
                self._registrar.begin()
                self._say_passing(channel, hello)
                self._say_keeping(channel, hello)
                handover.give(channel)
            except BaseException:
                if self._inheritance is not None and handover.is_heritage:
                    self._inheritance.give_back()
                handover.close()
                raise
        self._watching = hello.watches
        if hello.asks:
            with contextlib.suppress(BrokenPipeError):  # it has refused and left: what it said is still to be read
                channel.send(Answering(), timeout=_REFUSING)

    def _say_session(self, channel: Channel, hello: Hello) -> None:
        session = self._session()
        if session and hello.chooses:
            channel.send(Session(session))
        elif session:
            _log.warning(
                "the sidecar of %s is too old to be told that %s is to serve it, and serves as it does by itself",
                self._volume_id,
                session,
            )

    def _say_passing(self, channel: Channel, hello: Hello) -> None:
        if hello.passes and self._registrar.is_willing:
            with contextlib.suppress(BrokenPipeError):  # as in `_greet`
                channel.send(Passing(), timeout=_REFUSING)

    def _say_keeping(self, channel: Channel, hello: Hello) -> None:
        if hello.lasts and self._inheritance is not None:
            with contextlib.suppress(BrokenPipeError):  # as in `_greet`
                channel.send(Keeping(), timeout=_REFUSING)

    def _bury(self, process: SidecarProcess) -> None:
        self._selector.unregister(process.fileno())
        self._process = None
        self._listen()  # what it said last
        with self._changed:
            self._situation = replace(self._situation, ended=True, exit_status=process.poll())
            self._changed.notify_all()
        self._buried(process)

    def _hang_up(self) -> None:
        with self._changed:
            channel, self._channel = self._channel, None
            self._situation = replace(self._situation, connected=False)
            self._changed.notify_all()
        if channel is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(channel)
            channel.close()

    def _release(self) -> None:
        self._hang_up()
        self._let_go()
        self._listener.close()
        self._selector.close()
