"""The header of a safetensors file: its length in eight bytes, then a JSON object of names, types, shapes and places.

A header is believed only if it is one: every tensor lies in the file, none overlaps another, no byte is left over, as
the format demands. Knows nothing of torch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeGuard

from csi.errors import CheckpointMalformed, InvalidOperation

LONGEST: Final = 100_000_000
"""Bytes, as the library has it."""
_PREFIX: Final = 8


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """`start` and `end` count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """`begin`: where in the file the bytes of the tensors begin."""

    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    begin: int


def read_header(fetch: Callable[[int, memoryview], None], size: int, name: str, *, first: int) -> Header:
    """The header of a file of `size` bytes, whose first `first` bytes are fetched together; raises CheckpointMalformed
    that calls it `name`."""
    if size < _PREFIX:
        raise CheckpointMalformed(f"{name} is no safetensors file: it has {size} bytes")
    begun = memoryview(bytearray(min(first, size)))
    fetch(0, begun)
    (length,) = struct.unpack_from("<Q", begun)
    if length > min(LONGEST, size - _PREFIX):
        raise CheckpointMalformed(f"{name} is no safetensors file: a header of {length} bytes in {size}")
    text = bytearray(length)
    have = min(length, len(begun) - _PREFIX)
    text[:have] = begun[_PREFIX : _PREFIX + have]
    if have < length:
        fetch(_PREFIX + have, memoryview(text)[have:])
    begin = _PREFIX + length
    entries, metadata = _parse(bytes(text), name)
    _check_places(entries, size - begin, name)
    return Header(entries, metadata, begin)


def encode_header(entries: Mapping[str, TensorEntry], metadata: Mapping[str, str] | None) -> bytes:
    """The header with its length, padded so that the first tensor is aligned. Raises InvalidOperation."""
    document: dict[str, object] = {}
    if metadata:
        if not all(isinstance(key, str) and isinstance(value, str) for key, value in metadata.items()):
            raise InvalidOperation("metadata of safetensors is text: keys and values have to be str")
        document["__metadata__"] = dict(metadata)
    for name, entry in entries.items():
        if name == "__metadata__":
            raise InvalidOperation("a tensor cannot be named '__metadata__' in safetensors")
        document[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [entry.start, entry.end]}
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _PREFIX)
    return struct.pack("<Q", len(text)) + text


def _parse(text: bytes, name: str) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    try:
        document = json.loads(text.decode())
    except ValueError as error:
        raise CheckpointMalformed(f"{name} is no safetensors file: its header is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise CheckpointMalformed(f"{name} is no safetensors file: its header is not a JSON object")
    metadata = document.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise CheckpointMalformed(f"{name}: its metadata is not a JSON object")
    entries = {key: _entry(value, key, name) for key, value in document.items()}
    return entries, {str(key): str(value) for key, value in metadata.items()}


def _entry(value: object, key: str, name: str) -> TensorEntry:
    if isinstance(value, dict):
        dtype, shape, places = value.get("dtype"), value.get("shape"), value.get("data_offsets")
        if isinstance(dtype, str) and _are_counts(shape) and _are_counts(places) and len(places) == 2:
            return TensorEntry(dtype, tuple(shape), places[0], places[1])
    raise CheckpointMalformed(f"{name}: the header does not say what tensor {key!r} is")


def _are_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(isinstance(each, int) and each >= 0 for each in value)


def _check_places(entries: Mapping[str, TensorEntry], size: int, name: str) -> None:
    position = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != position or entry.end < entry.start:
            raise CheckpointMalformed(f"{name}: the tensors overlap or leave bytes out at {position}")
        position = entry.end
    if position != size:
        raise CheckpointMalformed(
            f"{name}: the tensors have {position} bytes, the file {size}", hint="it was truncated, or is another file"
        )
