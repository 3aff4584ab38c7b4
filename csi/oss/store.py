"""The seam between the data engine and OSS: what an object store can do, and the values it speaks in.

`csi/oss/client.py` implements `ObjectStore` over HTTP; tests implement it in memory (`tests/support/memory_store.py`).
Every method is synchronous, may be called from any thread, retries by itself, ends within the operation's total
deadline, and raises only `csi.errors.StoreError` (or `CredentialsMissing`). Keys are full keys in the bucket: the
volume's prefix is the business of `csi/fs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from csi.oss.cancellation import Cancellation
from csi.volume.units import Bytes, Crc64, ETag, ObjectKey

Buffer = bytes | bytearray | memoryview
"""A contiguous body; a sequence of them is sent one after another without being joined."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One immutable state of an object: what a block is a piece of."""

    key: ObjectKey
    etag: ETag
    size: Bytes


class ListedObject(NamedTuple):
    """One `Contents` of a listing. `modified`: seconds since the epoch; `type`: Normal, Multipart, Appendable or
    Symlink. A tuple, because a listing makes a million of them and a tuple takes a third of the time."""

    key: ObjectKey
    size: Bytes
    etag: ETag
    modified: float
    type: str = "Normal"
    storage_class: str = "Standard"

    @property
    def version(self) -> ObjectVersion:
        return ObjectVersion(self.key, self.etag, self.size)


@dataclass(frozen=True, slots=True)
class ObjectMetadata:
    """What HeadObject says. `user` maps lower-case names without `x-oss-meta-` to values."""

    key: ObjectKey
    size: Bytes
    etag: ETag
    modified: float
    type: str = "Normal"
    storage_class: str = "Standard"
    crc64: Crc64 | None = None
    content_type: str = ""
    user: Mapping[str, str] = field(default_factory=dict)
    next_append_position: int = -1

    @property
    def version(self) -> ObjectVersion:
        return ObjectVersion(self.key, self.etag, self.size)


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of ListObjectsV2, keys in byte order. `prefixes` end with the delimiter. `next_token` '' at the end."""

    objects: Sequence[ListedObject]
    prefixes: Sequence[ObjectKey]
    next_token: str


@dataclass(frozen=True, slots=True)
class PutResult:
    etag: ETag
    crc64: Crc64 | None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class AppendResult:
    """`crc64` covers the whole object so far."""

    next_position: int
    etag: ETag
    crc64: Crc64 | None


@dataclass(frozen=True, slots=True)
class Part:
    """A part that OSS has: `crc64` and `size` are ours, used to combine the checksum of the whole object."""

    number: int
    etag: ETag
    size: Bytes
    crc64: Crc64


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """A multipart upload that was neither completed nor aborted. `initiated`: seconds since the epoch, 0: not told."""

    upload_id: str
    initiated: float


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    key: ObjectKey
    code: str
    message: str


class ObjectStore(Protocol):
    """Object operations of one bucket (API names in the docstrings are OSS's)."""

    def fill(
        self, version: ObjectVersion, offset: int, target: memoryview, *, cancellation: Cancellation | None = None
    ) -> None:
        """GetObject of `len(target)` bytes at `offset` of one version, straight into `target`: all of them, checked
        against OSS's CRC64 when they are the whole object, or an error.

        Raises PreconditionFailed when the object is another version now, by its ETag or its size, ObjectNotFound,
        EndpointUnreachable after `cancellation` was requested.
        """

    def read_into(
        self, key: ObjectKey, offset: int, target: memoryview, *, if_match: ETag | None = None
    ) -> ObjectMetadata:
        """GetObject of `len(target)` bytes at `offset` straight into `target`; all of it arrives or the call raises.

        Raises PreconditionFailed when the object is no longer `if_match`, ObjectNotFound, RangeNotSatisfiable when the
        range reaches past the end. The returned size is the whole object's.
        """

    def read_whole(
        self, key: ObjectKey, target: memoryview, *, if_match: ETag | None = None
    ) -> tuple[ObjectMetadata, int]:
        """GetObject of an object no larger than `target`; returns its metadata and byte count, checks its CRC64.

        Raises RangeNotSatisfiable when the object is larger than `target`.
        """

    def head(self, key: ObjectKey) -> ObjectMetadata:
        """HeadObject."""

    def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        token: str = "",
        start_after: str = "",
        max_keys: int = 1000,
    ) -> ListPage:
        """One page of ListObjectsV2 (GetBucketV2)."""

    def list_all(self, prefix: str, *, delimiter: str = "", start_after: str = "") -> Iterator[ListPage]:
        """Pages until the end, each fetched when it is asked for."""

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
        """PutObject; compares OSS's CRC64 with ours (ChecksumMismatch), when a damaged body has taken the place of what
        was there. `guarded`: with an MD5, by which OSS refuses one before. ObjectExists when `forbid_overwrite` bites.
        """

    def append(self, key: ObjectKey, position: int, body: Sequence[Buffer], *, content_type: str = "") -> AppendResult:
        """AppendObject at `position`; AppendConflict when it is not the object's length.

        A lost answer is resolved inside: the object's length tells whether the bytes arrived; they are never appended
        twice.
        """

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
        """Server-side copy: CopyObject up to 1 GiB, UploadPartCopy above. `user` given replaces the metadata.
        ObjectExists when `forbid_overwrite` bites."""

    def delete(self, key: ObjectKey) -> None:
        """DeleteObject; an object that is not there is deleted already."""

    def delete_many(self, keys: Sequence[ObjectKey]) -> Sequence[DeleteFailure]:
        """DeleteMultipleObjects in batches of 1000; returns what could not be deleted."""

    def initiate_multipart(
        self, key: ObjectKey, *, user: Mapping[str, str] | None = None, content_type: str = ""
    ) -> str:
        """InitiateMultipartUpload; returns the upload id."""

    def upload_part(self, key: ObjectKey, upload_id: str, number: int, body: Sequence[Buffer]) -> Part:
        """UploadPart; compares CRC64."""

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
        """UploadPartCopy of a range of `source`."""

    def complete_multipart(
        self,
        key: ObjectKey,
        upload_id: str,
        parts: Sequence[tuple[int, ETag]],
        *,
        crc64: Crc64 | None = None,
        forbid_overwrite: bool = False,
    ) -> PutResult:
        """CompleteMultipartUpload; `crc64` is compared with OSS's CRC of the whole object when given.

        A lost answer is resolved inside: NoSuchUpload after a retried request is success if the object has the
        expected ETag-independent length and CRC64.
        """

    def abort_multipart(self, key: ObjectKey, upload_id: str) -> None:
        """AbortMultipartUpload; an upload that is not there is aborted already."""

    def pending_uploads(self, key: ObjectKey) -> Sequence[PendingUpload]:
        """ListMultipartUploads of this key only, at most a thousand."""

    def newest_part(self, key: ObjectKey, upload_id: str) -> float:
        """ListParts: when the last of them arrived, in seconds since the epoch; 0 when there is none."""

    def put_symlink(self, key: ObjectKey, target: str) -> None:
        """PutSymlink: `target` is stored as given (user metadata `symlink-target` keeps the POSIX form)."""

    def get_symlink(self, key: ObjectKey) -> str:
        """GetSymlink: what `put_symlink` stored."""

    def close(self) -> None:
        """Close connections; calls under way end with EndpointUnreachable."""
