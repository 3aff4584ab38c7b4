"""Which disk cache a volume gets, and whose bytes it may find there.

A cache is shared by all who may read the same: entries are named by endpoint, bucket and *identity* besides the version
(`csi/data/disk/naming.py`). An ETag alone must not be enough, because who may list a bucket learns all ETags of it but
may perhaps not read it. The identity is the RAM role where one is taken on, nobody for a public bucket, and else the
access key; a temporary key names nobody for long, so then the volume stands for it, whose Secret is the same for all of
its pods. A volume keeps the identity it began with: whoever replaces its keys says that it is the same volume.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from csi.data.buffers import BufferPool
from csi.data.disk.cache import DiskCache, Place
from csi.data.disk.naming import scope_of
from csi.errors import OssFuseError
from csi.oss.credentials import CredentialsProvider
from csi.volume.caching import NONE
from csi.volume.spec import AuthType, VolumeSpec

_log = logging.getLogger(__name__)


def disk_cache_of(
    spec: VolumeSpec, volume_id: str, credentials: CredentialsProvider, directory: str
) -> Callable[[BufferPool], DiskCache] | None:
    """Makes the cache that `spec` asks for, None if it asks for none; `directory` is where a sidecar's container has
    it, '' where this process sees the host's own paths."""
    if spec.cache.place == NONE:
        return None
    path = directory or spec.cache.host_path
    if not path:
        _log.warning("cache: %s: this sidecar was given no directory for it, reads come from OSS", spec.cache.place)
        return None
    identity = identity_of(spec, volume_id, credentials)
    place = Place(path, spec.cache.size, scope_of(spec.location.endpoint, spec.location.bucket, identity))
    return lambda pool: DiskCache(place, pool)


def identity_of(spec: VolumeSpec, volume_id: str, credentials: CredentialsProvider) -> str:
    """Who reads. Two volumes of one bucket with the same identity may read the same objects."""
    match spec.credentials.auth_type:
        case AuthType.PUBLIC:
            return "public"
        case AuthType.RRSA:
            return f"role {spec.credentials.role_arn}"
        case _:
            try:
                current = credentials.current()
            except OssFuseError:  # they may come later; the requests will tell
                current = None
            if current is None or current.security_token:
                return f"volume {volume_id}"
            return f"key {current.access_key_id}"
