"""When this mount last changed a name in a directory, also after the directory was forgotten by the kernel.

Listings that were asked for ahead need it: one from before a change of our own must never be shown after it. Remembers
the last changes by key and is strict about what it no longer remembers.
"""

from __future__ import annotations

from collections import OrderedDict

MOST = 1_000
"""Directories remembered. Forgetting one makes every listing from before its change useless, never wrong."""


class RecentChanges:
    """Not locked: its user holds `InodeTable.lock`. Times are serials."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._last: OrderedDict[str, int] = OrderedDict()
        self._all = 0

    def note(self, prefix: str, serial: int) -> None:
        """A name in the directory whose keys begin with `prefix` was changed."""
        self._last[prefix] = serial
        self._last.move_to_end(prefix)
        if len(self._last) > self._most:
            self.note_all(self._last.popitem(last=False)[1])

    def note_all(self, serial: int) -> None:
        """Anything may have changed."""
        self._all = max(self._all, serial)

    def last(self, prefix: str) -> int:
        return max(self._last.get(prefix, 0), self._all)
