"""CRC64 as OSS computes it (`x-oss-hash-crc64ecma`, CRC-64/XZ), whole, piecewise, and combined from parts.

Promises that `combine(crc(a), crc(b), len(b)) == crc(a + b)` without looking at a byte, so that the checksum of a
multipart object is known from those of its parts. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import fastcrc

from csi.oss.store import Buffer
from csi.volume.units import Crc64

_POLYNOMIAL = 0xC96C5795D7870F42  # ECMA-182, reflected: bit 63 is the coefficient of x^0
_ONE = 1 << 63

EMPTY = Crc64(0)
"""The checksum of no bytes."""


def update(crc: Crc64, data: Buffer) -> Crc64:
    """The checksum of what `crc` covers followed by `data`. Releases the GIL while it computes."""
    return Crc64(fastcrc.crc64.xz(data, crc))


def crc64_of(buffers: Iterable[Buffer]) -> Crc64:
    """The checksum of the buffers one after another."""
    crc = EMPTY
    for data in buffers:
        crc = update(crc, data)
    return crc


def combine(first: Crc64, second: Crc64, second_length: int) -> Crc64:
    """The checksum of A followed by B, from the checksums of A and B and the length of B in bytes."""
    return Crc64(_multiply(_power_of_x(second_length), first) ^ second)


def _multiply(a: int, b: int) -> int:
    """a(x) · b(x) modulo the polynomial, in reflected bit order."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFF_FFFF_FFFF_FFFF
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


@lru_cache(maxsize=1024)  # the parts of an object have few distinct lengths
def _power_of_x(length: int) -> int:
    """x^(8 · length) modulo the polynomial: what appending `length` zero bytes does to a checksum."""
    result = _ONE
    square = _ONE >> 8
    while length:
        if length & 1:
            result = _multiply(square, result)
        square = _multiply(square, square)
        length >>= 1
    return result
