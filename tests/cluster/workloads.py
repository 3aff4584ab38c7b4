"""Kubernetes objects of the end-to-end tests, as plain dicts; every pod satisfies Pod Security "restricted"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]

BUSYBOX = "docker.io/library/busybox:test"
DRIVER = "ossfuse.csi.dev"
GROUP = 4000
"""Of the pods, and so of the files they are shown: who is not root may write through it."""
_RESTRICTED: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True)
class Folder:
    """One volume of a pod. `claim` names a PersistentVolumeClaim; `source` is any other volume source."""

    claim: str = ""
    path: str = "/data"
    read_only: bool = False
    sub_path: str = ""
    source: Mapping[str, Any] | None = None
    claim_read_only: bool = False

    def volume(self, name: str) -> Manifest:
        if self.source is not None:
            return {"name": name, **self.source}
        claim: Manifest = {"claimName": self.claim}
        if self.claim_read_only:
            claim["readOnly"] = True
        return {"name": name, "persistentVolumeClaim": claim}

    def mount(self, name: str) -> Manifest:
        found: Manifest = {"name": name, "mountPath": self.path}
        if self.read_only:
            found["readOnly"] = True
        if self.sub_path:
            found["subPath"] = self.sub_path
        return found


def secret(name: str, values: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "Opaque",
        "stringData": dict(values),
    }


def persistent_volume(
    name: str,
    namespace: str,
    claim: str,
    attributes: Mapping[str, str],
    *,
    access: str = "ReadWriteMany",
    secret_name: str = "",
) -> Manifest:
    csi: Manifest = {"driver": DRIVER, "volumeHandle": name, "volumeAttributes": dict(attributes)}
    if secret_name:
        csi["nodePublishSecretRef"] = {"name": secret_name, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Ti"},
            "accessModes": [access],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": namespace, "name": claim},
            "csi": csi,
        },
    }


def claim(name: str, *, volume: str = "", storage_class: str = "", access: str = "ReadWriteMany") -> Manifest:
    spec: Manifest = {
        "accessModes": [access],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": "1Ti"}},
    }
    if volume:
        spec["volumeName"] = volume
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def storage_class(name: str, parameters: Mapping[str, str], *, reclaim: str = "Delete") -> Manifest:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": DRIVER,
        "reclaimPolicy": reclaim,
        "volumeBindingMode": "Immediate",
        "parameters": dict(parameters),
    }


def pod_spec(
    script: str,
    folders: Mapping[str, Folder],
    *,
    restart_policy: str = "Always",
    pod_security: Mapping[str, Any] | None = None,
    container_security: Mapping[str, Any] | None = None,
    init_scripts: Sequence[str] = (),
    service_account: str = "default",
) -> Manifest:
    """A pod whose container `app` runs `script` with sh, with every one of `folders` (name → folder) mounted."""

    def container(name: str, text: str) -> Manifest:
        return {
            "name": name,
            "image": BUSYBOX,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", text],
            "volumeMounts": [folder.mount(volume) for volume, folder in folders.items()],
            "securityContext": {**_RESTRICTED, **(container_security or {})},
        }

    spec: Manifest = {
        "restartPolicy": restart_policy,
        "terminationGracePeriodSeconds": 5,
        "serviceAccountName": service_account,
        "securityContext": {"fsGroup": GROUP} if pod_security is None else dict(pod_security),
        "containers": [container("app", script)],
        "volumes": [folder.volume(volume) for volume, folder in folders.items()],
    }
    if init_scripts:
        spec["initContainers"] = [container(f"init-{n}", text) for n, text in enumerate(init_scripts)]
    return spec


def pod(name: str, spec: Manifest, *, annotations: Mapping[str, str] | None = None) -> Manifest:
    metadata: Manifest = {"name": name}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def job(name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": {**spec, "restartPolicy": "Never"}}},
    }
