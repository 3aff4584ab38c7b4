"""A disk that fails: left alone for a while, tried again, and told of once until it works.

A disk that is full or read-only can still be read; after any other failure it is not. Who calls must see to it that
`note` and `over` are not called at once by two threads; the rest may be asked by any.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from csi.volume.units import Seconds

log = logging.getLogger(__name__)

_PAUSE = Seconds(300.0)
"""How long a disk that failed is left alone."""
_READABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Trouble:
    def __init__(self, path: str, clock: Callable[[], float]) -> None:
        """`path` is for the log."""
        self._path = path
        self._clock = clock
        self._until = 0.0
        self._told = False
        self.text = ""
        """What it is, '' when there is none."""
        self.blind = False
        """Reading is of no use either."""
        self.count = 0

    @property
    def pausing(self) -> bool:
        return bool(self.text) and self._clock() < self._until

    def note(self, doing: str, error: OSError) -> None:
        """The disk failed in this way just now."""
        why = error.strerror or str(error)
        self.count += 1
        self.blind = self.blind or error.errno not in _READABLE
        self._until = self._clock() + _PAUSE
        self.text = f"{doing}: {why}"
        if not self._told:
            self._told = True
            log.warning("disk cache in %s: %s; it is not used for now, OSS is", self._path, self.text)

    def over(self) -> None:
        """It can be opened again; whether it works is seen when something is written."""
        self.text = ""
        self.blind = False

    def works(self) -> None:
        """Something was written."""
        if self._told and not self.text:
            self._told = False
            log.info("disk cache in %s: it is used again", self._path)
