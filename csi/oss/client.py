"""OssClient: the `ObjectStore` of one bucket over HTTP.

A thin front over `reading`, `writing`, `appending` and `multipart`, which share one `Session`. Safe to use from any
thread and, with a pool of connections of its own, in processes forked later. Loads neither oss2 nor requests.
"""

from __future__ import annotations

import importlib
import random as chance
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from csi.oss import appending, multipart, reading, uploads, writing
from csi.oss.cancellation import Cancellation
from csi.oss.credentials import CredentialsProvider
from csi.oss.exchange import Transport
from csi.oss.lines import Lines
from csi.oss.session import ClientStatistics, Session
from csi.oss.store import (
    AppendResult,
    Buffer,
    DeleteFailure,
    ListPage,
    ObjectMetadata,
    ObjectVersion,
    Part,
    PendingUpload,
    PutResult,
)
from csi.oss.transport import CurlTransport
from csi.volume.spec import HttpOptions, Location, WriteOptions
from csi.volume.units import Bytes, Crc64, ETag, ObjectKey


class OssClient:
    """Implements `csi.oss.store.ObjectStore`, where the methods are described.

    `transport` None makes a libcurl pool from `http`. `clock` is seconds since the epoch (signatures), `monotonic` any
    steady seconds (deadlines); `sleep` None is a wait that `close` ends; `random` is uniform in [0, 1). So many of the
    connections in `http` are kept for `lines`, but one is for the rest.
    """

    def __init__(
        self,
        location: Location,
        http: HttpOptions,
        write: WriteOptions,
        credentials: CredentialsProvider,
        *,
        transport: Transport | None = None,
        lines: int = 0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        random: Callable[[], float] = chance.random,
    ) -> None:
        may_have_lines = transport is None and location.endpoint.startswith("http://") and http.retries > 0
        self._lines = min(lines, http.max_connections - 1) if may_have_lines else 0
        others = http.max_connections - self._lines
        self.session = Session(
            location,
            http,
            write,
            credentials,
            transport or CurlTransport(max_connections=others, connect_timeout=http.connection_timeout),
            clock=clock,
            monotonic=monotonic,
            sleep=sleep,
            random=random,
        )

    def lines(self, largest: Bytes) -> Lines | None:
        """Connections for small objects that are fetched without Python; None where that cannot be: with TLS, another
        transport than libcurl's, when it was not built, or when no request may be made a second time, as one that fails
        there is, or when none were kept."""
        if not self._lines:
            return None
        try:
            importlib.import_module("csi.oss.getting")  # now, while its file is in reach
        except ImportError:
            return None
        return self.session.lines(largest, self._lines)

    def fill(
        self, version: ObjectVersion, offset: int, target: memoryview, *, cancellation: Cancellation | None = None
    ) -> None:
        reading.fill(self.session, version, offset, target, cancellation)

    def read_into(
        self, key: ObjectKey, offset: int, target: memoryview, *, if_match: ETag | None = None
    ) -> ObjectMetadata:
        return reading.read_into(self.session, key, offset, target, if_match)

    def read_whole(
        self, key: ObjectKey, target: memoryview, *, if_match: ETag | None = None
    ) -> tuple[ObjectMetadata, int]:
        return reading.read_whole(self.session, key, target, if_match)

    def read_start(self, key: ObjectKey, target: memoryview) -> tuple[ObjectMetadata, int]:
        """GetObject of the first `len(target)` bytes of an object of any size; see `reading.read_start`."""
        return reading.read_start(self.session, key, target)

    def head(self, key: ObjectKey) -> ObjectMetadata:
        return reading.head(self.session, key)

    def list_page(
        self, prefix: str, *, delimiter: str = "", token: str = "", start_after: str = "", max_keys: int = 1000
    ) -> ListPage:
        return reading.list_page(
            self.session, prefix, delimiter=delimiter, token=token, start_after=start_after, max_keys=max_keys
        )

    def list_all(self, prefix: str, *, delimiter: str = "", start_after: str = "") -> Iterator[ListPage]:
        return reading.list_all(self.session, prefix, delimiter=delimiter, start_after=start_after)

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
        return writing.put(
            *(self.session, key, body),
            user=user,
            content_type=content_type,
            forbid_overwrite=forbid_overwrite,
            guarded=guarded,
        )

    def append(self, key: ObjectKey, position: int, body: Sequence[Buffer], *, content_type: str = "") -> AppendResult:
        return appending.append(self.session, key, position, body, content_type)

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
        return multipart.copy(
            *(self.session, source, target),
            size=size,
            if_match=if_match,
            user=user,
            content_type=content_type,
            forbid_overwrite=forbid_overwrite,
        )

    def delete(self, key: ObjectKey) -> None:
        writing.delete(self.session, key)

    def delete_many(self, keys: Sequence[ObjectKey]) -> Sequence[DeleteFailure]:
        return writing.delete_many(self.session, keys)

    def initiate_multipart(
        self, key: ObjectKey, *, user: Mapping[str, str] | None = None, content_type: str = ""
    ) -> str:
        return multipart.initiate(self.session, key, user=user, content_type=content_type)

    def upload_part(self, key: ObjectKey, upload_id: str, number: int, body: Sequence[Buffer]) -> Part:
        return multipart.upload_part(self.session, key, upload_id, number, body)

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
        return multipart.upload_part_copy(self.session, key, upload_id, number, source, offset, size, if_match)

    def complete_multipart(
        self,
        key: ObjectKey,
        upload_id: str,
        parts: Sequence[tuple[int, ETag]],
        *,
        crc64: Crc64 | None = None,
        forbid_overwrite: bool = False,
    ) -> PutResult:
        return multipart.complete(self.session, key, upload_id, parts, crc64=crc64, forbid_overwrite=forbid_overwrite)

    def abort_multipart(self, key: ObjectKey, upload_id: str) -> None:
        multipart.abort(self.session, key, upload_id)

    def pending_uploads(self, key: ObjectKey) -> Sequence[PendingUpload]:
        return uploads.pending(self.session, key)

    def newest_part(self, key: ObjectKey, upload_id: str) -> float:
        return uploads.newest_part(self.session, key, upload_id)

    def put_symlink(self, key: ObjectKey, target: str) -> None:
        writing.put_symlink(self.session, key, target)

    def get_symlink(self, key: ObjectKey) -> str:
        return reading.get_symlink(self.session, key)

    def statistics(self) -> ClientStatistics:
        """What went over the wire so far."""
        return self.session.statistics()

    def close(self) -> None:
        self.session.close()
