"""What an answer of OSS means: metadata from headers, typed errors from statuses and XML.

One table says which error each OSS code becomes and what the user should do next. Messages name operation, object,
code and request id; they never contain a credential: of an error document only the fields listed here are read
(SignatureDoesNotMatch, for one, repeats the access key and the text that was signed).
"""

from __future__ import annotations

import base64
import binascii
import calendar
import contextlib
import re
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

from csi.errors import (
    AppendConflict,
    AuthenticationFailed,
    BucketNotFound,
    ObjectArchived,
    ObjectExists,
    ObjectNotFound,
    ObjectTooLarge,
    PermissionDenied,
    PreconditionFailed,
    RangeNotSatisfiable,
    RequestRejected,
    ServerFailure,
    StoreError,
)
from csi.oss.exchange import HttpAnswer
from csi.oss.markup import unescape
from csi.oss.requests import Call
from csi.oss.store import ObjectMetadata
from csi.volume.spec import Location
from csi.volume.units import Bytes, Crc64, ETag, ObjectKey

_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}

_KEYS = "check AccessKeyId and AccessKeySecret"
_TOKEN = "the temporary credentials are no longer valid: renew the SecurityToken"  # noqa: S105 - a hint, not a token
_CLOCK = "set the clock of this node: OSS accepts a difference of 15 minutes"

_BY_CODE: dict[str, tuple[type[StoreError], str]] = {
    "NoSuchKey": (ObjectNotFound, ""),
    "NoSuchUpload": (ObjectNotFound, "the upload was completed, aborted or removed by a lifecycle rule"),
    "SymlinkTargetNotExist": (ObjectNotFound, "the symlink points to an object that does not exist"),
    "NoSuchBucket": (BucketNotFound, "check bucket {bucket} and endpoint {endpoint}"),
    "InvalidBucketName": (BucketNotFound, "check bucket {bucket}"),
    "InvalidAccessKeyId": (AuthenticationFailed, _KEYS + "; the key may be disabled, deleted or of another account"),
    "SignatureDoesNotMatch": (AuthenticationFailed, "check AccessKeySecret and the region of endpoint {endpoint}"),
    "InvalidSecurityToken": (AuthenticationFailed, _TOKEN),
    "SecurityTokenExpired": (AuthenticationFailed, _TOKEN),
    "SecurityTokenNotSupported": (AuthenticationFailed, _TOKEN),
    "RequestTimeTooSkewed": (AuthenticationFailed, _CLOCK),
    "RequestExpired": (AuthenticationFailed, _CLOCK),
    "AccessDenied": (PermissionDenied, "grant oss:{operation} on {resource} to the identity of this volume"),
    "UserDisable": (PermissionDenied, "the account is disabled or has overdue payments"),
    "KmsServiceNotEnabled": (PermissionDenied, "enable KMS for the account of the bucket"),
    "InvalidObjectState": (ObjectArchived, "restore the object (ossutil restore) before reading it"),
    "PreconditionFailed": (PreconditionFailed, ""),
    "NotModified": (PreconditionFailed, ""),
    "FileAlreadyExists": (ObjectExists, ""),
    "FileImmutable": (PermissionDenied, "a retention policy (WORM) protects the object"),
    "PositionNotEqualToLength": (AppendConflict, "another writer appended to the object"),
    "ObjectNotAppendable": (AppendConflict, "the object was not created by AppendObject"),
    "InvalidRange": (RangeNotSatisfiable, ""),
    "EntityTooLarge": (ObjectTooLarge, "raise fs.oss.blocklet.size.mb"),
    "FilePartTooLarge": (ObjectTooLarge, ""),
    "AppendObjectOverLimit": (ObjectTooLarge, "an appendable object holds 5 GiB"),
    "RequestTimeout": (ServerFailure, ""),
    "InvalidDigest": (ServerFailure, "the data was damaged on the way; OSS did not store it"),
    "QpsLimitExceeded": (ServerFailure, "the account's request rate is exhausted"),
    "DownloadTrafficRateLimitExceeded": (ServerFailure, "the account's bandwidth is exhausted"),
    "UploadTrafficRateLimitExceeded": (ServerFailure, "the account's bandwidth is exhausted"),
}

_BY_STATUS: dict[int, tuple[type[StoreError], str]] = {
    403: (PermissionDenied, "check the access key and that it may oss:{operation} on {resource}"),
    404: (ObjectNotFound, ""),
    408: (ServerFailure, ""),
    412: (PreconditionFailed, ""),
    413: (ObjectTooLarge, ""),
    416: (RangeNotSatisfiable, ""),
    429: (ServerFailure, ""),
}

_ERROR_DOCUMENT = re.compile(rb"\s*(<\?xml[^>]*>)?\s*<Error>")


def is_unbelievable(answer: HttpAnswer) -> bool:
    """Whether a 2xx does not say that something was changed: it is not from OSS, which gives every request an id (but
    from a proxy, a portal), or it began before what went wrong in the end."""
    return "x-oss-request-id" not in answer.headers or _ERROR_DOCUMENT.match(answer.body) is not None


def error_of(answer: HttpAnswer, call: Call, location: Location) -> StoreError:
    """The typed error of an answer that is not a success, whatever its status."""
    document = answer.body
    if not document and "x-oss-err" in answer.headers:  # a HEAD has no body, the document is in a header
        with contextlib.suppress(binascii.Error):
            document = base64.b64decode(answer.headers["x-oss-err"])
    code = _element(document, b"Code")
    if not code and answer.status == 404:
        code = "NoSuchKey"
    kind, hint = _BY_CODE.get(code) or _BY_STATUS.get(answer.status) or _by_family(answer.status)
    resource = f"oss://{location.bucket}/{call.key}"
    detail = _element(document, b"Message")
    reason = f"{code}: {detail}" if detail and kind is not AuthenticationFailed else code
    request_id = answer.headers.get("x-oss-request-id", "") or _element(document, b"RequestId")
    ec = answer.headers.get("x-oss-ec", "") or _element(document, b"EC")
    references = ", ".join(text for text in (request_id and f"request {request_id}", ec and f"EC {ec}") if text)
    error = kind(
        f"{call.operation} {shown(resource)}: {answer.status} {reason or 'without an error code'}"
        + (f" ({references})" if references else ""),
        status=answer.status,
        code=code,
        request_id=request_id,
        operation=call.operation,
        key=call.key,
        hint=hint.format(
            bucket=location.bucket, endpoint=location.endpoint, operation=call.operation, resource=shown(resource)
        ),
    )
    error.bucket = location.bucket
    if isinstance(error, ServerFailure):
        with contextlib.suppress(ValueError):
            error.retry_after = max(0.0, float(answer.headers.get("retry-after", "0")))
    if isinstance(error, AppendConflict):
        error.next_position = _integer(answer.headers.get("x-oss-next-append-position"), -1)
    return error


def metadata_of(key: ObjectKey, answer: HttpAnswer) -> ObjectMetadata:
    """The metadata in the headers of GetObject or HeadObject; the size is that of the whole object."""
    headers = answer.headers
    return ObjectMetadata(
        key=key,
        size=whole_size(answer),
        etag=ETag(headers.get("etag", "")),
        modified=_moment(headers.get("last-modified", "")),
        type=headers.get("x-oss-object-type", "Normal"),
        storage_class=headers.get("x-oss-storage-class", "Standard"),
        crc64=crc64_in(headers),
        content_type=headers.get("content-type", ""),
        user={name[11:]: value for name, value in headers.items() if name.startswith("x-oss-meta-")},
        next_append_position=_integer(headers.get("x-oss-next-append-position"), -1),
    )


def whole_size(answer: HttpAnswer) -> Bytes:
    """The size of the whole object, of which the body may be a range. Of a body in chunks, which a proxy in between may
    make of it, that is what came: the last chunk was among it, or the answer has a `failure`."""
    headers = answer.headers
    total = headers.get("content-range", "").rpartition("/")[2]
    if total.isdigit():
        return Bytes(int(total))
    is_chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    return Bytes(_integer(headers.get("content-length"), answer.received if is_chunked else 0))


def crc64_in(headers: Mapping[str, str]) -> Crc64 | None:
    """`x-oss-hash-crc64ecma`: the checksum of the whole object, or of the part that was just uploaded."""
    value = headers.get("x-oss-hash-crc64ecma", "")
    return Crc64(int(value)) if value.isdigit() else None


def element(document: bytes, name: str) -> str:
    """The text of the first element `name`, '' if there is none; for the few fields of small answers."""
    return _element(document, name.encode())


def document_in(body: bytes, call: Call) -> ElementTree.Element:
    """The root of the XML in an answer, with names that are of no namespace. Raises ServerFailure."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - expat bounds entity expansion by itself
    except ElementTree.ParseError as error:
        raise ServerFailure(f"{call.operation}: the answer is not XML: {error}", operation=call.operation) from None
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    return root


def decoded(text: str, is_encoded: bool) -> str:
    """A key in a document, which may have been asked for with encoding-type=url."""
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape") if is_encoded else text


def shown(text: str) -> str:
    """A name fit for one line of a log: control characters and undecodable bytes escaped, long names cut."""
    visible = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return visible if len(visible) <= 300 else f"{visible[:300]}… ({len(text)} characters)"


def _by_family(status: int) -> tuple[type[StoreError], str]:
    if status >= 500:
        return ServerFailure, ""
    if status == 400:
        return RequestRejected, ""
    kind = ServerFailure if 200 <= status < 300 else RequestRejected
    return kind, "the answer is not one that OSS gives: check that the endpoint is an OSS endpoint"


def _element(document: bytes, name: bytes) -> str:
    found = re.search(rb"<" + name + rb">([^<]*)</" + name + rb">", document)
    text = found.group(1).decode("utf-8", "replace") if found else ""
    with contextlib.suppress(ValueError, OverflowError):  # a message need not be right to be told
        text = unescape(text)
    return text.strip()


def _integer(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdigit() else default


def _moment(text: str) -> float:
    """Seconds since the epoch of an HTTP date; the usual form, `Sun, 06 Nov 1994 08:49:37 GMT`, quickly."""
    month = _MONTHS.get(text[8:11], 0)
    if month and len(text) == 29 and text.endswith(" GMT"):
        with contextlib.suppress(ValueError):
            day = (int(text[12:16]), month, int(text[5:7]), int(text[17:19]), int(text[20:22]), int(text[23:25]))
            return float(calendar.timegm(day))
    parsed = parsedate_tz(text)
    return float(mktime_tz(parsed)) if parsed else 0.0
