"""OSS requests as values, and how a request becomes a URL.

A `Call` names the API operation and holds plain text; encoding happens once, in `url_of`. The host carries the bucket
unless the location says path style. Nothing here knows credentials or what an answer means.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from csi.errors import RequestRejected
from csi.oss.signing import encode_query, quote_bytes
from csi.oss.store import Buffer
from csi.volume.spec import Location, WriteOptions
from csi.volume.units import ObjectKey

BUCKET_LEVEL = ObjectKey("")
"""The key of operations on the bucket itself."""

DEFAULT_CONTENT_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the OSS API, not yet addressed or signed.

    `operation` is the API name (GetObject), `query` and `headers` are plain text with lower-case header names. `once`:
    the operation does not tolerate being repeated unnoticed, `summed`: the checksum of its body is wanted (see
    `HttpRequest` of both).
    """

    operation: str
    method: str
    key: ObjectKey = BUCKET_LEVEL
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Sequence[Buffer] = ()
    target: memoryview | None = None
    once: bool = False
    summed: bool = False

    @property
    def changes(self) -> bool:
        return self.method not in ("GET", "HEAD")

    @property
    def body_size(self) -> int:
        return sum(memoryview(part).nbytes for part in self.body)


def url_of(location: Location, key: ObjectKey, query: Sequence[tuple[str, str]]) -> str:
    """The URL of an object (or, with key '', of the bucket), each byte of the key percent-encoded exactly once."""
    scheme, _, host = location.endpoint.rstrip("/").partition("://")
    base = f"{scheme}://{host}/{location.bucket}/" if location.path_style else f"{scheme}://{location.bucket}.{host}/"
    url = base + quote_bytes(key, safe="/")
    return f"{url}?{encode_query(query)}" if query else url


def header_lines(headers: Mapping[str, str], operation: str) -> list[bytes]:
    """Headers as libcurl takes them. Raises RequestRejected on a value that would end the header early."""
    lines = []
    for name, value in headers.items():
        if "\n" in value or "\r" in value or "\0" in value:
            raise RequestRejected(
                f"{operation}: header {name} would contain a line break", operation=operation, hint="encode the value"
            )
        # libcurl drops a header without value unless its name ends in ';'
        line = f"{name}: {value}" if value else f"{name};"
        lines.append(line.encode("utf-8", "surrogateescape"))
    return lines


def content_md5(body: Sequence[Buffer]) -> str:
    """The header Content-MD5 (RFC 1864) of a body."""
    digest = hashlib.md5(usedforsecurity=False)
    for part in body:
        digest.update(part)
    return base64.b64encode(digest.digest()).decode()


def body_headers(options: WriteOptions, body: Sequence[Buffer], *, guarded: bool = False) -> dict[str, str]:
    """Headers of the operations that bring bytes: their MD5, if that is wanted."""
    return {"content-md5": content_md5(body)} if options.md5 or guarded else {}


def write_headers(
    options: WriteOptions,
    *,
    user: Mapping[str, str] | None = None,
    content_type: str = "",
    forbid_overwrite: bool = False,
) -> dict[str, str]:
    """Headers of the operations that create an object: encryption, user metadata, type, forbid-overwrite."""
    headers = {"content-type": content_type or DEFAULT_CONTENT_TYPE}
    if options.server_side_encryption:
        headers["x-oss-server-side-encryption"] = options.server_side_encryption
    if options.server_side_data_encryption:
        headers["x-oss-server-side-data-encryption"] = options.server_side_data_encryption
    if options.server_side_encryption_key_id:
        headers["x-oss-server-side-encryption-key-id"] = options.server_side_encryption_key_id
    for name, value in (user or {}).items():
        headers[f"x-oss-meta-{name.lower()}"] = value
    if forbid_overwrite:
        headers["x-oss-forbid-overwrite"] = "true"
    return headers
