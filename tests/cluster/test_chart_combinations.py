"""Every combination of values is installed in a real cluster, is what Helm rendered, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.chart_values import Object, Settings, every_combination, nested
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.driver import CHART, NAMESPACE, RELEASE, Driver, objects_of_ours
from tests.cluster.harness.places import CERT_MANAGER_DEFINITIONS

_NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
_NO_PODS = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-pods", "namespace": NAMESPACE},
    "spec": {"hard": {"pods": "0"}},
}


@pytest.fixture(scope="module")
def bare(driver: Driver) -> Iterator[Cluster]:
    """The cluster without the driver, with the kinds of cert-manager, which is not running, and no room for pods of
    ours: what takes time is their ends, and tests of the installed driver have seen those."""
    cluster = driver.cluster
    driver.uninstall()
    cluster.apply([_NAMESPACE, _NO_PODS])
    kinds = [definition(path.read_text()) for path in sorted(CERT_MANAGER_DEFINITIONS.glob("*.yaml"))]
    assert kinds, f"{CERT_MANAGER_DEFINITIONS} is empty; tools/go-tools.sh fills it"
    for kind in kinds:
        cluster.create(kind)  # one is too large for the annotation of apply
    yield cluster
    cluster.delete("namespace", NAMESPACE)
    cluster.delete("customresourcedefinitions", *(kind["metadata"]["name"] for kind in kinds))
    driver.upgrade()


def definition(text: str) -> Object:
    """A CustomResourceDefinition without what only the chart of cert-manager can fill in."""
    found: Object = yaml.safe_load(text)
    return {**found, "metadata": {"name": found["metadata"]["name"]}}


@every_combination
def test_a_combination_is_installed_whole_and_uninstalled_clean(bare: Cluster, settings: Settings) -> None:
    namespace = f"--namespace={NAMESPACE}"
    bare.helm("install", RELEASE, str(CHART), namespace, "--values=-", input=json.dumps(nested(settings)))
    rendered = bare.helm("get", "manifest", RELEASE, namespace)
    wanted = len([one for one in yaml.safe_load_all(rendered) if one])
    there = bare.kubectl("get", "--output=name", "-f", "-", input=rendered).split()
    assert len(there) == wanted > 10
    bare.helm("uninstall", RELEASE, namespace, "--wait", "--timeout=180s")
    bare.wait_for(lambda: not objects_of_ours(bare), f"the end of {objects_of_ours(bare)}")
