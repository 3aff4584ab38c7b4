"""The chart: rendered in every combination of values, accepted by a real API server, installed, upgraded, removed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import yaml

from tests.cluster.chart_values import (
    COMBINATIONS,
    DIGEST,
    Object,
    Settings,
    every_combination,
    helm_program,
    render,
    run_helm,
)
from tests.cluster.harness.client import Cluster, Namespace
from tests.cluster.harness.driver import CHART, NAMESPACE, RELEASE, Driver, objects_of_ours
from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.harness.places import NEWEST
from tests.cluster.workloads import DRIVER, Folder, pod, pod_spec
from tests.unit.deploy.test_examples import not_restricted
from tools.chart_readme import values
from tools.render_deploy import TARGET, rendered

REFUSED: Mapping[str, tuple[Settings, str]] = {
    "a misspelled value": ({"node.hostnetwork": True}, "additional properties 'hostnetwork' not allowed"),
    "a misspelled part": ({"nodes.hostNetwork": True}, "additional properties 'nodes' not allowed"),
    "text for a number": ({"controller.replicas": "two"}, "/controller/replicas"),
    "no replica": ({"controller.replicas": 0}, "/controller/replicas"),
    "an unknown level": ({"logLevel": "verbose"}, "/logLevel"),
    "an unknown policy": ({"webhook.failurePolicy": "fail"}, "/webhook/failurePolicy"),
    "an unknown maker of certificates": ({"webhook.certificates": "openssl"}, "/webhook/certificates"),
    "a directory with a slash at its end": ({"kubeletDir": "/var/lib/kubelet/"}, "/kubeletDir"),
    "a short token": ({"rrsa.tokenExpirationSeconds": 599}, "/rrsa/tokenExpirationSeconds"),
    "an endpoint without a scheme": ({"rrsa.stsEndpoint": "sts.aliyuncs.com"}, "/rrsa/stsEndpoint"),
    "a label of the chart's own": ({"extraLabels": {"app.kubernetes.io/name": "x"}}, "app.kubernetes.io/name"),
    "a digest without its kind": ({"image.digest": "0" * 64}, "/image/digest"),
    "a quantity with a blank": ({"node.resources": {"limits": {"memory": "1 Gi"}}}, "/node/resources/limits/memory"),
    "a low port": ({"webhook.port": 443}, "/webhook/port"),
    "a namespace that cannot be": ({"rbac.secretNamespaces": ["Team A"]}, "/rbac/secretNamespaces"),
    "a tag in a repository": (
        {"image.repository": "registry.example.com:5000/a/b:v1"},
        'image.repository: "registry.example.com:5000/a/b:v1" holds a tag; '
        'write "registry.example.com:5000/a/b" here and "v1" as image.tag',
    ),
    "a tag in the repository of another image": (
        {"registrar.image.repository": "a/b:v1"},
        'registrar.image.repository: "a/b:v1" holds a tag',
    ),
    "one port for two in the node plugin": (
        {"node.healthPort": 9809},
        "node.healthPort and node.registrarHealthPort are both 9809",
    ),
    "one port for two in the controller": (
        {"controller.healthPort": 9443},
        "controller.healthPort and webhook.port are both 9443",
    ),
    "one port for node plugin and controller on the network of the nodes": (
        {"node.hostNetwork": True, "controller.hostNetwork": True, "controller.healthPort": 9808},
        "controller.healthPort and node.healthPort are both 9808",
    ),
    "a label with a blank in its name": ({"extraLabels": {"my team": "a"}}, "'my team' does not match pattern"),
    "a label with a blank in its value": ({"extraLabels": {"team": "a b"}}, "/extraLabels/team"),
    "a label with a foreign letter in its name": ({"extraLabels": {"te!am": "a"}}, "'te!am' does not match pattern"),
    "a cache outside of where it seems to be": (
        {"cache.allowedHostPaths": ["/var/cache", "/var/../etc"]},
        "/var/../etc: a directory of the nodes (cache.allowedHostPaths, kubeletDir) is written without '.' and '..'; "
        "/etc is what this leads to",
    ),
    "a kubelet outside of where it seems to be": ({"kubeletDir": "/var/./lib"}, "/var/lib is what this leads to"),
    "no node at a time": ({"node.maxUnavailable": 0}, "/node/maxUnavailable"),
}


@pytest.fixture(scope="session")
def helm() -> str:
    return helm_program()


def parsed(text: str) -> list[Object]:
    return [found for found in yaml.load_all(text, yaml.CSafeLoader) if found]


def named(found: Sequence[Object], kind: str, name: str) -> Object:
    return next(one for one in found if (one["kind"], one["metadata"]["name"]) == (kind, name))


def pod_specs(found: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    for one in found:
        if one["kind"] in ("DaemonSet", "Deployment"):
            yield one["kind"], one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield "Pod", one["spec"]


# --- without a cluster ---


def test_every_documented_value_is_in_a_combination() -> None:
    documented = {value.name for value in values((CHART / "values.yaml").read_text())}
    assert {name for settings in COMBINATIONS.values() for name in settings} == documented


@every_combination
def test_helm_lint_finds_nothing(helm: str, settings: Settings) -> None:
    done = run_helm(helm, "lint", "--strict", str(CHART), f"--kube-version={NEWEST}.0", settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout + done.stderr
    assert "[ERROR]" not in done.stdout + done.stderr


@pytest.mark.parametrize(("settings", "place"), REFUSED.values(), ids=REFUSED)
def test_values_that_cannot_be_meant_are_refused_by_name(helm: str, settings: Settings, place: str) -> None:
    done = run_helm(helm, "template", RELEASE, str(CHART), f"--kube-version={NEWEST}.0", settings=settings)
    assert done.returncode != 0
    assert place in done.stderr


def test_ports_in_different_networks_may_be_the_same(helm: str) -> None:
    settings = {"controller.healthPort": 9808, "controller.provisionerHealthPort": 9809, "node.hostNetwork": True}
    done = run_helm(helm, "template", RELEASE, str(CHART), f"--kube-version={NEWEST}.0", settings=settings)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("version", "accepted"), [("1.32.9", False), ("1.33.0-gke.100", True), ("1.36.2", True)])
def test_kubernetes_without_native_sidecars_is_refused(helm: str, version: str, accepted: bool) -> None:
    done = run_helm(helm, "template", RELEASE, str(CHART), f"--kube-version={version}")
    assert (done.returncode == 0) is accepted
    assert accepted or "kubeVersion: >=1.33.0-0" in done.stderr


@every_combination
def test_the_namespaces_of_the_cluster_itself_and_of_the_release_are_never_asked_about(
    helm: str, settings: Settings
) -> None:
    found = parsed(render(helm, settings, namespace="elsewhere"))
    (webhook,) = named(found, "MutatingWebhookConfiguration", RELEASE)["webhooks"]
    excluded = {
        value
        for rule in webhook["namespaceSelector"]["matchExpressions"]
        if (rule["key"], rule["operator"]) == ("kubernetes.io/metadata.name", "NotIn")
        for value in rule["values"]
    }
    assert excluded >= {"kube-system", "kube-public", "kube-node-lease", "elsewhere"}


@every_combination
def test_objects_belong_to_the_release_and_to_its_namespace(helm: str, settings: Settings) -> None:
    found = parsed(render(helm, settings, namespace="elsewhere"))
    names = [(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in found]
    assert len(names) == len(set(names))
    allowed = {"", "elsewhere", settings.get("tests.namespace", "default"), *settings.get("rbac.secretNamespaces", [])}
    assert {namespace for _, namespace, _ in names} <= allowed
    extra = {"app.kubernetes.io/instance": RELEASE, **settings.get("extraLabels", {})}
    for one in found:
        assert extra.items() <= one["metadata"]["labels"].items()
    subjects = [subject for one in found for subject in one.get("subjects", [])]
    assert {subject["namespace"] for subject in subjects} == {"elsewhere"}


@every_combination
def test_only_the_node_plugin_itself_has_privileges(helm: str, settings: Settings) -> None:
    found = parsed(render(helm, settings))
    network = ["hostNetwork is set"] if settings.get("controller.hostNetwork") else []
    for kind, spec in pod_specs(found):
        assert spec["serviceAccountName"].startswith("ossfuse-csi-")
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
        if kind == "Deployment":
            assert not_restricted(spec) == network
        elif kind == "Pod":
            assert not_restricted(spec) == []
        else:
            privileged = [one["name"] for one in spec["containers"] if one["securityContext"].get("privileged")]
            assert privileged == ["node"]
            others = [one["securityContext"] for one in spec["containers"] if one["name"] != "node"]
            assert [one["capabilities"] for one in others] == [{"drop": ["ALL"]}] * 2


@every_combination
def test_workloads_select_their_own_pods_by_labels_that_never_change(helm: str, settings: Settings) -> None:
    found = parsed(render(helm, settings))
    for kind, component in (("DaemonSet", "node"), ("Deployment", "controller")):
        spec = named(found, kind, f"ossfuse-csi-{component}")["spec"]
        selector = {"app.kubernetes.io/name": "ossfuse-csi", "app.kubernetes.io/component": component}
        assert spec["selector"] == {"matchLabels": selector}
        assert selector.items() <= spec["template"]["metadata"]["labels"].items()
    service = named(found, "Service", "ossfuse-csi-webhook")["spec"]
    assert service["selector"] == {
        "app.kubernetes.io/name": "ossfuse-csi",
        "app.kubernetes.io/component": "controller",
    }


@every_combination
def test_nothing_that_the_controller_writes_is_in_the_chart(helm: str, settings: Settings) -> None:
    """Or an upgrade would put it back."""
    found = parsed(render(helm, settings))
    assert "caBundle" not in named(found, "MutatingWebhookConfiguration", "ossfuse-csi")["webhooks"][0]["clientConfig"]
    assert "spec" not in named(found, "Lease", "ossfuse-csi-dev")
    secrets = [one for one in found if one["kind"] == "Secret"]
    assert [one for one in secrets if "data" in one or "stringData" in one] == []
    assert len(secrets) == (settings.get("webhook.certificates") != "cert-manager")


def test_the_manifest_for_kubectl_is_what_helm_renders(helm: str) -> None:
    assert TARGET.read_text() == rendered(helm)


def test_images_are_named_by_digest_where_one_is_given(helm: str) -> None:
    settings = {**COMBINATIONS["own registry"], **COMBINATIONS["labels, annotations, pinned by digest"]}
    found = parsed(render(helm, settings))
    images = {container["image"] for _, spec in pod_specs(found) for container in spec["containers"]}
    assert images == {
        f"registry.example.com:5000/team/ossfuse-csi@{DIGEST}",
        f"registry.example.com/a/b@{DIGEST}",
    }
    arguments = named(found, "Deployment", "ossfuse-csi-controller")["spec"]["template"]["spec"]["containers"][0][
        "args"
    ]
    assert f"--sidecar-image=registry.example.com/sidecar@{DIGEST}" in arguments


def test_the_node_plugin_is_told_which_session_serves_where_that_is_said(helm: str) -> None:
    def arguments(settings: Settings) -> list[str]:
        spec = named(parsed(render(helm, settings)), "DaemonSet", "ossfuse-csi-node")["spec"]["template"]["spec"]
        return [word for word in spec["containers"][0]["args"] if word.startswith("--session")]

    assert arguments({}) == []
    assert arguments(COMBINATIONS["logs, disk caches, the other kernel session"]) == ["--session=pyfuse3"]


# --- with one ---


def test_helm_test_finds_a_new_installation_well_and_leaves_nothing(driver: Driver) -> None:
    said = driver.cluster.helm("test", RELEASE, f"--namespace={NAMESPACE}", "--timeout=120s")
    assert said.count("Succeeded") == said.count("Phase:") == 7
    left = driver.cluster.list("serviceaccounts,configmaps,pods,roles,rolebindings", NAMESPACE)
    assert [one["metadata"]["name"] for one in left if one["metadata"]["name"] == "ossfuse-csi-test"] == []


def written_by_the_controller(cluster: Cluster) -> tuple[Any, str]:
    """The webhook's certificate, and what trusts it."""
    secret = cluster.get("secret", "ossfuse-csi-webhook-cert", NAMESPACE)
    configuration = cluster.get("mutatingwebhookconfiguration", "ossfuse-csi")
    assert secret is not None
    assert configuration is not None
    return secret["data"], configuration["webhooks"][0]["clientConfig"]["caBundle"]


@pytest.mark.parametrize(
    ("place", "sidecars"),
    [("kube-system", 0), ("kube-public", 0), ("kube-node-lease", 0), (NAMESPACE, 0), ("default", 1)],
)
def test_pods_of_the_clusters_own_namespaces_are_left_alone(driver: Driver, place: str, sidecars: int) -> None:
    """That values cannot change this is tested above: the webhook is never asked about them, so it cannot stop them."""
    folder = Folder(source={"csi": {"driver": DRIVER, "volumeAttributes": {"uri": "oss://any/", "url": "http://h:1"}}})
    words = ("create", f"--namespace={place}", "--dry-run=server", "--output=json", "-f", "-")
    manifest = json.dumps(pod("own", pod_spec("true", {"data": folder})))
    made = json.loads(driver.cluster.kubectl(*words, input=manifest))
    assert len(made["spec"].get("initContainers", [])) == sidecars


def test_upgrade_and_rollback_leave_certificate_and_trust_alone(driver: Driver) -> None:
    before = written_by_the_controller(driver.cluster)
    driver.upgrade("--set", "logLevel=debug,webhook.timeoutSeconds=9")
    after = written_by_the_controller(driver.cluster)
    driver.rollback()
    assert before == after == written_by_the_controller(driver.cluster)
    configuration = driver.cluster.get("mutatingwebhookconfiguration", "ossfuse-csi")
    assert configuration is not None
    assert configuration["webhooks"][0]["timeoutSeconds"] == 10


def drivers_of_nodes(cluster: Cluster) -> set[str]:
    return {driver["name"] for one in cluster.list("csinodes") for driver in one["spec"].get("drivers") or ()}


def test_uninstall_leaves_nothing_and_the_next_install_works(driver: Driver, cluster: Cluster) -> None:
    cluster.wait_for(lambda: "ossfuse.csi.dev" in drivers_of_nodes(cluster), "kubelet knowing the driver")
    try:
        assert "Deployment ossfuse-csi ossfuse-csi-controller" in objects_of_ours(cluster)
        cluster.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait", "--timeout=180s")
        with contextlib.suppress(ClusterFailed):  # what is left says more than that it took too long
            cluster.wait_for(lambda: not objects_of_ours(cluster), "the end of everything of the release")
        assert objects_of_ours(cluster) == []
        cluster.wait_for(
            lambda: "ossfuse.csi.dev" not in drivers_of_nodes(cluster), "kubelet having forgotten the driver"
        )
    finally:
        driver.upgrade()
    cluster.wait_for(lambda: "ossfuse.csi.dev" in drivers_of_nodes(cluster), "kubelet knowing the driver again")


# --- the policy that keeps sidecars as they are ---


def pod_with_sidecar(**changes: Any) -> Object:
    """As the webhook leaves it; `changes` are "restart", "medium" or "thief" (what mounts the sidecar's directory)."""
    spec = pod_spec("true", {})
    mount = {"name": "ossfuse-data", "mountPath": "/run/ossfuse"}
    sidecar = {
        "name": "ossfuse-data",
        "image": "example",
        "restartPolicy": "Always",
        "securityContext": spec["containers"][0]["securityContext"],
        "volumeMounts": [mount],
    }
    if "restart" in changes:
        del sidecar["restartPolicy"]
    after = {**sidecar, "name": "after", "volumeMounts": []}
    after.pop("restartPolicy", None)
    spec["initContainers"] = [sidecar, after]
    spec["volumes"] = [{"name": "ossfuse-data", "emptyDir": {"medium": changes.get("medium", "Memory")}}]
    spec["nodeSelector"] = {"ossfuse.csi.dev/nowhere": "true"}
    thieves = {"app": spec["containers"][0], "after": after}
    if "thief" in changes:
        thieves[changes["thief"]]["volumeMounts"] = [mount]
    return pod("kept", spec)


def asked(namespace: Namespace, manifest: Object) -> str:
    """What the API server says about making it, '' when it would."""
    words = ("create", f"--namespace={namespace.name}", "--dry-run=server", "-f", "-")
    try:
        namespace.cluster.kubectl(*words, input=json.dumps(manifest))
    except ClusterFailed as refused:
        return str(refused)
    return ""


def test_a_sidecar_as_the_webhook_made_it_passes_the_policy(driver: Driver, namespace: Namespace) -> None:
    assert asked(namespace, pod_with_sidecar()) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"restart": None}, "restartPolicy of ossfuse-data: it serves a volume of ossfuse.csi.dev"),
        ({"thief": "app"}, "container app mounts the directory of a sidecar of ossfuse.csi.dev"),
        ({"thief": "after"}, "container after mounts the directory of a sidecar of ossfuse.csi.dev"),
    ],
    ids=["not restarted", "mounted by the application", "mounted by an init container"],
)
def test_a_sidecar_that_was_changed_is_refused(
    driver: Driver, namespace: Namespace, changes: Mapping[str, Any], words: str
) -> None:
    assert words in asked(namespace, pod_with_sidecar(**changes))


def test_a_debugging_container_cannot_mount_a_sidecars_directory(driver: Driver, namespace: Namespace) -> None:
    namespace.apply(pod_with_sidecar())
    debug = {
        "name": "debug",
        "image": "example",
        "securityContext": pod_spec("true", {})["containers"][0]["securityContext"],
        "volumeMounts": [{"name": "ossfuse-data", "mountPath": "/x"}],
    }
    patch = {"spec": {"ephemeralContainers": [debug]}}
    words = ("patch", "pod", "kept", f"--namespace={namespace.name}", "--subresource=ephemeralcontainers")
    with pytest.raises(ClusterFailed, match="container debug mounts the directory of a sidecar"):
        driver.cluster.kubectl(*words, "--type=strategic", f"--patch={json.dumps(patch)}")


def test_containers_that_are_only_named_alike_are_left_alone(driver: Driver, namespace: Namespace) -> None:
    assert asked(namespace, pod_with_sidecar(restart=None, medium="", thief="app")) == ""
