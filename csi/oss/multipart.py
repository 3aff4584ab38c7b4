"""Multipart uploads, and the copies that need them.

Parts are checked one by one and the whole object at completion. A completion whose answer was lost is recognised by
the object that is there. A large copy preserves type and user metadata of its source, reads one version of it only,
and leaves no upload behind when it fails.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from csi.errors import ObjectExists, ObjectNotFound, ObjectTooLarge, OssFuseError, StoreError
from csi.oss import reading
from csi.oss.answers import element, shown
from csi.oss.checksum import EMPTY, crc64_of
from csi.oss.exchange import HttpAnswer
from csi.oss.requests import Call, body_headers, write_headers
from csi.oss.session import Session, Trace
from csi.oss.signing import quote_bytes
from csi.oss.store import Buffer, Part, PutResult
from csi.oss.writing import check_crc, put_result
from csi.volume.units import GIB, MIB, Bytes, Crc64, ETag, ObjectKey

_log = logging.getLogger(__name__)

LARGEST_SIMPLE_COPY = Bytes(1 * GIB)
MOST_PARTS = 10_000
COPY_PART = 256 * MIB
_COPY_THREADS = 8


def initiate(session: Session, key: ObjectKey, *, user: Mapping[str, str] | None, content_type: str) -> str:
    """See `ObjectStore.initiate_multipart`."""
    headers = write_headers(session.write, user=user, content_type=content_type)
    call = Call("InitiateMultipartUpload", "POST", key, query=[("uploads", "")], headers=headers)
    upload_id = element(session.call(call).body, "UploadId")
    if not upload_id:
        raise StoreError(
            f"InitiateMultipartUpload {shown(key)}: the answer holds no upload id", operation=call.operation
        )
    return upload_id


def upload_part(session: Session, key: ObjectKey, upload_id: str, number: int, body: Sequence[Buffer]) -> Part:
    """See `ObjectStore.upload_part`."""
    headers = body_headers(session.write, body)
    call = Call("UploadPart", "PUT", key, query=_part(upload_id, number), headers=headers, body=body, summed=True)
    ours = EMPTY

    def check(answer: HttpAnswer) -> None:
        nonlocal ours
        ours = crc64_of(body) if answer.sent_crc64 is None else answer.sent_crc64
        if session.write.crc64:
            check_crc(call, ours, answer)

    answer = session.call(call, check=check)
    return Part(number, ETag(answer.headers.get("etag", "")), Bytes(call.body_size), ours)


def upload_part_copy(
    session: Session,
    key: ObjectKey,
    upload_id: str,
    number: int,
    source: ObjectKey,
    offset: int,
    size: Bytes,
    if_match: ETag | None,
) -> ETag:
    """See `ObjectStore.upload_part_copy`."""
    headers = _copy_headers(session, source, if_match)
    headers["x-oss-copy-source-range"] = f"bytes={offset}-{offset + size - 1}"
    answer = session.call(Call("UploadPartCopy", "PUT", key, query=_part(upload_id, number), headers=headers))
    return put_result(answer).etag


def complete(
    session: Session,
    key: ObjectKey,
    upload_id: str,
    parts: Sequence[tuple[int, ETag]],
    *,
    crc64: Crc64 | None,
    forbid_overwrite: bool,
) -> PutResult:
    """See `ObjectStore.complete_multipart`."""
    headers = {"content-type": "application/xml"}
    if forbid_overwrite:
        headers["x-oss-forbid-overwrite"] = "true"
    listed = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in sorted(parts)
    )
    document = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
    call = Call(
        "CompleteMultipartUpload",
        "POST",
        key,
        query=[("uploadId", upload_id)],
        headers=headers,
        body=[document],
        once=True,
    )
    trace = Trace()
    try:
        answer = session.call(call, trace=trace)
    except (ObjectNotFound, ObjectExists):
        result = _completed(session, key, len(parts), crc64) if trace.lost else None
        if result is None:
            raise
        return result
    # Not retried: the upload is gone, so a mismatch is final.
    if crc64 is not None and session.write.crc64:
        check_crc(call, crc64, answer)
    return put_result(answer)


def abort(session: Session, key: ObjectKey, upload_id: str) -> None:
    """See `ObjectStore.abort_multipart`."""
    try:
        session.call(Call("AbortMultipartUpload", "DELETE", key, query=[("uploadId", upload_id)]))
    except ObjectNotFound:
        return


def copy(
    session: Session,
    source: ObjectKey,
    target: ObjectKey,
    *,
    size: Bytes,
    if_match: ETag | None,
    user: Mapping[str, str] | None,
    content_type: str,
    forbid_overwrite: bool,
) -> PutResult:
    """See `ObjectStore.copy`."""
    if size > LARGEST_SIMPLE_COPY:
        return _copy_by_parts(
            *(session, source, target),
            if_match=if_match,
            user=user,
            content_type=content_type,
            forbid_overwrite=forbid_overwrite,
        )
    headers = write_headers(session.write, user=user, content_type=content_type, forbid_overwrite=forbid_overwrite)
    headers |= _copy_headers(session, source, if_match)
    if user is not None:
        headers["x-oss-metadata-directive"] = "REPLACE"
    trace = Trace()
    try:
        answer = session.call(Call("CopyObject", "PUT", target, headers=headers, once=forbid_overwrite), trace=trace)
    except ObjectExists:
        made = _copied(session, source, target) if trace.lost and size else None
        if made is None:
            raise
        return made
    return put_result(answer)


def _copied(session: Session, source: ObjectKey, target: ObjectKey) -> PutResult | None:
    """The result of the copy whose answer was lost, None if what is there is something else."""
    made, copied = reading.head(session, target), reading.head(session, source)
    is_ours = made.size == copied.size and made.crc64 is not None and made.crc64 == copied.crc64
    return PutResult(made.etag, made.crc64) if is_ours else None


def _copy_by_parts(
    session: Session,
    source: ObjectKey,
    target: ObjectKey,
    *,
    if_match: ETag | None,
    user: Mapping[str, str] | None,
    content_type: str,
    forbid_overwrite: bool,
) -> PutResult:
    found = reading.head(session, source)
    version = if_match or found.etag
    plan = copy_plan(found.size)
    upload_id = initiate(
        session,
        target,
        user=found.user if user is None else user,
        content_type=content_type or found.content_type,
    )

    def copy_one(number: int, offset: int, length: Bytes) -> tuple[int, ETag]:
        return number, upload_part_copy(session, target, upload_id, number, source, offset, length, version)

    try:
        with ThreadPoolExecutor(_COPY_THREADS, thread_name_prefix="oss-copy") as pool:
            copies = [pool.submit(copy_one, *piece) for piece in plan]
            try:
                parts = [copied.result() for copied in copies]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return complete(session, target, upload_id, parts, crc64=found.crc64, forbid_overwrite=forbid_overwrite)
    except BaseException:
        _abort_quietly(session, target, upload_id)
        raise


def copy_plan(size: Bytes) -> list[tuple[int, int, Bytes]]:
    """(part number, offset, length) of the parts that cover an object of `size` bytes. Raises ObjectTooLarge."""
    part = max(COPY_PART, -(-size // MOST_PARTS))
    if part > 5 * GIB:
        raise ObjectTooLarge(f"{size} bytes do not fit into {MOST_PARTS} parts of 5 GiB")
    return [
        (number, offset, Bytes(min(part, size - offset))) for number, offset in enumerate(range(0, size, part), start=1)
    ]


def _completed(session: Session, key: ObjectKey, parts: int, crc64: Crc64 | None) -> PutResult | None:
    """The result of the completion whose answer was lost, None if the object is not what it would have made."""
    try:
        found = reading.head(session, key)
    except ObjectNotFound:
        return None
    if crc64 is None or found.crc64 is None:
        is_ours = found.type == "Multipart" and found.etag.strip('"').endswith(f"-{parts}")
    else:
        is_ours = found.crc64 == crc64
    return PutResult(found.etag, found.crc64) if is_ours else None


def _abort_quietly(session: Session, key: ObjectKey, upload_id: str) -> None:
    try:
        abort(session, key, upload_id)
    except OssFuseError as error:  # what made the copy fail is the error to show
        _log.warning("the upload of a failed copy stays behind: %s", error)


def _copy_headers(session: Session, source: ObjectKey, if_match: ETag | None) -> dict[str, str]:
    headers = {"x-oss-copy-source": f"/{session.location.bucket}/{quote_bytes(source, safe='/')}"}
    if if_match is not None:
        headers["x-oss-copy-source-if-match"] = if_match
    return headers


def _part(upload_id: str, number: int) -> list[tuple[str, str]]:
    return [("partNumber", str(number)), ("uploadId", upload_id)]
