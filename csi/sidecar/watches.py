"""Processes that the node plugin has told of, by descriptors of their status: whether one lives is seen, not asked.

A sidecar in a container sees no process of another one, but what it was handed. So the close of a file by a program
that goes on living costs no question, also while there is no node plugin. As many are kept as `_MOST`, those told of
last.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from csi.handover.fates import is_ending, is_shown_ending

_MOST: Final = 64


class Watches:
    """`_lock` guards all fields, and is held while a descriptor is read."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._descriptors: dict[tuple[int, int], int] = {}

    def keep(self, process: int, started: int, descriptor: int) -> None:
        """Of a process and when it was started; owns the descriptor from then on."""
        with self._lock:
            self._close(process, started)
            self._descriptors[process, started] = descriptor
            if len(self._descriptors) > self._most:
                self._close(*next(iter(self._descriptors)))

    def is_ending(self, process: int, started: int) -> bool | None:
        """Whether that process is exiting, for whatever reason; None when that is not to be seen from here."""
        with self._lock:
            descriptor = self._descriptors.get((process, started))
            if descriptor is not None:
                try:
                    return is_shown_ending(descriptor, started)
                except OSError:  # it is gone
                    self._close(process, started)
                    return None
        return is_ending(process, started)

    def close(self) -> None:
        with self._lock:
            for told_of in list(self._descriptors):
                self._close(*told_of)

    def _close(self, process: int, started: int) -> None:
        descriptor = self._descriptors.pop((process, started), None)
        if descriptor is not None:
            os.close(descriptor)
