"""How much a sidecar gets: what its volume says, overridden by what its pod says.

A volume that says something wrong gets its sidecar all the same, with as much of its resources as can be read: the
mistake is told by the node plugin, on the pod, and the pod runs with the sidecar it has once the volume is mended. A
pod that says something wrong is refused, for it can be put right where it is made.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from csi.cluster.not_injected import NOT_INJECTED_ANNOTATION
from csi.errors import InvalidOption, OssFuseError
from csi.volume.naming import DRIVER_NAME, INJECT_ANNOTATION
from csi.volume.parse import parse_volume
from csi.volume.quantity import format_bytes, parse_bytes, parse_millis
from csi.volume.spec import MEMORY_FLOOR, CacheOptions, SidecarResources
from csi.volume.units import Bytes

MEMORY_LIMIT: Final = f"{DRIVER_NAME}/memory-limit"
MEMORY_REQUEST: Final = f"{DRIVER_NAME}/memory-request"
CPU_LIMIT: Final = f"{DRIVER_NAME}/cpu-limit"
CPU_REQUEST: Final = f"{DRIVER_NAME}/cpu-request"
EPHEMERAL_LIMIT: Final = f"{DRIVER_NAME}/ephemeral-storage-limit"
EPHEMERAL_REQUEST: Final = f"{DRIVER_NAME}/ephemeral-storage-request"
ANNOTATIONS: Final = (
    INJECT_ANNOTATION,
    MEMORY_LIMIT,
    MEMORY_REQUEST,
    CPU_LIMIT,
    CPU_REQUEST,
    EPHEMERAL_LIMIT,
    EPHEMERAL_REQUEST,
)
"""What a user may write on a pod; any other annotation of ours is a mistake, or the webhook's own."""

_ATTRIBUTES: Final = "fs.jindo.fuse.pod."
_MEMORY: Final = frozenset({f"{_ATTRIBUTES}mem.limit", f"{_ATTRIBUTES}mem.request"})
"""What matters most: a sidecar that has less than its volume says is killed for it."""
_SOMEWHERE: Final = {"bucket": "somewhere", "url": "https://oss.invalid"}
_CPU_COUNT: Final = 4
"""Any: it decides about threads only, which are none of a container's resources."""


@dataclass(frozen=True, slots=True)
class ContainerResources:
    """Of one sidecar container. CPU in millicores; None: not set."""

    memory_limit: Bytes
    memory_request: Bytes
    cpu_request_millis: int
    cpu_limit_millis: int | None = None
    ephemeral_limit: Bytes | None = None
    ephemeral_request: Bytes | None = None
    image_tag: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a volume asks for, and what is wrong with it; then it gets no cache."""

    resources: ContainerResources
    cache: CacheOptions
    mistake: OssFuseError | None = None


def wanted_by(attributes: Mapping[str, str], mount_flags: tuple[str, ...] = ()) -> Wanted:
    try:
        spec = parse_volume(attributes, cpu_count=_CPU_COUNT, mount_flags=mount_flags).spec
    except OssFuseError as mistake:
        return Wanted(_of_spec(_readable(attributes)), CacheOptions(), mistake)
    return Wanted(_of_spec(spec.resources), spec.cache)


def pod_resources(wanted: ContainerResources, annotations: Mapping[str, str]) -> ContainerResources:
    """`wanted` with the pod's annotations over it. Raises InvalidOption that names the annotation."""
    memory_limit = _memory(annotations, MEMORY_LIMIT) or wanted.memory_limit
    if memory_limit < MEMORY_FLOOR:
        accepted = f"at least {format_bytes(MEMORY_FLOOR)}, the least a sidecar can work in"
        raise InvalidOption(MEMORY_LIMIT, annotations[MEMORY_LIMIT], accepted)
    memory_request = _memory(annotations, MEMORY_REQUEST)
    if memory_request is None:  # follows the limit, unless the volume asked for less
        as_limit = wanted.memory_request == wanted.memory_limit
        memory_request = memory_limit if as_limit else min(wanted.memory_request, memory_limit)
    cpu_limit = _cpu(annotations, CPU_LIMIT) or wanted.cpu_limit_millis
    cpu_request = _cpu(annotations, CPU_REQUEST)
    if cpu_request is None:
        cpu_request = min(wanted.cpu_request_millis, cpu_limit or wanted.cpu_request_millis)
    ephemeral_limit = _memory(annotations, EPHEMERAL_LIMIT) or wanted.ephemeral_limit
    ephemeral_request = _memory(annotations, EPHEMERAL_REQUEST)
    _refuse_above(annotations, MEMORY_REQUEST, memory_request, memory_limit, format_bytes(memory_limit))
    _refuse_above(annotations, CPU_REQUEST, cpu_request, cpu_limit, f"{cpu_limit}m")
    if ephemeral_request is not None:
        shown = format_bytes(ephemeral_limit or 0)
        _refuse_above(annotations, EPHEMERAL_REQUEST, ephemeral_request, ephemeral_limit, shown)
    return ContainerResources(
        memory_limit,
        memory_request,
        cpu_request,
        cpu_limit,
        ephemeral_limit,
        ephemeral_request,
        wanted.image_tag,
    )


def is_opted_out(annotations: Mapping[str, str]) -> bool:
    """Whether the pod wants no sidecars. Raises InvalidOption for an annotation of ours that is none."""
    for key, value in annotations.items():
        if key.startswith(f"{DRIVER_NAME}/") and key not in (*ANNOTATIONS, NOT_INJECTED_ANNOTATION):
            near = difflib.get_close_matches(key, ANNOTATIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(ANNOTATIONS)}"
            raise InvalidOption.stating(key, f"the pod's annotation {key}: {value!r} is not known", hint=hint)
    text = annotations.get(INJECT_ANNOTATION, "true")
    if text not in ("true", "false"):
        raise InvalidOption(INJECT_ANNOTATION, text, '"true" or "false"')
    return text == "false"


def container_resources(resources: ContainerResources) -> dict[str, dict[str, str]]:
    """`resources` of a container, as Kubernetes writes them."""
    requests = {"cpu": _millis(resources.cpu_request_millis), "memory": format_bytes(resources.memory_request)}
    limits = {"memory": format_bytes(resources.memory_limit)}
    if resources.cpu_limit_millis is not None:
        limits["cpu"] = _millis(resources.cpu_limit_millis)
    if resources.ephemeral_limit is not None:
        limits["ephemeral-storage"] = format_bytes(resources.ephemeral_limit)
    if resources.ephemeral_request is not None:
        requests["ephemeral-storage"] = format_bytes(resources.ephemeral_request)
    return {"requests": requests, "limits": limits}


def _of_spec(resources: SidecarResources) -> ContainerResources:
    return ContainerResources(
        memory_limit=resources.memory_limit,
        memory_request=resources.memory_request,
        cpu_request_millis=resources.cpu_request_millis,
        cpu_limit_millis=resources.cpu_limit_millis,
        ephemeral_limit=resources.ephemeral_limit,
        image_tag=resources.image_tag,
    )


def _readable(attributes: Mapping[str, str]) -> SidecarResources:
    """The resources of a volume that has a mistake elsewhere; the defaults where they are the mistake."""
    try:
        options = json.loads(attributes.get("options") or "{}")
    except (ValueError, RecursionError):
        options = {}
    both = {**(options if isinstance(options, dict) else {}), **attributes}
    known = {key: str(value) for key, value in both.items() if key.startswith(_ATTRIBUTES)}
    for readable in (known, {key: value for key, value in known.items() if key in _MEMORY}):
        with contextlib.suppress(OssFuseError):
            return parse_volume({**_SOMEWHERE, **readable}, cpu_count=_CPU_COUNT).spec.resources
    return SidecarResources()


def _memory(annotations: Mapping[str, str], key: str) -> Bytes | None:
    if key not in annotations:
        return None
    size = parse_bytes(key, annotations[key])
    if size == 0:
        raise InvalidOption(key, annotations[key], "a size above zero, such as 512Mi or 10Gi")
    return size


def _cpu(annotations: Mapping[str, str], key: str) -> int | None:
    if key not in annotations:
        return None
    millis = parse_millis(key, annotations[key])
    if millis == 0 and key == CPU_LIMIT:
        raise InvalidOption(key, annotations[key], "an amount of CPU above zero, such as 500m or 2")
    return millis


def _refuse_above(annotations: Mapping[str, str], key: str, request: int, limit: int | None, shown: str) -> None:
    if key in annotations and limit is not None and request > limit:
        raise InvalidOption(key, annotations[key], f"at most {shown}, the limit")


def _millis(amount: int) -> str:
    return str(amount // 1000) if amount % 1000 == 0 else f"{amount}m"
