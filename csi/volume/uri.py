"""Where a volume's data is: `oss://` addresses, endpoints, bucket names and prefixes, turned into one Location.

Two spellings lead here: PAI's `oss://BUCKET.ENDPOINT/PATH/`, and bucket, endpoint and path apart as other drivers have
them. They may be mixed as long as they agree. Nothing is guessed that could address other data than was meant: a path
with empty or relative segments, or two different buckets, is refused. Addresses are never percent-decoded, because an
object key may hold any character. An endpoint without a scheme is HTTPS; write `http://` to do without encryption.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from csi.errors import InvalidOption, UnsupportedVolume
from csi.volume.spec import Location

_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]{1,61})[a-z0-9]")
_BUCKET_RULE = "a bucket name: 3 to 63 lower-case letters, digits and hyphens, no hyphen first or last"
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_ENDPOINT_RULE = "an endpoint such as https://oss-cn-hangzhou-internal.aliyuncs.com, without bucket and path"
_URI_RULE = "oss://BUCKET.ENDPOINT/PATH/ or oss://BUCKET/PATH/"
_PATH_RULE = "a path of UTF-8 text below 1024 bytes without empty, '.' or '..' segments"
_REGIONS = (
    re.compile(r"(?:s3\.|vpc100-)?oss-([a-z0-9-]+?)(?:-internal)?\.aliyuncs\.com"),
    re.compile(r"([a-z0-9-]+?)(?:-internal)?\.oss-data-acc\.aliyuncs\.com"),
    re.compile(r"[a-z0-9.-]+\.oss\.([a-z0-9-]+)\.privatelink\.aliyuncs\.com"),
)
_REGION = re.compile(r"(?!oss-)[a-z0-9]+(?:-[a-z0-9]+)*(?<!-internal)")
_NO_REGION = ("accelerate", "accelerate-overseas", "enet", "internal")
_LONGEST_KEY = 1023
_LARGEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`host` is lower case, IPv6 addresses in brackets; `port` '' when it is the scheme's own; `scheme` '' when the
    text had none."""

    scheme: str
    host: str
    port: str = ""

    @property
    def url(self) -> str:
        return f"{self.scheme or 'https'}://{self.host}{':' if self.port else ''}{self.port}"

    @property
    def region(self) -> str:
        """The region an Alibaba Cloud endpoint names (`cn-hangzhou`), '' when it names none."""
        for pattern in _REGIONS:
            match = pattern.fullmatch(self.host)
            if match and match[1] not in _NO_REGION:
                return match[1]
        return ""

    @property
    def takes_bucket_in_path(self) -> bool:
        """An address or a single label cannot have a bucket put before it."""
        return self.host.startswith("[") or "." not in self.host or _is_ipv4(self.host)


@dataclass(frozen=True, slots=True)
class Address:
    """What an `oss://` URI says; `endpoint` is None in the short form."""

    bucket: str
    endpoint: Endpoint | None
    prefix: str


def locate(
    *, uri: str = "", bucket: str = "", endpoint: str = "", path: str = "", region: str = "", path_style: bool = False
) -> Location:
    """The one Location these attributes describe ('' for an attribute that was not given).

    Raises InvalidOption for a bad or missing part and for parts that contradict each other, UnsupportedVolume for an
    OSS-HDFS endpoint.
    """
    address = parse_uri(uri) if uri else None
    given = parse_endpoint(endpoint) if endpoint else None
    name = _agreed("bucket", bucket and parse_bucket(bucket), address.bucket if address else "", uri)
    prefix = _agreed("path", normalise_prefix("path", path), address.prefix if address else "", uri)
    if not name:
        raise InvalidOption.stating("uri", f"no bucket is given, expected uri: {_URI_RULE}, or bucket: NAME")
    where = _one_endpoint(given, address.endpoint if address else None, uri)
    if where is None:
        raise InvalidOption.stating(
            "url", f"no endpoint is given for bucket {name!r}, expected url: {_ENDPOINT_RULE}, or one in the uri"
        )
    if where.host.startswith(f"{name}.") and where.host.endswith(".aliyuncs.com"):
        raise InvalidOption(
            "url", endpoint or uri, _ENDPOINT_RULE, hint=f"leave the bucket out: {where.host[len(name) + 1 :]}"
        )
    return Location(
        bucket=name,
        endpoint=where.url,
        prefix=prefix,
        region=region or where.region,
        path_style=path_style or where.takes_bucket_in_path,
    )


def parse_uri(uri: str) -> Address:
    """Split an `oss://` URI; raises InvalidOption, or UnsupportedVolume for OSS-HDFS."""
    scheme, separator, rest = uri.strip().partition("://")
    if not separator or scheme.lower() != "oss":
        raise InvalidOption("uri", _without_userinfo(uri), _URI_RULE)
    authority, _, path = rest.partition("/")
    if "@" in authority:
        raise InvalidOption.stating(
            "uri",
            "uri: credentials inside an address are not accepted, because a PersistentVolume is readable by many",
            hint="put them into a Secret and name it in nodePublishSecretRef",
        )
    bucket, dot, host = authority.partition(".")
    if dot and not host:
        raise InvalidOption("uri", uri, _URI_RULE)
    endpoint = parse_endpoint(host, key="uri") if dot else None
    return Address(parse_bucket(bucket, key="uri"), endpoint, normalise_prefix("uri", f"/{path}"))


def parse_bucket(name: str, *, key: str = "bucket") -> str:
    """`name` if it is one OSS allows; raises InvalidOption."""
    if not _BUCKET.fullmatch(name):
        near = name.strip().lower()
        raise InvalidOption(key, name, _BUCKET_RULE, hint=f"did you mean {near}?" if _BUCKET.fullmatch(near) else "")
    return name


def parse_endpoint(text: str, *, key: str = "url") -> Endpoint:
    """An endpoint with or without scheme and port; raises InvalidOption, or UnsupportedVolume for OSS-HDFS."""
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        scheme, rest = "", text.strip()
    scheme = scheme.lower()
    if scheme not in ("", "http", "https"):
        raise InvalidOption(key, _without_userinfo(text), _ENDPOINT_RULE)
    host, port = _split_port(rest.removesuffix("/").lower())
    if not _is_host(host) or not _is_port(port):
        raise InvalidOption(key, _without_userinfo(text), _ENDPOINT_RULE)
    if host == "oss-dls.aliyuncs.com" or host.endswith(".oss-dls.aliyuncs.com"):
        raise oss_hdfs(key, host)
    standard = {"http": "80", "https": "443"}.get(scheme, "443")
    return Endpoint(scheme, host, "" if not port or int(port) == int(standard) else str(int(port)))


def parse_region(text: str) -> str:
    """A region id such as `cn-hangzhou`, '' for ''; raises InvalidOption."""
    if text and not _REGION.fullmatch(text):
        near = text.strip().lower().removeprefix("oss-").removesuffix("-internal")
        hint = f"did you mean {near}?" if _REGION.fullmatch(near) else ""
        raise InvalidOption("region", text, "a region such as cn-hangzhou", hint=hint)
    return text


def oss_hdfs(key: str, value: str) -> UnsupportedVolume:
    """The answer to every way of asking for OSS-HDFS."""
    return UnsupportedVolume(
        f"{key}: {value!r} is OSS-HDFS, which speaks a protocol of its own that only JindoSDK implements",
        hint="use the bucket's OSS endpoint, such as oss-cn-hangzhou-internal.aliyuncs.com",
    )


def normalise_prefix(key: str, path: str) -> str:
    """`path` as a prefix of object keys: '' for the whole bucket, else without leading and with trailing slash.

    Raises InvalidOption for what no mount could show: empty, '.' and '..' segments, NUL, over 1023 bytes.
    """
    inner = path.removeprefix("/").removesuffix("/")
    if not inner:
        if path in ("", "/"):
            return ""
        raise InvalidOption(key, path, _PATH_RULE)
    bad = any(segment in ("", ".", "..") for segment in inner.split("/")) or "\0" in inner or inner.startswith("\\")
    if bad or not _is_utf8(inner) or len(inner.encode()) >= _LONGEST_KEY:
        raise InvalidOption(key, path, _PATH_RULE)
    return f"{inner}/"


def _agreed(key: str, given: str, in_uri: str, uri: str) -> str:
    if given and in_uri and given != in_uri:
        raise InvalidOption(key, given, f"{in_uri!r} as in uri {uri!r}", hint=f"give {key} in one place only")
    return given or in_uri


def _one_endpoint(given: Endpoint | None, in_uri: Endpoint | None, uri: str) -> Endpoint | None:
    """A separate endpoint adds the scheme to the one in the URI; it must not name another host."""
    if given is None or in_uri is None:
        return given or in_uri
    if given.host != in_uri.host or (in_uri.port and given.port != in_uri.port):
        raise InvalidOption(
            "url", given.url, f"{in_uri.host!r} as in uri {uri!r}", hint="give the endpoint in one place only"
        )
    return given


def _split_port(authority: str) -> tuple[str, str]:
    host, colon, port = authority.rpartition(":")
    if colon and not authority.endswith("]"):
        return host, port or "none"
    return authority, ""


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        return "%" not in host
    if host.replace(".", "").isdigit():
        return _is_ipv4(host)
    return 0 < len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.split("."))


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _is_port(port: str) -> bool:
    return not port or (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= _LARGEST_PORT)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _without_userinfo(text: str) -> str:
    """What may be shown of a text that could hold `user:password@`."""
    return re.sub(r"[^/@]*@", "…@", text)
