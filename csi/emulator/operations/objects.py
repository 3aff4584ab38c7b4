"""GetObject, HeadObject, PutObject, DeleteObject, CopyObject and their small relatives.

Source: API reference, "Object operations". An object is replaced whole at the end of the upload; conditions are
checked before the body is read and again when it is committed.
"""

from __future__ import annotations

from urllib.parse import unquote

from csi.emulator.store.index import Bucket, StoredObject
from csi.emulator.store.receive import discard, receive_body
from csi.emulator.store.storage import SMALL_BODY, Storage
from csi.emulator.wire.answers import Answer, http_date, quoted, xml_answer
from csi.emulator.wire.call import Call, address, check_object_name, first_values, parse_query
from csi.emulator.wire.conditions import check_copy_source, check_read, check_write, requested_range
from csi.emulator.wire.description import (
    ARCHIVED,
    apply_overrides,
    details_of,
    response_headers,
    storage_class_of,
)
from csi.emulator.wire.documents import timestamp
from csi.emulator.wire.refusals import Refusal, entity_too_large, invalid_argument, no_such_key

MAX_COPY_ACROSS_BUCKETS = 5 << 30


class Objects:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def get(self, call: Call) -> Answer:
        bucket = self._storage.bucket(call.bucket)
        link = self._storage.object(bucket, call.key)
        stored = self._resolve(bucket, link)
        check_read(call, stored)
        _refuse_archived(stored)
        headers = response_headers(stored)
        if link is not stored:
            headers["x-oss-object-type"] = "Symlink"
        apply_overrides(call, headers)
        standard = call.header("x-oss-range-behavior").lower() == "standard"
        span = requested_range(call.header("Range"), stored.size, standard=standard) if call.header("Range") else None
        start, end = span or (0, stored.size)
        status = 200
        if span is not None:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{stored.size}"
        if stored.body.startswith("i"):
            return Answer(status, headers, self._storage.small(stored)[start:end])
        return Answer(status, headers, pieces=self._storage.pieces(stored, start, end))

    async def head(self, call: Call) -> Answer:
        bucket = self._storage.bucket(call.bucket)
        link = self._storage.object(bucket, call.key)
        stored = self._resolve(bucket, link)
        check_read(call, stored)
        headers = response_headers(stored)
        if link is not stored:
            headers["x-oss-object-type"] = "Symlink"
        return Answer(200, headers, length=stored.size)

    async def meta(self, call: Call) -> Answer:
        """GetObjectMeta: size, ETag and time only; of a symlink itself, not of its target."""
        stored = self._storage.object(self._storage.bucket(call.bucket), call.key)
        headers = {
            "ETag": quoted(stored.etag),
            "Last-Modified": http_date(stored.modified),
            "x-oss-hash-crc64ecma": str(stored.crc),
        }
        return Answer(200, headers, length=stored.size)

    async def put(self, call: Call) -> Answer:
        check_object_name(call.key)
        bucket = self._storage.bucket(call.bucket)
        check_write(call, self._storage.index.find(bucket, call.key))
        details = details_of(call)
        storage_class = storage_class_of(call, bucket.storage_class)
        written = await receive_body(call, self._storage, keep_in_memory=SMALL_BODY)
        try:
            bucket = self._storage.bucket(call.bucket)
            check_write(call, self._storage.index.find(bucket, call.key))
        except Refusal:
            discard(self._storage, written)
            raise
        now = int(self._storage.now())
        stored = StoredObject(call.key, 0, now, "", 0, storage_class=storage_class, details=details)
        self._storage.put(bucket, stored, written)
        headers = {"ETag": quoted(written.etag), "x-oss-hash-crc64ecma": str(written.crc)}
        if "encryption" in details:
            headers["x-oss-server-side-encryption"] = details["encryption"]
        return Answer(200, headers)

    async def delete(self, call: Call) -> Answer:
        check_object_name(call.key)
        bucket = self._storage.bucket(call.bucket)
        self._storage.remove_files(self._storage.index.delete(bucket, call.key))
        return Answer(204)

    async def copy(self, call: Call) -> Answer:
        """CopyObject; appendable and multipart objects become Normal ones, a symlink is copied as a link."""
        check_object_name(call.key)
        target = self._storage.bucket(call.bucket)
        source_bucket, source = copy_source(call, self._storage)
        check_copy_source(call, source)
        _refuse_archived(source)
        check_write(call, self._storage.index.find(target, call.key))
        if source_bucket.id != target.id and source.size > MAX_COPY_ACROSS_BUCKETS:
            raise entity_too_large(MAX_COPY_ACROSS_BUCKETS, source.size)
        details = _copied_details(call, source)
        storage_class = storage_class_of(call, source.storage_class)
        now = int(self._storage.now())
        kind = "Symlink" if source.type == "Symlink" else "Normal"
        if source_bucket.id == target.id and source.key == call.key:
            self._retouch(call, target, source, details, storage_class, now)
        else:
            body, data, segments = await self._storage.twin(source)
            copied = StoredObject(
                call.key, source.size, now, source.etag, source.crc, body, kind, storage_class, details
            )
            files = [body[1:]] if body.startswith("f") else [segment.file for segment in segments]
            try:
                target = self._storage.bucket(call.bucket)
                check_write(call, self._storage.index.find(target, call.key))
            except Refusal:
                self._storage.remove_files(files)
                raise
            self._storage.commit(target, copied, data=data, segments=segments)
        headers = {"ETag": quoted(source.etag), "x-oss-hash-crc64ecma": str(source.crc)}
        return xml_answer(
            "CopyObjectResult", [("ETag", quoted(source.etag)), ("LastModified", timestamp(now))], headers
        )

    def _retouch(
        self, call: Call, bucket: Bucket, source: StoredObject, details: dict[str, object], storage_class: str, now: int
    ) -> None:
        """A copy onto itself changes the description only."""
        changed = StoredObject(
            source.key, source.size, now, source.etag, source.crc, source.body, source.type, storage_class, details
        )
        self._storage.index.put(bucket, changed, keep_old_body=True)

    def _resolve(self, bucket: Bucket, stored: StoredObject) -> StoredObject:
        """The object a symlink points to (one step: OSS allows no chains), any other object itself."""
        if stored.type != "Symlink":
            return stored
        target = self._storage.index.find(bucket, stored.details["target"])
        if target is None:
            raise Refusal(404, "SymlinkTargetNotExist", "The symlink target object does not exist")
        if target.type == "Symlink":
            raise Refusal(400, "InvalidTargetType", "The symbolic link's target is a symbolic link.")
        return target


def copy_source(call: Call, storage: Storage) -> tuple[Bucket, StoredObject]:
    """The object named by x-oss-copy-source: `/BUCKET/KEY`, percent-encoded, leading slash optional."""
    raw = call.header("x-oss-copy-source")
    path, _, query = raw.partition("?")
    found = address(path if path.startswith("/") else "/" + path, "", ())
    if not found.key or not found.bucket:
        raise invalid_argument(
            "Copy Source must mention the source bucket and key: /sourcebucket/sourcekey.", "x-oss-copy-source", raw
        )
    if first_values(parse_query(query)).get("versionId", "null") != "null":
        raise no_such_key(unquote(path))
    bucket = storage.bucket(found.bucket)
    return bucket, storage.object(bucket, found.key)


def _copied_details(call: Call, source: StoredObject) -> dict[str, object]:
    """Metadata by x-oss-metadata-directive, tags by x-oss-tagging-directive; the ACL is never copied."""
    asked = details_of(call)
    details: dict[str, object]
    if call.header("x-oss-metadata-directive", "COPY").upper() == "REPLACE":
        details = {name: asked[name] for name in ("headers", "user") if name in asked}
    else:
        details = {name: source.details[name] for name in ("headers", "user") if name in source.details}
    tags = asked if call.header("x-oss-tagging-directive", "COPY").upper() == "REPLACE" else source.details
    if tags.get("tags"):
        details["tags"] = tags["tags"]
    for name in ("acl", "encryption"):
        if name in asked:
            details[name] = asked[name]
    if "encryption" not in details and "encryption" in source.details:
        details["encryption"] = source.details["encryption"]
    if "target" in source.details:
        details["target"] = source.details["target"]
    return details


def _refuse_archived(stored: StoredObject) -> None:
    if stored.storage_class in ARCHIVED and not stored.details.get("restored"):
        raise Refusal(
            403,
            "InvalidObjectState",
            "The operation is not valid for the object's storage class",
            fields={"ObjectName": stored.key},
        )
