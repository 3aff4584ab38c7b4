"""Who opens files for writing, asked of the node plugin: a sidecar does not see the processes of other containers.

At open the node plugin is asked which process it is: the thread may have ended when the file is closed. At close it is
asked whether that process is ending by a signal. Both times the kernel keeps the process until its call is answered.
Whatever is not answered in time means an ordinary close.
"""

from __future__ import annotations

from typing import Final, Protocol

from csi.fs.openers import Opener
from csi.handover.wire import Answer
from csi.volume.units import Seconds

PATIENCE: Final = Seconds(1.0)


class Inquiry(Protocol):
    """A question that is under way."""

    def wait(self, timeout: Seconds) -> Answer | None:
        """The answer; None when there will be none, or none in time."""


class Informant(Protocol):
    """`csi.sidecar.node_link.NodeLink`; a stand-in in tests."""

    def ask(self, pid: int, started: int, inode: int = 0) -> Inquiry | None:
        """Ask a QUESTION, without waiting; None when there is nobody who would answer."""


class AskedOpeners:
    """Implements `csi.fs.openers.Openers`."""

    def __init__(self, informant: Informant) -> None:
        self._informant = informant

    def opener(self, pid: int) -> Opener | None:
        inquiry = self._informant.ask(pid, 0) if pid else None
        return _AskedOpener(self._informant, inquiry) if inquiry is not None else None


class _AskedOpener:
    """`_process` is what the first question was answered with."""

    def __init__(self, informant: Informant, inquiry: Inquiry) -> None:
        self._informant = informant
        self._inquiry: Inquiry | None = inquiry
        self._process: Answer | None = None

    def identify(self) -> None:
        inquiry, self._inquiry = self._inquiry, None
        if inquiry is not None:
            self._process = inquiry.wait(PATIENCE)

    def is_killed(self) -> bool:
        answer = self._ask_of_it(0)
        return answer is not None and answer.killed

    def holds(self, inode: int) -> bool:
        answer = self._ask_of_it(inode)
        return answer is not None and answer.holds

    def sharer_is_killed(self) -> bool:
        answer = self._ask(0, 0, 0)
        return answer is not None and answer.killed

    def _ask_of_it(self, inode: int) -> Answer | None:
        if self._process is None or not self._process.process:
            return None
        return self._ask(self._process.process, self._process.started, inode)

    def _ask(self, process: int, started: int, inode: int) -> Answer | None:
        inquiry = self._informant.ask(process, started, inode)
        return inquiry.wait(PATIENCE) if inquiry is not None else None
