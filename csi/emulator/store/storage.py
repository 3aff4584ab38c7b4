"""The store under the operations: index and bodies kept in step, on one event loop and a few threads.

Commits happen on the event loop without a suspension point between check and change, so operations need no locks
except appends (one at a time for each object). Bytes are moved on worker threads. It must not know HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

from csi.emulator.store.bodies import Bodies, Piece, Written
from csi.emulator.store.index import Bucket, Index, Segment, StoredObject
from csi.emulator.wire.refusals import no_such_bucket, no_such_key
from csi.errors import OssFuseError

P = ParamSpec("P")
T = TypeVar("T")

SMALL_BODY = 4096
"""Bodies up to this many bytes live in the index: one less file for markers and small settings."""


class Storage:
    """`now` gives seconds since the epoch. Raises OssFuseError when another server uses the directory."""

    def __init__(self, directory: Path, now: Callable[[], float] = time.time) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._guard = _exclusive(directory)
        self.index = Index(directory / "index.sqlite")
        self.bodies = Bodies(directory / "bodies")
        self.threads = ThreadPoolExecutor(8, thread_name_prefix="bodies")
        self.now = now
        self._append_locks: weakref.WeakValueDictionary[tuple[int, str], asyncio.Lock] = weakref.WeakValueDictionary()
        if self.index.fact("stopped") == "no":
            self.bodies.sweep(self.index.files_in_use())
        self.index.set_fact("stopped", "no")

    def close(self) -> None:
        self.threads.shutdown(wait=True)
        self.index.set_fact("stopped", "cleanly")
        self.index.close()
        self._guard.close()

    async def on_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, lambda: work(*args, **kwargs))

    def bucket(self, name: str) -> Bucket:
        found = self.index.bucket(name)
        if found is None:
            raise no_such_bucket(name)
        return found

    def object(self, bucket: Bucket, key: str) -> StoredObject:
        found = self.index.find(bucket, key)
        if found is None:
            raise no_such_key(key)
        return found

    def append_lock(self, bucket: Bucket, key: str) -> asyncio.Lock:
        return self._append_locks.setdefault((bucket.id, key), asyncio.Lock())

    # --- bodies of objects ---

    def pieces(self, stored: StoredObject, start: int, end: int) -> list[Piece]:
        """Where bytes [start, end) of a body in files are; not for small bodies."""
        if stored.body.startswith("f"):
            return [Piece(stored.body[1:], start, end - start)] if end > start else []
        if stored.body.startswith("s"):
            return [_overlap(segment, start, end) for segment in self.index.segments(stored.body, start, end)]
        return []

    def small(self, stored: StoredObject) -> bytes:
        return self.index.small_body(stored.body) if stored.body.startswith("i") else b""

    def put(self, bucket: Bucket, stored: StoredObject, written: Written) -> None:
        """Make `written` the body of `stored`'s key, at once and whole."""
        body = f"f{written.file}" if written.file else ""
        self.commit(bucket, with_body(stored, written, body), data=written.data)

    def commit(
        self, bucket: Bucket, stored: StoredObject, *, data: bytes = b"", segments: Iterable[Segment] = ()
    ) -> None:
        self.remove_files(self.index.put(bucket, stored, data=data, segments=segments))

    def remove_files(self, files: Sequence[str]) -> None:
        if files:
            self.threads.submit(self.bodies.remove, list(files))

    async def twin(self, stored: StoredObject) -> tuple[str, bytes, list[Segment]]:
        """The body of `stored` once more, sharing its bytes where that is safe: what `commit` needs for a copy."""
        if not stored.body or stored.body.startswith("i"):
            return "", self.small(stored), []
        pieces = self.pieces(stored, 0, stored.size)
        files = [piece.file for piece in pieces]
        self.bodies.pin(files)
        try:
            if stored.type == "Appendable":  # its file still grows
                written = await self.on_thread(self.bodies.copy, pieces)
                return f"f{written.file}", b"", []
            twins = await self.on_thread(self._clone_all, files)
        finally:
            self.bodies.unpin(files)
        if stored.body.startswith("f"):
            return f"f{twins[0]}" if twins else "", b"", []
        segments, start = [], 0
        for piece, twin in zip(pieces, twins, strict=True):
            segments.append(Segment(twin, start, piece.count))
            start += piece.count
        return f"s{self.bodies.new_id()}", b"", segments

    def _clone_all(self, files: Sequence[str]) -> list[str]:
        twins: list[str] = []
        try:
            for file in files:
                twins.append(self.bodies.clone(file))
        except BaseException:
            self.bodies.remove(twins)
            raise
        return twins


def with_body(stored: StoredObject, written: Written, body: str) -> StoredObject:
    return StoredObject(
        stored.key,
        written.size,
        stored.modified,
        written.etag,
        written.crc,
        body,
        stored.type,
        stored.storage_class,
        stored.details,
    )


def _overlap(segment: Segment, start: int, end: int) -> Piece:
    first = max(start, segment.start)
    last = min(end, segment.start + segment.size)
    return Piece(segment.file, first - segment.start, last - first)


def _exclusive(directory: Path) -> IO[bytes]:
    guard = open(directory / "lock", "ab")  # noqa: SIM115 - held for the life of the server
    with contextlib.ExitStack() as undo:
        undo.callback(guard.close)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OssFuseError(
                f"{directory} is in use by another emulator", hint="stop it or choose another --data directory"
            ) from None
        undo.pop_all()
    return guard
