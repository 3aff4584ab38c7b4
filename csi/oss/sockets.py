"""What libcurl has open for one easy handle, told by its callbacks: so that another thread can end an exchange, and a
connection can be spoken on directly.

The handle holds this and not its `Connection`, which therefore ends with the last who uses it, and not as garbage.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pycurl

from csi.oss.direct import DirectLine
from csi.oss.exchange import USER_AGENT


class Sockets:
    """`_lock` guards `_open`, `is_interrupted` and `is_cut`; it is held only for system calls that do not wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[int] = set()
        self.is_interrupted = False
        self.is_cut = False
        self.line: DirectLine | None = None

    def opened(self, descriptor: int, _purpose: int) -> int:
        with self._lock:
            if self.is_interrupted or self.is_cut:
                return int(pycurl.SOCKOPT_ERROR)
            self._open.add(descriptor)
        return int(pycurl.SOCKOPT_OK)

    def closed(self, descriptor: int) -> int:
        with self._lock:
            self._open.discard(descriptor)
            os.close(descriptor)
        if self.line is not None:  # one connection at a time
            self.line.close()
            self.line = None
        return 0

    def interrupt(self) -> None:
        with self._lock:
            self.is_interrupted = True
            self._shut()

    def cut(self) -> None:
        with self._lock:
            self.is_cut = True
            self._shut()

    def take_line(self, endpoint: str) -> None:
        """Nothing without a descriptor to spare: a line is only quicker."""
        with self._lock, contextlib.suppress(OSError):
            if self.line is None and len(self._open) == 1 and not self.is_interrupted:
                self.line = DirectLine(next(iter(self._open)), endpoint, USER_AGENT)

    def _shut(self) -> None:
        for descriptor in self._open:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)
