"""Signatures V1 and V4 of OSS, in the Authorization header.

A signer adds the headers that authenticate a request; it promises the same Authorization as Alibaba's SDKs for the
same request, key and second. It must not know how requests travel. Sources: "Signature version 4" and "Include a V1
signature in the Authorization header" of the OSS API reference.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import NamedTuple, Protocol
from urllib.parse import quote

from csi.oss.credentials import Credentials

_ENCODED = ("utf-8", "surrogateescape")
_PLAIN = re.compile(r"[A-Za-z0-9_.~/-]*").fullmatch

# Query parameters that are part of the resource V1 signs ("CanonicalizedResource" in the API reference).
_V1_SUBRESOURCES = """
    acl append bucketInfo comp continuation-token cors delete encryption lifecycle link location logging objectInfo
    objectMeta partNumber policy position qos referer replication requestPayment resourceGroup response-cache-control
    response-content-disposition response-content-encoding response-content-language response-content-type
    response-expires restore security-token sequential startTime endTime stat status symlink tagging uploadId uploads
    versionId versioning versions website worm wormId x-oss-process x-oss-request-payer x-oss-traffic-limit
"""
_V1_SUBRESOURCE_NAMES = frozenset(_V1_SUBRESOURCES.split())


@dataclass(frozen=True, slots=True)
class Unsigned:
    """What a signature covers. `key` and `query` are plain text, `headers` have lower-case names."""

    method: str
    bucket: str
    key: str
    query: Sequence[tuple[str, str]]
    headers: dict[str, str]


class Signer(Protocol):
    def sign(self, request: Unsigned, credentials: Credentials, now: float) -> None:
        """Add date, token and authorization to `request.headers`; `now` is seconds since the epoch."""

    def lines_of_get(self, bucket: str, key: str, *, ranged: bool, credentials: Credentials, now: float) -> str:
        """Header lines with what `sign` adds to a GET of an object without query: with `ranged` the header
        RANGE_BEHAVIOR is part of the lines, and signed."""

    def recipe_of_gets(self, credentials: Credentials, now: float) -> GetRecipe:
        """How GETs of whole objects are signed, for who does it without Python (`csi/oss/getting.pyx`)."""


class GetRecipe(NamedTuple):
    """Signed is, by HMAC `kind` (1: SHA-1, 256: SHA-256) with `key`: with SHA-1 `before` and the resource; with SHA-256
    `text` and the hash, in hex, of `before`, the quoted resource and `after`. `lines` are the header lines up to the
    signature, which is base64 or hex."""

    kind: int
    before: bytes
    after: bytes
    text: bytes
    lines: bytes
    key: bytes


RANGE_BEHAVIOR = ("x-oss-range-behavior", "standard")
"""A range that reaches past the end is refused, not cut."""


def signer_for(version: int, region: str) -> Signer:
    """The signer of `HttpOptions.signature_version` (1, or 4 which needs the region)."""
    return V1Signer() if version == 1 else V4Signer(region)


def quote_bytes(text: str, safe: str = "") -> str:
    """Percent-encode text, surrogate-escaped bytes as the bytes they were."""
    if _PLAIN(text) is not None and (safe == "/" or "/" not in text):
        return text
    return quote(text.encode(*_ENCODED), safe=safe)


def encode_query(query: Sequence[tuple[str, str]]) -> str:
    """The query string, encoded and ordered as V4 signs it; a parameter without value has no '='."""
    pairs = sorted((quote_bytes(name), quote_bytes(value)) for name, value in query)
    return "&".join(f"{name}={value}" if value else name for name, value in pairs)


class V1Signer:
    """`OSS ID:base64(HMAC-SHA1(secret, text))`. A second is put into words once, and the GETs of an object are signed
    once in it: ranges have one signature."""

    def __init__(self) -> None:
        # each is replaced as a whole, so threads see either the old or the new one
        self._date: tuple[int, str] = (-1, "")
        self._last_get: tuple[str, bool, Credentials, str, str] | None = None  # resource, ranged, …, date, lines

    def sign(self, request: Unsigned, credentials: Credentials, now: float) -> None:
        headers = request.headers
        headers["date"] = self._in_words(now)
        if credentials.security_token:
            headers["x-oss-security-token"] = credentials.security_token
        text = "\n".join(
            (
                request.method,
                headers.get("content-md5", ""),
                headers.get("content-type", ""),
                headers["date"],
                _lines((name, value) for name, value in headers.items() if name.startswith("x-oss-"))
                + self._resource(request),
            )
        )
        digest = hmac.digest(credentials.access_key_secret.encode(), text.encode(*_ENCODED), "sha1")
        headers["authorization"] = f"OSS {credentials.access_key_id}:{base64.b64encode(digest).decode()}"

    def lines_of_get(self, bucket: str, key: str, *, ranged: bool, credentials: Credentials, now: float) -> str:
        date, resource, last = self._in_words(now), f"{bucket}/{key}", self._last_get
        if last is not None and last[2] is credentials and last[:2] == (resource, ranged) and last[3] == date:
            return last[4]
        headers = dict([RANGE_BEHAVIOR]) if ranged else {}
        self.sign(Unsigned("GET", bucket, key, (), headers), credentials, now)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._last_get = (resource, ranged, credentials, headers["date"], lines)
        return lines

    def recipe_of_gets(self, credentials: Credentials, now: float) -> GetRecipe:
        headers = {"date": self._in_words(now)}
        signed = ""
        if credentials.security_token:
            headers["x-oss-security-token"] = credentials.security_token
            signed = f"x-oss-security-token:{credentials.security_token}\n"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return GetRecipe(
            1,
            f"GET\n\n\n{headers['date']}\n{signed}".encode(*_ENCODED),
            b"",
            b"",
            f"{lines}authorization: OSS {credentials.access_key_id}:".encode(*_ENCODED),
            credentials.access_key_secret.encode(),
        )

    def _in_words(self, now: float) -> str:
        second, date = self._date
        if second != int(now):
            second, date = int(now), formatdate(now, usegmt=True)
            self._date = (second, date)
        return date

    @staticmethod
    def _resource(request: Unsigned) -> str:
        resource = f"/{request.bucket}/{request.key}" if request.bucket else "/"
        signed = sorted((name, value) for name, value in request.query if name in _V1_SUBRESOURCE_NAMES)
        if not signed:
            return resource
        return resource + "?" + "&".join(f"{name}={value}" if value else name for name, value in signed)


@dataclass(frozen=True, slots=True)
class _GetStamp:
    """All that signatures of GETs have in common in one second: texts around the resource, before the hash, and of the
    header lines."""

    second: int
    credentials: Credentials
    ranged: bool
    canonical: str
    text: str
    key: bytes
    lines: str


class V4Signer:
    """`OSS4-HMAC-SHA256` with an unsigned payload and no additional headers. The key of a day is computed once, and
    what GETs of one second have in common once a second; a range of the same object has the same signature."""

    def __init__(self, region: str) -> None:
        self._region = region
        # (secret, date, key): replaced as a whole, so threads see either the old or the new one
        self._day: tuple[str, str, bytes] = ("", "", b"")
        self._stamps: tuple[_GetStamp | None, _GetStamp | None] = (None, None)  # of whole objects, of ranges
        self._last_get: tuple[_GetStamp | None, str, str] = (None, "", "")  # likewise: stamp, resource, lines

    def sign(self, request: Unsigned, credentials: Credentials, now: float) -> None:
        headers = request.headers
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        headers["x-oss-date"] = moment
        headers["x-oss-content-sha256"] = "UNSIGNED-PAYLOAD"
        if credentials.security_token:
            headers["x-oss-security-token"] = credentials.security_token
        scope = f"{moment[:8]}/{self._region}/oss/aliyun_v4_request"
        resource = f"/{request.bucket}/{request.key}" if request.bucket else "/"
        signed = _lines(
            (name, value)
            for name, value in headers.items()
            if name.startswith("x-oss-") or name in ("content-type", "content-md5")
        )
        canonical = (
            f"{request.method}\n{quote_bytes(resource, safe='/')}\n{encode_query(request.query)}\n{signed}\n\n"
            "UNSIGNED-PAYLOAD"
        )
        hashed = hashlib.sha256(canonical.encode(*_ENCODED)).hexdigest()
        text = f"OSS4-HMAC-SHA256\n{moment}\n{scope}\n{hashed}"
        signature = hmac.digest(self._key(credentials.access_key_secret, moment[:8]), text.encode(), "sha256").hex()
        headers["authorization"] = (
            f"OSS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope},Signature={signature}"
        )

    def lines_of_get(self, bucket: str, key: str, *, ranged: bool, credentials: Credentials, now: float) -> str:
        stamp = self._stamps[ranged]
        if stamp is None or stamp.second != int(now) or stamp.credentials is not credentials:
            stamp = self._get_stamp(ranged=ranged, credentials=credentials, now=now)
            self._stamps = (self._stamps[0], stamp) if ranged else (stamp, self._stamps[1])
        resource = f"/{bucket}/{key}"
        signed_with, signed, lines = self._last_get
        if signed_with is stamp and signed == resource:
            return lines
        canonical = f"GET\n{quote_bytes(resource, safe='/')}{stamp.canonical}"
        text = stamp.text + hashlib.sha256(canonical.encode()).hexdigest()
        lines = f"{stamp.lines}{hmac.digest(stamp.key, text.encode(), 'sha256').hex()}\r\n"
        self._last_get = (stamp, resource, lines)
        return lines

    def recipe_of_gets(self, credentials: Credentials, now: float) -> GetRecipe:
        stamp = self._get_stamp(ranged=False, credentials=credentials, now=now)
        return GetRecipe(
            256,
            b"GET\n",
            stamp.canonical.encode(*_ENCODED),
            stamp.text.encode(*_ENCODED),
            stamp.lines.encode(*_ENCODED),
            stamp.key,
        )

    def _get_stamp(self, *, ranged: bool, credentials: Credentials, now: float) -> _GetStamp:
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        headers = {"x-oss-content-sha256": "UNSIGNED-PAYLOAD", "x-oss-date": moment}
        if ranged:
            headers.update([RANGE_BEHAVIOR])
        if credentials.security_token:
            headers["x-oss-security-token"] = credentials.security_token
        scope = f"{moment[:8]}/{self._region}/oss/aliyun_v4_request"
        return _GetStamp(
            second=int(now),
            credentials=credentials,
            ranged=ranged,
            canonical=f"\n\n{_lines(headers.items())}\n\nUNSIGNED-PAYLOAD",
            text=f"OSS4-HMAC-SHA256\n{moment}\n{scope}\n",
            key=self._key(credentials.access_key_secret, moment[:8]),
            lines="".join(f"{name}: {value}\r\n" for name, value in headers.items())
            + f"authorization: OSS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope},Signature=",
        )

    def _key(self, secret: str, date: str) -> bytes:
        known_secret, known_date, key = self._day
        if known_secret == secret and known_date == date:
            return key
        key = ("aliyun_v4" + secret).encode()
        for text in (date, self._region, "oss", "aliyun_v4_request"):
            key = hmac.digest(key, text.encode(), "sha256")
        self._day = (secret, date, key)
        return key


def _lines(headers: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{name}:{value}\n" for name, value in sorted(headers))
