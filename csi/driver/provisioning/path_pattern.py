"""`pathPattern` of a StorageClass: where in the bucket a new volume lives.

A pattern is a relative path with variables in `${...}`; the values come from the request that the provisioner sends
(its flag --extra-create-metadata adds the claim's names). The result always is a clean prefix below the class's own
`path`: no `..`, no empty part, no way for a claim's name to climb out of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from csi.errors import InvalidOption

_VARIABLES = {
    ".PVC.name": "csi.storage.k8s.io/pvc/name",
    ".PVC.namespace": "csi.storage.k8s.io/pvc/namespace",
    ".PV.name": "csi.storage.k8s.io/pv/name",
}
_VARIABLE = re.compile(r"\$\{([^}]*)\}")

LONGEST_PREFIX = 900
"""Bytes. Keys end at 1023; what is left is for the names of files."""


def expand(pattern: str, parameters: Mapping[str, str], *, volume_name: str) -> str:
    """The prefix that `pattern` means, ending in '/', '' for an empty pattern.

    `parameters` are those of CreateVolume; `volume_name` stands in for the PersistentVolume's name, which it becomes.
    Raises InvalidOption for an unknown variable, one without a value, or a result that is no path.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name not in _VARIABLES:
            known = ", ".join(f"${{{variable}}}" for variable in sorted(_VARIABLES))
            raise InvalidOption("pathPattern", pattern, f"only the variables {known}", hint=f"remove ${{{name}}}")
        found = parameters.get(_VARIABLES[name], "") or (volume_name if name == ".PV.name" else "")
        if not found:
            raise InvalidOption(
                "pathPattern",
                pattern,
                f"variables whose value is known, and ${{{name}}} is not",
                hint="run external-provisioner with --extra-create-metadata",
            )
        return safe_name(found)

    expanded = _VARIABLE.sub(value, pattern)
    if "${" in expanded:
        raise InvalidOption("pathPattern", pattern, "every ${ to be closed by }")
    return normal_prefix("pathPattern", expanded, shown=pattern)


def normal_prefix(key: str, path: str, *, shown: str = "") -> str:
    """`path` as a prefix: single slashes, one at the end, none at the start. `key` and `shown` are for the error."""
    parts = [part for part in path.split("/") if part]
    bad = next((part for part in parts if part in {".", ".."} or not part.isprintable()), None)
    if bad is not None:
        raise InvalidOption(key, shown or path, f"a path without {bad!r}")
    prefix = "".join(f"{part}/" for part in parts)
    if len(prefix.encode()) > LONGEST_PREFIX:
        raise InvalidOption(key, prefix, f"a path of at most {LONGEST_PREFIX} bytes")
    return prefix


def safe_name(name: str) -> str:
    """`name` as a single part of a path; what cannot be one is written as %XX, so different names stay different."""
    if name in {".", ".."}:
        return name.replace(".", "%2E")
    return "".join(
        char if char.isprintable() and char not in "/%" else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in name
    )
