"""GetObject, HeadObject, ListObjectsV2 and GetSymlink: everything that changes nothing.

Bodies arrive in the caller's memory. A body is accepted only if it is as long as OSS says, of the version that was
asked for, and, when it is a whole object, of the checksum OSS keeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from csi.errors import PreconditionFailed, RangeNotSatisfiable, RequestRejected, ServerFailure
from csi.oss.answers import crc64_in, metadata_of, shown, whole_size
from csi.oss.cancellation import Cancellation
from csi.oss.checksum import crc64_of
from csi.oss.exchange import HttpAnswer
from csi.oss.listing import parse_page
from csi.oss.ranges import WantedRange
from csi.oss.requests import Call
from csi.oss.session import Session, mismatch
from csi.oss.store import ListPage, ObjectMetadata, ObjectVersion
from csi.volume.units import ETag, ObjectKey

SYMLINK_TARGET_METADATA = "symlink-target"


def fill(
    session: Session, version: ObjectVersion, offset: int, target: memoryview, cancellation: Cancellation | None
) -> None:
    """See `ObjectStore.fill`."""
    end = offset + len(target)
    whole = offset == 0 and end == version.size
    answer = None
    if end <= version.size and len(target):
        span = None if whole else (offset, end)
        answer = session.try_get(version.key, span, target, version.etag, cancellation)
        if answer is not None and version.etag and _is_right(session, answer, version, offset, target):
            return
    if_match = version.etag or None
    if whole:
        size = _read_whole(session, version.key, target, if_match, answer, cancellation)[1]
    else:
        size = _read_into(session, version.key, offset, target, if_match, answer, cancellation).size
    if size != version.size:
        raise PreconditionFailed(
            f"{shown(version.key)}: {size} bytes where {version.size} were listed",
            status=412,
            operation="GetObject",
            key=version.key,
            hint="the object was replaced; open the file again",
        )


def _is_right(session: Session, answer: HttpAnswer, version: ObjectVersion, offset: int, target: memoryview) -> bool:
    """Whether this is beyond doubt what was asked for; all that is not is left to who knows what to make of it."""
    headers = answer.headers
    if answer.failure is not None or answer.received != len(target) or headers.get("etag") != version.etag:
        return False
    if answer.status == 206:
        return headers.get("content-range") == f"bytes {offset}-{offset + len(target) - 1}/{version.size}"
    if answer.status != 200 or len(target) != version.size:
        return False
    theirs = crc64_in(headers)
    return theirs is None or not session.write.crc64 or crc64_of([target]) == theirs


def read_into(
    session: Session, key: ObjectKey, offset: int, target: memoryview, if_match: ETag | None
) -> ObjectMetadata:
    """See `ObjectStore.read_into`."""
    return _read_into(session, key, offset, target, if_match, None, None)


def _read_into(
    session: Session,
    key: ObjectKey,
    offset: int,
    target: memoryview,
    if_match: ETag | None,
    begun: HttpAnswer | None,
    cancellation: Cancellation | None,
) -> ObjectMetadata:
    if not len(target):
        return _unchanged(head(session, key), if_match)
    wanted = WantedRange(key, offset, target, if_match)
    answer = session.call(
        wanted.call(), check=wanted.check, resume=wanted.resume, begun=begun, cancellation=cancellation
    )
    return _unchanged(metadata_of(key, answer), if_match)


def read_whole(
    session: Session, key: ObjectKey, target: memoryview, if_match: ETag | None
) -> tuple[ObjectMetadata, int]:
    """See `ObjectStore.read_whole`."""
    return _read_whole(session, key, target, if_match, None, None)


def _read_whole(
    session: Session,
    key: ObjectKey,
    target: memoryview,
    if_match: ETag | None,
    begun: HttpAnswer | None,
    cancellation: Cancellation | None,
) -> tuple[ObjectMetadata, int]:
    headers = {"if-match": if_match} if if_match is not None else {}
    call = Call("GetObject", "GET", key, headers=headers, target=target)

    def check(answer: HttpAnswer) -> None:
        size = whole_size(answer)
        if answer.overflow:
            raise RangeNotSatisfiable(f"the object has {size} bytes, the buffer {len(target)}", status=416)
        if answer.received != size:
            raise mismatch("the length of the body", call, size, answer.received)
        theirs = crc64_in(answer.headers)
        if session.write.crc64 and theirs is not None:
            found = crc64_of([target[:size]])
            if found != theirs:
                raise mismatch("the CRC64 of the body", call, theirs, found)

    answer = session.call(call, check=check, begun=begun, cancellation=cancellation)
    return _unchanged(metadata_of(key, answer), if_match), answer.received


def read_start(session: Session, key: ObjectKey, target: memoryview) -> tuple[ObjectMetadata, int]:
    """GetObject of the first `len(target)` bytes, or of all there are: how many came. One request, whatever the size.

    An object that came whole was compared with its CRC64. For an empty one, that has no first byte, there are two.
    """
    span = (0, len(target))
    headers = {"range": f"bytes=0-{len(target) - 1}", "x-oss-range-behavior": "standard"}
    call = Call("GetObject", "GET", key, headers=headers, target=target)

    def check(answer: HttpAnswer) -> None:
        size = whole_size(answer)
        if answer.overflow:
            raise RequestRejected("the server does not answer range requests", status=answer.status)
        if answer.received != min(size, len(target)):
            raise mismatch("the length of the body", call, min(size, len(target)), answer.received)
        theirs = crc64_in(answer.headers) if answer.received == size and session.write.crc64 else None
        if theirs is not None and crc64_of([target[:size]]) != theirs:
            raise mismatch("the CRC64 of the body", call, theirs, crc64_of([target[:size]]))

    try:
        answer = session.call(call, check=check, begun=session.try_get(key, span, target, ETag("")))
    except RangeNotSatisfiable:
        return _read_whole(session, key, target[:0], None, None, None)
    return metadata_of(key, answer), answer.received


def head(session: Session, key: ObjectKey) -> ObjectMetadata:
    """See `ObjectStore.head`."""
    answer = session.call(Call("HeadObject", "HEAD", key))
    if "content-length" not in answer.headers:  # left out by a proxy that sends bodies in chunks
        return read_start(session, key, memoryview(bytearray(1)))[0]
    return metadata_of(key, answer)


def list_page(
    session: Session, prefix: str, *, delimiter: str, token: str, start_after: str, max_keys: int
) -> ListPage:
    """See `ObjectStore.list_page`."""
    parameters = {
        "list-type": "2",
        "encoding-type": "url",
        "max-keys": str(max_keys),
        "prefix": prefix,
        "delimiter": delimiter,
        "continuation-token": token,
        "start-after": start_after,
    }
    query = [(name, value) for name, value in parameters.items() if value]
    pages: list[ListPage] = []
    # parsed as a check, so that the error page of a passing proxy is another failed attempt
    session.call(
        Call("ListObjects", "GET", query=query), check=lambda answer: pages.append(parse_page(answer.body, prefix))
    )
    return pages[-1]


def list_all(session: Session, prefix: str, *, delimiter: str, start_after: str) -> Iterator[ListPage]:
    """See `ObjectStore.list_all`."""
    token = ""
    while True:
        page = list_page(session, prefix, delimiter=delimiter, token=token, start_after=start_after, max_keys=1000)
        yield page
        if not page.next_token:
            return
        if page.next_token == token:
            raise ServerFailure(
                f"ListObjects {shown(prefix)}: the server repeats a continuation token", operation="ListObjects"
            )
        token = page.next_token


def get_symlink(session: Session, key: ObjectKey) -> str:
    """See `ObjectStore.get_symlink`."""
    headers = session.call(Call("GetSymlink", "GET", key, query=[("symlink", "")])).headers
    stored = headers.get(f"x-oss-meta-{SYMLINK_TARGET_METADATA}") or headers.get("x-oss-symlink-target", "")
    return unquote_to_bytes(stored.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def _unchanged(metadata: ObjectMetadata, if_match: ETag | None) -> ObjectMetadata:
    if if_match is not None and not metadata.etag:
        raise ServerFailure(
            f"GetObject {shown(metadata.key)}: the answer has no ETag, which OSS always gives",
            operation="GetObject",
            key=metadata.key,
            hint="check that the endpoint is an OSS endpoint, not a proxy",
        )
    if if_match is not None and metadata.etag != if_match:  # a server that ignores If-Match
        raise PreconditionFailed(
            f"GetObject {shown(metadata.key)}: the object is now {metadata.etag}, not {if_match}",
            status=412,
            operation="GetObject",
            key=metadata.key,
        )
    return metadata
