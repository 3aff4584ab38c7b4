"""AppendObject: bytes added at the end of an appendable object, at a position the caller must know.

Source: API reference AppendObject. One append of an object at a time; the position is checked once the whole body has
arrived, so an append is atomic. A repeated append at an old position is a 409 that tells the next position.
"""

from __future__ import annotations

import hashlib

from csi.emulator.store.bodies import Written
from csi.emulator.store.checksums import combine
from csi.emulator.store.index import Bucket, StoredObject
from csi.emulator.store.receive import MAX_PUT, discard, receive_body
from csi.emulator.store.storage import Storage
from csi.emulator.wire.answers import Answer, quoted
from csi.emulator.wire.call import Call, check_object_name
from csi.emulator.wire.conditions import check_write
from csi.emulator.wire.description import details_of, storage_class_of
from csi.emulator.wire.refusals import Refusal, entity_too_large, invalid_argument

MAX_APPENDABLE = 5 << 30
_DIRECT = 1 << 20


class Appends:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def append(self, call: Call) -> Answer:
        check_object_name(call.key)
        if "position" not in call.query:
            raise Refusal(
                400, "MissingArgument", "Missing Some Required Arguments.", fields={"ArgumentName": "position"}
            )
        position = call.whole_number("position")
        bucket = self._storage.bucket(call.bucket)
        existing = self._storage.index.find(bucket, call.key)
        check_write(call, existing)
        _check_position(existing, position)
        details = details_of(call)
        storage_class = storage_class_of(call, bucket.storage_class)
        if storage_class not in ("Standard", "IA"):
            raise invalid_argument("Appendable objects are Standard or IA.", "x-oss-storage-class", storage_class)
        written = await receive_body(call, self._storage, keep_in_memory=_DIRECT, limit=MAX_PUT)
        lock = self._storage.append_lock(bucket, call.key)
        try:
            async with lock:
                stored = await self._add(call, position, written, details, storage_class)
        finally:
            discard(self._storage, written)
        headers = {
            "ETag": quoted(stored.etag),
            "x-oss-hash-crc64ecma": str(stored.crc),
            "x-oss-next-append-position": str(stored.size),
        }
        return Answer(200, headers)

    async def _add(
        self, call: Call, position: int, written: Written, details: dict[str, object], storage_class: str
    ) -> StoredObject:
        bucket = self._storage.bucket(call.bucket)
        existing = self._storage.index.find(bucket, call.key)
        check_write(call, existing)
        _check_position(existing, position)
        size = position + written.size
        if size > MAX_APPENDABLE:
            raise entity_too_large(MAX_APPENDABLE, size)
        file = existing.body[1:] if existing else self._new_file()
        try:
            addition = written.file or written.data
            if addition:
                await self._storage.on_thread(self._storage.bodies.append, file, position, addition)
            return self._commit(bucket, call.key, existing, file, written, details, storage_class)
        except BaseException:
            if existing is None:
                self._storage.remove_files([file])
            raise

    def _commit(
        self,
        bucket: Bucket,
        key: str,
        existing: StoredObject | None,
        file: str,
        written: Written,
        details: dict[str, object],
        storage_class: str,
    ) -> StoredObject:
        now = self._storage.index.find(bucket, key)
        if (now.body if now else "") != (existing.body if existing else ""):
            # PutObject or DeleteObject came between: this append was to an object that is no more
            raise _not_equal(now.size if now else 0)
        old_etag = existing.etag if existing else ""
        stored = StoredObject(
            key,
            (existing.size if existing else 0) + written.size,
            int(self._storage.now()),
            hashlib.md5(f"{old_etag}{written.etag}".encode(), usedforsecurity=False).hexdigest().upper(),
            combine(existing.crc if existing else 0, written.crc, written.size),
            f"f{file}",
            "Appendable",
            existing.storage_class if existing else storage_class,
            existing.details if existing else details,
        )
        self._storage.index.put(bucket, stored, keep_old_body=True)
        return stored

    def _new_file(self) -> str:
        file, target = self._storage.bodies.create()
        target.close()
        return file


def _check_position(existing: StoredObject | None, position: int) -> None:
    if existing is not None and existing.type != "Appendable":
        raise Refusal(409, "ObjectNotAppendable", "The object is not appendable")
    length = existing.size if existing else 0
    if position != length:
        raise _not_equal(length)


def _not_equal(length: int) -> Refusal:
    return Refusal(
        409,
        "PositionNotEqualToLength",
        "Position is not equal to file length",
        headers={"x-oss-next-append-position": str(length)},
    )
