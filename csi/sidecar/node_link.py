"""The sidecar's end of the hand-over socket: says HELLO, takes the volume, and comes back when the socket breaks.

The runtime directory is held by a descriptor opened before the rights were given up, so no parent directory needs to
be passable for the sidecar's user. Losing the node plugin changes nothing for the mount: the link tries again, with
growing pauses, until it may report again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from csi.errors import ProtocolError, SidecarFailed
from csi.handover import wire
from csi.handover.channel import Channel, Received
from csi.handover.wire import (
    VERSION,
    Answer,
    Answering,
    Bye,
    Drain,
    Hello,
    Heritage,
    Identified,
    Keeping,
    Message,
    Mount,
    Registered,
    Session,
)
from csi.sidecar.passing import Passing
from csi.sidecar.questions import Questions
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

_NO_PAUSE = Seconds(0.0)
_FIRST_PAUSE = Seconds(0.05)
_LONGEST_PAUSE = Seconds(2.0)
_LONGEST_WAIT = Seconds(3600.0)
"""poll(2) counts milliseconds in an int; infinity does not fit."""


class NodeLink:
    """`_lock` guards `_channel`; it is not held while sending. `directory` is a descriptor, `name` the socket in it.
    `questions` are asked and files for `passing` registered over the connection there is. `session` is which code is to
    serve the volume, as the node plugin said with it; '' when it did not. `keeps`: whether the node plugin there is
    keeps what a successor needs. `left`: the journal of the one that served the volume before, -1 if nobody did."""

    def __init__(self, directory: int, name: str, *, lasts: bool = False) -> None:
        """`lasts`: another sidecar could go on with what this one serves."""
        self._path = f"/proc/self/fd/{directory}/{name}"
        self._lock = threading.Lock()
        self._channel: Channel | None = None
        self.questions = Questions()
        self.passing = Passing()
        self.session = ""
        self.keeps = False
        self.left = -1
        self._lasts = lasts
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._wake, self._woken = socket.socketpair()
        self._interrupt, self._interrupting = socket.socketpair()

    def take_volume(self, patience: Seconds) -> tuple[Mount, int]:
        """Connect, waiting for the socket to appear, and receive the volume and its /dev/fuse descriptor. A node plugin
        that goes away before it has said a word is waited for like one that was never there.

        Raises SidecarFailed when it refuses, or offers nothing within `patience` (math.inf: without limit), or when
        `interrupt` was called; and ProtocolError.
        """
        end = time.monotonic() + patience
        pause = _FIRST_PAUSE
        while not self._interrupted():
            channel = self._connect(self._hello())
            volume = self._receive_volume(channel, end) if channel is not None else None
            if volume is not None:
                return volume
            if time.monotonic() > end:
                break
            if pause == _FIRST_PAUSE:
                _log.info("waiting for the node plugin")
            self._interrupted(pause)
            pause = Seconds(min(pause * 2, _LONGEST_PAUSE))
        raise SidecarFailed(
            f"the node plugin offered no volume within {patience:.0f} s", hint="look at the node plugin's log"
        )

    def attend(self, volume: Mount, on_drain: Callable[[Seconds], None], on_return: Callable[[], None]) -> None:
        """From now on, on a thread: hear DRAIN, reconnect after a loss as the sidecar that serves `volume`, and call
        `on_return` whenever that succeeded, and again when it has turned out that `keeps`."""
        hello = replace(
            self._hello(), resume=True, volume_id=volume.volume_id, spec_hash=volume.spec_hash, chooses=False
        )
        self._thread = threading.Thread(
            target=self._run, args=(hello, on_drain, on_return), name="node link", daemon=True
        )
        self._thread.start()

    def _hello(self) -> Hello:
        return Hello(VERSION, os.getpid(), asks=True, chooses=True, passes=True, watches=True, lasts=self._lasts)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Tell the node plugin if it is there; False when it is not."""
        with self._lock:
            channel = self._channel
        if channel is None:
            return False
        try:
            channel.send(message, descriptors, timeout=Seconds(2.0))
        except (OSError, ProtocolError) as error:
            _log.debug("the node plugin does not hear %s: %s", type(message).__name__, error)
            return False
        return True

    def interrupt(self) -> None:
        """Make a `take_volume` that waits give up. Nothing else is changed by it."""
        with contextlib.suppress(OSError):
            self._interrupting.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Idempotent."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._woken.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(5.0)
        self._replace(None)
        self._close_left()
        self.questions.close()
        for end in (self._wake, self._woken, self._interrupt, self._interrupting):
            end.close()

    def _receive_volume(self, channel: Channel, end: float) -> tuple[Mount, int] | None:
        """None when the other end closed, or nothing came in time."""
        self.session = ""
        passing = self.keeps = False
        self._close_left()
        try:
            while not self._interrupted() and time.monotonic() < end:
                try:
                    received = channel.receive(Seconds(0.0))
                except TimeoutError:
                    self._interrupted(Seconds(min(_LONGEST_WAIT, end - time.monotonic())), channel)
                    continue
                if received is None:
                    break
                if isinstance(received.message, Session):
                    self.session = received.message.name
                    continue
                if isinstance(received.message, wire.Passing):
                    passing = True
                    continue
                if isinstance(received.message, Keeping):
                    self.keeps = True
                    continue
                if isinstance(received.message, Heritage):
                    self._close_left()
                    self.left = received.descriptors[0]
                    continue
                volume = _volume_in(received)
                self._replace(channel)
                if passing:
                    self.passing.begin(channel)
                return volume
        except (ProtocolError, SidecarFailed, OSError):
            channel.close()
            raise
        channel.close()
        return None

    def take_left(self) -> int:
        """`left`, which is the caller's from now on."""
        left, self.left = self.left, -1
        return left

    def _close_left(self) -> None:
        left = self.take_left()
        if left >= 0:
            os.close(left)

    def _interrupted(self, pause: Seconds = _NO_PAUSE, channel: Channel | None = None) -> bool:
        """Whether `interrupt` was called; waits for that, or for `channel` to have something, up to `pause`."""
        poll = select.poll()
        poll.register(self._interrupt, select.POLLIN)
        if channel is not None:
            poll.register(channel, select.POLLIN)
        return any(number == self._interrupt.fileno() for number, _ in poll.poll(max(0.0, pause) * 1000))

    def _run(self, hello: Hello, on_drain: Callable[[Seconds], None], on_return: Callable[[], None]) -> None:
        pause = _FIRST_PAUSE
        while not self._closing.is_set():
            with self._lock:
                channel = self._channel
            if channel is None:
                channel = self._connect(hello)
                if channel is None:
                    self._closing.wait(pause)
                    pause = Seconds(min(pause * 2, _LONGEST_PAUSE))
                    continue
                _log.info("connected to the node plugin again")
                self.keeps = False
                self._replace(channel)
                on_return()
            if self._listen(channel, on_drain, on_return):
                pause = _FIRST_PAUSE
            if not self._closing.is_set():
                self._replace(None)
                self._closing.wait(pause)
                pause = Seconds(min(pause * 2, _LONGEST_PAUSE))

    def _listen(self, channel: Channel, on_drain: Callable[[Seconds], None], on_return: Callable[[], None]) -> bool:
        """Until the connection ends; whether it lasted a while."""
        since = time.monotonic()
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            while True:
                for received in channel.receive_ready():  # some of it may have come together with the volume
                    self._obey(channel, received, on_drain, on_return)
                if channel.ended:
                    break
                if any(descriptor == self._wake.fileno() for descriptor, _ in poll.poll()):
                    return True
        except (ProtocolError, OSError) as error:
            _log.warning("connection to the node plugin dropped: %s", error)
        else:
            _log.info("the node plugin is gone; the mount goes on")
        return time.monotonic() - since > _LONGEST_PAUSE

    def _obey(
        self,
        channel: Channel,
        received: Received,
        on_drain: Callable[[Seconds], None],
        on_return: Callable[[], None],
    ) -> None:
        message = received.message
        if isinstance(message, Drain):
            on_drain(Seconds(message.grace))
        elif isinstance(message, Keeping):
            self.keeps = True
            on_return()
        elif isinstance(message, Bye):
            _log.warning("the node plugin says: %s", message.reason)
        elif isinstance(message, Answering):
            self.questions.begin(channel)
        elif isinstance(message, Answer):
            self.questions.answered(message)
        elif isinstance(message, Identified):
            self.questions.identified(message, received.descriptors[0])
        elif isinstance(message, wire.Passing):
            self.passing.begin(channel)
        elif isinstance(message, Registered):
            self.passing.answered(message)
        else:
            received.close()
            raise ProtocolError(f"a node plugin does not send {type(message).__name__} now")

    def _connect(self, hello: Hello) -> Channel | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.connect(self._path)
            channel = Channel(connection)
            channel.send(hello)
        except OSError:
            connection.close()
            return None
        return channel

    def _replace(self, channel: Channel | None) -> None:
        with self._lock:
            previous, self._channel = self._channel, channel
        if channel is not previous:
            self.questions.end()
            self.passing.end()
        if previous is not None and previous is not channel:
            previous.close()


def _volume_in(received: Received) -> tuple[Mount, int]:
    if isinstance(received.message, Bye):
        raise SidecarFailed(f"the node plugin refused: {received.message.reason}", hint="look at the node plugin's log")
    if not isinstance(received.message, Mount) or received.descriptor is None:
        raise ProtocolError(f"expected MOUNT, got {type(received.message).__name__}")
    return received.message, received.descriptor
