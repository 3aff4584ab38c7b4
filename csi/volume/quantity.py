"""Kubernetes quantities (`10Gi`, `500m`, `1e3`), read exactly as Kubernetes reads them.

The rules are those of apimachinery's `resource.ParseQuantity`: decimal suffixes n u m k M G T P E, binary suffixes
Ki Mi Gi Ti Pi Ei, decimal exponents (`1e3`, `1E3`), no white space, anything finer than a billionth rounded away from
zero to a billionth, binary quantities capped at 2^63-1. It keeps to the published grammar where the implementation
is laxer by accident (`Gi`, `+` and `.` are zero to apimachinery, and a mistake here). Arithmetic is on integers, never
on floats. What a quantity is for (memory, CPU) is the caller's business; this module only says which number it is.
"""

from __future__ import annotations

import re
from decimal import Decimal

from csi.errors import InvalidOption
from csi.volume.units import Bytes

_GRAMMAR = re.compile(
    r"(?P<sign>[+-]?)(?=\.?[0-9])(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?"
    r"(?P<suffix>[numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?",
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_NANO = 10**9
_LARGEST = 2**63 - 1
_LONGEST_TEXT = 128
_LARGEST_EXPONENT = 64
_ACCEPTED = "a Kubernetes quantity such as 512Mi, 10Gi, 1.5G, 500m or 1e3"


def parse_quantity(text: str, *, key: str = "quantity") -> Decimal:
    """The exact value of `text`, a multiple of 10^-9.

    Raises InvalidOption naming `key` for what `resource.ParseQuantity` refuses, and for exponents so large that
    Kubernetes itself would overflow on them.
    """
    nanos = _nanos(key, text)
    return Decimal((int(nanos < 0), tuple(int(digit) for digit in str(abs(nanos))), -9))


def parse_bytes(key: str, text: str) -> Bytes:
    """A size in bytes; fractions of a byte are rounded up, as `Quantity.Value()` does.

    Raises InvalidOption for what is not a quantity, is negative, or does not fit 63 bits.
    """
    return Bytes(_scaled(key, text, _NANO, "a size in bytes, zero or more, such as 512Mi or 10Gi"))


def parse_millis(key: str, text: str) -> int:
    """An amount of CPU in thousandths of a core, rounded up, as `Quantity.MilliValue()` does.

    Raises InvalidOption for what is not a quantity, is negative, or does not fit 63 bits.
    """
    return _scaled(key, text, _NANO // 1000, "an amount of CPU, zero or more, such as 500m or 2")


def format_bytes(size: int) -> str:
    """The shortest exact quantity of `size` bytes: 1073741824 is `1Gi`, 1000 is `1000`."""
    for suffix, power in reversed(_BINARY.items()):
        if size and size % (1 << power) == 0:
            return f"{size >> power}{suffix}"
    return str(size)


def _scaled(key: str, text: str, unit: int, accepted: str) -> int:
    nanos = _nanos(key, text)
    if nanos < 0:
        raise InvalidOption(key, text, accepted)
    value = -(-nanos // unit)
    if value > _LARGEST:
        raise InvalidOption(key, text, f"{accepted}, below 2^63")
    return value


def _nanos(key: str, text: str) -> int:
    match = _GRAMMAR.fullmatch(text) if text and len(text) <= _LONGEST_TEXT else None
    if match is None:
        raise InvalidOption(key, text, _ACCEPTED, hint=_hint(text))
    fraction = match["fraction"] or ""
    mantissa = int(match["whole"] + fraction or "0")
    suffix = match["suffix"] or ""
    sign = -1 if match["sign"] == "-" else 1
    if suffix in _BINARY:
        return sign * min(_round_up(mantissa << _BINARY[suffix], 9 - len(fraction)), _LARGEST * _NANO)
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    if mantissa and exponent > _LARGEST_EXPONENT:
        raise InvalidOption(key, text, f"{_ACCEPTED}, below 2^63")
    return sign * _round_up(mantissa, exponent + 9 - len(fraction))


def _round_up(mantissa: int, power: int) -> int:
    """`mantissa` × 10^`power`, rounded up to an integer."""
    if power >= 0 or not mantissa:
        return mantissa * int(10 ** (power if mantissa else 0))
    if -power > _LONGEST_TEXT:  # longer than any mantissa: something, but less than one
        return 1
    return -(-mantissa // int(10**-power))


def _hint(text: str) -> str:
    compact = re.sub(r"\s+", "", text)[:_LONGEST_TEXT]
    candidates = (compact, compact.removesuffix("b").removesuffix("B"), compact[:-2] + compact[-2:].capitalize())
    for candidate in candidates:
        if candidate and candidate != text and _GRAMMAR.fullmatch(candidate):
            return f"did you mean {candidate}?"
    return ""
