"""What CreateVolume asks for, parsed from the request into one frozen value; and whether a volume that exists is it.

Pure: no bucket is touched here. The attributes of the new volume are those of the StorageClass without what only
concerns its creation, moved to the volume's own place in the bucket, and parsed once as a node will parse them, so that
a mistake in a class shows when a claim is made and not when a pod starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from csi.driver.attributes import refuse_contradiction, without_kubernetes_context
from csi.driver.capabilities import parse_all
from csi.driver.provisioning.path_pattern import expand, normal_prefix, safe_name
from csi.driver.provisioning.records import ROOT, VolumeRecord
from csi.driver.provisioning.volume_id import VolumeId, make_volume_id
from csi.errors import CapacityOutOfRange, InvalidOption, UnsupportedVolume, VolumeConflict
from csi.v1 import csi_pb2
from csi.volume.parse import parse_volume
from csi.volume.spec import VolumeSpec
from csi.volume.uri import locate

PATH_PATTERN = "pathPattern"
ON_DELETE = "onDelete"
_ON_DELETE = ("retain", "delete")
_PLACE = ("uri", "bucket", "url", "endpoint", "fs.oss.endpoint", "path")
"""Attributes that say where a volume is; a created volume's are written anew."""
_LARGEST_CONTEXT = 4096
"""Bytes of keys and values; the size limit of CSI for maps."""
_LONGEST_NAME = 128


@dataclass(frozen=True, slots=True)
class WantedVolume:
    """`spec` is the bucket as the class describes it; `limit` in bytes, 0: none."""

    id: VolumeId
    spec: VolumeSpec
    record: VolumeRecord
    limit: int


def parse_wanted(request: csi_pb2.CreateVolumeRequest, *, cpu_count: int) -> WantedVolume:
    """Raises InvalidOption, UnsupportedVolume, CapacityOutOfRange."""
    name = request.name
    if not name or len(name.encode()) > _LONGEST_NAME:
        raise InvalidOption("name", name, f"a name of 1 to {_LONGEST_NAME} bytes")
    if request.HasField("volume_content_source"):
        raise UnsupportedVolume(
            "volume_content_source: a volume cannot be made from a snapshot or another volume",
            hint="remove dataSource from the PersistentVolumeClaim and copy the objects instead",
        )
    if request.mutable_parameters:
        raise UnsupportedVolume("mutable_parameters: volumes cannot be modified", hint="use no VolumeAttributesClass")
    accesses = parse_all(request.volume_capabilities)
    capacity, limit = _capacity(request.capacity_range)
    parameters = dict(request.parameters)
    on_delete = parameters.get(ON_DELETE, "retain")
    if on_delete not in _ON_DELETE:
        raise InvalidOption(ON_DELETE, on_delete, " or ".join(_ON_DELETE))

    given = without_kubernetes_context(parameters)
    given = {key: value for key, value in given.items() if key not in {PATH_PATTERN, ON_DELETE}}
    parsed = parse_volume(given, cpu_count=cpu_count)
    for access in accesses:
        refuse_contradiction(parsed, access)
    spec = parsed.spec
    volume_id = _id_of(name, spec)
    prefix = spec.location.prefix + _below(parameters, name)
    if prefix.startswith(ROOT):
        raise InvalidOption("path", prefix, f"a path outside {ROOT}, where the records of volumes are kept")
    attributes = _placed(given, spec, normal_prefix("path", prefix), cpu_count)
    record = VolumeRecord(
        name=name,
        volume_id=str(volume_id),
        prefix=prefix,
        capacity=capacity,
        attributes=attributes,
        on_delete=on_delete,
        owns_data=False,
    )
    return WantedVolume(volume_id, spec, record, limit)


def refuse_difference(wanted: WantedVolume, found: VolumeRecord) -> None:
    """Raises VolumeConflict when the volume of this name is not the one that is wanted."""
    asked = wanted.record
    if found.capacity < asked.capacity or 0 < wanted.limit < found.capacity:
        raise VolumeConflict(
            f"volume {found.name!r} exists with a capacity of {found.capacity} bytes, not of {asked.capacity} bytes",
            hint="delete it first or ask for the same capacity",
        )
    before, now = {**found.attributes, ON_DELETE: found.on_delete}, {**asked.attributes, ON_DELETE: asked.on_delete}
    if before != now:
        key = first_difference(before, now)
        raise VolumeConflict(
            f"volume {found.name!r} exists with {key}: {before.get(key)!r}, not {now.get(key)!r}",
            hint="delete it first or use the parameters it was created with",
        )


def first_difference(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """The first key by which two maps differ."""
    return next(key for key in sorted({*one, *other}) if one.get(key) != other.get(key))


def _placed(given: Mapping[str, str], spec: VolumeSpec, prefix: str, cpu_count: int) -> dict[str, str]:
    """The attributes of the volume itself: as given, but at its own place in the bucket."""
    attributes = {key: value for key, value in given.items() if key not in _PLACE}
    attributes |= {"bucket": spec.location.bucket, "url": spec.location.endpoint, "path": f"/{prefix}"}
    size = sum(len(key.encode()) + len(value.encode()) for key, value in attributes.items())
    if size > _LARGEST_CONTEXT:
        raise InvalidOption("parameters", f"{size} bytes", f"at most {_LARGEST_CONTEXT} bytes of keys and values")
    placed = parse_volume(attributes, cpu_count=cpu_count).spec.location
    if placed != replace(spec.location, prefix=prefix):
        raise InvalidOption(
            "parameters", "options", "bucket, url and path as parameters of their own, not inside `options`"
        )
    return attributes


def _capacity(wanted: csi_pb2.CapacityRange) -> tuple[int, int]:
    """Required bytes and limit, 0 for none; raises CapacityOutOfRange."""
    required, limit = wanted.required_bytes, wanted.limit_bytes
    if required < 0 or limit < 0 or 0 < limit < required:
        raise CapacityOutOfRange(
            f"capacity_range: required_bytes {required} and limit_bytes {limit} leave no size",
            hint="give a limit that is not below what is required",
        )
    return required or limit, limit


def _below(parameters: Mapping[str, str], name: str) -> str:
    """The volume's own part of the path."""
    if PATH_PATTERN not in parameters:
        return f"{safe_name(name)}/"
    return expand(parameters[PATH_PATTERN], parameters, volume_name=name)


def _id_of(name: str, spec: VolumeSpec) -> VolumeId:
    location = spec.location
    plain = locate(bucket=location.bucket, endpoint=location.endpoint)
    return make_volume_id(
        name,
        endpoint=location.endpoint,
        bucket=location.bucket,
        region=location.region if location.region != plain.region else "",
        signer=spec.http.signature_version,
        path_style=location.path_style and not plain.path_style,
    )
