"""What a request says about an object besides its bytes, and what an answer says about an object: the same headers.

Source: API reference PutObject, HeadObject, GetObject (request and response headers). It must not know storage.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from csi.emulator.store.index import StoredObject
from csi.emulator.wire.answers import http_date, quoted
from csi.emulator.wire.call import Call
from csi.emulator.wire.refusals import Refusal, invalid_argument

STORAGE_CLASSES = ("Standard", "IA", "Archive", "ColdArchive", "DeepColdArchive")
ARCHIVED = ("Archive", "ColdArchive", "DeepColdArchive")
OBJECT_ACLS = ("default", "private", "public-read", "public-read-write")
DEFAULT_CONTENT_TYPE = "application/octet-stream"
MAX_USER_METADATA = 8 << 10

_KEPT = ("Content-Type", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Expires")
_OVERRIDES = {
    "response-content-type": "Content-Type",
    "response-content-language": "Content-Language",
    "response-expires": "Expires",
    "response-cache-control": "Cache-Control",
    "response-content-disposition": "Content-Disposition",
    "response-content-encoding": "Content-Encoding",
}
_META = "x-oss-meta-"
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


def details_of(call: Call) -> dict[str, Any]:
    """Headers, user metadata, ACL, tags and encryption of a request that creates an object."""
    details: dict[str, Any] = {}
    headers = {name: call.header(name) for name in _KEPT if call.header(name)}
    if headers:
        details["headers"] = headers
    user = {name.lower()[len(_META) :]: value for name, value in call.headers.items() if name.lower().startswith(_META)}
    _check_sendable([*headers.values(), *user.values()])
    if user:
        if sum(len(name) + len(value.encode()) for name, value in user.items()) > MAX_USER_METADATA:
            raise Refusal(400, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size.")
        details["user"] = user
    acl = call.header("x-oss-object-acl")
    if acl:
        details["acl"] = check_acl(acl)
    tags = call.header("x-oss-tagging")
    if tags:
        details["tags"] = check_tags(parse_qsl(tags, keep_blank_values=True))
    encryption = call.header("x-oss-server-side-encryption")
    if encryption:
        if encryption not in ("AES256", "KMS", "SM4"):
            raise Refusal(400, "InvalidEncryptionAlgorithmError", "The Encryption request you specified is not valid.")
        details["encryption"] = encryption
    return details


def storage_class_of(call: Call, default: str) -> str:
    wanted = call.header("x-oss-storage-class") or default
    if wanted not in STORAGE_CLASSES:
        raise invalid_argument("The storage class you specified is invalid.", "x-oss-storage-class", wanted)
    return wanted


def check_acl(acl: str) -> str:
    if acl not in OBJECT_ACLS:
        raise invalid_argument("The object ACL you specified is invalid.", "x-oss-object-acl", acl)
    return acl


def check_tags(tags: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """At most 10, keys unique, 1–128 characters, values up to 256 (PutObjectTagging)."""
    names = [name for name, _ in tags]
    if len(tags) > 10 or len(set(names)) != len(names):
        raise Refusal(400, "InvalidTag", "An object has at most 10 tags, with distinct keys.")
    if any(not 1 <= len(name) <= 128 or len(value) > 256 for name, value in tags):
        raise Refusal(400, "InvalidTag", "The tag key or value you provided is invalid.")
    return tags


def response_headers(stored: StoredObject) -> dict[str, str]:
    """What GetObject and HeadObject say of an object (without Content-Length)."""
    details = stored.details
    headers = {
        "Content-Type": DEFAULT_CONTENT_TYPE,
        **details.get("headers", {}),
        "Accept-Ranges": "bytes",
        "ETag": quoted(stored.etag),
        "Last-Modified": http_date(stored.modified),
        "x-oss-object-type": stored.type,
        "x-oss-storage-class": stored.storage_class,
        "x-oss-hash-crc64ecma": str(stored.crc),
    }
    for name, value in details.get("user", {}).items():
        headers[_META + name] = value
    if stored.type == "Appendable":
        headers["x-oss-next-append-position"] = str(stored.size)
    if details.get("tags"):
        headers["x-oss-tagging-count"] = str(len(details["tags"]))
    if details.get("encryption"):
        headers["x-oss-server-side-encryption"] = details["encryption"]
    if details.get("restored"):
        headers["x-oss-restore"] = 'ongoing-request="false"'
    return headers


def apply_overrides(call: Call, headers: dict[str, str]) -> None:
    """The response-* query parameters of a signed GetObject replace response headers."""
    for parameter, header in _OVERRIDES.items():
        if parameter in call.query:
            if not call.caller:
                raise invalid_argument("Anonymous requests cannot override response headers.", parameter)
            _check_sendable([call.query[parameter]])
            headers[header] = call.query[parameter]


def _check_sendable(values: list[str]) -> None:
    """What is echoed in a response header must be UTF-8 without control characters."""
    for value in values:
        if _UNSENDABLE.search(value):
            shown = value.encode("utf-8", "replace").decode()
            raise invalid_argument("Header values must be printable UTF-8.", "value", shown)
