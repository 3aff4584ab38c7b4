"""The patch that gives a pod its sidecars: a pure function of the pod, its volumes and the settings.

Each volume of ours gets one native sidecar, before every other init container, the tmpfs of that name, and a directory
for its disk cache if it asks for one; the pod's mounts of the volume get the propagation that lets a new session reach
them after a crash. Names of sidecars are ours: what a manifest or another webhook has put under one is replaced, so
that nobody else's image receives credentials and a pod that comes by a second time is left as it is. Everything else in
the pod stays, in its order. A pod that would let another container at a sidecar's directories, or says something wrong
in an annotation of ours, is refused in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from csi.cluster.api import JsonObject, JsonPatch
from csi.cluster.not_injected import NOT_INJECTED_ANNOTATION
from csi.cluster.webhook.caches import cache_volume, check_cache, with_cache
from csi.cluster.webhook.resources import is_opted_out, pod_resources, wanted_by
from csi.cluster.webhook.sidecar import SidecarSettings, sidecar_container, sidecar_volume
from csi.cluster.webhook.volumes import OurVolume, UnknownVolume, candidates, containers
from csi.errors import InvalidOption, OssFuseError
from csi.volume.naming import INJECT_ANNOTATION, sidecar_name
from csi.volume.quantity import parse_quantity
from csi.volume.spec import CacheOptions

_MIRROR: Final = "kubernetes.io/config.mirror"
_RECURSIVE: Final = ("Enabled", "IfPossible")
"""`recursiveReadOnly` of a mount for which Kubernetes allows no propagation."""
_LATE_FIELDS: Final = ("resizePolicy",)
"""What the API server adds to a container by itself, and only to some."""


class PodRefused(OssFuseError):
    """The pod cannot be admitted as it is; the message is for who wrote it."""


@dataclass(frozen=True, slots=True)
class Injection:
    """`patch` in the order it is applied, empty where nothing is to be done; `sidecars` the names the pod has then;
    `warnings` for whoever creates the pod."""

    patch: JsonPatch
    sidecars: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def wants_sidecars(pod: JsonObject) -> bool:
    """Whether its volumes must be looked up at all. Raises InvalidOption for a bad annotation and PodRefused for a pod
    that wants no sidecars and brings its own under our names."""
    if not candidates(pod) or _MIRROR in _annotations(pod):
        return False
    if not is_opted_out(_annotations(pod)):
        return True
    _refuse_pretenders(pod, set())
    return False


def inject(pod: JsonObject, volumes: Sequence[OurVolume | UnknownVolume], settings: SidecarSettings) -> Injection:
    """The patch for `pod`, whose `volumes` are as resolved. Raises PodRefused and InvalidOption."""
    annotations = _annotations(pod)
    ours = [volume for volume in volumes if isinstance(volume, OurVolume)]
    reasons = [f"volume {volume.name}: {volume.reason}" for volume in volumes if isinstance(volume, UnknownVolume)]
    spec = pod["spec"]
    if ours and (spec.get("os") or {}).get("name") == "windows":
        reasons += [f"volume {volume.name}: sidecars run on Linux only" for volume in ours]
        ours = []
    served = {volume.identity: volume for volume in reversed(ours)}  # the first of those that share one
    wanted: list[JsonObject] = []
    directories: list[JsonObject] = []
    warnings: list[str] = []
    for volume in ours:
        if served[volume.identity] is not volume:
            continue
        asked = wanted_by(volume.attributes, volume.mount_flags)
        if asked.mistake is not None:
            warnings.append(f"volume {volume.name} ({volume.source}): {asked.mistake}")
        _refuse_host_path(volume, asked.cache, settings)
        name = sidecar_name(volume.name)
        cache = cache_volume(name, asked.cache)
        resources = with_cache(pod_resources(asked.resources, annotations), asked.cache)
        wanted.append(sidecar_container(name, resources, settings, cache=str(cache["name"]) if cache else ""))
        directories += [sidecar_volume(name), *([cache] if cache else [])]
    names = {str(container["name"]) for container in wanted}
    _refuse_pretenders(pod, names)
    _refuse_intruders(spec, names, {str(item["name"]) for item in directories} - names)
    patch = [
        *_annotation(annotations, pod, "; ".join(reasons)),
        *_propagation(spec, {volume.name for volume in ours}),
        *_volumes(spec, directories),
        *_containers(spec, wanted),
    ]
    return Injection(patch, tuple(str(container["name"]) for container in wanted), tuple(warnings))


def _refuse_pretenders(pod: JsonObject, names: set[str]) -> None:
    """A container under the name of a sidecar that the webhook does not add would be handed the volume's credentials
    as soon as the volume turns out to be ours."""
    foreign = {sidecar_name(str(volume["name"])): str(volume["name"]) for volume in candidates(pod)}
    for container in containers(pod["spec"]):
        name = str(container.get("name"))
        if name in foreign and name not in names:
            raise PodRefused(
                f"container {name!r} has the name of the sidecar of volume {foreign[name]!r}, which the webhook alone "
                "adds and does not add here",
                hint=f"rename the container; {INJECT_ANNOTATION} says whether there are sidecars",
            )


def _refuse_host_path(volume: OurVolume, cache: CacheOptions, settings: SidecarSettings) -> None:
    if (mistake := check_cache(cache, settings.cache_host_paths)) is not None:
        raise PodRefused(f"volume {volume.name} ({volume.source}): {mistake.message}", hint=mistake.hint)


def _refuse_intruders(spec: JsonObject, names: set[str], caches: set[str]) -> None:
    for volume in _items(spec, "volumes"):
        name = volume.get("name")
        if (name in names and "emptyDir" not in volume) or (
            name in caches and not {*volume} & {"emptyDir", "hostPath"}
        ):
            raise PodRefused(f"volume {name!r} has the name of a sidecar's directory", hint="rename the volume")
    for kind in ("containers", "ephemeralContainers", "initContainers"):
        for container in _items(spec, kind):
            name = container.get("name")
            if name in names:
                if kind == "initContainers":
                    continue
                raise PodRefused(f"container {name!r} has the name of a sidecar", hint="rename the container")
            for held in (mount.get("name") for mount in _items(container, "volumeMounts")):
                if held in names or held in caches:
                    what = (
                        "in which a sidecar receives its credentials" if held in names else "of a sidecar's disk cache"
                    )
                    raise PodRefused(
                        f"container {name!r} mounts {held!r}, the directory {what}", hint="remove that volumeMount"
                    )


def _annotation(annotations: Mapping[str, str], pod: JsonObject, text: str) -> JsonPatch:
    """What could not be injected, and why; a copied annotation is removed where it is no longer true."""
    path = f"/metadata/annotations/{_escaped(NOT_INJECTED_ANNOTATION)}"
    if annotations.get(NOT_INJECTED_ANNOTATION, "") == text:
        return []
    if not text:
        return [{"op": "remove", "path": path}]
    if not (pod.get("metadata") or {}).get("annotations"):
        return [{"op": "add", "path": "/metadata/annotations", "value": {NOT_INJECTED_ANNOTATION: text}}]
    return [{"op": "add", "path": path, "value": text}]


def _propagation(spec: JsonObject, names: set[str]) -> JsonPatch:
    """A fresh mount over a dead one reaches only containers that are told of it."""
    patch: JsonPatch = []
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(_items(spec, kind)):
            for number, mount in enumerate(_items(container, "volumeMounts")):
                if mount.get("name") in names and _may_propagate(mount):
                    path = f"/spec/{kind}/{index}/volumeMounts/{number}/mountPropagation"
                    patch.append({"op": "add", "path": path, "value": "HostToContainer"})
    return patch


def _may_propagate(mount: JsonObject) -> bool:
    chosen = mount.get("mountPropagation") or mount.get("subPath") or mount.get("subPathExpr")
    return not chosen and mount.get("recursiveReadOnly") not in _RECURSIVE


def _volumes(spec: JsonObject, directories: Sequence[JsonObject]) -> JsonPatch:
    patch: JsonPatch = []
    found = {volume.get("name"): index for index, volume in enumerate(_items(spec, "volumes"))}
    for wanted in directories:
        index = found.get(wanted["name"])
        if index is None:
            patch.append({"op": "add", "path": "/spec/volumes/-", "value": wanted})
        elif spec["volumes"][index] != wanted:
            patch.append({"op": "replace", "path": f"/spec/volumes/{index}", "value": wanted})
    return patch


def _containers(spec: JsonObject, wanted: Sequence[JsonObject]) -> JsonPatch:
    """Our containers first, in their order, each as it shall be; the others keep theirs."""
    names = {container["name"] for container in wanted}
    found = _items(spec, "initContainers")
    theirs = {container.get("name"): container for container in found if container.get("name") in names}
    final = [_settled(container, theirs.get(container["name"])) for container in wanted]
    if _same(found[: len(final)], final) and not any(item.get("name") in names for item in found[len(final) :]):
        return []
    if not found:
        return [{"op": "add", "path": "/spec/initContainers", "value": final}]
    gone = [index for index, container in enumerate(found) if container.get("name") in names]
    return [
        *({"op": "remove", "path": f"/spec/initContainers/{index}"} for index in reversed(gone)),
        *({"op": "add", "path": f"/spec/initContainers/{index}", "value": item} for index, item in enumerate(final)),
    ]


def _settled(wanted: JsonObject, found: JsonObject | None) -> JsonObject:
    """`wanted` with the resources and fields that the cluster's own defaults added to it as it was found."""
    if found is None:
        return wanted
    late = {key: found[key] for key in _LATE_FIELDS if key in found}
    added = found.get("resources") or {}
    resources = {kind: {**(added.get(kind) or {}), **amounts} for kind, amounts in wanted["resources"].items()}
    return {**wanted, **late, "resources": resources}


def _same(found: Sequence[JsonObject], wanted: Sequence[JsonObject]) -> bool:
    return len(found) == len(wanted) and all(
        _plain(one) == _plain(other) for one, other in zip(found, wanted, strict=True)
    )


def _plain(container: JsonObject) -> JsonObject:
    """A container with its quantities as numbers and without what defaulting adds in places we do not write."""
    security = {key: value for key, value in (container.get("securityContext") or {}).items() if value != "Default"}
    resources = {
        kind: {name: _number(amount) for name, amount in amounts.items()}
        for kind, amounts in (container.get("resources") or {}).items()
        if isinstance(amounts, dict)
    }
    return {**container, "securityContext": security, "resources": resources}


def _number(amount: Any) -> Any:
    try:
        return parse_quantity(str(amount))
    except InvalidOption:
        return amount


def _annotations(pod: JsonObject) -> dict[str, str]:
    return dict((pod.get("metadata") or {}).get("annotations") or {})


def _items(holder: JsonObject, key: str) -> list[JsonObject]:
    return holder.get(key) or []


def _escaped(key: str) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
