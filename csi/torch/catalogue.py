"""The samples of a data set, ten million of them in flat memory: a few large buffers instead of objects.

Buffers have no reference counts inside, so that processes forked later share them instead of copying them page by page.
A catalogue does not change once it is built. Knows no network.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from csi.errors import InvalidOption
from csi.torch.uri import Place
from csi.volume.units import ETag, ObjectKey

UNKNOWN: Final = -1
"""The size of an object that was named by somebody else than OSS."""

_ERRORS: Final = "surrogateescape"
_LONGEST_KEY: Final = (1 << 16) - 1
_LONGEST_ETAG: Final = (1 << 8) - 1


class Entry(NamedTuple):
    """One sample: an object, or with `offset` ≥ 0 a member of a tar archive of `whole` bytes, of which the `size` bytes
    from there on are its header and its content. `etag` '' is any version."""

    place: Place
    key: ObjectKey
    size: int = UNKNOWN
    etag: ETag = ETag("")
    label: str | int = ""
    offset: int = UNKNOWN
    whole: int = UNKNOWN


class Samples(Sequence[Entry]):
    """Entries by number, each made when it is asked for. Built by `add`.

    `_text` holds of each entry the lengths of its key and its ETag (2 and 1 bytes), both of them and the label.
    `_sizes` and `_places` stay empty while all are UNKNOWN, respectively the first place.
    """

    def __init__(self) -> None:
        self._text = bytearray()
        self._offsets = array("Q", [0])
        self._sizes = array("q")
        self._owners = array("H")
        self._places: list[Place] = []
        self._numbers: dict[Place, int] = {}

    def add(self, place: Place, key: str, size: int = UNKNOWN, etag: str = "", label: str | int = "") -> None:
        """Append an entry. Raises InvalidOption for what none can hold."""
        name, tag = key.encode("utf-8", _ERRORS), etag.encode("utf-8", _ERRORS)
        if len(name) > _LONGEST_KEY or len(tag) > _LONGEST_ETAG:
            raise InvalidOption("key", key, "a key of at most 1023 bytes")
        text = self._text
        text += len(name).to_bytes(2, "little")
        text.append(len(tag))
        text += name
        text += tag
        if label != "":
            text += _encoded(label)
        if size != UNKNOWN and not self._sizes:
            self._sizes.extend([UNKNOWN] * len(self))
        if size != UNKNOWN or self._sizes:
            self._sizes.append(size)
        self._own(place)
        self._offsets.append(len(text))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> Entry:  # type: ignore[override] # nobody slices samples
        count = len(self._offsets) - 1
        if not -count <= index < count:
            raise IndexError(f"sample {index} of a data set of {count}")
        if index < 0:
            index += count
        start, end = self._offsets[index], self._offsets[index + 1]
        record = self._text[start:end]
        key_end = 3 + record[0] + (record[1] << 8)
        tag_end = key_end + record[2]
        return Entry(
            self._places[self._owners[index] if self._owners else 0],
            ObjectKey(record[3:key_end].decode("utf-8", _ERRORS)),
            self._sizes[index] if self._sizes else UNKNOWN,
            ETag(record[key_end:tag_end].decode("utf-8", _ERRORS)),
            _decoded(record[tag_end:]) if tag_end < len(record) else "",
        )

    @property
    def memory(self) -> int:
        """Bytes the buffers take."""
        arrays = (self._offsets, self._sizes, self._owners)
        return len(self._text) + sum(each.itemsize * len(each) for each in arrays)

    def _own(self, place: Place) -> None:
        number = self._numbers.get(place)
        if number is None:
            number = self._numbers[place] = len(self._places)
            self._places.append(place)
            if number == 1:
                self._owners.extend([0] * len(self))
        if len(self._places) > 1:
            self._owners.append(number)


def _encoded(label: str | int) -> bytes:
    return b"#%d" % label if isinstance(label, int) else b"=" + label.encode("utf-8", _ERRORS)


def _decoded(text: bytearray) -> str | int:
    return int(text[1:]) if text[:1] == b"#" else text[1:].decode("utf-8", _ERRORS)
