"""Values in the JSON of an admin call, each read or refused with its name and what is accepted."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

from csi.emulator.wire.refusals import invalid_argument


def whole(values: Mapping[str, Any], name: str, default: int, *, least: int, most: int) -> int:
    """An integer; JSON may write it with a point (`3.0`)."""
    value = values.get(name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise refuse(name, value, f"an integer from {least} to {most}")
    return value


def number(values: Mapping[str, Any], name: str, default: float) -> float:
    """Any number that is one: JSON as Python reads it has NaN and infinities."""
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refuse(name, value, "a number")
    return value


def text(values: Mapping[str, Any], name: str, default: str = "") -> str:
    value = values.get(name, default)
    if not isinstance(value, str):
        raise refuse(name, value, "text")
    return value


def texts(values: Mapping[str, Any], name: str) -> dict[str, str]:
    """An object whose values are text."""
    value = values.get(name, {})
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise refuse(name, value, "an object of texts")
    return value


def tags(values: Mapping[str, Any], name: str) -> list[list[str]]:
    """A list of `[name, value]`."""
    value = values.get(name, [])
    pairs = value if isinstance(value, list) else [value]
    if not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair) for pair in pairs
    ):
        raise refuse(name, value, "a list of [name, value]")
    return pairs


def base64_bytes(values: Mapping[str, Any], name: str) -> bytes:
    encoded = text(values, name)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise refuse(name, encoded, "base64") from None


def refuse(name: str, value: object, accepted: str) -> Exception:
    shown = str(value)[:200]
    return invalid_argument(f"{name} is {shown!r}, expected {accepted}.", name, shown)
