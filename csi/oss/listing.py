"""ListObjectsV2 answers, parsed at the speed a million-object prefix needs.

A page as OSS writes it is read with one regular expression; anything else (namespaces, attributes, another order of
elements) goes through a real XML parser with the same result. Keys come out as they are in the bucket, whatever bytes
they hold: pages are asked for with encoding-type=url. Knows nothing of requests.
"""

from __future__ import annotations

import calendar
import re
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

from csi.errors import ServerFailure
from csi.oss.markup import unescape
from csi.oss.store import ListedObject, ListPage
from csi.volume.units import Bytes, ETag, ObjectKey

_ENTRY = re.compile(
    r"<Contents>\s*<Key>([^<]+)</Key>\s*(?:<TransitionTime>[^<]*</TransitionTime>\s*)?"
    r"<LastModified>(\d{4}-\d\d-\d\dT\d\d):(\d\d):(\d\d)(?:\.000|(\.\d+))?Z</LastModified>\s*<ETag>([^<]*)</ETag>\s*"
    r"<Type>(\w+)</Type>\s*<Size>(\d+)</Size>\s*<StorageClass>(\w+)</StorageClass>"
)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d):(\d\d):(\d\d)(\.\d+)?Z")
_TOLD_PREFIX = re.compile(r"<Prefix\s*(?:/>|>([^<]*)</Prefix>)")
_PREFIX = re.compile(r"<CommonPrefixes>\s*<Prefix>([^<]+)</Prefix>")
_TRUNCATED = re.compile(r"<IsTruncated>\s*(true|false)\s*</IsTruncated>")
_TOKEN = re.compile(r"<NextContinuationToken>([^<]*)</NextContinuationToken>")


def parse_page(document: bytes, prefix: str | None = None) -> ListPage:
    """The page in a ListObjectsV2 answer. Raises ServerFailure when it is not one, or says that it is of another
    `prefix` than was asked for: then it is the answer to another request."""
    text = document.decode("utf-8", "surrogateescape")
    entries = _ENTRY.findall(text)
    prefixes = _PREFIX.findall(text)
    truncated = _TRUNCATED.search(text)
    is_plain = (
        len(entries) == text.count("<Contents")
        and len(prefixes) == text.count("<CommonPrefixes")
        and truncated is not None
        and "<!" not in text
        and text.rstrip().endswith("</ListBucketResult>")
    )
    if not is_plain:
        return _parse_any(document, prefix)
    is_encoded = "<EncodingType>url</EncodingType>" in text
    told = _TOLD_PREFIX.search(text, 0, _first(text, "<Contents", "<CommonPrefixes"))
    _compare(unescape(told.group(1) or "") if told is not None else None, prefix, is_encoded=is_encoded)
    hours: dict[str, int] = {}  # many objects are written in the same few
    places: dict[str, str] = {}  # and most keys of a page begin alike
    objects = []
    for key, hour, minute, second, fraction, etag, kind, size, storage in entries:
        start = hours.get(hour)
        if start is None:
            start = hours[hour] = _start_of(hour)
        moment = start + int(minute) * 60 + int(second)
        if "%" in key or "&" in key:
            place, slash, name = key.rpartition("%2F")
            if slash and is_encoded and "%" not in name and "&" not in name:
                if place not in places:
                    places[place] = f"{_key(unescape(place), is_encoded)}/"
                key = places[place] + name  # noqa: PLW2901 - the loop is the hot part of a listing
            else:
                key = _key(unescape(key), is_encoded)  # noqa: PLW2901
        if "&" in etag:
            plain = etag.replace("&quot;", '"').replace("&#34;", '"')
            etag = plain if "&" not in plain else unescape(etag)  # noqa: PLW2901
        objects.append(
            # NewType calls would be a tenth of the time of this loop
            ListedObject(key, int(size), etag, _exact(moment, fraction) if fraction else float(moment), kind, storage)  # type: ignore[arg-type]
        )
    found = _TOKEN.search(text)
    return _page(
        objects,
        [_key(unescape(prefix), is_encoded) for prefix in prefixes],
        is_truncated=truncated is not None and truncated.group(1) == "true",
        token=unescape(found.group(1)) if found else "",
    )


def _first(text: str, *words: str) -> int:
    """Where one of them begins first; the end if there is none."""
    return min((at for word in words if (at := text.find(word)) >= 0), default=len(text))


def _compare(told: str | None, prefix: str | None, *, is_encoded: bool) -> None:
    """A server need not tell the prefix."""
    if told is not None and prefix is not None and prefix not in (told, _key(told, is_encoded)):
        raise _not_a_listing(f"it is of {told!r}, and {prefix!r} was asked for")


def _parse_any(document: bytes, prefix: str | None) -> ListPage:
    try:
        root = ElementTree.fromstring(document)  # noqa: S314 - expat bounds entity expansion by itself
    except ElementTree.ParseError as error:
        raise _not_a_listing(str(error)) from None
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    if root.tag != "ListBucketResult":
        raise _not_a_listing(f"<{root.tag}>")
    is_encoded = root.findtext("EncodingType", "") == "url"
    _compare(root.findtext("Prefix"), prefix, is_encoded=is_encoded)
    try:
        objects = [
            ListedObject(
                _key(_required(node, "Key"), is_encoded),
                Bytes(int(_required(node, "Size"))),
                ETag(node.findtext("ETag", "")),
                _moment(_required(node, "LastModified")),
                node.findtext("Type", "") or "Normal",
                node.findtext("StorageClass", "") or "Standard",
            )
            for node in root.findall("Contents")
        ]
    except ValueError as error:
        raise _not_a_listing(str(error)) from None
    return _page(
        objects,
        [_key(node.findtext("Prefix", ""), is_encoded) for node in root.findall("CommonPrefixes")],
        is_truncated=root.findtext("IsTruncated", "false").strip() == "true",
        token=root.findtext("NextContinuationToken", ""),
    )


def _page(objects: list[ListedObject], prefixes: list[ObjectKey], *, is_truncated: bool, token: str) -> ListPage:
    if is_truncated and not token:
        raise _not_a_listing("truncated, but without NextContinuationToken")
    return ListPage(objects, prefixes, token if is_truncated else "")


def _key(text: str, is_encoded: bool) -> ObjectKey:
    if is_encoded and "%" in text:
        raw = unquote_to_bytes(text.encode("utf-8", "surrogateescape"))
        return ObjectKey(raw.decode("utf-8", "surrogateescape"))
    return ObjectKey(text)


def _moment(text: str) -> float:
    """`2023-12-08T08:12:20.000Z` in seconds since the epoch."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a time")
    hour, minute, second, fraction = found.groups()
    return _exact(_start_of(hour) + int(minute) * 60 + int(second), fraction or "")


def _start_of(hour: str) -> int:
    """`2023-12-08T08` in seconds since the epoch. Raises ServerFailure when there is no such hour."""
    try:
        return calendar.timegm((int(hour[:4]), int(hour[5:7]), int(hour[8:10]), int(hour[11:13]), 0, 0))
    except ValueError as error:
        raise _not_a_listing(f"{hour} is not a time: {error}") from None


def _exact(whole: int, fraction: str) -> float:
    """`whole` and decimals of a second, rounded once: the same moment is always the same float."""
    return float(f"{whole}{fraction}")


def _required(node: ElementTree.Element, name: str) -> str:
    text = node.findtext(name)
    if not text:
        raise ValueError(f"<Contents> without {name}")
    return text


def _not_a_listing(reason: str) -> ServerFailure:
    return ServerFailure(
        f"the answer is not a listing: {reason}", hint="check that the endpoint is an OSS endpoint, not a proxy"
    )
