"""An ObjectStore in memory, for tests of the rooms above `csi/oss`: versions, conditions, multipart, append, faults."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import fastcrc

from csi.data.plan import SMALLEST_PART
from csi.errors import (
    AppendConflict,
    ObjectExists,
    ObjectNotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    RequestRejected,
)
from csi.oss.cancellation import Cancellation
from csi.oss.store import (
    AppendResult,
    Buffer,
    DeleteFailure,
    ListedObject,
    ListPage,
    ObjectMetadata,
    ObjectVersion,
    Part,
    PendingUpload,
    PutResult,
)
from csi.volume.units import Bytes, Crc64, ETag, ObjectKey


@dataclass
class StoredObject:
    data: bytes
    etag: ETag
    modified: float
    type: str = "Normal"
    user: dict[str, str] = field(default_factory=dict)
    content_type: str = ""


def _crc(data: bytes) -> Crc64:
    return Crc64(fastcrc.crc64.xz(data))


class MemoryStore:
    """`before` is called with (operation, key) before each request and may raise or block; `requests` counts them."""

    def __init__(
        self, before: Callable[[str, str], None] | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.objects: dict[str, StoredObject] = {}
        self.uploads: dict[str, tuple[str, dict[int, bytes], dict[str, str], str]] = {}
        self.begun: dict[str, float] = {}
        self.heard: dict[str, float] = {}
        self.requests: Counter[str] = Counter()
        self.ranges: list[tuple[str, int, int]] = []
        self.before = before
        self._clock = clock
        self._lock = threading.Lock()
        self._serial = 0
        self.closed = False

    # --- seen by tests ---

    def seed(self, key: str, data: bytes = b"", **extra: str) -> ETag:
        with self._lock:
            return self._store(key, data, user=dict(extra))

    def data(self, key: str) -> bytes:
        return self.objects[key].data

    # --- ObjectStore ---

    def fill(
        self, version: ObjectVersion, offset: int, target: memoryview, *, cancellation: Cancellation | None = None
    ) -> None:
        if_match = version.etag or None
        if offset == 0 and len(target) == version.size:
            size: int = self.read_whole(version.key, target, if_match=if_match)[1]
        else:
            size = self.read_into(version.key, offset, target, if_match=if_match).size
        if size != version.size:
            raise PreconditionFailed(f"{version.key}: {size} bytes", status=412, key=version.key)

    def read_into(
        self, key: ObjectKey, offset: int, target: memoryview, *, if_match: ETag | None = None
    ) -> ObjectMetadata:
        self._enter("GetObject", key)
        with self._lock:
            found = self._followed(key, if_match)
            if offset + len(target) > len(found.data):
                raise RangeNotSatisfiable(f"{key}: range past the end", status=416, key=key)
            self.ranges.append((key, offset, len(target)))
            target[:] = found.data[offset : offset + len(target)]
            return self._metadata(key, found)

    def read_whole(
        self, key: ObjectKey, target: memoryview, *, if_match: ETag | None = None
    ) -> tuple[ObjectMetadata, int]:
        self._enter("GetObject", key)
        with self._lock:
            found = self._followed(key, if_match)
            if len(found.data) > len(target):
                raise RangeNotSatisfiable(f"{key}: larger than the buffer", status=416, key=key)
            self.ranges.append((key, 0, len(found.data)))
            target[: len(found.data)] = found.data
            return self._metadata(key, found), len(found.data)

    def head(self, key: ObjectKey) -> ObjectMetadata:
        self._enter("HeadObject", key)
        with self._lock:
            return self._metadata(key, self._followed(key, None))

    def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        token: str = "",
        start_after: str = "",
        max_keys: int = 1000,
    ) -> ListPage:
        self._enter("ListObjectsV2", prefix)
        objects: list[ListedObject] = []
        prefixes: list[ObjectKey] = []
        after = token or start_after
        last = ""
        with self._lock:
            for key in sorted(self.objects, key=lambda k: k.encode("utf-8", "surrogateescape")):
                if not key.startswith(prefix) or (after and _bytes(key) <= _bytes(after)):
                    continue
                if after.endswith("/") and delimiter and after in prefixes:
                    continue
                cut = key.find(delimiter, len(prefix)) if delimiter else -1
                common = key[: cut + len(delimiter)] if cut >= 0 else ""
                if common and (common in prefixes or (token and token.startswith(common))):
                    last = key
                    continue
                if len(objects) + len(prefixes) >= max_keys:
                    return ListPage(objects, prefixes, last)
                if common:
                    prefixes.append(ObjectKey(common))
                else:
                    found = self.objects[key]
                    objects.append(
                        ListedObject(ObjectKey(key), Bytes(len(found.data)), found.etag, found.modified, found.type)
                    )
                last = key
        return ListPage(objects, prefixes, "")

    def list_all(self, prefix: str, *, delimiter: str = "", start_after: str = "") -> Iterator[ListPage]:
        page = self.list_page(prefix, delimiter=delimiter, start_after=start_after)
        yield page
        while page.next_token:
            page = self.list_page(prefix, delimiter=delimiter, token=page.next_token)
            yield page

    def put(
        self,
        key: ObjectKey,
        body: Sequence[Buffer],
        *,
        user: Mapping[str, str] | None = None,
        content_type: str = "",
        forbid_overwrite: bool = False,
        guarded: bool = False,
    ) -> PutResult:
        self._enter("PutObject", key)
        with self._lock:
            if forbid_overwrite and key in self.objects:
                raise ObjectExists(f"{key} exists", status=409, code="FileAlreadyExists", key=key)
            data = b"".join(body)
            etag = self._store(key, data, user=dict(user or {}), content_type=content_type)
            return PutResult(etag, _crc(data))

    def append(self, key: ObjectKey, position: int, body: Sequence[Buffer], *, content_type: str = "") -> AppendResult:
        self._enter("AppendObject", key)
        with self._lock:
            found = self.objects.get(key)
            if found is not None and found.type != "Appendable":
                raise AppendConflict(f"{key} is not appendable", status=409, code="ObjectNotAppendable", key=key)
            old = found.data if found else b""
            if position != len(old):
                conflict = AppendConflict(
                    f"{key}: position {position}, length {len(old)}",
                    status=409,
                    code="PositionNotEqualToLength",
                )
                conflict.next_position = len(old)
                raise conflict
            data = old + b"".join(body)
            etag = self._store(key, data, type="Appendable", user=found.user if found else {})
            return AppendResult(len(data), etag, _crc(data))

    def copy(
        self,
        source: ObjectKey,
        target: ObjectKey,
        *,
        size: Bytes,
        if_match: ETag | None = None,
        user: Mapping[str, str] | None = None,
        content_type: str = "",
        forbid_overwrite: bool = False,
    ) -> PutResult:
        self._enter("CopyObject", source)
        with self._lock:
            if forbid_overwrite and target in self.objects:
                raise ObjectExists(f"{target} exists", status=409, code="FileAlreadyExists", key=target)
            found = self._find(source, if_match)
            metadata = dict(found.user if user is None else user)
            etag = self._store(target, found.data, type=found.type, user=metadata)
            return PutResult(etag, _crc(found.data))

    def delete(self, key: ObjectKey) -> None:
        self._enter("DeleteObject", key)
        with self._lock:
            self.objects.pop(key, None)

    def delete_many(self, keys: Sequence[ObjectKey]) -> Sequence[DeleteFailure]:
        self._enter("DeleteMultipleObjects", keys[0] if keys else "")
        with self._lock:
            for key in keys:
                self.objects.pop(key, None)
        return []

    def initiate_multipart(
        self, key: ObjectKey, *, user: Mapping[str, str] | None = None, content_type: str = ""
    ) -> str:
        self._enter("InitiateMultipartUpload", key)
        with self._lock:
            self._serial += 1
            upload = f"upload-{self._serial}"
            self.uploads[upload] = (key, {}, dict(user or {}), content_type)
            self.begun[upload] = self._clock()
            return upload

    def upload_part(self, key: ObjectKey, upload_id: str, number: int, body: Sequence[Buffer]) -> Part:
        self._enter("UploadPart", key)
        data = b"".join(body)
        with self._lock:
            self._upload(key, upload_id)[1][number] = data
            self.heard[upload_id] = self._clock()
        return Part(number, _etag(data), Bytes(len(data)), _crc(data))

    def upload_part_copy(
        self,
        key: ObjectKey,
        upload_id: str,
        number: int,
        source: ObjectKey,
        offset: int,
        size: Bytes,
        *,
        if_match: ETag | None = None,
    ) -> ETag:
        self._enter("UploadPartCopy", key)
        with self._lock:
            data = self._find(source, if_match).data[offset : offset + size]
            self._upload(key, upload_id)[1][number] = data
            return _etag(data)

    def complete_multipart(
        self,
        key: ObjectKey,
        upload_id: str,
        parts: Sequence[tuple[int, ETag]],
        *,
        crc64: Crc64 | None = None,
        forbid_overwrite: bool = False,
    ) -> PutResult:
        self._enter("CompleteMultipartUpload", key)
        with self._lock:
            if forbid_overwrite and key in self.objects:
                raise ObjectExists(f"{key} exists", status=409, code="FileAlreadyExists", key=key)
            _, have, user, content_type = self._upload(key, upload_id)
            if any(len(have[number]) < SMALLEST_PART for number, _ in parts[:-1]):
                raise RequestRejected(f"{key}: a part is too small", status=400, code="EntityTooSmall", key=key)
            data = b"".join(have[number] for number, _ in parts)
            del self.uploads[upload_id]
            etag = self._store(key, data, type="Multipart", user=user, content_type=content_type)
            return PutResult(etag, _crc(data))

    def abort_multipart(self, key: ObjectKey, upload_id: str) -> None:
        self._enter("AbortMultipartUpload", key)
        with self._lock:
            self.uploads.pop(upload_id, None)

    def pending_uploads(self, key: ObjectKey) -> Sequence[PendingUpload]:
        self._enter("ListMultipartUploads", key)
        with self._lock:
            return [
                PendingUpload(upload, self.begun[upload]) for upload, found in self.uploads.items() if found[0] == key
            ]

    def newest_part(self, key: ObjectKey, upload_id: str) -> float:
        self._enter("ListParts", key)
        with self._lock:
            self._upload(key, upload_id)
            return self.heard.get(upload_id, 0.0)

    def put_symlink(self, key: ObjectKey, target: str) -> None:
        self._enter("PutSymlink", key)
        with self._lock:
            self._store(key, target.encode("utf-8", "surrogateescape"), type="Symlink")

    def get_symlink(self, key: ObjectKey) -> str:
        self._enter("GetSymlink", key)
        with self._lock:
            return self._find(key, None).data.decode("utf-8", "surrogateescape")

    def close(self) -> None:
        self.closed = True

    # --- private ---

    def _enter(self, operation: str, key: str) -> None:
        with self._lock:
            self.requests[operation] += 1
        if self.before is not None:
            self.before(operation, key)

    def _find(self, key: str, if_match: ETag | None) -> StoredObject:
        found = self.objects.get(key)
        if found is None:
            raise ObjectNotFound(f"{key} does not exist", status=404, code="NoSuchKey", key=key)
        if if_match is not None and found.etag != if_match:
            raise PreconditionFailed(f"{key} changed", status=412, code="PreconditionFailed", key=key)
        return found

    def _followed(self, key: str, if_match: ETag | None) -> StoredObject:
        """What GetObject and HeadObject are about: of a symlink the object it leads to, in one step."""
        found = self._find(key, None)
        if found.type == "Symlink":
            target = self.objects.get(found.data.decode("utf-8", "surrogateescape"))
            if target is None:
                raise ObjectNotFound(f"{key} leads nowhere", status=404, code="SymlinkTargetNotExist", key=key)
            if target.type == "Symlink":
                raise RequestRejected(f"{key} leads to a symlink", status=400, code="InvalidTargetType", key=key)
            found = replace(target, type="Symlink")
        if if_match is not None and found.etag != if_match:
            raise PreconditionFailed(f"{key} changed", status=412, code="PreconditionFailed", key=key)
        return found

    def _upload(self, key: str, upload_id: str) -> tuple[str, dict[int, bytes], dict[str, str], str]:
        found = self.uploads.get(upload_id)
        if found is None:
            raise ObjectNotFound(f"upload {upload_id} does not exist", status=404, code="NoSuchUpload", key=key)
        return found

    def _store(
        self,
        key: str,
        data: bytes,
        *,
        type: str = "Normal",
        user: dict[str, str] | None = None,
        content_type: str = "",
    ) -> ETag:
        self._serial += 1
        etag = ETag(f'"{hashlib.md5(data + str(self._serial).encode()).hexdigest().upper()}"')
        self.objects[key] = StoredObject(data, etag, self._clock(), type, user or {}, content_type)
        return etag

    def _metadata(self, key: str, found: StoredObject) -> ObjectMetadata:
        return ObjectMetadata(
            ObjectKey(key),
            Bytes(len(found.data)),
            found.etag,
            found.modified,
            found.type,
            crc64=_crc(found.data),
            content_type=found.content_type,
            user=dict(found.user),
            next_append_position=len(found.data) if found.type == "Appendable" else -1,
        )


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _etag(data: bytes) -> ETag:
    return ETag(f'"{hashlib.md5(data).hexdigest().upper()}"')
