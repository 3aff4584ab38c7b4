"""What can be said of the chart without Helm; tests/cluster/test_chart.py renders and installs it."""

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from csi.volume.naming import DRIVER_NAME
from tools.chart_readme import CHART, readme, values
from tools.render_deploy import ROOT, TARGET, chart_digest

Schema = dict[str, Any]


def schema() -> Schema:
    found: Schema = json.loads((CHART / "values.schema.json").read_text())
    return found


def resolved(node: Schema) -> Schema:
    reference = node.get("$ref")
    return schema()["definitions"][reference.rsplit("/", 1)[1]] if reference else node


def objects_of(node: Any, path: str = "values") -> Iterator[tuple[str, Schema]]:
    """Every part of the schema that describes an object."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield path, node
        for key, value in node.items():
            yield from objects_of(value, f"{path}.{key}")


def described(node: Schema, given: Any, path: str = "") -> Iterator[str]:
    """Paths of `given` (values.yaml) that the schema does not have."""
    properties = resolved(node).get("properties")
    if properties is None or not isinstance(given, dict):
        return
    for key, value in given.items():
        if key not in properties:
            yield f"{path}{key}"
        else:
            yield from described(properties[key], value, f"{path}{key}.")


def known(node: Schema, given: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of the schema that values.yaml does not have."""
    for key, below in resolved(node).get("properties", {}).items():
        if key not in given:
            yield f"{path}{key}"
        elif isinstance(given[key], dict) and given[key]:
            yield from known(below, given[key], f"{path}{key}.")


def test_the_readme_of_the_chart_is_written_from_its_values() -> None:
    assert (CHART / "README.md").read_text() == readme(), "python tools/chart_readme.py > charts/ossfuse-csi/README.md"


def test_the_manifest_for_kubectl_is_rendered_from_this_chart() -> None:
    written = re.search("^# chart: sha256:([0-9a-f]{64})$", TARGET.read_text(), re.MULTILINE)
    assert written is not None
    assert written.group(1) == chart_digest(), "python tools/render_deploy.py --helm HELM > deploy/kubernetes.yaml"


def test_chart_and_project_have_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == project["version"]
    assert chart["description"] == project["description"]


def test_the_schema_knows_the_values_of_the_chart_and_no_others() -> None:
    given = yaml.safe_load((CHART / "values.yaml").read_text())
    assert list(described(schema(), given)) == []
    assert [path for path in known(schema(), given) if not re.search(r"^global$|\.(requests|limits)$", path)] == []


def test_every_object_of_the_schema_refuses_what_it_does_not_know() -> None:
    free = {path for path, node in objects_of(schema()) if "additionalProperties" not in node}
    affinity = "values.definitions.affinity.properties"
    assert free == {
        "values.properties.global",
        *(f"{affinity}.{kind}" for kind in schema()["definitions"]["affinity"]["properties"]),
    }


def test_names_in_the_chart_are_those_of_the_driver() -> None:
    text = "".join(path.read_text() for path in sorted((CHART / "templates").rglob("*.yaml")))
    assert f"name: {DRIVER_NAME}\n" in text
    assert f"plugins/{DRIVER_NAME}" in text
    assert f"{DRIVER_NAME}/agent-not-ready" in text


def test_an_installation_into_default_is_warned_of() -> None:
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    warning = notes.partition('{{- if eq .Release.Namespace "default" }}')[2].partition("{{- end }}")[0]
    assert "--namespace ossfuse-csi --create-namespace" in warning


def test_a_value_without_a_description_is_refused() -> None:
    with pytest.raises(ValueError, match=r"values.yaml: a\.b has no comment above it"):
        values("a:\n  # What c is.\n  c: 1\n  b: 2\n")


def test_descriptions_are_the_comments_directly_above() -> None:
    found = values("# About the file.\n\n# First line,\n# second line.\na: [x]\nb:\n  # One value.\n  c: {d: 1}\n")
    assert [(one.name, one.default, one.meaning) for one in found] == [
        ("a", '["x"]', "First line, second line."),
        ("b.c", '{"d": 1}', "One value."),
    ]
