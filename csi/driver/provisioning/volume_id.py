"""Ids of the volumes this driver creates: `<endpoint>/<bucket>/<digest>[?region=…&signer=1&style=path]`.

An id is all that DeleteVolume gets, from a controller that may have been restarted since. So it says where the
volume's record lies, and is derived from nothing but the volume's name and place: asking twice gives the same id, of
at most 128 bytes. Ids of other forms (a static PersistentVolume's handle may be anything) are simply not ours.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from csi.errors import InvalidOption

LONGEST_ID = 128
"""Bytes; the size limit of CSI for strings."""

_DOMAIN = ".aliyuncs.com"
_DIGEST = re.compile(r"[a-z2-7]{16}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_SHORT_ENDPOINT = re.compile(r"oss-[a-z0-9-]+")
_OTHER_ENDPOINT = re.compile(r"(https?:)?(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_EXTRAS = re.compile(r"\?(&?region=(?P<region>[a-z0-9-]+))?(&?signer=(?P<signer>1))?(&?style=(?P<style>path))?")


@dataclass(frozen=True, slots=True)
class VolumeId:
    """`endpoint` is a URL as in `Location`; `region` '' when the endpoint tells it; `signer` 4 or 1; `path_style`
    only where the endpoint alone does not call for it."""

    endpoint: str
    bucket: str
    digest: str
    region: str = ""
    signer: int = 4
    path_style: bool = False

    def __str__(self) -> str:
        extras = [f"region={self.region}"] if self.region else []
        extras += ["signer=1"] if self.signer == 1 else []
        extras += ["style=path"] if self.path_style else []
        return f"{_shorten(self.endpoint)}/{self.bucket}/{self.digest}" + (f"?{'&'.join(extras)}" if extras else "")


def make_volume_id(
    name: str, *, endpoint: str, bucket: str, region: str = "", signer: int = 4, path_style: bool = False
) -> VolumeId:
    """The id of the volume called `name`; raises InvalidOption when endpoint and bucket are too long for one."""
    # keyed by place as well: a name that came up in two buckets must not name one volume
    digest = hashlib.sha256("\0".join((endpoint, bucket, name)).encode()).digest()[:10]
    found = VolumeId(endpoint, bucket, base64.b32encode(digest).decode().lower(), region, signer, path_style)
    if len(str(found).encode()) > LONGEST_ID:
        raise InvalidOption(
            "url",
            endpoint,
            f"an endpoint short enough for a volume id of {LONGEST_ID} bytes (bucket {bucket!r} and digest included)",
            hint="give the bucket a shorter address, or create the PersistentVolume by hand",
        )
    return found


def parse_volume_id(text: str) -> VolumeId | None:
    """None when `text` is not of the form that `make_volume_id` makes."""
    if len(text.encode()) > LONGEST_ID:
        return None
    place, mark, extras = text.partition("?")
    found = _EXTRAS.fullmatch(mark + extras) if mark else _EXTRAS.match("?")
    parts = place.split("/")
    if found is None or len(parts) != 3:
        return None
    endpoint = _lengthen(parts[0])
    if endpoint is None or not _BUCKET.fullmatch(parts[1]) or not _DIGEST.fullmatch(parts[2]):
        return None
    parsed = VolumeId(
        endpoint, parts[1], parts[2], found["region"] or "", 1 if found["signer"] else 4, bool(found["style"])
    )
    return parsed if str(parsed) == text else None  # one volume, one id


def _shorten(endpoint: str) -> str:
    scheme, _, host = endpoint.partition("://")
    name = host.removesuffix(_DOMAIN)
    if scheme == "https" and name != host and _SHORT_ENDPOINT.fullmatch(name):
        return name
    return host if scheme == "https" and not _SHORT_ENDPOINT.fullmatch(host) else f"{scheme}:{host}"


def _lengthen(text: str) -> str | None:
    if not _OTHER_ENDPOINT.fullmatch(text):
        return None
    scheme, mark, host = text.partition(":")
    if mark and scheme in {"http", "https"}:
        return f"{scheme}://{host}"
    return f"https://{text}{_DOMAIN}" if _SHORT_ENDPOINT.fullmatch(text) else f"https://{text}"
