"""Who opens files for writing, asked of the node plugin: a sidecar does not see the processes of other containers.

At open the node plugin is asked which process it is: the thread may have ended when the file is closed. At close it is
asked whether that process is ending by a signal. Both times the kernel keeps the process until its call is answered.
Whatever is not answered in time means an ordinary close; a node plugin that is being replaced has the time that
`csi.sidecar.questions` gives it.

Nobody is asked whether a process is killed that is seen to live (by what the node plugin gave, or because the sidecar
is a process of the node itself), nor which process it is whose first thread opens another file. Another thread that
opens one file after the other is asked about once in `_FRESH` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from csi.fs.openers import Opener
from csi.handover.wire import Answer
from csi.volume.units import Seconds

PATIENCE: Final = Seconds(5.0)
"""A node plugin that hangs is waited for once, a slow one each time: half files cost more than seconds."""
_FRESH: Final = Seconds(1.0)
"""Shorter than the kernel takes to give a thread's number to another one."""
_THREADS: Final = 1024


class Inquiry(Protocol):
    """A question that is under way."""

    def wait(self, timeout: Seconds) -> Answer | None:
        """The answer; None when there will be none, or none in `timeout` from somebody who is there."""


class Informant(Protocol):
    """`csi.sidecar.node_link.NodeLink`; a stand-in in tests."""

    def ask(self, pid: int, started: int, inode: int = 0) -> Inquiry | None:
        """Ask a QUESTION, without waiting; None when there is nobody who would answer."""

    def is_ending(self, process: int, started: int) -> bool | None:
        """Whether a process that was told of is exiting, for whatever reason. Asks nobody; None: it is not seen."""


class AskedOpeners:
    """Implements `csi.fs.openers.Openers`, for any thread. `_known`: when a thread was asked about, and its process."""

    def __init__(self, informant: Informant, clock: Callable[[], float] = time.monotonic) -> None:
        self._informant = informant
        self._clock = clock
        self._known: dict[int, tuple[float, Answer]] = {}

    def opener(self, pid: int) -> Opener | None:
        if not pid:
            return None
        since, process = self._known.get(pid, (0.0, None))
        if process is not None and (self._clock() - since < _FRESH or self._is_first_thread(pid, process)):
            return _AskedOpener(self._informant, None, process)
        asked = self._clock()
        inquiry = self._informant.ask(pid, 0)
        if inquiry is None:
            return None
        return _AskedOpener(self._informant, inquiry, None, lambda answer: self._learn(pid, asked, answer))

    def _is_first_thread(self, pid: int, process: Answer) -> bool:
        """As long as the process lives nobody else has the number of its first thread."""
        return process.process == pid and self._informant.is_ending(pid, process.started) is False

    def _learn(self, pid: int, asked: float, process: Answer) -> None:
        if len(self._known) >= _THREADS:
            self._known = {}
        self._known[pid] = (asked, process)


class _AskedOpener:
    """`process` is what `inquiry` was answered with, `learn` told of it."""

    def __init__(
        self,
        informant: Informant,
        inquiry: Inquiry | None,
        process: Answer | None,
        learn: Callable[[Answer], None] = lambda _answer: None,
    ) -> None:
        self._informant = informant
        self._inquiry = inquiry
        self._process = process
        self._learn = learn

    def identify(self) -> None:
        inquiry, self._inquiry = self._inquiry, None
        if inquiry is not None:
            self._process = inquiry.wait(PATIENCE)
            if self._process is not None and self._process.process:
                self._learn(self._process)

    def is_killed(self) -> bool:
        process = self._process
        if process is not None and process.process and self._lives(process):
            return False
        answer = self._ask_of_it(0)
        return answer is not None and answer.killed

    def holds(self, inode: int) -> bool:
        answer = self._ask_of_it(inode)
        return answer is not None and answer.holds

    def sharer_is_killed(self) -> bool:
        answer = self._ask(0, 0, 0)
        return answer is not None and answer.killed

    def _lives(self, process: Answer) -> bool:
        return self._informant.is_ending(process.process, process.started) is False

    def _ask_of_it(self, inode: int) -> Answer | None:
        if self._process is None or not self._process.process:
            return None
        return self._ask(self._process.process, self._process.started, inode)

    def _ask(self, process: int, started: int, inode: int) -> Answer | None:
        inquiry = self._informant.ask(process, started, inode)
        return inquiry.wait(PATIENCE) if inquiry is not None else None
