"""ListObjects and ListObjectsV2: query parameters in, XML out.

Source: API reference GetBucket (ListObjects) and GetBucketV2 (ListObjectsV2). Elements carry no namespace; names are
percent-encoded only when the client asks for encoding-type=url.
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import quote

from csi.emulator.operations.buckets import OWNER
from csi.emulator.store.listing import KeyPage, list_keys
from csi.emulator.store.storage import Storage
from csi.emulator.wire.answers import Answer
from csi.emulator.wire.call import MAX_KEY_BYTES, Call
from csi.emulator.wire.documents import element, raw_document, text, timestamp
from csi.emulator.wire.refusals import invalid_argument

_OWNER = f"<Owner><ID>{OWNER}</ID><DisplayName>{OWNER}</DisplayName></Owner>"


class Listings:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def version1(self, call: Call) -> Answer:
        names = _Names(call)
        marker = call.query.get("marker", "")
        limit = _max_keys(call, 100)
        page = self._page(call, marker.encode("utf-8", "surrogateescape"), limit)
        elements = [
            element("Name", call.bucket),
            element("Prefix", names.shown(call.query.get("prefix", ""))),
            element("Marker", names.shown(marker)),
            element("MaxKeys", limit),
            element("Delimiter", names.shown(call.query.get("delimiter", ""))),
            *names.encoding_element,
            element("IsTruncated", "true" if page.last else "false"),
        ]
        if page.last:
            elements.append(element("NextMarker", names.shown_bytes(page.last)))
        elements += _entries(page, names, owner=True)
        return _answer(elements)

    async def version2(self, call: Call) -> Answer:
        names = _Names(call)
        start_after = call.query.get("start-after", "")
        token = call.query.get("continuation-token", "")
        limit = _max_keys(call, 100)
        after = _decode_token(token) if token else start_after.encode("utf-8", "surrogateescape")
        page = self._page(call, after, limit)
        elements = [
            element("Name", call.bucket),
            element("Prefix", names.shown(call.query.get("prefix", ""))),
            element("StartAfter", names.shown(start_after)),
            element("MaxKeys", limit),
            element("Delimiter", names.shown(call.query.get("delimiter", ""))),
            *names.encoding_element,
            element("IsTruncated", "true" if page.last else "false"),
            element("KeyCount", len(page.keys) + len(page.groups)),
        ]
        if token:
            elements.append(element("ContinuationToken", token))
        if page.last:
            elements.append(element("NextContinuationToken", _encode_token(page.last)))
        elements += _entries(page, names, owner=call.query.get("fetch-owner") == "true")
        return _answer(elements)

    def _page(self, call: Call, after: bytes, limit: int) -> KeyPage:
        bucket = self._storage.bucket(call.bucket)
        prefix = call.query.get("prefix", "").encode("utf-8", "surrogateescape")
        delimiter = call.query.get("delimiter", "").encode("utf-8", "surrogateescape")
        for name, value in (("prefix", prefix), ("delimiter", delimiter), ("marker", after)):
            if len(value) > MAX_KEY_BYTES + 1:
                raise invalid_argument(f"The {name} is too long.", name)
        return list_keys(self._storage.index, bucket, prefix, delimiter, after, limit)


class _Names:
    """How names appear in this answer."""

    def __init__(self, call: Call) -> None:
        wanted = call.query.get("encoding-type", "")
        if wanted not in ("", "url"):
            raise invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", wanted)
        self.url = wanted == "url"
        self.encoding_element = [element("EncodingType", "url")] if self.url else []

    def shown(self, name: str) -> str:
        return quote(name, safe="", errors="surrogateescape") if self.url else name

    def shown_bytes(self, name: bytes) -> str:
        return quote(name, safe="") if self.url else name.decode("utf-8", "surrogateescape")


def _entries(page: KeyPage, names: _Names, *, owner: bool) -> list[str]:
    owner_element = _OWNER if owner else ""
    entries = [
        f"<Contents><Key>{text(names.shown_bytes(found.key))}</Key>"
        f"<LastModified>{timestamp(found.modified)}</LastModified><ETag>&quot;{found.etag}&quot;</ETag>"
        f"<Type>{found.type}</Type><Size>{found.size}</Size>"
        f"<StorageClass>{found.storage_class}</StorageClass>{owner_element}</Contents>"
        for found in page.keys
    ]
    entries += [
        f"<CommonPrefixes><Prefix>{text(names.shown_bytes(group))}</Prefix></CommonPrefixes>" for group in page.groups
    ]
    return entries


def _max_keys(call: Call, default: int) -> int:
    value = call.query.get("max-keys", "")
    if not value:
        return default
    limit = int(value) if value.isascii() and value.isdigit() else -1
    if not 1 <= limit <= 1000:
        raise invalid_argument("Argument max-keys must be an integer between 1 and 1000.", "max-keys", value)
    return limit


def _encode_token(last: bytes) -> str:
    """Of letters, digits, - and _ alone: as with OSS, clients send it back, and sign it, without encoding it."""
    return base64.urlsafe_b64encode(last).decode().rstrip("=")


def _decode_token(token: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except (binascii.Error, UnicodeEncodeError):
        raise invalid_argument("The continuation token is invalid.", "continuation-token", token) from None


def _answer(elements: list[str]) -> Answer:
    return Answer(200, {"Content-Type": "application/xml"}, raw_document("ListBucketResult", elements))
