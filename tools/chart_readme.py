"""Write charts/ossfuse-csi/README.md: every value with its default and the description that stands above it.

`python tools/chart_readme.py` prints it. A comment that stands directly above a key of values.yaml is that key's
description; a mapping that is empty or has a description of its own is one value, any other is a group. A value without
a description is refused, unless its name says all (`_PLAIN`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

CHART: Final = Path(__file__).resolve().parents[1] / "charts" / "ossfuse-csi"
_PLAIN: Final = {
    "repository": "Image without tag.",
    "tag": "Tag of the image.",
    "pullPolicy": "When kubelet pulls it.",
    "priorityClassName": "Priority of the pods.",
}
_HEAD: Final = """\
# ossfuse-csi

<!-- Written by tools/chart_readme.py from values.yaml; do not edit. -->

{description}. Kubernetes {versions}.

    helm install ossfuse-csi charts/ossfuse-csi --namespace ossfuse-csi --create-namespace
    helm test ossfuse-csi --namespace ossfuse-csi

A cluster has one of it: object names are fixed, the release may have any name and namespace. Requirements, upgrade,
uninstall, cert-manager and roles instead of keys: [docs/install.md](../../docs/install.md). What users write to get a
volume: [deploy/examples](../../deploy/examples).

## Values

A value that is not in this table, or not of its kind, is refused by `values.schema.json` before anything is installed.

| value | default | meaning |
|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Value:
    """`default` as YAML in one line."""

    name: str
    default: str
    meaning: str


def values(text: str) -> list[Value]:
    """Every value of `text` (values.yaml), in order. Raises ValueError for one that is not described."""
    node = yaml.compose(text)
    if not isinstance(node, yaml.MappingNode):
        raise TypeError("values.yaml is not a mapping")
    return list(_walk(node, (), text.splitlines()))


def readme(chart: Path = CHART) -> str:
    """The text of README.md."""
    about = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    head = _HEAD.format(
        description=about["description"], versions=about["kubeVersion"].removesuffix("-0").replace(">=", "≥ ")
    )
    rows = values((chart / "values.yaml").read_text(encoding="utf-8"))
    return head + "".join(f"| `{row.name}` | `{row.default}` | {row.meaning} |\n" for row in rows)


def _walk(mapping: yaml.MappingNode, above: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, value in mapping.value:
        path = (*above, str(key.value))
        meaning = _comment(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and value.value and not meaning:
            yield from _walk(value, path, lines)
            continue
        meaning = meaning or _PLAIN.get(path[-1], "")
        if not meaning:
            raise ValueError(f"values.yaml: {'.'.join(path)} has no comment above it that says what it is")
        yield Value(".".join(path), _as_json(value), meaning)


def _comment(lines: list[str], line: int) -> str:
    """The comment directly above `line`, as one line."""
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].lstrip().removeprefix("#").strip())
    return " ".join(found)


def _as_json(value: yaml.Node) -> str:
    return json.dumps(yaml.safe_load(yaml.serialize(value)), ensure_ascii=False)


if __name__ == "__main__":
    sys.stdout.write(readme())
