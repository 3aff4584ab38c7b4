"""Tar archives as data sets: many small samples in one large object, found by an index of where each begins.

The index is that of the original connector, so that either reads what the other made: a header of 512 bytes and,
compressed, the distance of each member from the one before in blocks of 512 bytes, the last one leading to the end.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from array import array
from collections.abc import Sequence
from typing import Final

import fastcrc

from csi.errors import ManifestMalformed
from csi.oss.store import Buffer, ObjectVersion
from csi.torch.catalogue import Entry
from csi.torch.uri import Place
from csi.volume.units import KIB, MIB

BLOCK: Final = 512
HEADERS: Final = 16 * KIB
"""Where a member of a large archive is looked for: its header, and those that hold a long name before it."""

SPAN: Final = 2 * MIB
"""Neighbours are fetched together up to this."""

_MAGIC: Final = b"TarIdx\0\0"
_HEADER: Final = struct.Struct("<8sHBBQQQI")
_VERSION: Final = (1, 1, 6)
_LARGEST: Final = 1 << 30
_CHECKSUM: Final = slice(148, 156)
_SIZE: Final = slice(124, 136)
_KIND: Final = 156
_PREFIX: Final = 345


def encode_index(starts: Sequence[int], end: int) -> bytes:
    """The index of members that begin at `starts` (bytes) in an archive whose last one ends at `end`."""
    places = [*starts, end]
    distances = array("I", [(place - before) // BLOCK for before, place in zip([0, *places], places, strict=False)])
    body = zlib.compress(distances.tobytes())
    header = _HEADER.pack(_MAGIC, *_VERSION, 0, len(body), len(distances), _crc(body)).ljust(BLOCK, b"\0")
    return header[:-4] + _crc(header).to_bytes(4, "little") + body


def decode_index(data: Buffer, path: str) -> array[int]:
    """Where the members begin, in blocks, and after the last of them where it ends.

    Raises ManifestMalformed for what is not an index, or not all of one.
    """
    if len(data) < BLOCK or bytes(data[:8]) != _MAGIC:
        raise _malformed(path, "it does not begin like one")
    _, version, _, _, _, size, count, crc = _HEADER.unpack_from(data)
    if _crc(bytes(data[: BLOCK - 4]) + bytes(4)) != int.from_bytes(data[BLOCK - 4 : BLOCK], "little"):
        raise _malformed(path, "its header is damaged")
    if version != _VERSION[0]:
        raise _malformed(path, f"its version is {version}, expected {_VERSION[0]}")
    body = bytes(data[BLOCK : BLOCK + size])
    if len(body) != size or _crc(body) != crc or not 0 < count <= _LARGEST:
        raise _malformed(path, "it is cut off or damaged")
    unpacked = zlib.decompressobj()
    try:
        distances = array("I", unpacked.decompress(body, 4 * count))
    except (zlib.error, ValueError):
        raise _malformed(path, "it is damaged") from None
    if len(distances) != count or unpacked.unconsumed_tail:
        raise _malformed(path, f"it has not the {count} places it claims to have")
    places, place = array("Q"), 0
    for distance in distances:
        place += distance
        places.append(place)
    return places


class TarSamples(Sequence[Entry]):
    """The members of an archive, labelled by their numbers."""

    def __init__(self, place: Place, archive: ObjectVersion, places: array[int]) -> None:
        if places[-1] * BLOCK > archive.size:
            raise ManifestMalformed(
                f"the index leads to byte {places[-1] * BLOCK} of oss://{place.bucket}/{archive.key}, which has "
                f"{archive.size}",
                hint="make the index of this archive: generate_tar_archive(..., index_only=True)",
            )
        self._place = place
        self._archive = archive
        self._places = places

    def __len__(self) -> int:
        return len(self._places) - 1

    @property
    def neighbours(self) -> int:
        """How many members, about, come by one request of `SPAN` bytes."""
        return max(1, SPAN // BLOCK * len(self) // max(1, self._places[-1] - self._places[0]))

    def __getitem__(self, index: int) -> Entry:  # type: ignore[override] # nobody slices samples
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"sample {index} of a data set of {count}")
        number = index % count
        start, end = self._places[number], self._places[number + 1]
        archive = self._archive
        offset, size = start * BLOCK, (end - start) * BLOCK
        return Entry(self._place, archive.key, size, archive.etag, str(number), offset, archive.size)


def member_at(data: Buffer, archive: str) -> tuple[str, int, int]:
    """Name, start and size of the first member in `data`, which begins with a header of the archive.

    Raises ManifestMalformed when it does not.
    """
    header = bytes(data[:BLOCK])
    if len(header) == BLOCK and header[_KIND : _KIND + 1] in (b"0", b"\0") and not header[_PREFIX]:
        size, told = _octal(header[_SIZE]), _octal(header[_CHECKSUM])
        if size is not None and told == sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" "):
            return header[:100].partition(b"\0")[0].decode("utf-8", "surrogateescape"), BLOCK, size
    try:
        with tarfile.open(fileobj=io.BytesIO(data[:HEADERS]), mode="r:", errors="surrogateescape") as opened:
            found = opened.next()
    except (tarfile.TarError, ValueError) as error:
        raise _no_member(archive, str(error)) from None
    if found is None or not found.isreg():
        raise _no_member(archive, "there is no regular file")
    return found.name, found.offset_data, found.size


def _octal(field: bytes) -> int | None:
    text = field.strip(b" \0")
    try:
        return int(text, 8) if text.isdigit() else None
    except ValueError:
        return None


def _crc(data: bytes) -> int:
    """CRC-32C that begins with zero and is not inverted at the end, as the original has it."""
    return fastcrc.crc32.iscsi(data, 0xFFFFFFFF) ^ 0xFFFFFFFF


def _malformed(path: str, reason: str) -> ManifestMalformed:
    return ManifestMalformed(
        f"{path} is not the index of a tar archive: {reason}",
        path=path,
        hint="make it: generate_tar_archive(..., index_only=True)",
    )


def _no_member(archive: str, reason: str) -> ManifestMalformed:
    return ManifestMalformed(
        f"{archive}: no member where the index has one: {reason}",
        path=archive,
        hint="the index is of another archive; make it again: generate_tar_archive(..., index_only=True)",
    )
