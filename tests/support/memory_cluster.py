"""Kubernetes objects in memory, read as the webhook reads them, and JSON patches applied as the API server does."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from csi.cluster.api import JsonObject, resource_path
from csi.volume.units import Seconds

_KINDS = {
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "PersistentVolume": ("v1", "persistentvolumes"),
    "StorageClass": ("storage.k8s.io/v1", "storageclasses"),
}


class MemoryCluster:
    """`requests` are the paths asked for, in order."""

    def __init__(self, objects: Iterable[JsonObject] = ()) -> None:
        self.objects: dict[str, JsonObject] = {}
        self.requests: list[str] = []
        for item in objects:
            self.add(item)

    def add(self, item: JsonObject) -> None:
        api_version, plural = _KINDS[item["kind"]]
        metadata = item["metadata"]
        path = resource_path(api_version, plural, namespace=metadata.get("namespace", ""), name=metadata["name"])
        self.objects[path] = item

    def get(self, path: str, *, timeout: Seconds | None = None) -> JsonObject | None:
        self.requests.append(path)
        return self.objects.get(path)

    def list(self, path: str, *, timeout: Seconds | None = None, **params: str) -> list[JsonObject]:
        self.requests.append(path)
        return [item for key, item in self.objects.items() if key.startswith(f"{path}/")]


def patched(document: Any, patch: list[JsonObject]) -> Any:
    """`document` after a JSON patch (RFC 6902) of add, remove, replace and test; a step that cannot be done raises."""
    document = copy.deepcopy(document)
    for step in patch:
        steps = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        holder = document
        for part in steps[:-1]:
            holder = holder[int(part)] if isinstance(holder, list) else holder[part]
        _apply(holder, steps[-1], step)
    return document


def _apply(holder: Any, last: str, step: JsonObject) -> None:
    operation = step["op"]
    if isinstance(holder, list):
        _apply_to_list(holder, len(holder) if last == "-" else int(last), step)
    elif operation == "add":
        holder[last] = copy.deepcopy(step["value"])
    elif operation == "remove":
        del holder[last]
    elif operation == "replace":
        assert last in holder, f"nothing to replace at {step['path']}"
        holder[last] = copy.deepcopy(step["value"])
    else:
        assert operation == "test", operation
        assert holder.get(last) == step["value"], f"test failed at {step['path']}"


def _apply_to_list(holder: list[Any], index: int, step: JsonObject) -> None:
    operation = step["op"]
    if operation == "add":
        assert 0 <= index <= len(holder), f"no place at {step['path']}"
        holder.insert(index, copy.deepcopy(step["value"]))
    elif operation == "remove":
        del holder[index]
    else:
        assert operation == "replace", operation
        assert index < len(holder), f"nothing to replace at {step['path']}"
        holder[index] = copy.deepcopy(step["value"])
