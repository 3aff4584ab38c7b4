"""What exists: buckets and objects in one sqlite file, ordered by key so that a listing is a range scan.

Every change is one transaction, so a killed server comes back with whole objects only; bodies live elsewhere
(`csi/emulator/store/bodies.py`) and are named here. Used by one thread. Durable against the death of the process, not
of the machine (synchronous=OFF: this is a development server). It must not know HTTP.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS buckets (
    id INTEGER PRIMARY KEY, name TEXT UNIQUE, created INTEGER, acl TEXT, storage_class TEXT, listable INTEGER);
CREATE TABLE IF NOT EXISTS objects (
    bucket INTEGER, key BLOB, size INTEGER, modified INTEGER, etag TEXT, crc INTEGER, type TEXT, storage_class TEXT,
    body TEXT, details TEXT, PRIMARY KEY (bucket, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS small (id INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE IF NOT EXISTS segments (
    body TEXT, start INTEGER, file TEXT, size INTEGER, PRIMARY KEY (body, start)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, bucket INTEGER, key BLOB, initiated INTEGER, storage_class TEXT, details TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uploads_by_key ON uploads (bucket, key, id);
CREATE TABLE IF NOT EXISTS parts (
    upload TEXT, number INTEGER, size INTEGER, modified INTEGER, etag TEXT, crc INTEGER, file TEXT,
    PRIMARY KEY (upload, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
    access_key_id TEXT PRIMARY KEY, secret TEXT, token TEXT, expires REAL, role TEXT) WITHOUT ROWID;
"""

_COLUMNS = "key, size, modified, etag, crc, type, storage_class, body, details"


@dataclass(frozen=True, slots=True)
class Bucket:
    """`listable`: anonymous callers may list it as well as read it."""

    id: int
    name: str
    created: int
    acl: str
    storage_class: str
    listable: bool


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object. `etag` without quotes, `modified` in seconds since the epoch.

    `body` names the bytes: '' none, 'f…' one file, 's…' segments, 'i…' a row of `small`. `details` holds what only
    single-object operations need: headers, user, acl, tags, encryption, target, restored.
    """

    key: str
    size: int
    modified: int
    etag: str
    crc: int
    body: str = ""
    type: str = "Normal"
    storage_class: str = "Standard"
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Segment:
    file: str
    start: int
    size: int


class Index:
    """Owns the database connection; every public method is one transaction or part of the caller's (`changing`)."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)  # it holds the secrets of tokens
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536; PRAGMA mmap_size=268435456;"
        )
        self._db.executescript(_SCHEMA)
        self._depth = 0

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; nested uses join the outer one."""
        if self._depth == 0:
            self._db.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield self._db
        except BaseException:
            self._depth -= 1
            if self._depth == 0:
                self._db.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            self._db.execute("COMMIT")

    def query(self, sql: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        return self._db.execute(sql, values)

    # --- facts about the store itself ---

    def fact(self, name: str) -> str:
        row = self.query("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def set_fact(self, name: str, value: str) -> None:
        with self.changing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    # --- buckets ---

    def bucket(self, name: str) -> Bucket | None:
        row = self.query(
            "SELECT id, name, created, acl, storage_class, listable FROM buckets WHERE name = ?", (name,)
        ).fetchone()
        return Bucket(row[0], row[1], row[2], row[3], row[4], bool(row[5])) if row else None

    def buckets(self) -> list[Bucket]:
        rows = self.query("SELECT id, name, created, acl, storage_class, listable FROM buckets ORDER BY name")
        return [Bucket(row[0], row[1], row[2], row[3], row[4], bool(row[5])) for row in rows]

    def create_bucket(
        self, name: str, created: int, acl: str, storage_class: str = "Standard", *, listable: bool = False
    ) -> None:
        with self.changing() as db:
            db.execute(
                "INSERT INTO buckets (name, created, acl, storage_class, listable) VALUES (?, ?, ?, ?, ?)",
                (name, created, acl, storage_class, listable),
            )

    def set_bucket_acl(self, name: str, acl: str, *, listable: bool) -> None:
        with self.changing() as db:
            db.execute("UPDATE buckets SET acl = ?, listable = ? WHERE name = ?", (acl, listable, name))

    def bucket_is_empty(self, bucket: Bucket) -> bool:
        for table in ("objects", "uploads"):
            if self.query(f"SELECT 1 FROM {table} WHERE bucket = ? LIMIT 1", (bucket.id,)).fetchone():  # noqa: S608 - two fixed names
                return False
        return True

    def delete_bucket(self, bucket: Bucket) -> None:
        with self.changing() as db:
            db.execute("DELETE FROM buckets WHERE id = ?", (bucket.id,))

    # --- objects ---

    def find(self, bucket: Bucket, key: str) -> StoredObject | None:
        row = self.query(
            f"SELECT {_COLUMNS} FROM objects WHERE bucket = ? AND key = ?",  # noqa: S608 - fixed column names
            (bucket.id, key.encode("utf-8", "surrogateescape")),
        ).fetchone()
        return _object(row) if row else None

    def put(
        self,
        bucket: Bucket,
        stored: StoredObject,
        *,
        data: bytes = b"",
        segments: Iterable[Segment] = (),
        keep_old_body: bool = False,
    ) -> list[str]:
        """Replace the object of that key; returns the files nothing names any more.

        `data` becomes a small body, `segments` the rows of an 's…' body. `keep_old_body`: the new version reuses it.
        """
        with self.changing() as db:
            garbage = [] if keep_old_body else self._release(bucket, stored.key)
            if data:
                cursor = db.execute("INSERT INTO small (data) VALUES (?)", (data,))
                stored = replace(stored, body=f"i{cursor.lastrowid}")
            db.executemany(
                "INSERT INTO segments VALUES (?, ?, ?, ?)",
                ((stored.body, segment.start, segment.file, segment.size) for segment in segments),
            )
            db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(bucket, stored))
        return garbage

    def put_new(self, bucket: Bucket, objects: Sequence[StoredObject], data: bytes = b"") -> bool:
        """Add many objects, each with `data` as its small body, if no key between the first and the last exists."""
        if not objects:
            return True
        rows = sorted((_row(bucket, stored) for stored in objects), key=lambda row: row[1])
        with self.changing() as db:
            span = (bucket.id, rows[0][1], rows[-1][1])
            if db.execute("SELECT 1 FROM objects WHERE bucket = ? AND key BETWEEN ? AND ? LIMIT 1", span).fetchone():
                return False
            if data:
                (first,) = db.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM small").fetchone()
                db.executemany("INSERT INTO small VALUES (?, ?)", ((first + n, data) for n in range(len(rows))))
                rows = [(*row[:8], f"i{first + n}", row[9]) for n, row in enumerate(rows)]
            db.executemany("INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        return True

    def delete(self, bucket: Bucket, key: str) -> list[str]:
        """Forget the object (if there is one); returns the files nothing names any more."""
        with self.changing() as db:
            garbage = self._release(bucket, key)
            db.execute(
                "DELETE FROM objects WHERE bucket = ? AND key = ?",
                (bucket.id, key.encode("utf-8", "surrogateescape")),
            )
        return garbage

    def small_body(self, body: str) -> bytes:
        row = self.query("SELECT data FROM small WHERE id = ?", (int(body[1:]),)).fetchone()
        return bytes(row[0])

    def segments(self, body: str, start: int, end: int) -> list[Segment]:
        """The segments of an 's…' body that overlap [start, end)."""
        rows = self.query(
            "SELECT file, start, size FROM segments WHERE body = ? AND start < ? AND start + size > ? AND start >= "
            "COALESCE((SELECT MAX(start) FROM segments WHERE body = ? AND start <= ?), 0) ORDER BY start",
            (body, end, start, body, start),
        )
        return [Segment(row[0], row[1], row[2]) for row in rows]

    def files_in_use(self) -> set[str]:
        """Every body file that a committed row names."""
        found = {str(row[0])[1:] for row in self.query("SELECT body FROM objects WHERE body >= 'f' AND body < 'g'")}
        found.update(str(row[0]) for row in self.query("SELECT file FROM segments"))
        found.update(str(row[0]) for row in self.query("SELECT file FROM parts"))
        return found

    def _release(self, bucket: Bucket, key: str) -> list[str]:
        row = self.query(
            "SELECT body FROM objects WHERE bucket = ? AND key = ?",
            (bucket.id, key.encode("utf-8", "surrogateescape")),
        ).fetchone()
        body = str(row[0]) if row else ""
        if body.startswith("f"):
            return [body[1:]]
        if body.startswith("i"):
            self._db.execute("DELETE FROM small WHERE id = ?", (int(body[1:]),))
        if body.startswith("s"):
            files = [str(found[0]) for found in self.query("SELECT file FROM segments WHERE body = ?", (body,))]
            self._db.execute("DELETE FROM segments WHERE body = ?", (body,))
            return files
        return []


def _object(row: tuple[Any, ...]) -> StoredObject:
    key, size, modified, etag, crc, kind, storage_class, body, details = row
    return StoredObject(
        bytes(key).decode("utf-8", "surrogateescape"),
        size,
        modified,
        etag,
        crc & 0xFFFFFFFFFFFFFFFF,
        body,
        kind,
        storage_class,
        json.loads(details) if details else {},
    )


def _row(bucket: Bucket, stored: StoredObject) -> tuple[Any, ...]:
    return (
        bucket.id,
        stored.key.encode("utf-8", "surrogateescape"),
        stored.size,
        stored.modified,
        stored.etag,
        signed(stored.crc),
        stored.type,
        stored.storage_class,
        stored.body,
        json.dumps(stored.details) if stored.details else None,
    )


def signed(crc: int) -> int:
    """sqlite's integers are signed."""
    return crc - (1 << 64) if crc >> 63 else crc
