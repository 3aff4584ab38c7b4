"""Digests in C are those of Python, whatever the length of what is digested."""

from __future__ import annotations

import hashlib
import hmac
import random

import fastcrc
import pytest

from csi.oss.digests import authenticated, checksum, hashed

LENGTHS = [*range(131), 191, 192, 193, 255, 256, 257, 4095, 4096, 4097, 102_400, 102_401]
NAMES = {1: "sha1", 256: "sha256"}


def data(length: int) -> bytes:
    return random.Random(length).randbytes(length)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_hash_is_that_of_hashlib(kind: int, length: int) -> None:
    assert hashed(kind, data(length)) == hashlib.new(NAMES[kind], data(length)).digest()


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("key", [0, 1, 20, 63, 64, 65, 200])
@pytest.mark.parametrize("length", [0, 1, 63, 64, 300])
def test_a_keyed_hash_is_that_of_hmac(kind: int, key: int, length: int) -> None:
    assert authenticated(kind, data(key), data(length)) == hmac.digest(data(key), data(length), NAMES[kind])


@pytest.mark.parametrize("length", LENGTHS)
def test_a_checksum_is_that_of_oss(length: int) -> None:
    assert checksum(data(length)) == fastcrc.crc64.xz(data(length))


def test_the_checksum_of_the_catalogue() -> None:
    assert checksum(b"123456789") == 0x995DC9BBDF1939FA
