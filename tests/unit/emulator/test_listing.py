"""Listings against a plain model, and the number of rows they touch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.emulator.store.index import Index, StoredObject
from csi.emulator.store.listing import after_all, list_keys

KEYS = st.lists(st.text(alphabet="ab/\xff", min_size=1, max_size=6).map(str.encode), unique=True, max_size=25)
PARTS = st.text(alphabet="ab/\xff", max_size=3).map(str.encode)


class CountingIndex(Index):
    """Counts the rows that listings read."""

    rows = 0

    def query(self, sql: str, values: tuple[object, ...] = ()) -> Any:
        return self._counted(super().query(sql, values)) if "ORDER BY key" in sql else super().query(sql, values)

    def _counted(self, cursor: Any) -> Iterator[Any]:
        for row in cursor:
            self.rows += 1
            yield row


def index_with(keys: list[bytes], directory: str) -> CountingIndex:
    index = CountingIndex(Path(directory) / "index")
    index.create_bucket("b", 0, "private")
    bucket = index.bucket("b")
    assert bucket is not None
    index.put_new(bucket, [StoredObject(key.decode(), 1, 0, "E", 0) for key in keys])
    return index


def pages(index: Index, prefix: bytes, delimiter: bytes, after: bytes, limit: int) -> list[bytes]:
    bucket = index.bucket("b")
    assert bucket is not None
    entries: list[bytes] = []
    while True:
        page = list_keys(index, bucket, prefix, delimiter, after, limit)
        assert len(page.keys) + len(page.groups) <= limit
        entries += sorted([found.key for found in page.keys] + page.groups)
        if not page.last:
            return entries
        after = page.last


def model(keys: list[bytes], prefix: bytes, delimiter: bytes, after: bytes) -> list[bytes]:
    entries = set()
    for key in keys:
        if not key.startswith(prefix) or key <= after:
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        entry = key[: cut + len(delimiter)] if cut >= 0 else key
        if not (cut >= 0 and entry == after):
            entries.add(entry)
    return sorted(entries)


@given(KEYS, PARTS, st.sampled_from([b"", b"/", b"ab", "\xff".encode()]), PARTS, st.integers(1, 4))
def test_pages_hold_every_entry_once_and_in_order(
    keys: list[bytes], prefix: bytes, delimiter: bytes, after: bytes, limit: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        index = index_with(keys, directory)

        found = pages(index, prefix, delimiter, after, limit)
        index.close()

    assert found == model(keys, prefix, delimiter, after)


def test_a_group_is_jumped_over_not_read(tmp_path: Path) -> None:
    index = index_with([f"{group}/{n:04}".encode() for group in "abc" for n in range(500)], str(tmp_path))

    assert pages(index, b"", b"/", b"", 1000) == [b"a/", b"b/", b"c/"]

    assert index.rows == 3
    index.close()


def test_a_page_reads_one_row_more_than_it_shows(tmp_path: Path) -> None:
    index = index_with([f"{n:04}".encode() for n in range(500)], str(tmp_path))
    bucket = index.bucket("b")
    assert bucket is not None

    page = list_keys(index, bucket, b"", b"/", b"0099", 10)

    assert [found.key for found in page.keys] == [f"{n:04}".encode() for n in range(100, 110)]
    assert (page.last, index.rows) == (b"0109", 11)
    index.close()


@pytest.mark.parametrize(
    ("prefix", "expected"), [(b"a", b"b"), (b"a\xff", b"b"), (b"\xff\xff", None), (b"", None), (b"a/", b"a0")]
)
def test_the_end_of_a_prefix(prefix: bytes, expected: bytes | None) -> None:
    assert after_all(prefix) == expected
