"""Tails of writers in Python, and who puts writes there as a kernel session of our own does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from csi.oss.store import Buffer
from csi.volume.units import FileHandle


class HandTails:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.shown: dict[FileHandle, HandTail] = {}
        self.puts = 0

    def make(self) -> HandTail:
        return HandTail(self)

    def put(self, handle: FileHandle, offset: int, data: Buffer) -> bool:
        """Whether a write was answered without the filesystem."""
        tail = self.shown.get(handle)
        done = tail is not None and tail.put(offset, bytes(data))
        self.puts += done
        return done


class HandTail:
    """Implements `csi.data.streams.Tail`."""

    def __init__(self, tails: HandTails) -> None:
        self.position = 0
        self.written_ns = 0
        self.handle: FileHandle | None = None
        self._tails = tails
        self._lock = threading.Lock()
        self._room: list[memoryview] = []

    @property
    def room(self) -> int:
        return sum(map(len, self._room))

    def lend(self, position: int, room: list[memoryview]) -> None:
        assert all(room), "an empty memory is lent"
        with self._lock:
            self.position, self._room = position, list(room)

    def recall(self) -> int:
        with self._lock:
            self._room = []
            return self.position

    def show(self, handle: FileHandle) -> None:
        assert handle not in self._tails.shown, "two tails of one handle"
        self._tails.shown.pop(self.handle or handle, None)
        self.handle = handle
        self._tails.shown[handle] = self

    def hide(self) -> None:
        self._room = []
        if self.handle is not None:
            self._tails.shown.pop(self.handle, None)
            self.handle = None

    def put(self, offset: int, data: bytes) -> bool:
        with self._lock:
            if offset != self.position or not 0 < len(data) <= self.room:
                return False
            self.position += len(data)
            self.written_ns = int(self._tails.clock() * 1e9)
            while data:
                place = self._room[0]
                count = min(len(place), len(data))
                place[:count] = data[:count]
                data = data[count:]
                self._room = [memory for memory in (place[count:], *self._room[1:]) if memory]
            return True
