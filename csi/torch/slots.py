"""A sample between who wants it and who fetches it, and what it is once it is there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from csi.errors import ManifestMalformed, OssFuseError
from csi.oss.store import ObjectVersion
from csi.torch.archives import member_at
from csi.torch.catalogue import Entry
from csi.torch.lines import Post
from csi.volume.units import Bytes

if TYPE_CHECKING:
    from csi.oss.parcels import Parcel


class Fetched(NamedTuple):
    """A sample of `size` bytes, called `name`. `data` None: too large to be held, it is to be read by ranges of
    `version`, in which it begins at `start`."""

    version: ObjectVersion
    data: bytes | bytearray | None
    name: str
    size: int
    start: int = 0


class Slot:
    """A sample on its way. `wait` returns once `fetched` or `error` is there; it may be called once.

    With a `parcel`, `gate` is opened only if the bytes have to be got in the ordinary way.
    """

    __slots__ = ("charge", "entry", "error", "fetched", "gate", "parcel", "post", "unwanted")

    def __init__(self, entry: Entry, charge: int) -> None:
        self.entry = entry
        self.charge = charge
        self.fetched: Fetched | None = None
        self.error: OssFuseError | None = None
        self.unwanted = False
        self.post: Post | None = None
        self.parcel: Parcel | None = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def wait(self) -> None:
        if self.post is not None and self.parcel is not None:
            data = self.post.parcels.wait(self.parcel)
            self.parcel = None
            if data is not None:
                entry = self.entry
                self.fetched = Fetched(version_of(entry), data, entry.key, entry.size)
                return
        self.gate.acquire()

    def give_up(self) -> None:
        """Nobody will wait for it."""
        self.unwanted = True
        if self.post is not None and self.parcel is not None:
            self.post.forget(self.parcel)


def version_of(entry: Entry) -> ObjectVersion:
    """The version of the object that a sample of known size is in."""
    return ObjectVersion(entry.key, entry.etag, Bytes(entry.whole if entry.offset >= 0 else entry.size))


def member_of(entry: Entry, version: ObjectVersion, data: bytearray) -> Fetched:
    """A member of an archive, of which `data` begins with the header."""
    name, start, size = member_at(data, f"oss://{entry.place.bucket}/{entry.key}")
    if start + size > entry.size:
        raise ManifestMalformed(
            f"oss://{entry.place.bucket}/{entry.key}: member {name!r} at byte {entry.offset} is longer than indexed",
            path=entry.key,
            hint="make the index again: generate_tar_archive(..., index_only=True)",
        )
    if start + size > len(data):
        return Fetched(version, None, name, size, entry.offset + start)
    del data[start + size :]
    del data[:start]
    return Fetched(version, data, name, size)
