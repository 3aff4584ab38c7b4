"""Verifies who sent a request: signature V1 and V4, in the Authorization header or presigned in the URL.

Source: API reference, "Include signatures in the Authorization header", "Add signatures to URLs", "V4 signature". The
canonical forms are rebuilt from the decoded request, so any correct encoding on the wire verifies. Comparison takes
constant time. Error answers show the string to sign as OSS does, security tokens blanked.
"""

from __future__ import annotations

import base64
import calendar
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from csi.emulator.identity.keyring import Keyring
from csi.emulator.wire.call import Call
from csi.emulator.wire.refusals import Refusal, access_denied, invalid_argument

MAX_SKEW = 15 * 60
MAX_V4_EXPIRY = 7 * 24 * 3600
_ALGORITHM = "OSS4-HMAC-SHA256"
_V4_DATE = "%Y%m%dT%H%M%SZ"

# Query parameters that are part of a V1 signature ("sub-resources" of the API reference).
_SUBRESOURCE_NAMES = (
    "accessPoint accessPointPolicy acl append asyncFetch bucketArchiveDirectRead bucketInfo callback callback-var "
    "cloudboxes cname comp continuation-token cors delete encryption endTime group httpsConfig img inventory "
    "inventoryId lifecycle link live location logging metaQuery objectInfo objectMeta partNumber policy position "
    "publicAccessBlock qos qosInfo qosRequester redundancyTransition referer regionList replication "
    "replicationLocation replicationProgress requestPayment requesterQosInfo resourceGroup resourcePool "
    "resourcePoolBuckets resourcePoolInfo response-cache-control response-content-disposition "
    "response-content-encoding response-content-language response-content-type response-expires restore "
    "security-token sequential startTime stat status style styleName symlink tagging transferAcceleration uploadId "
    "uploads versionId versioning versions vod website worm wormExtend wormId x-oss-ac-forward-allow "
    "x-oss-ac-source-ip x-oss-ac-subnet-mask x-oss-ac-vpc-id x-oss-access-point-name x-oss-async-process "
    "x-oss-process x-oss-redundancy-transition-taskid x-oss-request-payer x-oss-target-redundancy-type "
    "x-oss-traffic-limit x-oss-write-get-object-response"
)
_SUBRESOURCES = frozenset(_SUBRESOURCE_NAMES.split())


class Verifier:
    """`now`: seconds since the epoch."""

    def __init__(self, keyring: Keyring, now: Callable[[], float]) -> None:
        self._keyring = keyring
        self._now = now

    def caller(self, call: Call) -> str:
        """The access key id that signed the request, '' for an unsigned one; refuses everything else (403)."""
        authorization = call.header("Authorization")
        if authorization.startswith(_ALGORITHM + " "):
            return self._v4_header(call, authorization[len(_ALGORITHM) + 1 :])
        if authorization.startswith("OSS "):
            return self._v1_header(call, authorization[4:])
        if authorization:
            raise invalid_argument("Authorization header is invalid.", "Authorization", authorization.split(" ")[0])
        if "x-oss-signature" in call.query:
            return self._v4_presigned(call)
        if "Signature" in call.query:
            return self._v1_presigned(call)
        return ""

    # --- V1 ---

    def _v1_header(self, call: Call, credentials: str) -> str:
        access_key_id, _, signature = credentials.strip().partition(":")
        secret = self._keyring.secret(access_key_id, call.header("x-oss-security-token"))
        date = call.header("x-oss-date") or call.header("Date")
        try:
            seconds = parsedate_to_datetime(date).timestamp()
        except ValueError:
            raise access_denied("OSS authentication requires a valid Date.") from None
        self._check_skew(seconds)
        self._compare_v1(call, access_key_id, secret, signature, date)
        return access_key_id

    def _v1_presigned(self, call: Call) -> str:
        access_key_id, expires = call.query.get("OSSAccessKeyId", ""), call.query.get("Expires", "")
        if not access_key_id or not expires.isdigit():
            raise access_denied(
                "Query-string authentication requires the Signature, Expires and OSSAccessKeyId parameters"
            )
        secret = self._keyring.secret(access_key_id, call.query.get("security-token", ""))
        if int(expires) < self._now():
            raise _url_expired(int(expires))
        self._compare_v1(call, access_key_id, secret, call.query["Signature"], expires)
        return access_key_id

    def _compare_v1(self, call: Call, access_key_id: str, secret: str, signature: str, date: str) -> None:
        to_sign = _v1_string(call, date, f"/{call.bucket}/{call.key}" if call.bucket else "/")
        if not _v1_signs(secret, to_sign, signature):
            # opendal signs a bucket addressed in path style as /BUCKET
            bare = _v1_string(call, date, f"/{call.bucket}")
            if call.key or call.virtual_host or not _v1_signs(secret, bare, signature):
                raise _mismatch(call, access_key_id, signature, to_sign)

    # --- V4 ---

    def _v4_header(self, call: Call, parameters: str) -> str:
        fields = dict(item.strip().partition("=")[::2] for item in parameters.split(","))
        scope = _scope(fields.get("Credential", ""))
        secret = self._keyring.secret(scope.access_key_id, call.header("x-oss-security-token"))
        date = call.header("x-oss-date")
        self._check_skew(_v4_seconds(date, scope))
        if not call.header("x-oss-content-sha256"):
            raise invalid_argument("Missing required header x-oss-content-sha256.", "x-oss-content-sha256")
        additional = fields.get("AdditionalHeaders", "")
        self._compare_v4(call, scope, secret, fields.get("Signature", ""), date, additional)
        return scope.access_key_id

    def _v4_presigned(self, call: Call) -> str:
        if call.query.get("x-oss-signature-version") != _ALGORITHM:
            raise invalid_argument("x-oss-signature-version is invalid.", "x-oss-signature-version")
        scope = _scope(call.query.get("x-oss-credential", ""))
        secret = self._keyring.secret(scope.access_key_id, call.query.get("x-oss-security-token", ""))
        date, expires = call.query.get("x-oss-date", ""), call.query.get("x-oss-expires", "")
        signed_at = _v4_seconds(date, scope)
        if not expires.isdigit() or not 1 <= int(expires) <= MAX_V4_EXPIRY:
            raise invalid_argument("x-oss-expires must be between 1 and 604800 seconds.", "x-oss-expires", expires)
        if signed_at > self._now() + MAX_SKEW:
            self._check_skew(signed_at)
        if signed_at + int(expires) < self._now():
            raise _url_expired(int(signed_at) + int(expires))
        additional = call.query.get("x-oss-additional-headers", "")
        self._compare_v4(call, scope, secret, call.query["x-oss-signature"], date, additional)
        return scope.access_key_id

    def _compare_v4(self, call: Call, scope: _Scope, secret: str, signature: str, date: str, additional: str) -> None:
        canonical = _canonical_request(call, additional)
        digest = hashlib.sha256(_octets(canonical)).hexdigest()
        to_sign = f"{_ALGORITHM}\n{date}\n{scope.text}\n{digest}"
        key = b"aliyun_v4" + secret.encode()
        for part in scope.text.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        expected = hmac.digest(key, to_sign.encode(), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            raise _mismatch(call, scope.access_key_id, signature, to_sign, canonical)

    def _check_skew(self, seconds: float) -> None:
        if abs(seconds - self._now()) > MAX_SKEW:
            raise Refusal(
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
                fields={
                    "MaxAllowedSkewMilliseconds": str(MAX_SKEW * 1000),
                    "RequestTime": _iso(seconds),
                    "ServerTime": _iso(self._now()),
                },
            )


@dataclass(frozen=True, slots=True)
class _Scope:
    """`text`: date/region/oss/aliyun_v4_request; the region may be empty."""

    access_key_id: str
    text: str
    date: str


def _scope(credential: str) -> _Scope:
    access_key_id, _, rest = credential.partition("/")
    parts = rest.split("/")
    if len(parts) != 4 or parts[2] != "oss" or parts[3] != "aliyun_v4_request":
        raise invalid_argument("The credential scope is malformed.", "Credential", rest)
    return _Scope(access_key_id, rest, parts[0])


def _v4_seconds(date: str, scope: _Scope) -> float:
    try:
        seconds = calendar.timegm(time.strptime(date, _V4_DATE))
    except ValueError:
        raise access_denied("OSS authentication requires a valid x-oss-date.") from None
    if date[:8] != scope.date:
        raise invalid_argument("The date of the credential scope differs from x-oss-date.", "Credential", scope.text)
    return float(seconds)


def _v1_signs(secret: str, to_sign: str, signature: str) -> bool:
    expected = base64.b64encode(hmac.digest(secret.encode(), _octets(to_sign), "sha1"))
    return hmac.compare_digest(expected, signature.encode("utf-8", "replace"))


def _v1_string(call: Call, date: str, resource: str) -> str:
    oss_headers = _signed_headers(call, frozenset())
    lines = [f"{name}:{value}\n" for name, value in oss_headers if name.startswith("x-oss-")]
    subresources = sorted((name, value) for name, value in call.query.items() if name in _SUBRESOURCES)
    if subresources:
        resource += "?" + "&".join(f"{name}={value}" if value else name for name, value in subresources)
    head = [call.method, call.header("Content-MD5"), call.header("Content-Type"), date]
    return "\n".join(head) + "\n" + "".join(lines) + resource


def _canonical_request(call: Call, additional: str) -> str:
    names = frozenset(name for name in additional.lower().split(";") if name)
    uri = quote(f"/{call.bucket}/{call.key}" if call.bucket else "/", safe="/-_.~", errors="surrogateescape")
    encoded = sorted((_encode(name), _encode(value)) for name, value in call.pairs if name != "x-oss-signature")
    query = "&".join(f"{name}={value}" if value else name for name, value in encoded)
    headers = "".join(f"{name}:{value}\n" for name, value in _signed_headers(call, names))
    payload = call.header("x-oss-content-sha256", "UNSIGNED-PAYLOAD")
    return f"{call.method}\n{uri}\n{query}\n{headers}\n{';'.join(sorted(names))}\n{payload}"


def _signed_headers(call: Call, additional: frozenset[str]) -> list[tuple[str, str]]:
    always = ("content-type", "content-md5")
    found = ((name.lower(), value.strip()) for name, value in call.headers.items())
    return sorted(
        (name, value) for name, value in found if name.startswith("x-oss-") or name in always or name in additional
    )


def _mismatch(call: Call, access_key_id: str, signature: str, to_sign: str, canonical: str = "") -> Refusal:
    names = ("x-oss-security-token", "security-token")
    tokens = {call.header(name) for name in names} | {call.query.get(name, "") for name in names}
    hidden = [shown for token in tokens if token for shown in (token, quote(token, safe=""))]
    fields = {"OSSAccessKeyId": access_key_id, "SignatureProvided": signature, "StringToSign": to_sign}
    if canonical:
        fields["CanonicalRequest"] = canonical
    for secret in hidden:
        for mark in ":=":  # of a header line, of a query parameter
            fields = {name: value.replace(mark + secret, mark + "***") for name, value in fields.items()}
    return Refusal(
        403,
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method.",
        fields=fields,
    )


def _url_expired(seconds: int) -> Refusal:
    return Refusal(403, "AccessDenied", "Request has expired.", fields={"Expires": _iso(seconds)})


def _encode(value: str) -> str:
    return quote(value, safe="-_.~", errors="surrogateescape")


def _octets(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))
