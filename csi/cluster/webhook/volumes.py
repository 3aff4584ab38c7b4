"""What the volumes of a pod are, before it exists: from each volume to the attributes a node plugin will be given.

A claim leads to its PersistentVolume; one that is not bound yet to the StorageClass that will make its volume, or to
the PersistentVolume the binder will choose (`binding.py`); an inline volume says it itself. Only reads, each request
within the deadline of the admission, and none at all for a pod without claims or inline volumes of ours. What cannot
be known yet is an answer with its reason, for the pod to carry; an API server that does not answer is an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from csi.cluster.api import TIMEOUT, JsonObject, resource_path
from csi.cluster.webhook.binding import likely_volume, reserved_volume
from csi.errors import ApiUnreachable
from csi.volume.naming import DRIVER_NAME
from csi.volume.units import Seconds

CLASS_ONLY: Final = frozenset({"pathPattern", "onDelete"})
"""Parameters of a StorageClass that concern the making of a volume and are no attributes of it."""

_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
_CLASS_BEFORE: Final = "volume.beta.kubernetes.io/storage-class"
_NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"
_BINDING: Final = Seconds(3.0)
"""How long the binder is given where only it can say which of several volumes a claim gets."""
_STEP: Final = Seconds(0.15)


class ObjectReader(Protocol):
    """The part of `KubernetesApi` that is needed here."""

    def get(self, path: str, *, timeout: Seconds | None = None) -> JsonObject | None: ...

    def list(self, path: str, *, timeout: Seconds | None = None, **params: str) -> list[JsonObject]: ...


@dataclass(frozen=True, slots=True)
class OurVolume:
    """A volume of this driver: `name` in the pod's `spec.volumes`, `source` in words, `attributes` and `mount_flags`
    as a node plugin gets them. Volumes of one pod with the same `identity` are published once, for all of them."""

    name: str
    identity: str
    source: str
    attributes: Mapping[str, str]
    mount_flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UnknownVolume:
    """A volume of which nobody can say yet whose it is, and why."""

    name: str
    reason: str


def candidates(pod: JsonObject) -> list[JsonObject]:
    """The pod's volumes that may be ours and that a container mounts: kubelet publishes no others, so a sidecar for
    one of those would wait for ever."""
    spec = pod.get("spec") or {}
    mounted = {mount.get("name") for container in containers(spec) for mount in container.get("volumeMounts") or ()}
    return [
        volume
        for volume in spec.get("volumes") or ()
        if volume.get("name") in mounted
        and (volume.get("persistentVolumeClaim") or volume.get("ephemeral") or _driver(volume.get("csi")))
    ]


def containers(spec: JsonObject) -> Iterator[JsonObject]:
    """Every container of a pod's spec: init, ordinary, ephemeral."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(kind) or ()


class VolumeResolver:
    """Safe from any thread: nothing is remembered between calls."""

    def __init__(
        self,
        api: ObjectReader,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._clock = clock
        self._sleep = sleep

    def resolve(self, pod: JsonObject, namespace: str, patience: Seconds) -> list[OurVolume | UnknownVolume]:
        """The candidates that are ours or unknown, in the pod's order; others are left out.

        Raises ApiRefused, and ApiUnreachable when `patience` ends.
        """
        lookup = _Lookup(self._api, namespace, self._clock, self._sleep, self._clock() + patience)
        found = (lookup.volume(volume) for volume in candidates(pod))
        return [volume for volume in found if volume is not None]


class _Lookup:
    """The questions of one admission, each asked once."""

    def __init__(
        self,
        api: ObjectReader,
        namespace: str,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        end: float,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._clock = clock
        self._sleep = sleep
        self._end = end
        self._known: dict[str, JsonObject | None] = {}
        self._volumes: list[JsonObject] | None = None

    def volume(self, volume: JsonObject) -> OurVolume | UnknownVolume | None:
        name = str(volume["name"])
        if claimed := volume.get("persistentVolumeClaim"):
            return self._claimed(name, str(claimed.get("claimName") or ""))
        if ephemeral := volume.get("ephemeral"):
            template = ephemeral.get("volumeClaimTemplate") or {}
            return self._of_claim(name, f"volume/{name}", "its volumeClaimTemplate", template)
        attributes = _strings(volume["csi"].get("volumeAttributes"))
        return OurVolume(name, f"volume/{name}", "the pod's own volume", attributes)

    def _claimed(self, name: str, claim_name: str) -> OurVolume | UnknownVolume | None:
        what = f"PersistentVolumeClaim {self._namespace}/{claim_name}"
        claim = self._get("v1", "persistentvolumeclaims", claim_name, namespace=self._namespace)
        if claim is None:
            return UnknownVolume(name, f"{what} did not exist when the pod was created")
        return self._of_claim(name, f"claim/{claim_name}", what, claim, claim_name)

    def _of_claim(
        self, name: str, identity: str, what: str, claim: JsonObject, claim_name: str = ""
    ) -> OurVolume | UnknownVolume | None:
        """`claim_name` is '' for a claim that will be made for the pod."""
        if volume_name := (claim.get("spec") or {}).get("volumeName"):
            volume = self._get("v1", "persistentvolumes", str(volume_name))
            if volume is not None:
                return _of_volume(name, identity, volume)
            return UnknownVolume(name, f"{what} names PersistentVolume {volume_name}, which did not exist then")
        class_name = self._class_of(claim)
        storage_class = self._get("storage.k8s.io/v1", "storageclasses", class_name) if class_name else None
        found = storage_class or {}
        provisioner = found.get("provisioner") or _NO_PROVISIONER
        if provisioner == DRIVER_NAME:
            parameters = _strings(found.get("parameters"))
            attributes = {key: value for key, value in parameters.items() if key not in CLASS_ONLY}
            return OurVolume(name, identity, f"StorageClass {class_name}", attributes, _flags(found))
        if provisioner != _NO_PROVISIONER:
            return None
        return self._static(name, identity, what, claim, claim_name, class_name, found)

    def _static(
        self,
        name: str,
        identity: str,
        what: str,
        claim: JsonObject,
        claim_name: str,
        class_name: str,
        storage_class: JsonObject,
    ) -> OurVolume | UnknownVolume | None:
        """A claim that waits for a volume which an administrator makes."""
        if self._volumes is None:
            self._volumes = self._api.list(resource_path("v1", "persistentvolumes"), timeout=self._left())
        if claim_name and (reserved := reserved_volume(self._namespace, claim_name, self._volumes)):
            return _of_volume(name, identity, reserved)
        likely = likely_volume(claim, class_name, self._volumes)
        if likely is None:
            return UnknownVolume(
                name, f"{what} was not bound when the pod was created, and no PersistentVolume was there to bind it to"
            )
        found = _of_volume(name, identity, likely)
        binds_later = storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"
        if found is None or binds_later or not claim_name:
            return found
        bound = self._bound(claim_name)
        return found if bound is None else _of_volume(name, identity, bound)

    def _bound(self, claim_name: str) -> JsonObject | None:
        """The volume that the binder gives the claim in the next moments; None when it takes longer."""
        path = resource_path("v1", "persistentvolumeclaims", namespace=self._namespace, name=claim_name)
        end = min(self._clock() + _BINDING, self._end - _BINDING)
        while self._clock() < end:
            self._sleep(_STEP)
            claim = self._api.get(path, timeout=self._left()) or {}
            if volume_name := (claim.get("spec") or {}).get("volumeName"):
                return self._get("v1", "persistentvolumes", str(volume_name))
        return None

    def _class_of(self, claim: JsonObject) -> str:
        """Name of the claim's StorageClass, '' for none; where it names none, the cluster's default one."""
        named = (claim.get("spec") or {}).get("storageClassName")
        if named is None:
            named = ((claim.get("metadata") or {}).get("annotations") or {}).get(_CLASS_BEFORE)
        if named is not None:
            return str(named)
        classes = self._api.list(resource_path("storage.k8s.io/v1", "storageclasses"), timeout=self._left())
        defaults = [item["metadata"] for item in classes if _is_default(item["metadata"])]
        newest: JsonObject = max(defaults, key=lambda metadata: str(metadata.get("creationTimestamp", "")), default={})
        return str(newest.get("name", ""))

    def _get(self, api_version: str, plural: str, name: str, *, namespace: str = "") -> JsonObject | None:
        path = resource_path(api_version, plural, namespace=namespace, name=name)
        if path not in self._known:
            self._known[path] = self._api.get(path, timeout=self._left())
        return self._known[path]

    def _left(self) -> Seconds:
        left = self._end - self._clock()
        if left <= 0:
            raise ApiUnreachable(
                "the volumes of the pod could not be looked up in time", hint="the API server is slow; try again"
            )
        return Seconds(min(left, TIMEOUT))


def _of_volume(name: str, identity: str, volume: JsonObject) -> OurVolume | None:
    """A PersistentVolume as a volume of the pod; None when it is another driver's."""
    spec = volume.get("spec") or {}
    csi = spec.get("csi") or {}
    if not _driver(csi):
        return None
    source = f"PersistentVolume {volume['metadata']['name']}"
    return OurVolume(name, identity, source, _strings(csi.get("volumeAttributes")), _flags(spec))


def _driver(csi: Any) -> bool:
    """Whether a `csi` source is ours."""
    return bool(csi) and csi.get("driver") == DRIVER_NAME


def _flags(holder: JsonObject) -> tuple[str, ...]:
    return tuple(str(flag) for flag in holder.get("mountOptions") or ())


def _strings(mapping: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in (mapping or {}).items()}


def _is_default(metadata: JsonObject) -> bool:
    return (metadata.get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
