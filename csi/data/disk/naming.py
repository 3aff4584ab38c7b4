"""Under which name the bytes of one object version lie in a cache directory.

The name is a digest of everything that makes bytes the same and allows somebody to read them: endpoint, bucket, the
identity that reads, key, ETag and size. So two versions never meet, two volumes share what both may read, and the names
of files tell nobody what is in them. Why the identity is part of it: who may list a bucket learns ETags, and must not
get bytes for an ETag that another identity has fetched and he could not.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from csi.oss.store import ObjectVersion

SHARDS = tuple(f"{number:02x}" for number in range(256))
"""Directories that entries are spread over, evenly because names are digests."""
MAP = ".map"
"""What the name of an entry's index ends with; an entry of one file has none."""
TEMPORARY = ".tmp"


class EntryName(NamedTuple):
    """`shard` is an index of SHARDS; `path` is relative to the cache's root."""

    shard: int
    path: str

    @property
    def map_path(self) -> str:
        return self.path + MAP


def scope_of(endpoint: str, bucket: str, identity: str) -> bytes:
    """What the versions of one bucket that one identity reads have in common."""
    return hashlib.sha256("\0".join((endpoint, bucket, identity)).encode()).digest()


def name_of(scope: bytes, version: ObjectVersion) -> EntryName:
    text = f"{version.etag}\0{version.size}\0{version.key}"
    digest = hashlib.sha256(scope + text.encode("utf-8", "surrogateescape")).hexdigest()
    shard = digest[:2]
    return EntryName(int(shard, 16), f"{shard}/{digest[2:]}")
