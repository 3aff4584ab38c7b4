"""The volume for a sidecar's disk cache, and what it costs the pod. Pure: options in, JSON out.

An emptyDir counts as ephemeral storage of the pod, so the sidecar asks for that much more of it, and a limit that it
has grows by as much: kubelet evicts pods over their limits. A host path must be below one that the administrator
allows; the text decides here, and the node plugin sees to it that no link leads elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from csi.cluster.api import JsonObject
from csi.cluster.webhook.resources import ContainerResources
from csi.errors import InvalidOption
from csi.volume.caching import EMPTY_DIR, is_allowed, refusal
from csi.volume.naming import cache_volume_name
from csi.volume.quantity import format_bytes
from csi.volume.spec import CacheOptions
from csi.volume.units import MIB, Bytes

_MARGIN = 64 * MIB
_SHARE = 16
"""What a directory takes besides what is counted in it: one part in so many, and the margin."""


def check_cache(cache: CacheOptions, allowed: Sequence[str]) -> InvalidOption | None:
    """What is wrong with the host path of `cache`."""
    path = cache.host_path
    return refusal(path, allowed) if path and not is_allowed(path, allowed) else None


def cache_volume(sidecar: str, cache: CacheOptions) -> JsonObject | None:
    """The pod's volume for the cache of the container `sidecar`; None when there is to be none."""
    name = cache_volume_name(sidecar)
    if cache.place == EMPTY_DIR:
        return {"name": name, "emptyDir": {"sizeLimit": format_bytes(_size_limit(cache))}}
    if cache.host_path:
        return {"name": name, "hostPath": {"path": cache.host_path, "type": "DirectoryOrCreate"}}
    return None


def with_cache(resources: ContainerResources, cache: CacheOptions) -> ContainerResources:
    """`resources` of a sidecar that has the cache as well."""
    if cache.place != EMPTY_DIR:
        return resources
    size, limit = _size_limit(cache), resources.ephemeral_limit
    return replace(
        resources,
        ephemeral_request=Bytes((resources.ephemeral_request or 0) + size),
        ephemeral_limit=None if limit is None else Bytes(limit + size),
    )


def _size_limit(cache: CacheOptions) -> Bytes:
    """Of the emptyDir: never reached by a cache that keeps its bound."""
    return Bytes(cache.size + cache.size // _SHARE // MIB * MIB + _MARGIN)
