"""Every combination of values is installed in a real cluster, is what Helm rendered, and leaves nothing behind; so is
the manifest for people without Helm."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.chart_values import Object, Settings, every_combination, nested
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.driver import CHART, NAMESPACE, RELEASE, Driver, objects_of_ours
from tools.render_deploy import TARGET

_NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
_NO_PODS = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-pods", "namespace": NAMESPACE},
    "spec": {"hard": {"pods": "0"}},
}


@pytest.fixture(scope="module")
def bare(driver: Driver, certificate_kinds: None) -> Iterator[Cluster]:
    """The cluster without the driver, with the kinds of cert-manager, which is not running, and no room for pods of
    ours: what takes time is their ends, and tests of the installed driver have seen those."""
    cluster = driver.cluster
    driver.uninstall()
    cluster.apply([_NAMESPACE, _NO_PODS])
    yield cluster
    cluster.delete("namespace", NAMESPACE)
    driver.upgrade()


def missing(cluster: Cluster, objects: list[Object]) -> list[str]:
    found = ((one["kind"], one["metadata"]["name"], one["metadata"].get("namespace", "")) for one in objects)
    return [" ".join(each) for each in found if cluster.get(*each) is None]


@every_combination
def test_a_combination_is_installed_whole_and_uninstalled_clean(bare: Cluster, settings: Settings) -> None:
    namespace = f"--namespace={NAMESPACE}"
    given = json.dumps(nested(settings))
    release = json.loads(
        bare.helm("install", RELEASE, str(CHART), namespace, "--values=-", "--output=json", input=given)
    )
    wanted = [one for one in yaml.load_all(release["manifest"], yaml.CSafeLoader) if one]
    assert len(wanted) > 10
    assert missing(bare, wanted) == []
    bare.helm("uninstall", RELEASE, namespace, "--wait", "--timeout=180s")
    bare.wait_for(lambda: not objects_of_ours(bare), "the end of everything of the release")


def test_the_manifest_for_kubectl_is_applied_whole_and_deleted_clean(bare: Cluster) -> None:
    """All but its namespace, which the other tests need and which has no room for pods."""
    namespace, *objects = [one for one in yaml.load_all(TARGET.read_text(), yaml.CSafeLoader) if one]
    assert (namespace["kind"], namespace["metadata"]["name"]) == ("Namespace", NAMESPACE)
    bare.kubectl("apply", "--dry-run=server", "-f", "-", input=yaml.safe_dump(namespace))
    bare.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))
    assert len(objects) > 10
    assert missing(bare, objects) == []
    bare.kubectl("delete", "-f", "-", "--timeout=180s", input=yaml.safe_dump_all(objects))
    bare.wait_for(lambda: not objects_of_ours(bare), "the end of everything of the manifest")
