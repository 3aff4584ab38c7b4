"""Addresses of objects as training code writes them: `oss://BUCKET/KEY`, `oss://BUCKET.ENDPOINT/KEY` and `/BUCKET/KEY`.

A key is taken verbatim: never decoded, never normalised, because an object key may hold any character. A bucket's name
has no dot in it, so what follows the first dot of the authority is an endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from csi.errors import InvalidOption
from csi.volume.units import ObjectKey
from csi.volume.uri import parse_bucket, parse_endpoint

_RULE = "oss://BUCKET/KEY, oss://BUCKET.ENDPOINT/KEY or /BUCKET/KEY"
LONGEST_KEY = 1023
"""Bytes of UTF-8."""


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, and the endpoint its address names ('' in the short forms)."""

    bucket: str
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class ObjectUri:
    """One object, or with a key that is a prefix of others, many."""

    place: Place
    key: ObjectKey

    @property
    def bucket(self) -> str:
        return self.place.bucket

    def __str__(self) -> str:
        return f"oss://{self.place.bucket}/{self.key}"


def split_uri(text: str) -> tuple[str, str]:
    """The authority and the key of an address, neither of them looked at further; raises InvalidOption."""
    if text.startswith("oss://"):
        authority, _, key = text[6:].partition("/")
    elif text.startswith("/") and not text.startswith("//"):
        authority, _, key = text[1:].partition("/")
    else:
        raise InvalidOption("uri", text, _RULE)
    return authority, key


@lru_cache  # many addresses have it in common
def parse_place(authority: str) -> Place:
    """The bucket and the endpoint of an authority; raises InvalidOption, or UnsupportedVolume for OSS-HDFS."""
    if "@" in authority:
        raise InvalidOption.stating(
            "uri", "uri: credentials inside an address are not accepted", hint="give cred_path or cred_provider instead"
        )
    bucket, dot, host = authority.partition(".")
    parse_bucket(bucket, key="uri")
    if dot:
        parse_endpoint(host, key="uri")
    return Place(bucket, host)


def parse_prefix(text: str) -> ObjectUri:
    """The address of all objects whose keys begin with its key, '' for the whole bucket; raises InvalidOption."""
    authority, key = split_uri(text)
    return ObjectUri(parse_place(authority), ObjectKey(key))


def parse_object(text: str) -> ObjectUri:
    """The address of one object; raises InvalidOption."""
    uri = parse_prefix(text)
    if not uri.key:
        raise InvalidOption("uri", text, f"an object's address: {_RULE}", hint="the key is missing")
    if len(uri.key.encode("utf-8", "surrogateescape")) > LONGEST_KEY:
        raise InvalidOption("uri", text, f"a key of at most {LONGEST_KEY} bytes")
    return uri
