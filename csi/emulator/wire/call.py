"""One request as OSS sees it: bucket, key and query, whichever way it was addressed, and its body as a stream.

Path style (`/BUCKET/KEY`, any Host header) and virtual-host style (`Host: BUCKET.DOMAIN[:PORT]`) end in the same
`Call`. Names are decoded exactly once; nothing is normalised, so `//`, `.` and `..` stay what the client sent. It must
not know signatures, storage or faults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote_plus, unquote_to_bytes

from csi.emulator.wire.refusals import Refusal, invalid_object_name

MAX_KEY_BYTES = 1023


class BodySource(Protocol):
    """Where the bytes of a request come from; `read` gives b'' at the end and raises when the client vanished."""

    async def read(self) -> bytes: ...

    @property
    def length(self) -> int | None: ...


@dataclass(slots=True)
class Call:
    """`path` is the decoded path of the URL, `query` the decoded first values, `pairs` all of them in order."""

    method: str
    path: str
    bucket: str
    key: str
    query: dict[str, str]
    pairs: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: BodySource
    host: str = ""
    virtual_host: bool = False
    s3: bool = False
    """Said in the words of S3, to be answered in them."""
    request_id: str = ""
    operation: str = ""
    caller: str = ""
    """Access key id once verified, '' for anonymous."""
    notes: dict[str, str] = field(default_factory=dict)

    def header(self, name: str, default: str = "") -> str:
        return self.headers.get(name, default)

    def flag(self, name: str) -> bool:
        return self.header(name).lower() == "true"

    def whole_number(self, name: str) -> int:
        """A query parameter that must be a non-negative integer."""
        value = self.query.get(name, "")
        if not (value.isascii() and value.isdigit()):
            raise Refusal(
                400,
                "InvalidArgument",
                f"Argument {name} must be a non-negative integer.",
                fields={"ArgumentName": name, "ArgumentValue": value},
            )
        return int(value)


@dataclass(frozen=True, slots=True)
class Address:
    path: str
    bucket: str
    key: str
    virtual_host: bool


def address(raw_path: str, host: str, domains: Sequence[str]) -> Address:
    """Bucket and key of a raw (still percent-encoded) path under a Host header."""
    try:
        path = unquote_to_bytes(raw_path).decode("utf-8")
    except UnicodeDecodeError:
        raise invalid_object_name(raw_path) from None
    bucket = virtual_bucket(host, domains)
    if bucket:
        return Address(path, bucket, path[1:], virtual_host=True)
    bucket, _, key = path[1:].partition("/")
    return Address(path, bucket, key, virtual_host=False)


def virtual_bucket(host: str, domains: Sequence[str]) -> str:
    """The bucket a Host header names, '' for path style: IP addresses, the domains themselves, any other name."""
    name = host.rpartition("]")[2] if host.startswith("[") else host
    name = name.partition(":")[0].lower().rstrip(".")
    for domain in domains:
        if name.endswith("." + domain):
            return name[: -len(domain) - 1]
    label, _, rest = name.partition(".")
    if rest.startswith("oss-") and rest.endswith(".aliyuncs.com"):
        return label
    return ""


def parse_query(raw: str) -> list[tuple[str, str]]:
    """Decoded (name, value) pairs in order; `a` and `a=` both have the value ''."""
    pairs = []
    for piece in raw.split("&"):
        if piece:
            name, _, value = piece.partition("=")
            pairs.append((unquote_plus(name, errors="surrogateescape"), unquote_plus(value, errors="surrogateescape")))
    return pairs


def first_values(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in pairs:
        values.setdefault(name, value)
    return values


def check_object_name(key: str) -> None:
    """InvalidObjectName unless 1–1023 bytes of UTF-8 that do not start with a slash or a backslash (PutObject)."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise invalid_object_name(key.encode("utf-8", "replace").decode()) from None
    if not 1 <= size <= MAX_KEY_BYTES or key[0] in "/\\":
        raise invalid_object_name(key)
