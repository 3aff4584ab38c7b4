"""Names that were not there when they were last asked for, or that this mount removed.

Each with the serial of the request (or of our change), which tells answers that are older, and its time.
"""

from __future__ import annotations

from collections import OrderedDict

from csi.fs.nodes import NEVER, Node

MOST = 20_000
"""Names remembered; the one not asked for longest is dropped. Dropping one costs a request, never a wrong answer."""


class Absences:
    """Not locked: its user holds `InodeTable.lock`. Kept by directory, not by its number, which can be given again."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._names: OrderedDict[tuple[Node, bytes], tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._names)

    def note(self, directory: Node, name: bytes, asked: int, at: float) -> None:
        self._names[directory, name] = (asked, at)
        self._names.move_to_end((directory, name))
        if len(self._names) > self._most:
            self._names.popitem(last=False)

    def drop(self, directory: Node, name: bytes) -> None:
        self._names.pop((directory, name), None)

    def asked(self, directory: Node, name: bytes) -> int:
        """The serial at which the name was absent; 0 if it is not known to have been."""
        return self._names.get((directory, name), (0, NEVER))[0]

    def at(self, directory: Node, name: bytes) -> float:
        """The time of that."""
        return self._names.get((directory, name), (0, NEVER))[1]
