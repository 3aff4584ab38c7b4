"""One page of a bucket's keys under a prefix, grouped at a delimiter, as a range scan that jumps over groups.

A page of N entries costs about N steps however many keys lie inside the groups it shows. Keys are compared as bytes.
It must not know XML or HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from csi.emulator.store.index import Bucket, Index


class ListedKey(NamedTuple):
    """A row of a listing; a tuple because there are a thousand on a page."""

    key: bytes
    size: int
    modified: int
    etag: str
    type: str
    storage_class: str


@dataclass(frozen=True, slots=True)
class KeyPage:
    """`last` is the last entry (key or group) of a truncated page, b'' when nothing follows."""

    keys: list[ListedKey]
    groups: list[bytes]
    last: bytes


def list_keys(index: Index, bucket: Bucket, prefix: bytes, delimiter: bytes, after: bytes, limit: int) -> KeyPage:
    """Entries strictly after `after` (b'': from the start); a group equal to `after` was shown before."""
    keys: list[ListedKey] = []
    groups: list[bytes] = []
    low: bytes | None = prefix
    strictly = False
    if after and after >= prefix:
        low, strictly = after, True
        if group_of(after, prefix, delimiter) == after:
            low, strictly = after_all(after), False
    last = b""
    while low is not None:
        wanted = limit - len(keys) - len(groups)
        group = b""
        for row in _scan(index, bucket, prefix, low, wanted + 1, strictly=strictly):
            if len(keys) + len(groups) == limit:
                return KeyPage(keys, groups, last)
            group = group_of(row[0], prefix, delimiter) if delimiter else b""
            if group:
                groups.append(group)
                last = group
                break
            keys.append(ListedKey(*row))
            last = row[0]
        low, strictly = after_all(group) if group else None, False
    return KeyPage(keys, groups, b"")


def group_of(key: bytes, prefix: bytes, delimiter: bytes) -> bytes:
    """The common prefix a key is shown as, b'' when it is shown itself."""
    if not delimiter or not key.startswith(prefix):
        return b""
    cut = key.find(delimiter, len(prefix))
    return key[: cut + len(delimiter)] if cut >= 0 else b""


def after_all(prefix: bytes) -> bytes | None:
    """The smallest key greater than every key with this prefix; None when there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None


def _scan(
    index: Index, bucket: Bucket, prefix: bytes, low: bytes, limit: int, *, strictly: bool
) -> Iterable[tuple[bytes, int, int, str, str, str]]:
    comparison = ">" if strictly else ">="
    end = after_all(prefix)
    bound = " AND key < ?" if end is not None else ""
    return index.query(
        "SELECT key, size, modified, etag, type, storage_class FROM objects "  # noqa: S608 - fixed fragments
        f"WHERE bucket = ? AND key {comparison} ?{bound} ORDER BY key LIMIT {limit:d}",
        (bucket.id, low, end) if end is not None else (bucket.id, low),
    )
