"""Entries that are whole files of the disk: what the kernel may read by itself, past this process.

The kernel checks no CRC, so a file is handed out only after all of it was looked at once, in pieces, when the cache's
thread has nothing else to do. Whoever asks earlier is told no, and makes an ordinary open.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass

from csi.data.disk.entries import Corrupt, Entries, Scratch, State
from csi.data.disk.files import Files
from csi.data.disk.naming import EntryName
from csi.volume.units import MIB

_REMEMBERED = 4096
_WAITING = 64
_PIECE = 2 * MIB


@dataclass(slots=True)
class _Check:
    """An entry that is being looked at, as far as `position`."""

    name: EntryName
    size: int
    descriptor: int
    state: State
    position: int = 0


class WholeFiles:
    """`open` from any thread, `step` and `close` by the cache's thread. `_lock` guards `_checked` and `_waiting`."""

    def __init__(self, files: Files, scratch: Scratch) -> None:
        self._files = files
        self._scratch = scratch
        self._lock = threading.Lock()
        self._checked: OrderedDict[str, State] = OrderedDict()  # by path
        self._waiting: deque[_Check] = deque()

    def __len__(self) -> int:
        """Entries still to be looked at."""
        return len(self._waiting)

    def open(self, entries: Entries, name: EntryName, size: int) -> int | None:
        """A descriptor of the file, the caller's own, if all of it was found whole; else it is looked at soon."""
        found = entries.open_file(name, size)
        if found is None:
            return None
        descriptor, state = found
        with self._lock:
            if self._checked.get(name.path) == state:
                self._checked.move_to_end(name.path)
                return descriptor
            if len(self._waiting) < _WAITING and all(check.name != name for check in self._waiting):
                self._waiting.append(_Check(name, size, descriptor, state))
                return None
        self._files.close(descriptor)
        return None

    def step(self, entries: Entries) -> EntryName | None:
        """Look at the next piece of the first that waits; the name of an entry that is not what was written."""
        with self._lock:
            check = self._waiting[0]
        wrong = None
        try:
            if self._advance(entries, check):
                return None
        except Corrupt:
            wrong = check.name
        except OSError:
            self._end(check)
            raise
        self._end(check)
        return wrong

    def close(self) -> None:
        while self._waiting:
            self._end(self._waiting[0])

    def _advance(self, entries: Entries, check: _Check) -> bool:
        """Whether there is more to look at."""
        data = self._scratch(min(_PIECE, check.size - check.position))
        if data is None or not entries.check_piece(check.name, check.size, check.position, check.descriptor, data):
            return False
        check.position += len(data)
        if check.position < check.size:
            return True
        with self._lock:
            self._checked[check.name.path] = check.state
            while len(self._checked) > _REMEMBERED:
                self._checked.popitem(last=False)
        return False

    def _end(self, check: _Check) -> None:
        with self._lock:
            self._waiting.remove(check)
        self._files.close(check.descriptor)
