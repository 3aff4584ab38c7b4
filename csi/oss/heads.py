"""The head of a plain GET, ready to be sent: what `requests`, `signing` and libcurl would make of it, in one step.

Most requests of a mount are GETs of an object or a range of one; made this way a head costs a fifth.
"""

from __future__ import annotations

from csi.oss.credentials import Credentials
from csi.oss.exchange import USER_AGENT
from csi.oss.signing import RANGE_BEHAVIOR, Signer, quote_bytes
from csi.volume.spec import Location
from csi.volume.units import ETag, ObjectKey


class GetHeads:
    """Heads for one bucket. `endpoint` is the http(s)://host[:port] they are to be sent to."""

    def __init__(self, location: Location, signer: Signer) -> None:
        scheme, _, host = location.endpoint.rstrip("/").partition("://")
        self._bucket = location.bucket
        self._signer = signer
        self._path = f"GET /{location.bucket}/" if location.path_style else "GET /"
        if not location.path_style:
            host = f"{location.bucket}.{host}"
        self.endpoint = f"{scheme}://{host}"
        self._fixed = f" HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\n"

    def parts(self) -> tuple[bytes, bytes, bytes]:
        """What is before the key of a request, what is between it and the lines that depend on it, and what is before
        the key in the resource that is signed."""
        return self._path.encode(), self._fixed.encode(), f"/{self._bucket}/".encode()

    def head(
        self, key: ObjectKey, span: tuple[int, int] | None, if_match: ETag, credentials: Credentials | None, now: float
    ) -> bytes | None:
        """A GET of the object, or of the bytes `span` (first, end) of it; None when it cannot be said this way."""
        if not if_match.isprintable():
            return None
        lines = f"if-match: {if_match}\r\n" if if_match else ""
        if span is not None:
            lines += f"range: bytes={span[0]}-{span[1] - 1}\r\n"
        if credentials is not None:
            ranged = span is not None
            lines += self._signer.lines_of_get(self._bucket, key, ranged=ranged, credentials=credentials, now=now)
        elif span is not None:
            lines += f"{RANGE_BEHAVIOR[0]}: {RANGE_BEHAVIOR[1]}\r\n"
        return f"{self._path}{quote_bytes(key, safe='/')}{self._fixed}{lines}\r\n".encode("utf-8", "surrogateescape")
