"""Questions to the node plugin about processes: asked from any thread, answered as the link hears the answers.

Only a node plugin that said so is asked. One that leaves a question without an answer is not asked again until it
answers something, so that a plugin that hangs costs one wait and not one for each close.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from typing import Final

from csi.errors import ProtocolError
from csi.handover.channel import Channel
from csi.handover.wire import Answer, Question
from csi.volume.units import Seconds

_AT_ONCE: Final = Seconds(0.0)
_MOST: Final = 4096
"""Questions under way: a node plugin that answers none must not fill the memory."""


class Questions:
    """`_lock` guards all fields; it is not held while sending."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serials = itertools.count(1)
        self._channel: Channel | None = None
        self._silent = False
        self._open: dict[int, queue.SimpleQueue[Answer | None]] = {}

    def begin(self, channel: Channel) -> None:
        """The node plugin at the other end of `channel` answers."""
        with self._lock:
            self._channel, self._silent = channel, False

    def end(self) -> None:
        """The connection is over: nobody waits for its answers any more."""
        with self._lock:
            self._channel = None
            unanswered, self._open = self._open, {}
        for box in unanswered.values():
            box.put(None)

    def answered(self, answer: Answer) -> None:
        with self._lock:
            self._silent = False
            box = self._open.pop(answer.serial, None)
        if box is not None:
            box.put(answer)

    def ask(self, pid: int, started: int, inode: int = 0) -> AskedQuestion | None:
        """`csi.sidecar.openers.Informant`."""
        box: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        with self._lock:
            channel = self._channel
            if channel is None or self._silent or len(self._open) >= _MOST:
                return None
            serial = next(self._serials)
            self._open[serial] = box
        try:
            channel.send(Question(serial, pid, started, inode), timeout=_AT_ONCE)
        except (OSError, ProtocolError, ValueError):
            self._forget(serial)
            return None
        return AskedQuestion(box, lambda: self._unanswered(serial))

    def _unanswered(self, serial: int) -> None:
        with self._lock:
            self._silent = True
            self._open.pop(serial, None)

    def _forget(self, serial: int) -> None:
        with self._lock:
            self._open.pop(serial, None)


class AskedQuestion:
    """`csi.sidecar.openers.Inquiry`; to be waited for once."""

    def __init__(self, box: queue.SimpleQueue[Answer | None], give_up: Callable[[], None]) -> None:
        self._box = box
        self._give_up = give_up

    def wait(self, timeout: Seconds) -> Answer | None:
        try:
            return self._box.get(timeout=timeout)
        except queue.Empty:
            self._give_up()
            return None
