"""Which PersistentVolume an unbound claim will get, as Kubernetes' volume binder chooses.

A pod is often created in the same breath as its claim, before the binder has come round; the webhook must know then
which volume it will be. Pure functions of the objects as the API server has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from csi.cluster.api import JsonObject
from csi.errors import InvalidOption
from csi.volume.quantity import parse_quantity


def reserved_volume(namespace: str, claim: str, volumes: Iterable[JsonObject]) -> JsonObject | None:
    """The volume whose `claimRef` names the claim: no other can become its."""
    return next((volume for volume in volumes if _claim_of(volume) == (namespace, claim)), None)


def likely_volume(claim: JsonObject, storage_class: str, volumes: Iterable[JsonObject]) -> JsonObject | None:
    """The smallest free volume that fits the claim's class, access modes, size, volume mode and selector."""
    wanted = claim.get("spec") or {}
    fitting = [volume for volume in volumes if _is_free(volume) and _fits(volume.get("spec") or {}, wanted)]
    fitting = [
        volume
        for volume in fitting
        if str((volume["spec"].get("storageClassName")) or "") == storage_class
        and _selects(wanted.get("selector"), (volume.get("metadata") or {}).get("labels") or {})
    ]
    return min(fitting, key=lambda volume: _size(volume["spec"].get("capacity")), default=None)


def _claim_of(volume: JsonObject) -> tuple[str, str]:
    reference = (volume.get("spec") or {}).get("claimRef") or {}
    return str(reference.get("namespace", "")), str(reference.get("name", ""))


def _is_free(volume: JsonObject) -> bool:
    phase = (volume.get("status") or {}).get("phase") or "Available"
    deleted = (volume.get("metadata") or {}).get("deletionTimestamp")
    return phase in ("Available", "Pending") and not deleted and not (volume.get("spec") or {}).get("claimRef")


def _fits(volume: JsonObject, wanted: JsonObject) -> bool:
    mode = volume.get("volumeMode") or "Filesystem"
    return (
        mode == (wanted.get("volumeMode") or "Filesystem")
        and set(wanted.get("accessModes") or ()) <= set(volume.get("accessModes") or ())
        and _size(volume.get("capacity")) >= _size((wanted.get("resources") or {}).get("requests"))
    )


def _size(amounts: Any) -> Decimal:
    try:
        return parse_quantity(str((amounts or {}).get("storage", "0")))
    except InvalidOption:
        return Decimal(0)


def _selects(selector: JsonObject | None, labels: JsonObject) -> bool:
    selector = selector or {}
    exact = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in exact.items()) and all(
        _matches(expression, labels) for expression in selector.get("matchExpressions") or ()
    )


def _matches(expression: JsonObject, labels: JsonObject) -> bool:
    key, values = str(expression.get("key")), expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False
