"""What is asked of a bucket now and then, through oss2: its description, and uploads that were left behind.

Loaded only by those who administer (the controller, the command line), never by the client of the data path, because
oss2 costs start-up time and memory. Errors are those of the rest of the room.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

from csi.errors import EndpointUnreachable, ObjectNotFound, RequestRejected
from csi.oss.answers import error_of
from csi.oss.credentials import CredentialsProvider
from csi.oss.exchange import HttpAnswer
from csi.oss.requests import Call
from csi.volume.spec import HttpOptions, Location
from csi.volume.units import Bytes, ObjectKey, Seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BucketInfo:
    """GetBucketInfo. `created`: seconds since the epoch."""

    name: str
    location: str
    storage_class: str
    acl: str
    created: float


@dataclass(frozen=True, slots=True)
class BucketStat:
    """GetBucketStat, which OSS computes about once an hour."""

    stored: Bytes
    objects: int
    multipart_uploads: int


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """An upload neither completed nor aborted. `initiated`: seconds since the epoch."""

    key: ObjectKey
    upload_id: str
    initiated: float


class BucketAdministration:
    """Rare operations on one bucket. Not for the data path; may be used from several threads."""

    def __init__(
        self,
        location: Location,
        http: HttpOptions,
        credentials: CredentialsProvider,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._location = location
        self._http = http
        self._credentials = credentials
        self._clock = clock

    def info(self) -> BucketInfo:
        """GetBucketInfo."""
        with self._bucket("GetBucketInfo") as bucket:
            found = bucket.get_bucket_info()
            return BucketInfo(
                found.name,
                found.location,
                found.storage_class,
                found.acl.grant,
                datetime.fromisoformat(found.creation_date).timestamp(),
            )

    def region(self) -> str:
        """GetBucketLocation, for instance `oss-cn-hangzhou`."""
        with self._bucket("GetBucketLocation") as bucket:
            return str(bucket.get_bucket_location().location)

    def acl(self) -> str:
        """GetBucketAcl: private, public-read or public-read-write."""
        with self._bucket("GetBucketAcl") as bucket:
            return str(bucket.get_bucket_acl().acl)

    def stat(self) -> BucketStat:
        """GetBucketStat."""
        with self._bucket("GetBucketStat") as bucket:
            found = bucket.get_bucket_stat()
            return BucketStat(Bytes(found.storage_size_in_bytes), found.object_count, found.multi_part_upload_count)

    def pending_uploads(self, prefix: str = "", *, older_than: Seconds = Seconds(0.0)) -> Iterator[PendingUpload]:  # noqa: B008 - a NewType is the identity
        """ListMultipartUploads under `prefix`, initiated at least `older_than` ago."""
        key_marker = upload_marker = ""
        while True:
            with self._bucket("ListMultipartUploads") as bucket:
                page = bucket.list_multipart_uploads(
                    prefix=prefix, key_marker=key_marker, upload_id_marker=upload_marker
                )
            for upload in page.upload_list:
                if self._clock() - upload.initiation_date >= older_than:
                    yield PendingUpload(ObjectKey(upload.key), upload.upload_id, float(upload.initiation_date))
            if not page.is_truncated:
                return
            key_marker, upload_marker = page.next_key_marker, page.next_upload_id_marker

    def abort_uploads(self, prefix: str = "", *, older_than: Seconds) -> int:
        """AbortMultipartUpload of all of `pending_uploads`; returns how many were aborted."""
        aborted = 0
        for upload in list(self.pending_uploads(prefix, older_than=older_than)):
            try:
                with self._bucket("AbortMultipartUpload", upload.key) as bucket:
                    bucket.abort_multipart_upload(upload.key, upload.upload_id)
            except ObjectNotFound:
                continue  # completed or aborted meanwhile
            aborted += 1
            _log.info("aborted upload %s of %r", upload.upload_id, upload.key)
        return aborted

    @contextmanager
    def _bucket(self, operation: str, key: ObjectKey = ObjectKey("")) -> Iterator[Any]:  # noqa: B008 - as above
        """An oss2.Bucket with the credentials of this moment, whose errors leave as ours."""
        import oss2  # noqa: PLC0415 - the reason for this module
        import oss2.exceptions  # noqa: PLC0415

        # At DEBUG oss2 logs what it signs, security token included.
        logging.getLogger("oss2").setLevel(logging.INFO)
        credentials = self._credentials.current()
        auth: Any = oss2.AnonymousAuth()
        if credentials is not None:
            version = oss2.AUTH_VERSION_1 if self._http.signature_version == 1 else oss2.AUTH_VERSION_4
            auth = oss2.StsAuth(
                credentials.access_key_id,
                credentials.access_key_secret,
                credentials.security_token,
                auth_version=version,
            )
        bucket = oss2.Bucket(
            auth,
            self._location.endpoint,
            self._location.bucket,
            connect_timeout=self._http.timeout,
            is_path_style=self._location.path_style,
            region=self._location.region,
            session=_session_without_environment(oss2),
        )
        try:
            yield bucket
        except oss2.exceptions.RequestError as error:
            raise EndpointUnreachable(
                f"{operation} {self._location.bucket}: no answer from {self._location.endpoint} "
                f"({type(error.exception).__name__})",
                operation=operation,
                hint="check the endpoint and the network to it",
            ) from None
        except oss2.exceptions.ServerError as error:
            headers = {str(name).lower(): str(value) for name, value in (error.headers or {}).items()}
            answer = HttpAnswer(error.status, headers, error.body if isinstance(error.body, bytes) else b"")
            raise error_of(answer, Call(operation, "GET", key), self._location) from None
        except (oss2.exceptions.OssError, ElementTree.ParseError) as error:
            raise RequestRejected(
                f"{operation} {self._location.bucket}: oss2 cannot make or read it ({type(error).__name__})",
                operation=operation,
                hint="check that the endpoint is an OSS endpoint",
            ) from None


def _session_without_environment(oss2: Any) -> Any:
    session = oss2.Session()
    session.session.trust_env = False
    return session
