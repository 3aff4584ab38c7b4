"""The option table: every key a volume may carry, and how one is found by the name a user typed.

`TABLE` is the single list that parsing, `ossfuse volume explain` and docs/options.md are made from. A key that is not
in it is refused with the nearest one that is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType

from csi.errors import InvalidOption
from csi.volume.table.known_options import KNOWN_OPTIONS
from csi.volume.table.option import Effect, Option
from csi.volume.table.place_options import PLACE_OPTIONS
from csi.volume.table.transfer_options import TRANSFER_OPTIONS

_PLACEHOLDER = "<NAME>"
_NEAR_ENOUGH = 0.75
_LONGEST_KEY = 256


def _patterns() -> tuple[tuple[re.Pattern[str], Option], ...]:
    return tuple((_pattern(name), row) for row in TABLE for name in row.names if _PLACEHOLDER in name)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(_PLACEHOLDER, r"([^.]+)"))


TABLE: tuple[Option, ...] = (*PLACE_OPTIONS, *TRANSFER_OPTIONS, *KNOWN_OPTIONS)
_ROWS: Mapping[str, Option] = MappingProxyType(
    {name: row for row in TABLE for name in row.names if _PLACEHOLDER not in name}
)
_PATTERNS = tuple((_pattern(row.key), row) for row in TABLE if _PLACEHOLDER in row.key)


def find(key: str) -> Option:
    """The row of `key`; raises InvalidOption with the nearest known key when there is none."""
    row = _ROWS.get(key)
    if row is not None:
        return row
    for pattern, row in _PATTERNS:
        if pattern.fullmatch(key):
            return row
    hint = f"did you mean {near}?" if (near := nearest(key)) else "docs/options.md lists every option"
    raise InvalidOption.stating(key, f"{_shown(key)}: there is no such option", hint=hint)


def accept(key: str) -> Option:
    """`find`, and InvalidOption with the reason for a key that is known and refused. Never tells the value."""
    row = find(key)
    if row.effect in (Effect.REFUSED, Effect.AT_CREATION):
        raise InvalidOption.stating(key, f"{key}: this option is not accepted here", hint=row.reason)
    return row


def placeholder(row: Option, key: str) -> str:
    """What stands for `<NAME>` in `key`."""
    match = _pattern(row.key).fullmatch(key)
    return match[1] if match else ""


def nearest(key: str) -> str:
    """The known key most like `key`, '' when none is near."""
    if len(key) > _LONGEST_KEY:
        return ""
    names = {name.casefold(): name for name in reversed([name for row in TABLE for name in row.names])}
    near = difflib.get_close_matches(key.strip().casefold(), names, n=1, cutoff=_NEAR_ENOUGH)
    return names[near[0]] if near else ""


def _shown(key: str) -> str:
    return repr(key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}…")
