"""What the driver's service accounts may do in a real cluster: all of it, and nothing more."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness.client import Cluster, Namespace
from tests.cluster.harness.driver import NAMESPACE, Driver
from tests.cluster.harness.failures import ClusterFailed

Rule = tuple[str, str, str]
"""Verb, resource (`group/plural`, the core group is ''), one object's name or '*'."""

TAINT = "ossfuse.csi.dev/agent-not-ready"
NODE_NAME = "authentication.kubernetes.io/node-name"


def rules(verbs: str, resource: str, name: str = "*") -> set[Rule]:
    return {(verb, resource, name) for verb in verbs.split()}


NODE = {
    *rules("get", "/pods"),
    *rules("get", "/persistentvolumeclaims"),
    *rules("get create patch", "/events"),
    *rules("get patch", "/nodes"),
    *rules("get", "storage.k8s.io/csinodes"),
}
CONTROLLER = {
    *rules("get list watch create patch delete", "/persistentvolumes"),
    *rules("get list watch update", "/persistentvolumeclaims"),
    *rules("get list watch", "storage.k8s.io/storageclasses"),
    *rules("create patch", "/events"),
    *rules("get patch", "admissionregistration.k8s.io/mutatingwebhookconfigurations", "ossfuse-csi"),
}
CONTROLLER_AT_HOME = {
    *rules("get", "/secrets"),
    *rules("get update", "/secrets", "ossfuse-csi-webhook-cert"),
    *rules("get update patch", "coordination.k8s.io/leases", "ossfuse-csi-dev"),
}


def account(name: str) -> str:
    return f"system:serviceaccount:{NAMESPACE}:ossfuse-csi-{name}"


def rights(cluster: Cluster, who: str, namespace: str) -> set[Rule]:
    """What the API server grants `who` in `namespace`, resource by resource."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    status = json.loads(cluster.kubectl("create", f"--as={who}", "--raw", path, "-f", "-", input=json.dumps(review)))[
        "status"
    ]
    assert status["incomplete"] is False
    return {
        (verb, f"{group}/{resource}", name)
        for rule in status["resourceRules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or ["*"]
    }


def everybodys(cluster: Cluster) -> set[Rule]:
    """What any service account may do."""
    return rights(cluster, f"system:serviceaccount:{NAMESPACE}:default", NAMESPACE)


@pytest.mark.parametrize(
    ("name", "expected", "at_home"),
    [("node", NODE, set()), ("controller", CONTROLLER, CONTROLLER_AT_HOME)],
    ids=["node", "controller"],
)
def test_an_account_has_exactly_the_rights_it_needs(
    driver: Driver, name: str, expected: set[Rule], at_home: set[Rule]
) -> None:
    everybody = everybodys(driver.cluster)
    assert rights(driver.cluster, account(name), "default") - everybody == expected
    assert rights(driver.cluster, account(name), NAMESPACE) - everybody == expected | at_home


def may(cluster: Cluster, who: str, *words: str) -> bool:
    try:
        cluster.kubectl("auth", "can-i", "--quiet", f"--as={who}", *words)
    except ClusterFailed as answer:
        said = [line for line in str(answer).splitlines() if not line.startswith("Warning: resource ")]
        assert len(said) <= 1, answer  # the command and its status; an error would be told
        assert "exit 1" in str(answer), answer
        return False
    return True


@pytest.mark.parametrize(
    ("name", "words", "allowed"),
    [
        ("node", "get pods --namespace=default", True),
        ("node", "list pods --all-namespaces", False),
        ("node", "create pods --namespace=default", False),
        ("node", "delete pods --namespace=default", False),
        ("node", "create pods --subresource=exec --namespace=default", False),
        ("node", "get secrets --namespace=default", False),
        ("node", "get secrets --namespace=ossfuse-csi", False),
        ("node", "create serviceaccounts --subresource=token --namespace=default", False),
        ("node", "create events --namespace=default", True),
        ("node", "patch node/node1", True),
        ("node", "patch nodes --subresource=status", False),
        ("node", "delete nodes", False),
        ("node", "patch csinodes", False),
        ("node", "get configmaps --namespace=default", False),
        ("controller", "get secrets --namespace=ossfuse-csi", True),
        ("controller", "list secrets --namespace=ossfuse-csi", False),
        ("controller", "create secrets --namespace=ossfuse-csi", False),
        ("controller", "update secret/ossfuse-csi-webhook-cert --namespace=ossfuse-csi", True),
        ("controller", "update secret/other --namespace=ossfuse-csi", False),
        ("controller", "get secrets --namespace=default", False),
        ("controller", "get secrets --namespace=kube-system", False),
        ("controller", "get pods --namespace=default", False),
        ("controller", "patch mutatingwebhookconfiguration/ossfuse-csi", True),
        ("controller", "patch mutatingwebhookconfiguration/other", False),
        ("controller", "create mutatingwebhookconfigurations", False),
        ("controller", "delete mutatingwebhookconfiguration/ossfuse-csi", False),
        ("controller", "create leases --namespace=ossfuse-csi", False),
        ("controller", "create persistentvolumes", True),
        ("controller", "delete persistentvolumeclaims --namespace=default", False),
        ("controller", "patch nodes", False),
        ("controller", "create clusterrolebindings", False),
    ],
)
def test_what_an_account_may_do(driver: Driver, name: str, words: str, allowed: bool) -> None:
    assert may(driver.cluster, account(name), *words.split()) is allowed


# --- its own node, and only that taint: more than RBAC can say ---


@pytest.fixture
def tainted(cluster: Cluster, driver: Driver) -> Iterable[str]:
    """A node that exists on paper only, with the start-up taint first and another one second."""
    name = "on-paper"
    taints = [{"key": TAINT, "effect": "NoSchedule"}, {"key": "example.com/other", "effect": "NoSchedule"}]
    spec = {"taints": taints, "unschedulable": True}
    cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
    yield name
    cluster.delete("node", name)


def patched(cluster: Cluster, node: str, change: Mapping[str, Any], *, plugin_on: str) -> str:
    """What the API server says when the plugin of node `plugin_on` changes `node`, '' when it may."""
    with impersonating(cluster, account("node"), {NODE_NAME: [plugin_on]} if plugin_on else {}) as plugin:
        try:
            plugin.kubectl("patch", "node", node, "--type=json", f"--patch={json.dumps([change])}", "--dry-run=server")
        except ClusterFailed as refused:
            return str(refused)
    return ""


@contextlib.contextmanager
def impersonating(cluster: Cluster, user: str, extra: Mapping[str, list[str]]) -> Iterator[Cluster]:
    """The cluster as `user` meets it. In a kubeconfig: kubectl 1.33 has no --as-user-extra."""
    settings = json.loads(cluster.kubectl("config", "view", "--raw", "--flatten", "--output=json"))
    for each in settings["users"]:
        each["user"] |= {"as": user, "as-user-extra": extra}
    with tempfile.NamedTemporaryFile("w", suffix=".kubeconfig") as file:
        json.dump(settings, file)
        file.flush()
        yield dataclasses.replace(cluster, kubeconfig=Path(file.name))


def taint_index(cluster: Cluster, node: str, key: str) -> int:
    found = cluster.get("node", node)
    assert found is not None
    return [taint["key"] for taint in found["spec"]["taints"]].index(key)


def removal(cluster: Cluster, node: str, key: str) -> dict[str, str]:
    return {"op": "remove", "path": f"/spec/taints/{taint_index(cluster, node, key)}"}


def test_the_node_plugin_removes_the_start_up_taint_of_its_own_node(cluster: Cluster, tainted: str) -> None:
    assert patched(cluster, tainted, removal(cluster, tainted, TAINT), plugin_on=tainted) == ""


@pytest.mark.parametrize("plugin_on", ["node1", ""], ids=["another node's", "no node's"])
def test_a_plugin_of_another_node_is_refused(cluster: Cluster, tainted: str, plugin_on: str) -> None:
    said = patched(cluster, tainted, removal(cluster, tainted, TAINT), plugin_on=plugin_on)
    assert "may change its own node only" in said


def test_the_node_plugin_cannot_remove_another_taint(cluster: Cluster, tainted: str) -> None:
    said = patched(cluster, tainted, removal(cluster, tainted, "example.com/other"), plugin_on=tainted)
    assert f"may only remove the taint {TAINT}" in said


@pytest.mark.parametrize(
    "change",
    [
        {"op": "add", "path": "/metadata/labels/pool", "value": "other"},
        {"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}},
        {"op": "add", "path": "/spec/taints/-", "value": {"key": "example.com/new", "effect": "NoExecute"}},
        {"op": "add", "path": "/spec/taints/-", "value": {"key": TAINT, "effect": "NoExecute"}},
        {"op": "remove", "path": "/spec/unschedulable"},
    ],
    ids=["label", "annotation", "new taint", "start-up taint again", "schedulable"],
)
def test_the_node_plugin_cannot_change_anything_else_of_its_node(
    cluster: Cluster, tainted: str, change: Mapping[str, Any]
) -> None:
    if change["path"].startswith("/metadata/labels"):
        cluster.kubectl("label", "node", tainted, "example.com/first=1", "--overwrite")
    assert f"may only remove the taint {TAINT}" in patched(cluster, tainted, change, plugin_on=tainted)


def test_users_without_the_drivers_account_are_not_concerned(cluster: Cluster, tainted: str) -> None:
    cluster.kubectl("label", "node", tainted, "example.com/second=2")
    assert (cluster.get("node", tainted) or {})["metadata"]["labels"]["example.com/second"] == "2"


def test_secrets_of_other_namespaces_come_with_the_value_that_names_them(driver: Driver, namespace: Namespace) -> None:
    words = ("get", "secrets", f"--namespace={namespace.name}")
    assert may(driver.cluster, account("controller"), *words) is False
    driver.upgrade("--set", f"rbac.secretNamespaces={{{namespace.name}}}")
    try:
        assert may(driver.cluster, account("controller"), *words) is True
        assert may(driver.cluster, account("controller"), "get", "secrets", "--namespace=default") is False
    finally:
        driver.upgrade()
    assert may(driver.cluster, account("controller"), *words) is False
