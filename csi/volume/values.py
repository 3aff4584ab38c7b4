"""One text of the option table read into a typed value, and a typed value written as text again.

`read` and `show` are each other's inverse up to spelling. What is accepted depends on the row alone; rules between
options (a request above its limit, a window larger than the memory) are the parser's.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Mapping

from csi.errors import InvalidOption
from csi.volume.args import octal
from csi.volume.caching import parse_place
from csi.volume.quantity import format_bytes, parse_bytes, parse_millis
from csi.volume.table.option import Kind, Option
from csi.volume.units import MIB, Bytes, Seconds

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_LONGEST_TEXT = 4096
_SHOWN = 200


def read(row: Option, key: str, text: str) -> object:
    """The value of `text` for `row`, typed as the VolumeSpec field it sets; raises InvalidOption naming `key`."""
    match row.kind:
        case Kind.BOOLEAN:
            return _choice(key, text, _BOOLEANS)
        case Kind.CHOICE:
            return _choice(key, text, row.choices)
        case Kind.INTEGER:
            return _integer(row, key, text)
        case Kind.MEBIBYTES:
            return Bytes(_integer(row, key, text) * MIB)
        case Kind.MILLISECONDS:
            return Seconds(_integer(row, key, text) / 1000)
        case Kind.SIZE | Kind.MEMORY:
            return Bytes(_at_least(row, key, text, parse_bytes(key, text)))
        case Kind.CPU:
            return _at_least(row, key, text, parse_millis(key, text))
        case Kind.OCTAL:
            return octal(key, text)
        case Kind.PLACE:
            return parse_place(key, text)
        case Kind.TEXT:
            return _text(key, text)


def show(kind: Kind, value: object) -> str:
    """`value` as a user would write it."""
    if value is None:
        return "-1" if kind is Kind.MILLISECONDS else "none"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value * 1000:.0f}"
    if isinstance(value, int):
        return _SHOW_INTEGER.get(kind, str)(value)
    return shorten(str(value))


def shorten(text: str) -> str:
    """`text` short enough for a log line or a table."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _show_octal(value: int) -> str:
    return f"{value:04o}"


def _show_millis(value: int) -> str:
    return f"{value}m"


def _show_mebibytes(value: int) -> str:
    return f"{value / MIB:g}"


_SHOW_INTEGER = {
    Kind.SIZE: format_bytes,
    Kind.MEMORY: format_bytes,
    Kind.MEBIBYTES: _show_mebibytes,
    Kind.CPU: _show_millis,
    Kind.OCTAL: _show_octal,
}


def _choice(key: str, text: str, choices: Mapping[str, object]) -> object:
    for name, value in choices.items():
        if name.casefold() == text.strip().casefold():
            return value
    accepted = [name for name in choices if name]
    near = difflib.get_close_matches(text[:_SHOWN], accepted, n=1)
    raise InvalidOption(key, text, " or ".join(accepted), hint=f"did you mean {near[0]}?" if near else "")


def _integer(row: Option, key: str, text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        raise InvalidOption(key, text, _range(row, "an integer"))
    return _at_least(row, key, text, int(text))


def _at_least(row: Option, key: str, text: str, value: int) -> int:
    too_small = row.minimum is not None and value < row.minimum
    if too_small or (row.maximum is not None and value > row.maximum):
        raise InvalidOption(key, text, _range(row, row.kind.value))
    return value


def _range(row: Option, kind: str) -> str:
    if row.minimum is not None and row.maximum is not None:
        return f"{kind}, from {row.written(row.minimum)} to {row.written(row.maximum)}"
    return kind if row.minimum is None else f"{kind}, at least {row.written(row.minimum)}"


def _text(key: str, text: str) -> str:
    if len(text) > _LONGEST_TEXT or not text.isprintable():
        raise InvalidOption(key, text, f"printable text of at most {_LONGEST_TEXT} characters")
    return text
