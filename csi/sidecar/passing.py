"""Files that the kernel reads in place of this sidecar: the node plugin is asked to register them, which a sidecar
has no right to (`csi/handover/registrar.py` says why).

Only a node plugin that said so is asked, one thing at a time. Who registers a file waits for `_PATIENCE` at most; a
node plugin that leaves it without an answer is asked nothing more until it answers, so that one that hangs costs one
wait and not one for each open. A number that comes too late is given back. So is, once there is a node plugin again,
what was to be given back while there was none; files that are registered are read all the while. What is lost with a
connection is the answer that was under way: the kernel may then hold one file open for as long as the mount is.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from csi.errors import ProtocolError
from csi.handover.channel import Channel
from csi.handover.wire import Register, Registered, Unregister
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

_PATIENCE: Final = Seconds(1.0)
_AT_ONCE: Final = Seconds(0.0)


@dataclass(eq=False, slots=True)
class _Asked:
    """A file to be registered, or a `number` to be given back. `descriptor` is a copy, closed when it is sent or will
    not be. `over`: it is answered, or never will be. `late`: nobody waits for the answer any more."""

    descriptor: int = -1
    number: int = 0
    answer: Registered | None = None
    late: bool = False
    over: threading.Event = field(default_factory=threading.Event)


class Passing:
    """Implements `csi.fuse.own.passthrough.Registrar`, and the files of it. `_lock` guards all fields; it is not held
    while sending. `_under_way` is what was sent, and is answered next. `_device` is -1 before there is one and when it
    is closed."""

    def __init__(self, patience: Seconds = _PATIENCE) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._serials = itertools.count(1)
        self._serial = 0
        self._channel: Channel | None = None
        self._device = -1
        self._under_way: _Asked | None = None
        self._waiting: deque[_Asked] = deque()
        self._leaving: deque[int] = deque()

    # --- the connection ---

    def begin(self, channel: Channel) -> None:
        """The node plugin at the other end of `channel` registers files."""
        with self._lock:
            self._channel = channel
        self._go_on()

    def end(self) -> None:
        """The connection is over: nobody waits for its answers any more."""
        with self._lock:
            self._lose()

    def answered(self, answer: Registered) -> None:
        with self._lock:
            asked = self._under_way
            if asked is None or answer.serial != self._serial:
                return
            self._under_way = None
            asked.answer = answer
            asked.over.set()
            if asked.late:
                _log.info("the node plugin answers again")
                if answer.number:
                    self._leaving.append(answer.number)
        self._go_on()

    # --- the session ---

    def is_there(self) -> bool:
        with self._lock:
            return self._channel is not None

    def files(self, device: int) -> Passing:
        with self._lock:
            self._device = device
        return self

    def register(self, descriptor: int) -> int:
        with self._lock:
            before = self._under_way
            if self._channel is None or self._device < 0 or (before is not None and before.late):
                return 0
            asked = _Asked(os.dup(descriptor))
            self._waiting.append(asked)
        self._go_on()
        asked.over.wait(self._patience)
        with self._lock:
            answer = asked.answer
            if answer is None:
                self._give_up(asked, before)
                return 0
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error))
        return answer.number

    def unregister(self, number: int) -> None:
        """Nobody waits for this."""
        with self._lock:
            if self._device < 0:
                return
            self._leaving.append(number)
        self._go_on()

    def close(self) -> None:
        """What is registered ends with the connection to the kernel."""
        with self._lock:
            self._device = -1
            self._leaving.clear()
            self._fail_waiting()

    # --- private ---

    def _go_on(self) -> None:
        """Ask the next thing, if it is time for that."""
        with self._lock:
            channel, device = self._channel, self._device
            if channel is None or device < 0 or self._under_way is not None or not (self._waiting or self._leaving):
                return
            try:
                descriptors = [os.dup(device)]  # which nobody closes while it is being sent
            except OSError as error:
                _log.warning("no file is registered now: %s", error.strerror)
                self._fail_waiting()
                return
            self._serial = next(self._serials)
            message: Register | Unregister
            if self._waiting:  # and somebody waits for it
                asked = self._waiting.popleft()
                descriptors.append(asked.descriptor)
                message = Register(self._serial)
            else:
                asked = _Asked(number=self._leaving.popleft())
                message = Unregister(self._serial, asked.number)
            self._under_way = asked
        try:
            channel.send(message, descriptors, timeout=_AT_ONCE)
        except (OSError, ProtocolError, ValueError) as error:
            _log.debug("the node plugin does not hear %s: %s", type(message).__name__, error)
            with self._lock:
                if self._channel is channel:  # gone, or has read nothing for long: until the next connection
                    self._lose()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    # --- with `_lock` held ---

    def _lose(self) -> None:
        self._channel = None
        asked, self._under_way = self._under_way, None
        if asked is not None:
            asked.over.set()
            if asked.number:
                self._leaving.appendleft(asked.number)
        self._fail_waiting()

    def _give_up(self, asked: _Asked, before: _Asked | None) -> None:
        """`before` was under way when `asked` came."""
        under_way = self._under_way
        if under_way is not None and under_way in (asked, before):
            under_way.late = True
            _log.warning("the node plugin does not answer: files of the disk cache are read through this sidecar")
            self._fail_waiting()
        elif asked in self._waiting:  # it answers, but there is much to do
            self._waiting.remove(asked)
            os.close(asked.descriptor)

    def _fail_waiting(self) -> None:
        for asked in self._waiting:
            asked.over.set()
            os.close(asked.descriptor)
        self._waiting.clear()
