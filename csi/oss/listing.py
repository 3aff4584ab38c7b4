"""ListObjectsV2 answers, parsed at the speed a million-object prefix needs.

A page as OSS writes it is read with one regular expression; anything else (namespaces, attributes, another order of
elements) goes through a real XML parser with the same result. Keys come out as they are in the bucket, whatever bytes
they hold: pages are asked for with encoding-type=url. Knows nothing of requests.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Callable
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

from csi.errors import ServerFailure
from csi.oss.store import ListedObject, ListPage
from csi.volume.units import Bytes, ETag, ObjectKey

_ENTRY = re.compile(
    rb"<Contents>\s*<Key>([^<]+)</Key>\s*(?:<TransitionTime>[^<]*</TransitionTime>\s*)?"
    rb"<LastModified>([^<]+)</LastModified>\s*<ETag>([^<]*)</ETag>\s*<Type>([^<]*)</Type>\s*"
    rb"<Size>(\d+)</Size>\s*<StorageClass>([^<]*)</StorageClass>"
)
_PREFIX = re.compile(rb"<CommonPrefixes>\s*<Prefix>([^<]+)</Prefix>")
_TRUNCATED = re.compile(rb"<IsTruncated>\s*(true|false)\s*</IsTruncated>")
_TOKEN = re.compile(rb"<NextContinuationToken>([^<]*)</NextContinuationToken>")
_ENTITY = re.compile(rb"&(#x[0-9a-fA-F]+|#[0-9]+|amp|lt|gt|quot|apos);")
_NAMED = {b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'"}


def parse_page(document: bytes) -> ListPage:
    """The page in a ListObjectsV2 answer. Raises ServerFailure when it is not one."""
    entries = _ENTRY.findall(document)
    prefixes = _PREFIX.findall(document)
    truncated = _TRUNCATED.search(document)
    is_plain = (
        len(entries) == document.count(b"<Contents")
        and len(prefixes) == document.count(b"<CommonPrefixes")
        and truncated is not None
        and b"<!" not in document
        and document.rstrip().endswith(b"</ListBucketResult>")
    )
    if not is_plain:
        return _parse_any(document)
    is_encoded = b"<EncodingType>url</EncodingType>" in document
    moment = _moments()
    objects = [
        ListedObject(
            _key(_unescape(key), is_encoded),
            Bytes(int(size)),
            ETag(_unescape(etag).decode("latin-1")),
            moment(modified.decode("latin-1")),
            kind.decode("latin-1") or "Normal",
            storage.decode("latin-1") or "Standard",
        )
        for key, modified, etag, kind, size, storage in entries
    ]
    found = _TOKEN.search(document)
    token = _unescape(found.group(1)).decode("utf-8", "surrogateescape") if found else ""
    return _page(
        objects,
        [_key(_unescape(prefix), is_encoded) for prefix in prefixes],
        is_truncated=truncated is not None and truncated.group(1) == b"true",
        token=token,
    )


def _parse_any(document: bytes) -> ListPage:
    try:
        root = ElementTree.fromstring(document)  # noqa: S314 - expat bounds entity expansion by itself
    except ElementTree.ParseError as error:
        raise _not_a_listing(str(error)) from None
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    if root.tag != "ListBucketResult":
        raise _not_a_listing(f"<{root.tag}>")
    is_encoded = root.findtext("EncodingType", "") == "url"
    moment = _moments()
    try:
        objects = [
            ListedObject(
                _key(_required(node, "Key").encode(), is_encoded),
                Bytes(int(_required(node, "Size"))),
                ETag(node.findtext("ETag", "")),
                moment(_required(node, "LastModified")),
                node.findtext("Type", "") or "Normal",
                node.findtext("StorageClass", "") or "Standard",
            )
            for node in root.findall("Contents")
        ]
    except ValueError as error:
        raise _not_a_listing(str(error)) from None
    return _page(
        objects,
        [_key(node.findtext("Prefix", "").encode(), is_encoded) for node in root.findall("CommonPrefixes")],
        is_truncated=root.findtext("IsTruncated", "false").strip() == "true",
        token=root.findtext("NextContinuationToken", ""),
    )


def _page(objects: list[ListedObject], prefixes: list[ObjectKey], *, is_truncated: bool, token: str) -> ListPage:
    if is_truncated and not token:
        raise _not_a_listing("truncated, but without NextContinuationToken")
    return ListPage(objects, prefixes, token if is_truncated else "")


def _key(text: bytes, is_encoded: bool) -> ObjectKey:
    if is_encoded and b"%" in text:
        text = unquote_to_bytes(text)
    return ObjectKey(text.decode("utf-8", "surrogateescape"))


def _unescape(text: bytes) -> bytes:
    return _ENTITY.sub(_character, text) if b"&" in text else text


def _character(match: re.Match[bytes]) -> bytes:
    name = match.group(1)
    if not name.startswith(b"#"):
        return _NAMED[name]
    number = int(name[2:], 16) if name[1:2] in b"xX" else int(name[1:])
    return chr(number).encode("utf-8", "surrogatepass")


def _moments() -> Callable[[str], float]:
    """A converter of `2023-12-08T08:12:20.000Z` to seconds since the epoch that computes each day once."""
    days: dict[str, int] = {}

    def moment(text: str) -> float:
        day = days.get(text[:10])
        if day is None:
            day = days[text[:10]] = calendar.timegm(time.strptime(text[:10], "%Y-%m-%d"))
        if text[10:11] != "T" or not text.endswith("Z"):
            raise ValueError(f"{text!r} is not a time")
        seconds = day + int(text[11:13]) * 3600 + int(text[14:16]) * 60 + int(text[17:19])
        return float(f"{seconds}{text[19:-1]}")

    return moment


def _required(node: ElementTree.Element, name: str) -> str:
    text = node.findtext(name)
    if not text:
        raise ValueError(f"<Contents> without {name}")
    return text


def _not_a_listing(reason: str) -> ServerFailure:
    return ServerFailure(
        f"the answer is not a listing: {reason}", hint="check that the endpoint is an OSS endpoint, not a proxy"
    )
