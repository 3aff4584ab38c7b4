"""How processes end, as /proc shows it: killed by a signal, or not.

A process that ends still exists while its files are closed: the kernel waits for the answer to each FLUSH. Meanwhile
proc_pid_stat(5) says that it is exiting (field 9, PF_EXITING) and of what (field 52, as in wait(2)). PF_SIGNALED would
say less: threads have it too when another one has called exit_group(2). Field 52 is shown to who may trace the process,
so this is for a privileged reader; to others nobody is ever killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from csi.handover.wire import Answer, Question

_EXITING: Final = 0x4
_SIGNAL: Final = 0x7F
_ENDED: Final = ("Z", "X")
_REMEMBERED: Final = 4096
_LINE: Final = 4096


@dataclass(frozen=True, slots=True)
class _Status:
    """`started` in clock ticks since the machine was started: with the pid it names one process for ever."""

    state: str
    flags: int
    threads: int
    started: int
    exit_code: int

    @property
    def dies_of_signal(self) -> bool:
        """Not when it is over with it, and only waits for its parent: then it closes no files any more."""
        over = self.state in _ENDED and self.threads <= 1
        return bool(self.flags & _EXITING) and bool(self.exit_code & _SIGNAL) and not over


def is_ending(process: int, started: int, proc: Path = Path("/proc")) -> bool | None:
    """Whether that process is exiting, for whatever reason: that much is shown to all who see it. None if it is not
    seen from here."""
    status = _status(proc, process)
    return None if status is None or status.started != started else bool(status.flags & _EXITING)


def is_shown_ending(descriptor: int, started: int) -> bool | None:
    """The same of who has a descriptor from `open_status`."""
    status = _parsed(os.pread(descriptor, _LINE, 0))
    return None if status is None or status.started != started else bool(status.flags & _EXITING)


def open_status(process: int, started: int, proc: Path = Path("/proc")) -> int | None:
    """A descriptor of the status of that process, and never of another that gets its number; None if it is gone."""
    try:
        descriptor = os.open(f"{proc}/{process}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if is_shown_ending(descriptor, started) is not None:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


class Answerer:
    """Tells nothing about processes for which `may_tell` is False. For one thread.

    `may_tell` cannot always know a process that is exiting (cgroup v1 shows it as one of no group), so that those that
    were told of while they lived are remembered, as many as `_REMEMBERED`.
    """

    def __init__(self, may_tell: Callable[[int], bool], proc: Path = Path("/proc")) -> None:
        self._may_tell = may_tell
        self._proc = proc
        self._told_of: dict[tuple[int, int], None] = {}

    def answer(self, question: Question) -> Answer:
        if not question.pid:
            return Answer(question.serial, killed=self.any_is_killed())
        if question.inode:
            return Answer(question.serial, holds=self.holds(question.pid, question.started, question.inode))
        if question.started:
            return Answer(question.serial, killed=self.is_killed(question.pid, question.started))
        return Answer(question.serial, *(self.process_of(question.pid) or (0, 0)))

    def process_of(self, thread: int) -> tuple[int, int] | None:
        """The process that `thread` belongs to and when it was started; None when there is none."""
        try:
            if not self._may_tell(thread):
                return None
            text = (self._proc / str(thread) / "status").read_text(encoding="ascii", errors="replace")
            process = int(text.partition("\nTgid:")[2].split(None, 1)[0])
        except (OSError, ValueError, IndexError):
            return None
        status = self._status(process)
        if status is None:
            return None
        told = (process, status.started)
        self._told_of.pop(told, None)
        self._told_of[told] = None  # the last one now
        if len(self._told_of) > _REMEMBERED:
            del self._told_of[next(iter(self._told_of))]
        return told

    def is_killed(self, process: int, started: int) -> bool:
        """Whether `process`, if it is still the one that was started then, is ending by a signal now."""
        status = self._status(process)
        if status is None or status.started != started or not status.dies_of_signal:
            return False
        return self._is_told_of(process, started)

    def holds(self, process: int, started: int, inode: int) -> bool:
        """Whether `process`, if it is still the one that was started then, has a file of this number open for writing.
        Files of other mounts may have the same number."""
        status = self._status(process)
        if status is None or status.started != started or not self._is_told_of(process, started):
            return False
        descriptors = self._proc / str(process) / "fdinfo"
        try:
            return any(_writes(descriptors / name, inode) for name in os.listdir(descriptors))
        except OSError:
            return False

    def any_is_killed(self) -> bool:
        """Whether any process is."""
        for name in os.listdir(self._proc):
            if name.isdigit():
                status = self._status(int(name))
                if status is not None and status.dies_of_signal and self._may_be_told(int(name)):
                    return True
        return False

    def _is_told_of(self, process: int, started: int) -> bool:
        """Here, or perhaps by a node plugin before this one."""
        return (process, started) in self._told_of or self._may_be_told(process)

    def _may_be_told(self, process: int) -> bool:
        try:
            return self._may_tell(process)
        except OSError:
            return False

    def _status(self, process: int) -> _Status | None:
        return _status(self._proc, process)


def _status(proc: Path, process: int) -> _Status | None:
    try:
        return _parsed(_read(f"{proc}/{process}/stat"))
    except OSError:
        return None


def _parsed(text: bytes) -> _Status | None:
    try:
        fields = text.rpartition(b")")[2].split()  # from the third on: the second may hold anything
        return _Status(fields[0].decode(), int(fields[6]), int(fields[17]), int(fields[19]), int(fields[49]))
    except (ValueError, IndexError):
        return None


def _read(path: str) -> bytes:
    """A line of /proc, without the file objects that take longer than the kernel does: every close of a file that was
    written asks for one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _LINE)
    finally:
        os.close(descriptor)


def _writes(descriptor: Path, inode: int) -> bool:
    """Whether this entry of /proc/<pid>/fdinfo is of a file `inode` that may be written (proc_pid_fdinfo(5))."""
    try:
        fields = dict(line.split(":", 1) for line in descriptor.read_text(encoding="ascii").splitlines() if ":" in line)
        return int(fields["ino"]) == inode and int(fields["flags"], 8) & os.O_ACCMODE != os.O_RDONLY
    except (OSError, ValueError, KeyError):  # closed meanwhile; before Linux 5.14 there is no ino
        return False
