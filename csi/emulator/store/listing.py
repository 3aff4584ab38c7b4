"""One page of a bucket's keys under a prefix, grouped at a delimiter, as a range scan that jumps over groups.

A page of N entries costs about N steps however many keys lie inside the groups it shows. Keys are compared as bytes.
It must not know XML or HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from csi.emulator.store.index import Bucket, Index


@dataclass(frozen=True, slots=True)
class ListedKey:
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
    last = b""
    for entry in _entries(index, bucket, prefix, delimiter, after):
        if len(keys) + len(groups) == limit:
            return KeyPage(keys, groups, last)
        if isinstance(entry, bytes):
            groups.append(entry)
            last = entry
        else:
            keys.append(entry)
            last = entry.key
    return KeyPage(keys, groups, b"")


def after_all(prefix: bytes) -> bytes | None:
    """The smallest key greater than every key with this prefix; None when there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None


def _entries(
    index: Index, bucket: Bucket, prefix: bytes, delimiter: bytes, after: bytes
) -> Iterator[ListedKey | bytes]:
    low: bytes | None = prefix
    strictly = False
    if after >= prefix and after:
        low, strictly = after, True
        group = _group(after, prefix, delimiter)
        if group == after:
            low, strictly = after_all(group), False
    while low is not None:
        jumped = False
        for row in _scan(index, bucket, prefix, low, strictly=strictly):
            group = _group(row.key, prefix, delimiter)
            if group:
                yield group
                low, strictly, jumped = after_all(group), False, True
                break
            yield row
        if not jumped:
            return


def _group(key: bytes, prefix: bytes, delimiter: bytes) -> bytes:
    if not delimiter or not key.startswith(prefix):
        return b""
    cut = key.find(delimiter, len(prefix))
    return key[: cut + len(delimiter)] if cut >= 0 else b""


def _scan(index: Index, bucket: Bucket, prefix: bytes, low: bytes, *, strictly: bool) -> Iterator[ListedKey]:
    comparison = ">" if strictly else ">="
    end = after_all(prefix)
    bound = " AND key < ?" if end is not None else ""
    rows = index.query(
        "SELECT key, size, modified, etag, type, storage_class FROM objects "  # noqa: S608 - fixed fragments
        f"WHERE bucket = ? AND key {comparison} ?{bound} ORDER BY key",
        (bucket.id, low, end) if end is not None else (bucket.id, low),
    )
    for row in rows:
        yield ListedKey(bytes(row[0]), row[1], row[2], row[3], row[4], row[5])
