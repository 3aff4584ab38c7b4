"""Headers of safetensors files, good and bad."""

from __future__ import annotations

import json
import struct

import pytest

from csi.errors import CheckpointMalformed, InvalidOperation
from csi.torch.tensor_header import Header, TensorEntry, encode_header, read_header

ENTRIES = {"a": TensorEntry("F32", (2, 2), 0, 16), "ü": TensorEntry("U8", (3,), 16, 19)}


def read(file: bytes, first: int = 1 << 16) -> Header:
    def fetch(offset: int, target: memoryview) -> None:
        target[:] = file[offset : offset + len(target)]

    return read_header(fetch, len(file), "oss://b/k", first=first)


def made(document: object, body: bytes = b"") -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize("first", [8, 20, 1 << 16])
def test_what_was_encoded_is_read(first: int) -> None:
    file = encode_header(ENTRIES, {"format": "pt"}) + bytes(19)
    header = read(file, first)
    assert header.entries == ENTRIES
    assert header.metadata == {"format": "pt"}
    assert header.begin % 8 == 0
    assert len(file) - header.begin == 19


ONE = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        made(b"not json"),
        made(b"\xff\xfe"),
        made([]),
        made({"a": 1}),
        made({"a": {**ONE, "shape": "x"}}, b"ab"),
        made({"a": {**ONE, "data_offsets": [0]}}, b"ab"),
        made({"a": {**ONE, "data_offsets": [-1, 1]}}, b"ab"),
        made({"a": {**ONE, "data_offsets": [2, 0]}}, b"ab"),
        made({"a": ONE}, b"a"),
        made({"a": ONE}, b"abc"),
        made({"a": ONE, "b": ONE}, b"ab"),
        made({"__metadata__": [1]}),
    ],
    ids=range(16),
)
def test_what_is_no_header_is_refused_by_name(file: bytes) -> None:
    with pytest.raises(CheckpointMalformed, match="oss://b/k"):
        read(file)


def test_metadata_that_is_not_text_is_refused() -> None:
    with pytest.raises(InvalidOperation, match="metadata"):
        encode_header(ENTRIES, {"step": 3})  # type: ignore[dict-item]


def test_a_tensor_cannot_be_named_as_the_metadata() -> None:
    with pytest.raises(InvalidOperation, match="__metadata__"):
        encode_header({"__metadata__": ENTRIES["a"]}, None)
