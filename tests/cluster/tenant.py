"""What one end-to-end test has to itself: a namespace that enforces Pod Security "restricted", a bucket, a Secret.

Everything a tenant makes is gone when the test ends: what stands in the namespace goes with it, cluster-wide objects
(PersistentVolumes, StorageClasses) are remembered and deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import oss2

from tests.cluster import workloads
from tests.cluster.harness.api import Object
from tests.cluster.harness.client import Cluster, Namespace
from tests.cluster.harness.emulators import reached
from tests.cluster.workloads import Folder, Manifest
from tests.support.emulator import RunningEmulator
from tests.support.secret_watch import watch_secret

SECRET = "oss"
MINUTES = 60.0
_Found = TypeVar("_Found")


@dataclass
class Tenant:
    """`oss` has a bucket of this test alone."""

    space: Namespace
    oss: RunningEmulator
    made: list[tuple[str, str]] = field(default_factory=list)

    @property
    def cluster(self) -> Cluster:
        return self.space.cluster

    @property
    def namespace(self) -> str:
        return self.space.name

    # --- objects ---

    def attributes(self, path: str = "", **options: str) -> dict[str, str]:
        """Volume attributes for a prefix of the test's bucket; `__` in an option's name stands for a dot."""
        named = {key.replace("__", "."): value for key, value in options.items()}
        return {"uri": f"oss://{self.oss.bucket}/{path}", "url": self.oss.endpoint, **named}

    def give_class(self, attributes: Mapping[str, str], *, secrets_in: str) -> str:
        """A StorageClass for these attributes, whose Secrets stand in the namespace `secrets_in`; its name."""
        self.give_secret(namespace=secrets_in)
        references = {
            f"csi.storage.k8s.io/{use}-secret-{key}": value
            for use in ("provisioner", "node-publish")
            for key, value in (("name", SECRET), ("namespace", secrets_in))
        }
        name = f"class-{self.namespace}"
        self.apply(workloads.storage_class(name, {**attributes, **references}))
        return name

    def apply(self, *manifests: Manifest) -> None:
        for manifest in manifests:
            if manifest["kind"] in ("PersistentVolume", "StorageClass"):
                self.made.append((manifest["kind"], manifest["metadata"]["name"]))
        self.space.apply(manifests)

    def give_secret(self, name: str = SECRET, *, secret: str | None = None, namespace: str = "") -> None:
        """The bucket's key, with its true secret unless another is given."""
        value = watch_secret(self.oss.access_key_secret if secret is None else secret)
        made = workloads.secret(name, {"akId": self.oss.access_key_id, "akSecret": value})
        self.cluster.apply(made, namespace=namespace or self.namespace)

    def give_volume(
        self,
        name: str = "data",
        *,
        attributes: Mapping[str, str] | None = None,
        access: str = "ReadWriteMany",
        secret: str = SECRET,
    ) -> str:
        """A PersistentVolume and the claim `name` bound to it; the name of the PersistentVolume."""
        volume = f"{self.namespace}-{name}"
        wanted = self.attributes() if attributes is None else attributes
        self.apply(
            workloads.persistent_volume(volume, self.namespace, name, wanted, access=access, secret_name=secret),
            workloads.claim(name, volume=volume, access=access),
        )
        self.until(lambda: (self.space.get("pvc", name) or {})["status"].get("phase") == "Bound", f"{name} bound")
        return volume

    def start_pod(self, name: str, script: str = "sleep 1d", *, wait: bool = True, **settings: Any) -> None:
        """A pod that mounts claim `data` at /data, or what `folders` says; waits until it is Ready."""
        annotations = settings.pop("annotations", None)
        folders = settings.pop("folders", {"data": Folder(claim="data")})
        spec = workloads.pod_spec(f"trap exit TERM; {{ {script}; }} & wait $!", folders, **settings)
        self.apply(workloads.pod(name, spec, annotations=annotations))
        if wait:
            self.wait_ready(name)

    def delete_pod(self, name: str) -> None:
        self.space.delete("pod", name)

    # --- what is there ---

    def pod(self, name: str) -> Object:
        found = self.space.get("pod", name)
        assert found is not None, f"pod {name} is gone"
        return found

    def wait_ready(self, name: str) -> None:
        self.space.wait_pod(name, "Ready", 2 * MINUTES)

    def sidecars(self, name: str) -> list[str]:
        """Names of the sidecar containers in a pod, in order."""
        containers = self.pod(name)["spec"].get("initContainers", [])
        return [one["name"] for one in containers if one["name"].startswith("ossfuse-")]

    def sidecar_status(self, name: str, sidecar: str = "ossfuse-data") -> Object:
        statuses = self.pod(name)["status"].get("initContainerStatuses", [])
        found: Object = next((one for one in statuses if one["name"] == sidecar), {})
        return found

    def sh(self, name: str, script: str, *, container: str = "app") -> str:
        """What `script` prints in a container; the test fails when it exits with an error."""
        return self.space.exec(name, "sh", "-c", script, container=container)

    def fails(self, name: str, script: str) -> str:
        """What `script` prints, which must exit with an error."""
        return self.sh(name, f"if {{ {script}; }} 2>&1; then echo UNEXPECTED SUCCESS; exit 1; fi")

    def logs(self, name: str, container: str = "app") -> str:
        return self.space.logs(name, container)

    def until(self, look: Callable[[], _Found | None], what: str, seconds: float = MINUTES) -> _Found:
        return self.cluster.wait_for(look, what, seconds)

    # --- the bucket, as another client sees it ---

    def put(self, key: str, data: bytes | str) -> None:
        self._with_bucket(lambda bucket: bucket.put_object(key, data))

    def get(self, key: str) -> bytes:
        return bytes(self._with_bucket(lambda bucket: bucket.get_object(key).read()))

    def keys(self, prefix: str = "") -> set[str]:
        return self._with_bucket(lambda bucket: {entry.key for entry in oss2.ObjectIteratorV2(bucket, prefix=prefix)})

    def _with_bucket(self, work: Callable[[oss2.Bucket], _Found]) -> _Found:
        auth = oss2.Auth(self.oss.access_key_id, self.oss.access_key_secret)
        with reached(self.oss) as endpoint:
            return work(oss2.Bucket(auth, endpoint, self.oss.bucket, is_path_style=True))

    def leave(self) -> None:
        """Delete what the test made, pods first so that the volumes' ends are orderly."""
        for kind in ("jobs", "pods", "pvc"):
            self.space.delete(kind, "--all")
        for kind, name in reversed(self.made):
            self.cluster.delete(kind, name)
