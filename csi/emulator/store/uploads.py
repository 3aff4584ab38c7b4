"""Multipart uploads in the index: uploads under way, their parts, and turning parts into an object in one transaction.

It must not know HTTP; the rules of the API are in `csi/emulator/operations/multipart.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from csi.emulator.store.index import Bucket, Index, Segment, StoredObject, signed


@dataclass(frozen=True, slots=True)
class Upload:
    id: str
    key: str
    initiated: int
    storage_class: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredPart:
    """`etag` without quotes; every part has a file, also an empty one."""

    number: int
    size: int
    modified: int
    etag: str
    crc: int
    file: str


class Uploads:
    def __init__(self, index: Index) -> None:
        self._index = index

    def create(self, bucket: Bucket, upload: Upload) -> None:
        with self._index.changing() as db:
            db.execute(
                "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?)",
                (
                    upload.id,
                    bucket.id,
                    upload.key.encode("utf-8", "surrogateescape"),
                    upload.initiated,
                    upload.storage_class,
                    json.dumps(upload.details),
                ),
            )

    def find(self, bucket: Bucket, key: str, upload_id: str) -> Upload | None:
        row = self._index.query(
            "SELECT id, key, initiated, storage_class, details FROM uploads WHERE id = ? AND bucket = ? AND key = ?",
            (upload_id, bucket.id, key.encode("utf-8", "surrogateescape")),
        ).fetchone()
        return _upload(row) if row else None

    def after(self, bucket: Bucket, prefix: str, key: str, upload_id: str) -> list[Upload]:
        """Uploads of keys under `prefix` after (key, upload_id), in order. `upload_id` '': after all of `key`."""
        rows = self._index.query(
            "SELECT id, key, initiated, storage_class, details FROM uploads "
            "WHERE bucket = ? AND (key > ? OR (key = ? AND ? <> '' AND id > ?)) ORDER BY key, id",
            (bucket.id, key.encode(), key.encode(), upload_id, upload_id),
        )
        return [found for found in map(_upload, rows) if found.key.startswith(prefix)]

    def put_part(self, upload: Upload, part: StoredPart) -> list[str]:
        """Add or replace a part; returns the files nothing names any more."""
        with self._index.changing() as db:
            row = db.execute(
                "SELECT file FROM parts WHERE upload = ? AND number = ?", (upload.id, part.number)
            ).fetchone()
            db.execute(
                "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)",
                (upload.id, part.number, part.size, part.modified, part.etag, signed(part.crc), part.file),
            )
        return [str(row[0])] if row else []

    def parts(self, upload: Upload, after: int = 0) -> list[StoredPart]:
        rows = self._index.query(
            "SELECT number, size, modified, etag, crc, file FROM parts WHERE upload = ? AND number > ? ORDER BY number",
            (upload.id, after),
        )
        return [StoredPart(r[0], r[1], r[2], r[3], r[4] & 0xFFFFFFFFFFFFFFFF, r[5]) for r in rows]

    def complete(self, bucket: Bucket, upload: Upload, stored: StoredObject, segments: Sequence[Segment]) -> list[str]:
        """Replace the object by the parts in `segments` and end the upload; returns files nothing names any more."""
        kept = {segment.file for segment in segments}
        if len(segments) == 1:
            kept.add(stored.body[1:])
        with self._index.changing():
            garbage = self._index.put(bucket, stored, segments=segments if stored.body.startswith("s") else ())
            garbage += [file for file in self._forget(upload) if file not in kept]
        return garbage

    def abort(self, upload: Upload) -> list[str]:
        with self._index.changing():
            return self._forget(upload)

    def _forget(self, upload: Upload) -> list[str]:
        with self._index.changing() as db:
            files = [str(row[0]) for row in db.execute("SELECT file FROM parts WHERE upload = ?", (upload.id,))]
            db.execute("DELETE FROM parts WHERE upload = ?", (upload.id,))
            db.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))
        return files


def _upload(row: tuple[Any, ...]) -> Upload:
    return Upload(row[0], bytes(row[1]).decode("utf-8", "surrogateescape"), row[2], row[3], json.loads(row[4]))
