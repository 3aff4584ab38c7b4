"""CRC-64/XZ of joined bodies from the CRCs of their pieces, so that completing an upload reads nothing again.

OSS calls this checksum crc64ecma (ECMA-182 polynomial, reflected, initial and final value all ones). The combination
is arithmetic on polynomials over GF(2): appending n bytes multiplies the first CRC by x^(8n).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

_POLYNOMIAL = 0xC96C5795D7870F42
_ONE = 1 << 63
_X = 1 << 62


def combine(first: int, second: int, second_size: int) -> int:
    """The CRC of two bodies joined; `second_size` in bytes."""
    if second_size == 0:
        return first
    return _multiply(_shift_by(second_size), first) ^ second


def combine_all(pieces: Iterable[tuple[int, int]]) -> int:
    """The CRC of all bodies joined, given (crc, size in bytes) of each in order."""
    total = 0
    for crc, size in pieces:
        total = combine(total, crc, size)
    return total


def _multiply(a: int, b: int) -> int:
    product = 0
    bit = _ONE
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


@lru_cache(maxsize=64)  # parts of one upload share a size
def _shift_by(size: int) -> int:
    """x^(8 × size) modulo the polynomial."""
    result = _ONE
    power = _X
    exponent = size * 8
    while exponent:
        if exponent & 1:
            result = _multiply(power, result)
        power = _multiply(power, power)
        exponent >>= 1
    return result
