"""PutObject, PutSymlink, DeleteObject and DeleteMultipleObjects.

An object that was put is the one that was sent, by OSS's own checksum. A put that must not overwrite and whose answer
was lost is recognised as ours by its content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from csi.errors import ChecksumMismatch, ObjectExists, ObjectNotFound
from csi.oss import reading
from csi.oss.answers import crc64_in, decoded, document_in, element
from csi.oss.checksum import crc64_of
from csi.oss.exchange import HttpAnswer
from csi.oss.markup import escape
from csi.oss.requests import Call, body_headers, content_md5, write_headers
from csi.oss.session import Session, Trace, mismatch
from csi.oss.signing import quote_bytes
from csi.oss.store import Buffer, DeleteFailure, PutResult
from csi.volume.units import Crc64, ETag, ObjectKey

DELETE_BATCH = 1000
LONGEST_KEY = 1023
"""Bytes of UTF-8."""


def put(
    session: Session,
    key: ObjectKey,
    body: Sequence[Buffer],
    *,
    user: Mapping[str, str] | None,
    content_type: str,
    forbid_overwrite: bool,
    guarded: bool = False,
) -> PutResult:
    """See `ObjectStore.put`."""
    headers = write_headers(session.write, user=user, content_type=content_type, forbid_overwrite=forbid_overwrite)
    headers |= body_headers(session.write, body, guarded=guarded)
    call = Call("PutObject", "PUT", key, headers=headers, body=body, once=forbid_overwrite)
    ours = crc64_of(body) if session.write.crc64 else None
    damaged: list[Crc64] = []  # what attempts have made of it

    def check(answer: HttpAnswer) -> None:
        if ours is not None:
            try:
                check_crc(call, ours, answer)
            except ChecksumMismatch:
                damaged.extend(filter(None, [crc64_in(answer.headers)]))
                raise

    trace = Trace()
    try:
        answer = session.call(call, check=check, trace=trace)
    except ObjectExists:
        # Nothing tells our empty object from another's, so an empty one counts as another's.
        if not (trace.lost or damaged) or not call.body_size:
            raise
        found = reading.head(session, key)
        if found.size != call.body_size or found.crc64 is None:
            raise
        if found.crc64 in damaged:  # ours, and wrong: it may be overwritten
            return put(session, key, body, user=user, content_type=content_type, forbid_overwrite=False)
        if found.crc64 != (ours or crc64_of(body)):
            raise
        return PutResult(found.etag, found.crc64)
    return put_result(answer)


def put_symlink(session: Session, key: ObjectKey, target: str) -> None:
    """See `ObjectStore.put_symlink`.

    OSS wants the target to be an object key, so one that cannot be (`/absolute`) has a stand-in there; the metadata
    holds what was given.
    """
    headers = write_headers(session.write, user={reading.SYMLINK_TARGET_METADATA: quote_bytes(target)})
    headers["x-oss-symlink-target"] = quote_bytes(_as_key(target))
    session.call(Call("PutSymlink", "PUT", key, query=[("symlink", "")], headers=headers))


def delete(session: Session, key: ObjectKey) -> None:
    """See `ObjectStore.delete`."""
    try:
        session.call(Call("DeleteObject", "DELETE", key))
    except ObjectNotFound:
        return


def delete_many(session: Session, keys: Sequence[ObjectKey]) -> Sequence[DeleteFailure]:
    """See `ObjectStore.delete_many`. Keys that XML cannot hold are deleted one by one."""
    listable = [key for key in keys if _fits_xml(key)]
    failures: list[DeleteFailure] = []
    for start in range(0, len(listable), DELETE_BATCH):
        failures += _delete_batch(session, listable[start : start + DELETE_BATCH])
    for key in keys:
        if not _fits_xml(key):
            delete(session, key)
    return failures


def check_crc(call: Call, ours: Crc64, answer: HttpAnswer) -> None:
    """Raises ChecksumMismatch if OSS has stored anything else."""
    theirs = crc64_in(answer.headers)
    if theirs is not None and theirs != ours:
        raise mismatch("the CRC64 of what OSS stored", call, ours, theirs)


def put_result(answer: HttpAnswer) -> PutResult:
    """The result in the headers of PutObject or (with the ETag in the document) of a copy or a completed upload."""
    etag = answer.headers.get("etag") or element(answer.body, "ETag")
    return PutResult(ETag(etag), crc64_in(answer.headers), answer.headers.get("x-oss-request-id", ""))


def _delete_batch(session: Session, keys: Sequence[ObjectKey]) -> list[DeleteFailure]:
    names = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    document = f'<?xml version="1.0" encoding="UTF-8"?><Delete><Quiet>false</Quiet>{names}</Delete>'.encode()
    headers = {"content-type": "application/xml", "content-md5": content_md5([document])}
    query = [("delete", ""), ("encoding-type", "url")]
    call = Call("DeleteMultipleObjects", "POST", query=query, headers=headers, body=[document])
    root = document_in(session.call(call).body, call)
    is_encoded = root.findtext("EncodingType", "") == "url"
    left = dict.fromkeys(keys)
    failures = []
    for node in root:
        key = ObjectKey(decoded(node.findtext("Key", ""), is_encoded))
        if node.tag in ("Deleted", "Error") and key in left:
            del left[key]
            if node.tag == "Error":
                failures.append(DeleteFailure(key, node.findtext("Code", ""), node.findtext("Message", "")))
    failures += [DeleteFailure(key, "NotDeleted", "OSS does not list the object as deleted") for key in left]
    return failures


def _as_key(target: str) -> str:
    raw = target.lstrip("/\\").encode("utf-8", "surrogateescape")[:LONGEST_KEY]
    return raw.decode("utf-8", "ignore") or "-"


def _fits_xml(key: str) -> bool:
    return not any((c < " " and c not in "\t\n\r") or "\ud800" <= c <= "\udfff" or c in "\ufffe\uffff" for c in key)
