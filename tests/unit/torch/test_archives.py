"""Tar archives and their indexes."""

from __future__ import annotations

import base64
import io
import tarfile
from array import array
from collections.abc import Callable

import pytest

from csi.errors import ManifestMalformed
from csi.oss.store import ObjectVersion
from csi.torch.archives import BLOCK, TarSamples, decode_index, encode_index, member_at
from csi.torch.uri import Place
from csi.volume.units import Bytes, ETag, ObjectKey

THEIRS = base64.b64decode("VGFySWR4AAABAAEGAAAAAAAAAAARAAAAAAAAAAQAAAAAAAAAeuRFvw==")
"""The beginning of what osstorchconnector 1.2.3 made of three files of 600, 900 and 300 bytes."""
THEIR_BODY = bytes.fromhex("789c636060606086622620060000540009")


def theirs() -> bytes:
    return encode_index([0, 1536, 3072], 5120 - 1024)


def test_the_index_is_that_of_the_original() -> None:
    made = theirs()
    assert made[: len(THEIRS)] == THEIRS
    assert made[BLOCK:] == THEIR_BODY
    assert decode_index(made, "index") == array("Q", [0, 3, 6, 8])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda index: b"", "does not begin like one"),
        (lambda index: index[:-1], "cut off or damaged"),
        (lambda index: b"x" + index[1:], "does not begin like one"),
        (lambda index: index[:16] + b"\1" + index[17:], "header is damaged"),
        (lambda index: index[:-3] + b"abc", "cut off or damaged"),
    ],
)
def test_a_damaged_index_is_told(damage: Callable[[bytes], bytes], reason: str) -> None:
    index = encode_index(list(range(0, 512 * 999, 512)), 512 * 999)
    with pytest.raises(ManifestMalformed, match=reason):
        decode_index(damage(index), "oss://bucket/index")


def test_an_index_of_another_archive_is_told() -> None:
    archive = ObjectVersion(ObjectKey("a.tar"), ETag(""), Bytes(1024))
    with pytest.raises(ManifestMalformed, match=r"byte 4096 of oss://bucket/a\.tar, which has 1024"):
        TarSamples(Place("bucket"), archive, decode_index(theirs(), "index"))


def archive_of(name: str, format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        member = tarfile.TarInfo(name)
        member.size = 5
        archive.addfile(member, io.BytesIO(b"hello"))
    return buffer.getvalue()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["a.jpg", "n" * 90 + "/" + "m" * 60, "ünï/码.jpg"])
def test_a_member_is_found_in_every_format(name: str, format: int) -> None:
    data = archive_of(name, format)
    found, start, size = member_at(data, "oss://bucket/a.tar")
    assert (found, data[start : start + size]) == (name, b"hello")


@pytest.mark.parametrize("data", [bytes(1024), b"no archive" * 100, b""])
def test_what_is_no_member_is_told(data: bytes) -> None:
    with pytest.raises(ManifestMalformed, match="no member where the index has one"):
        member_at(data, "oss://bucket/a.tar")
