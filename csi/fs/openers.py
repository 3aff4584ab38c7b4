"""Programs that open files for writing: whether one is being killed while the kernel closes its files for it.

A killed program closes nothing, the kernel does, and its close looks like any other. What was written by then is half a
file, and must not become an object. Who can tell is passed in; here is only what is asked.
"""

from __future__ import annotations

from typing import Protocol


class Opener(Protocol):
    """The program of one open(2). All of these may wait some seconds, and are False whenever it is not sure."""

    def identify(self) -> None:
        """Find out which program it is; called before the open is answered, so that it waits and cannot be gone."""

    def is_killed(self) -> bool:
        """Whether it is ending by a signal, and still closes its files."""

    def holds(self, inode: int) -> bool:
        """Whether it still has the file open for writing, by another descriptor than the one being closed."""

    def sharer_is_killed(self) -> bool:
        """The same of any program that may have inherited the descriptor."""


class Openers(Protocol):
    def opener(self, pid: int) -> Opener | None:
        """The program of thread `pid`, which is opening a file now; None when nothing can be told. Never waits."""
