"""Questions to the node plugin about processes: asked from any thread, answered as the link hears the answers.

Only a node plugin that said so is asked. One that leaves a question without an answer is not asked again until it
answers something, so that a plugin that hangs costs one wait and not one for each close. One that goes away (an
upgrade) is waited for, for `ABSENCE` after it went: its successor is asked what it did not answer.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from csi.errors import ProtocolError
from csi.handover.channel import Channel
from csi.handover.wire import Answer, Identified, Question
from csi.sidecar.watches import Watches
from csi.volume.units import Seconds

ABSENCE: Final = Seconds(30.0)
"""A pod of a DaemonSet is replaced in less than that, if its image is there."""
_AT_ONCE: Final = Seconds(0.0)
_MOST: Final = 4096
"""Questions under way: a node plugin that answers none must not fill the memory."""


@dataclass(slots=True)
class _Open:
    """A question without an answer; `sent` is when it was sent last."""

    question: Question
    sent: float
    box: queue.SimpleQueue[Answer | None] = field(default_factory=queue.SimpleQueue)


class Questions:
    """`_lock` guards all fields; it is not held while sending. `_lost`: when the node plugin went, None while it is
    there or has never been."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watches = Watches()
        self._lock = threading.Lock()
        self._serials = itertools.count(1)
        self._channel: Channel | None = None
        self._lost: float | None = None
        self._silent = False
        self._open: dict[int, _Open] = {}

    def begin(self, channel: Channel) -> None:
        """The node plugin at the other end of `channel` answers, also what another one left open."""
        with self._lock:
            self._channel, self._silent, self._lost = channel, False, None
            unanswered = list(self._open.values())
            for asked in unanswered:
                asked.sent = self._clock()
        for asked in unanswered:
            self._send(channel, asked.question)

    def end(self) -> None:
        """The connection is over."""
        with self._lock:
            if self._channel is not None:
                self._channel, self._lost = None, self._clock()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._channel = self._lost = None
            unanswered, self._open = self._open, {}
        for asked in unanswered.values():
            asked.box.put(None)
        self._watches.close()

    def identified(self, process: Identified, descriptor: int) -> None:
        """An answer, and what shows whether that process lives; owns the descriptor."""
        self._watches.keep(process.process, process.started, descriptor)
        self.answered(Answer(process.serial, process.process, process.started))

    def answered(self, answer: Answer) -> None:
        with self._lock:
            self._silent = False
            asked = self._open.pop(answer.serial, None)
        if asked is not None:
            asked.box.put(answer)

    def ask(self, pid: int, started: int, inode: int = 0) -> AskedQuestion | None:
        """`csi.sidecar.openers.Informant`."""
        with self._lock:
            channel, now = self._channel, self._clock()
            if self._silent or len(self._open) >= _MOST or (channel is None and self._back_by() <= now):
                return None
            asked = _Open(Question(next(self._serials), pid, started, inode), now)
            self._open[asked.question.serial] = asked
        if channel is not None and not self._send(channel, asked.question):
            return None
        return AskedQuestion(asked.box, lambda timeout: self._time_left(asked, timeout))

    def is_ending(self, process: int, started: int) -> bool | None:
        """`csi.sidecar.openers.Informant`."""
        return self._watches.is_ending(process, started)

    def _send(self, channel: Channel, question: Question) -> bool:
        """False when it will not be answered."""
        try:
            channel.send(question, timeout=_AT_ONCE)
        except (TimeoutError, ProtocolError, ValueError):
            with self._lock:
                asked = self._open.pop(question.serial, None)
            if asked is not None:
                asked.box.put(None)
            return False
        except OSError:  # it has just gone
            pass
        return True

    def _back_by(self) -> float:
        """Until when a node plugin that is away is waited for."""
        return self._lost + ABSENCE if self._lost is not None else 0.0

    def _time_left(self, asked: _Open, timeout: Seconds) -> Seconds:
        """How much longer the answer is to be waited for, `timeout` in all from somebody who is there. When that is
        over the question is too, and 0 is what is left."""
        with self._lock:
            away = self._channel is None
            left = (self._back_by() if away else asked.sent + timeout) - self._clock()
            if left > 0.0:
                return Seconds(left)
            if self._open.pop(asked.question.serial, None) is not None and not away:
                self._silent = True
            return _AT_ONCE


class AskedQuestion:
    """`csi.sidecar.openers.Inquiry`; to be waited for once."""

    def __init__(self, box: queue.SimpleQueue[Answer | None], time_left: Callable[[Seconds], Seconds]) -> None:
        self._box = box
        self._time_left = time_left

    def wait(self, timeout: Seconds) -> Answer | None:
        while True:
            left = self._time_left(timeout)
            try:
                return self._box.get(timeout=left) if left else self._box.get_nowait()
            except queue.Empty:
                if not left:
                    return None
