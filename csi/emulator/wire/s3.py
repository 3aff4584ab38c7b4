"""The S3 face: requests of the S3 dialect turned into those of OSS before they are understood, and the answers back.

For benchmarks only: clients that speak nothing but S3 meet the same index and the same bytes. The two protocols share
paths, methods, query parameters and documents; what differs is here. Signatures of S3 are not looked at: whoever
speaks S3 may do everything. It must not know storage or operations.

Source: Amazon S3 API reference (ListObjectsV2, GetObject, PutObject, CopyObject, multipart operations).
"""

from __future__ import annotations

from collections.abc import Mapping

from csi.emulator.wire.answers import Answer
from csi.emulator.wire.call import BodySource, Call
from csi.emulator.wire.refusals import Refusal

MAX_KEYS = 1000
REGION = "us-east-1"
_NAMESPACE = b' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_ROOTS = (
    b"<ListBucketResult",
    b"<ListAllMyBucketsResult",
    b"<InitiateMultipartUploadResult",
    b"<CompleteMultipartUploadResult",
    b"<CopyObjectResult",
    b"<CopyPartResult",
    b"<ListPartsResult",
    b"<ListMultipartUploadsResult",
    b"<DeleteResult",
)
_AMAZON = "x-amz-"
_ALIBABA = "x-oss-"
# Headers that mean the same in both dialects; others (checksums, ACLs, storage classes, encryption) have no effect.
_SHARED = (
    "copy-source",
    "copy-source-range",
    "copy-source-if-match",
    "copy-source-if-none-match",
    "metadata-directive",
    "tagging-directive",
)


def speaks_s3(call: Call) -> bool:
    """Whether a request is of the S3 dialect: nothing in it is signed or named as OSS does."""
    if call.header("Authorization").startswith("OSS"):
        return False
    if "x-oss-signature" in call.query or "OSSAccessKeyId" in call.query:
        return False
    return not any(name.lower().startswith(_ALIBABA) for name in call.headers)


def translate(call: Call) -> None:
    """Give a request of the S3 dialect the words of OSS."""
    headers = {
        name: value
        for name, value in call.headers.items()
        if not name.lower().startswith(_AMAZON) and name.lower() != "authorization"
    }
    for name, value in call.headers.items():
        word = name.lower().removeprefix(_AMAZON)
        if word != name.lower() and (word in _SHARED or word.startswith("meta-")):
            headers[_ALIBABA + word] = value
    if call.header("x-amz-content-sha256").startswith("STREAMING-"):
        call.body = ChunkedBody(call.body, _whole_number(call.header("x-amz-decoded-content-length")))
        headers = {name: value for name, value in headers.items() if name.lower() != "content-encoding"}
    call.headers = CaseInsensitive(headers)
    call.query = {name: value for name, value in call.query.items() if name not in ("x-id", "fetch-owner")}
    if call.method == "GET" and not call.key:
        _bound_page(call)


def dress(call: Call, answer: Answer) -> None:
    """Give an answer the words of S3."""
    answer.headers = {_amazon(name): value for name, value in answer.headers.items()}
    answer.headers["Server"] = "AmazonS3"
    if call.bucket and not call.key:
        answer.headers["x-amz-bucket-region"] = REGION
    if call.operation == "GetBucketLocation" and answer.status == 200:
        answer.body = b'<?xml version="1.0" encoding="UTF-8"?>\n<LocationConstraint' + _NAMESPACE + b"/>"
        return
    start = answer.body[:120]
    for root in _ROOTS:
        if root + b">" in start:
            answer.body = answer.body.replace(root, root + _NAMESPACE, 1)


class CaseInsensitive(dict[str, str]):
    """Headers by names in small letters, whatever the case they are asked by."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__({name.lower(): value for name, value in headers.items()})

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return super().get(key.lower(), default)

    def __getitem__(self, key: str) -> str:
        return super().__getitem__(key.lower())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and super().__contains__(key.lower())


class ChunkedBody:
    """The payload of a body in aws-chunked encoding: `SIZE[;chunk-signature=…]CRLF payload CRLF`, ended by size 0."""

    def __init__(self, source: BodySource, length: int) -> None:
        self._source = source
        self._length = length
        self._held = bytearray()
        self._left = 0
        self._ended = False

    @property
    def length(self) -> int:
        return self._length

    async def read(self) -> bytes:
        while not self._ended:
            if self._left and self._held:
                data = bytes(self._held[: self._left])
                del self._held[: len(data)]
                self._left -= len(data)
                return data
            if not self._left and self._begin():
                continue
            more = b"" if self._ended else await self._source.read()
            if not more and not self._ended:
                raise Refusal(400, "IncompleteBody", "The request body terminated unexpectedly.")
            self._held += more
        while await self._source.read():  # trailers
            pass
        return b""

    def _begin(self) -> bool:
        """Read the head of the next chunk, if all of it is here."""
        if self._held.startswith(b"\r\n"):
            del self._held[:2]
        end = self._held.find(b"\r\n")
        if end < 0:
            return False
        size = bytes(self._held[:end]).partition(b";")[0]
        del self._held[: end + 2]
        try:
            self._left = int(size, 16)
        except ValueError:
            raise Refusal(400, "InvalidArgument", "A chunk of the body has no size.") from None
        self._ended = self._left == 0
        return True


def _bound_page(call: Call) -> None:
    """S3 answers 1000 keys when not told otherwise, and never more."""
    asked = call.query.get("max-keys", "")
    if asked.isascii() and asked.isdigit():
        call.query["max-keys"] = str(min(max(int(asked), 1), MAX_KEYS))
    else:
        call.query["max-keys"] = str(MAX_KEYS)


def _whole_number(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise Refusal(411, "MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header.")
    return int(value)


def _amazon(name: str) -> str:
    return _AMAZON + name[len(_ALIBABA) :] if name.lower().startswith(_ALIBABA) else name
