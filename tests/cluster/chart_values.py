"""Values of the chart as administrators give them together, and the chart rendered or installed with them."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from tests.cluster.harness.driver import CHART, NAMESPACE, RELEASE
from tests.cluster.harness.places import NEWEST, Places

Object = dict[str, Any]
Settings = Mapping[str, Any]

DIGEST = f"sha256:{'0' * 64}"
IMAGE = {"repository": "registry.example.com/a/b", "tag": "v1", "digest": DIGEST, "pullPolicy": "Always"}
RESOURCES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": 2, "memory": "2Gi"}}
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["gpu"]}]}]
        }
    }
}
CONTAINERS = ("node", "controller", "provisioner", "registrar", "livenessProbe")
TOLERATIONS = [{"key": "pool", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}]

# Values as an administrator would give them together; every value of the chart occurs (a test sees to it).
COMBINATIONS: Mapping[str, Settings] = {
    "default": {},
    "own registry": {
        "image.repository": "registry.example.com:5000/team/ossfuse-csi",
        "image.tag": "0.1.0-rc.1",
        "image.pullPolicy": "Always",
        "imagePullSecrets": [{"name": "registry"}],
        "sidecar.image": f"registry.example.com/sidecar@{DIGEST}",
        "sidecar.pullPolicy": "Always",
        **{
            f"{part}.image.{key}": IMAGE[key] for part in ("provisioner", "registrar", "livenessProbe") for key in IMAGE
        },
    },
    "network of the nodes, namespaces": {
        "node.hostNetwork": True,
        "node.healthPort": 19808,
        "node.registrarHealthPort": 19809,
        "controller.hostNetwork": True,
        "controller.healthPort": 19818,
        "controller.provisionerHealthPort": 19819,
        "webhook.port": 19443,
        "webhook.excludedNamespaces": ["monitoring", "kube-system"],
        "webhook.namespaceSelector": [{"key": "oss", "operator": "In", "values": ["yes"]}],
        "tests.namespace": "kube-public",
    },
    "one replica, roles": {
        "controller.replicas": 1,
        "webhook.failurePolicy": "Ignore",
        "webhook.timeoutSeconds": 3,
        "rrsa.stsEndpoint": "https://sts-vpc.cn-hangzhou.aliyuncs.com",
        "rrsa.tokenExpirationSeconds": 600,
    },
    "scheduling, secrets of some namespaces": {
        "rbac.secretNamespaces": ["default", "kube-public"],
        "node.priorityClassName": "system-cluster-critical",
        "node.nodeSelector": {"pool": "gpu"},
        "node.affinity": AFFINITY,
        "node.tolerations": TOLERATIONS,
        "node.maxUnavailable": 1,
        "controller.priorityClassName": "system-node-critical",
        "controller.nodeSelector": {"pool": "system"},
        "controller.affinity": AFFINITY,
        "controller.tolerations": TOLERATIONS,
        "priorityQuota.create": True,
        "priorityQuota.pods": 12,
    },
    "resources, images never pulled": {
        "image.pullPolicy": "Never",
        "sidecar.pullPolicy": "Never",
        **{f"{part}.resources": RESOURCES for part in CONTAINERS},
    },
    "no resources": {f"{part}.resources": None for part in CONTAINERS},
    "labels, annotations, pinned by digest": {
        "image.digest": DIGEST,
        "extraLabels": {"team": "storage", "example.com/cost": "a_b.c"},
        "node.podAnnotations": {"example.com/scrape": "true"},
        "node.serviceAccount.annotations": {"example.com/role": "n"},
        "controller.podAnnotations": {"example.com/scrape": "true"},
        "controller.serviceAccount.annotations": {"example.com/role": "c"},
    },
    "logs, disk caches, the other kernel session": {
        "logLevel": "debug",
        "logFormat": "text",
        "kubeletDir": "/var/lib/k0s/kubelet",
        "cache.allowedHostPaths": ["/var/cache/ossfuse", "/mnt/nvme0/oss"],
        "sidecar.session": "pyfuse3",
        "provisioner.timeoutSeconds": 300,
    },
    "secrets of all namespaces": {"rbac.allSecrets": True},
    "cert-manager": {"webhook.certificates": "cert-manager"},
}

every_combination = pytest.mark.parametrize("settings", COMBINATIONS.values(), ids=COMBINATIONS)


def helm_program() -> str:
    """The program of the cluster lane, which needs no cluster to render."""
    ours = Places("").program("helm")
    found = str(ours) if ours.exists() else shutil.which("helm")
    assert found, f"{ours} is missing; tools/cluster-binaries.sh makes it"
    return found


def nested(settings: Settings) -> Object:
    """{"a.b": 1} as {"a": {"b": 1}}; keys of mappings that are one value are left alone."""
    found: Object = {}
    for name, value in settings.items():
        *above, last = name.split(".")
        functools.reduce(lambda node, key: node.setdefault(key, {}), above, found)[last] = value
    return found


def run_helm(helm: str, *words: str, settings: Settings | None = None) -> subprocess.CompletedProcess[str]:
    return _run(helm, *words, given=json.dumps(nested(settings or {})))


def _run(helm: str, *words: str, given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [helm, *words, "--values=-"],
        check=False,
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, "GOGC": "off"},  # too short a life for collecting garbage
    )


def render(helm: str, settings: Settings, namespace: str = NAMESPACE, version: str = f"{NEWEST}.0") -> str:
    return _rendered(helm, json.dumps(nested(settings)), namespace, version)


@functools.lru_cache  # several tests look at the same one
def _rendered(helm: str, given: str, namespace: str, version: str) -> str:
    words = ("template", RELEASE, str(CHART), f"--namespace={namespace}", f"--kube-version={version}")
    done = _run(helm, *words, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout
