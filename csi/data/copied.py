"""Parts that were copied inside OSS, and what that means for the checksum of the object they become part of.

OSS tells no checksum of a copied part. But when a run of parts is the whole of another object, its checksum is that of
the run; of less than a whole object nothing is known, and then the new object has none to compare with either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from csi.errors import OssFuseError
from csi.oss.checksum import EMPTY, combine
from csi.oss.store import ObjectStore, ObjectVersion
from csi.volume.units import Crc64


@dataclass(slots=True)
class CopiedRun:
    """Parts `first` to `last` are the bytes from `start` to `end` of `source`, whose checksum is `crc64` if known."""

    source: ObjectVersion
    first: int
    last: int
    start: int
    end: int
    crc64: Crc64 | None = None

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.end == self.source.size

    def goes_on(self, source: ObjectVersion, number: int, offset: int) -> bool:
        return self.source == source and self.last + 1 == number and self.end == offset


def checksum_of(
    written: Sequence[tuple[int, int, Crc64]],
    copied: Sequence[CopiedRun],
    ask: Callable[[ObjectVersion], Crc64 | None],
) -> Crc64 | None:
    """The checksum of an object of `written` parts (number, size, checksum) and `copied` ones; None if it cannot be
    known. `ask` is called for a copied object whose checksum is not known."""
    if not all(run.is_whole for run in copied):
        return None
    pieces = list(written)
    for run in copied:
        crc = run.crc64 if run.crc64 is not None else ask(run.source)
        if crc is None:
            return None
        pieces.append((run.first, run.end, crc))
    whole = EMPTY
    for _, size, crc in sorted(pieces):
        whole = combine(whole, crc, size)
    return whole


def checksum_in(store: ObjectStore, version: ObjectVersion) -> Crc64 | None:
    """What OSS keeps as the checksum of `version`; None if that is gone, or OSS does not answer. Never raises."""
    try:
        found = store.head(version.key)
    except OssFuseError:
        return None
    return found.crc64 if (found.etag, found.size) == (version.etag, version.size) else None
