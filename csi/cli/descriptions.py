"""Volumes as people write them down, found in YAML or JSON text: what `ossfuse volume explain` explains.

Known are PersistentVolume, StorageClass, Pod (inline volumes) and List of Kubernetes, and PAI datasets. Other
documents of the file are passed over by name; a file without any volume is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from csi.driver.provisioning.creation import ON_DELETE, PATH_PATTERN
from csi.errors import InvalidOption
from csi.volume.naming import DRIVER_NAME

_READ_ONLY_MODES = frozenset({"ReadOnlyMany"})
_KUBERNETES = "csi.storage.k8s.io/"
_KINDS = "a PersistentVolume or StorageClass of ossfuse.csi.dev, a Pod with such a volume, or a PAI dataset"


@dataclass(frozen=True, slots=True)
class Description:
    """One volume: `name` as people would call it, the rest as `parse_volume` takes it. `access_mode` and `volume_id`
    (a PersistentVolume's volumeHandle) are '' when the description has none; `is_block`: its volumeMode is Block.
    `parameters` are all those of a StorageClass, None for what is none; `remarks` warn of the document around the
    attributes, `notes` tell what it adds to them."""

    name: str
    attributes: Mapping[str, Any]
    read_only: bool = False
    access_mode: str = ""
    volume_id: str = ""
    mount_flags: tuple[str, ...] = ()
    is_block: bool = False
    parameters: Mapping[str, str] | None = None
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_descriptions(text: str) -> tuple[list[Description], list[str]]:
    """The volumes in `text`, and the names of documents that are none. Raises InvalidOption."""
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it is nested too deep or holds impossible values"
        raise InvalidOption.stating("FILE", f"this is neither YAML nor JSON: {problem}{where}") from None
    found: list[Description] = []
    others: list[str] = []
    for document in documents:
        for item in _items(document):
            descriptions = list(_describe(item))
            found += descriptions
            if not descriptions:
                others.append(_title(item))
    if not found:
        there = f", it holds {', '.join(others)}" if others else ""
        raise InvalidOption.stating("FILE", f"there is no volume in this file{there}", hint=f"give {_KINDS}")
    return found, others


def _items(document: Any) -> Iterator[Any]:
    if isinstance(document, list):
        yield from document
    elif isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        yield from document["items"]
    else:
        yield document


def _describe(item: Any) -> Iterator[Description]:
    if not isinstance(item, dict):
        return
    match item.get("kind"):
        case "PersistentVolume":
            yield from _persistent_volume(item)
        case "StorageClass":
            yield from _storage_class(item)
        case "Pod":
            yield from _pod(item)
        case None:
            yield from _dataset(item)
        case _:
            return


def _persistent_volume(item: dict[str, Any]) -> Iterator[Description]:
    spec = _mapping(item.get("spec"), "spec")
    csi = _mapping(spec.get("csi"), "spec.csi")
    if not csi:
        return
    attributes = _mapping(csi.get("volumeAttributes"), "spec.csi.volumeAttributes")
    modes = [str(mode) for mode in _list(spec.get("accessModes"), "spec.accessModes")]
    secret = csi.get("nodePublishSecretRef")
    yield Description(
        name=_title(item),
        attributes=attributes,
        read_only=csi.get("readOnly") is True or (bool(modes) and _READ_ONLY_MODES.issuperset(modes)),
        access_mode=modes[0] if modes else "",
        volume_id=str(csi.get("volumeHandle") or ""),
        mount_flags=_flags(spec.get("mountOptions"), "spec.mountOptions"),
        is_block=_is_block(spec.get("volumeMode")),
        remarks=(*_foreign_driver(csi.get("driver"), "spec.csi.driver"), *_no_secret(secret, attributes)),
    )


def _storage_class(item: dict[str, Any]) -> Iterator[Description]:
    parameters = _mapping(item.get("parameters"), "parameters")
    own = {key: value for key, value in parameters.items() if key not in (PATH_PATTERN, ON_DELETE)}
    pattern = parameters.get(PATH_PATTERN)
    secret = any(str(key).startswith(f"{_KUBERNETES}node-publish-secret") for key in parameters)
    remarks = _no_secret(secret, own, "csi.storage.k8s.io/node-publish-secret-name and -namespace")
    yield Description(
        name=_title(item),
        attributes=own,
        mount_flags=_flags(item.get("mountOptions"), "mountOptions"),
        parameters={_text(key, key): _text(key, value) for key, value in parameters.items()},
        remarks=(*_foreign_driver(item.get("provisioner"), "provisioner"), *remarks),
        notes=(f"{PATH_PATTERN}: each volume gets the path {pattern!r} below the one shown",) if pattern else (),
    )


def _pod(item: dict[str, Any]) -> Iterator[Description]:
    spec = _mapping(item.get("spec"), "spec")
    for volume in _list(spec.get("volumes"), "spec.volumes"):
        csi = _mapping(_mapping(volume, "spec.volumes").get("csi"), "spec.volumes.csi")
        if csi.get("driver") != DRIVER_NAME:
            continue
        attributes = _mapping(csi.get("volumeAttributes"), "spec.volumes.csi.volumeAttributes")
        yield Description(
            name=f"{_title(item)}, volume {volume.get('name', '')}",
            attributes=attributes,
            read_only=csi.get("readOnly") is True,
            remarks=_no_secret(csi.get("nodePublishSecretRef"), attributes),
        )


def _dataset(item: dict[str, Any]) -> Iterator[Description]:
    """A dataset as PAI's API returns it (`Uri`, `Options`) or as its SDK writes it (`uri`, `options`)."""
    plain = {str(key).lower().replace("_", ""): value for key, value in item.items()}
    uri = plain.get("uri")
    if not isinstance(uri, str):
        return
    attributes: dict[str, Any] = {"uri": uri}
    options = plain.get("options")
    if options is not None:
        attributes["options"] = options if isinstance(options, str) else json.dumps(options)
    kind = plain.get("optiontype") or plain.get("mode")
    if kind:
        attributes["mode"] = kind
    name = plain.get("name") or plain.get("datasetid") or uri
    yield Description(f"dataset {name}", attributes, read_only=plain.get("mountaccess") == "RO")


def _foreign_driver(driver: Any, where: str) -> tuple[str, ...]:
    if driver == DRIVER_NAME:
        return ()
    return (f"{where} is {driver!r}: this driver is {DRIVER_NAME!r}, shown is what it would do",)


def _no_secret(secret: Any, attributes: Mapping[str, Any], names: str = "nodePublishSecretRef") -> tuple[str, ...]:
    if secret or attributes.get("authType") not in (None, "", "secret"):
        return ()
    return (f"no Secret is named in {names}: give one, or set authType: public for a public bucket",)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidOption.stating(where, f"{where}: expected a mapping of names to values")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidOption.stating(where, f"{where}: expected a list")
    return value


def _flags(value: Any, where: str) -> tuple[str, ...]:
    flags = _list(value, where)
    for flag in flags:
        if not isinstance(flag, str):
            raise InvalidOption(where, flag, "text; put it into quotes")
    return tuple(flags)


def _is_block(mode: Any) -> bool:
    if mode not in (None, "Filesystem", "Block"):
        raise InvalidOption("spec.volumeMode", mode, "Filesystem")
    return bool(mode == "Block")


def _text(key: Any, value: Any) -> str:
    """What Kubernetes would take for a parameter. Raises InvalidOption."""
    if not isinstance(value, str):
        raise InvalidOption(f"parameters.{key}", value, "text; put it into quotes")
    return value


def _title(item: Any) -> str:
    if not isinstance(item, dict):
        return f"a {type(item).__name__}"
    metadata = item.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    return f"{item.get('kind') or 'a document'} {name}".strip()
