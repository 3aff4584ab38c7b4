"""What a test says to a cluster, this package's own or any other: kubectl and helm, with waits that are bounded."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.harness.node import Node
from tests.cluster.harness.places import CACHE, NODE

Object = dict[str, Any]
Objects = list[Object]
_Found = TypeVar("_Found")

WAIT = 60.0
"""Seconds. Bounds a wait, so that a failure is told; nothing is said by how long it took."""
_POLL = 0.2
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Cluster:
    """`node` is None where the cluster is not this package's own: a test that needs it is then reported as not run."""

    kubeconfig: Path
    kubectl_program: str
    helm_program: str
    node: Node | None = field(default=None, repr=False)

    # --- commands ---

    def kubectl(self, *words: str, input: str | None = None) -> str:
        """Its output; raises ClusterFailed with what it said when it fails. `input` may hold secrets: words may not."""
        return self._run([self.kubectl_program, *words], input)

    def helm(self, *words: str, input: str | None = None) -> str:
        return self._run([self.helm_program, *words], input)

    def background(self, *words: str) -> subprocess.Popen[str]:
        """A kubectl that goes on, such as port-forward or logs -f; the caller ends it."""
        with self._network():
            return subprocess.Popen(
                [self.kubectl_program, *words], stdout=subprocess.PIPE, text=True, env=self._environment()
            )

    # --- objects ---

    def apply(self, manifest: Object | Sequence[Object] | str, *, namespace: str = "") -> None:
        """Objects or the text of a manifest; `namespace` is for those that name none."""
        text = manifest if isinstance(manifest, str) else json.dumps(_listed(manifest))
        self.kubectl("apply", *_in(namespace), "-f", "-", input=text)

    def create(self, manifest: Object | str, *, namespace: str = "") -> None:
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        self.kubectl("create", *_in(namespace), "-f", "-", input=text)

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """The object, or None if there is none."""
        text = self.kubectl("get", kind, name, *_in(namespace), "--ignore-not-found", "--output=json")
        found: Object | None = json.loads(text) if text.strip() else None
        return found

    def list(self, kind: str, namespace: str = "", selector: str = "") -> Objects:
        words = ["get", kind, *_in(namespace), "--output=json", *([f"--selector={selector}"] if selector else [])]
        found: Objects = json.loads(self.kubectl(*words))["items"]
        return found

    def delete(self, kind: str, *names: str, namespace: str = "", wait: bool = True) -> None:
        """Those that exist; with `wait` they are gone when this returns."""
        waiting = (f"--wait={str(wait).lower()}", *([f"--timeout={WAIT:.0f}s"] if wait else []))
        self.kubectl("delete", kind, *names, *_in(namespace), "--ignore-not-found", *waiting)

    def events(self, namespace: str, name: str = "") -> Objects:
        """Of all objects of the namespace, or of those called `name`, oldest first."""
        found = self.list("events", namespace)
        of_name = [event for event in found if not name or event["involvedObject"].get("name") == name]
        return sorted(of_name, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))

    # --- pods ---

    def logs(self, pod: str, container: str = "", *, namespace: str, previous: bool = False) -> str:
        chosen = [f"--container={container}"] if container else ["--all-containers"]
        return self.kubectl("logs", pod, *_in(namespace), *chosen, f"--previous={str(previous).lower()}")

    def exec(self, pod: str, *command: str, container: str = "", namespace: str, input: str | None = None) -> str:
        chosen = [f"--container={container}"] if container else []
        open_input = ["--stdin"] if input is not None else []
        return self.kubectl("exec", *open_input, pod, *_in(namespace), *chosen, "--", *command, input=input)

    def wait_pod(self, pod: str, phase: str = "Running", *, namespace: str, timeout: float = WAIT) -> Object:
        """The pod once it is in `phase`: `Ready` means all containers, `Succeeded` and `Failed` are its ends."""

        def look() -> Object | None:
            found = self.get("pod", pod, namespace)
            return found if found is not None and _is(found, phase) else None

        try:
            return self.wait_for(look, f"pod {namespace}/{pod} being {phase}", timeout)
        except ClusterFailed as late:
            status = (self.get("pod", pod, namespace) or {}).get("status")
            raise ClusterFailed(f"{late}; its status: {json.dumps(status)}") from None

    def wait_gone(self, kind: str, name: str, namespace: str = "", timeout: float = WAIT) -> None:
        self.wait_for(lambda: self.get(kind, name, namespace) is None, f"the end of {kind} {name}", timeout)

    def wait_for(self, look: Callable[[], _Found | None], what: str, timeout: float = WAIT) -> _Found:
        """What `look` finds once that is neither None nor False; raises ClusterFailed after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            found = look()
            if found is not None and found is not False:
                return found
            if time.monotonic() > deadline:
                raise ClusterFailed(f"waited {timeout:.0f} s for {what}")
            time.sleep(_POLL)

    # --- namespaces ---

    @contextlib.contextmanager
    def namespace(self, labels: dict[str, str] | None = None) -> Iterator[Namespace]:
        """A new one that enforces Pod Security "restricted" (or has `labels` instead).

        Its pods are gone when the block ends; the rest, which takes some seconds, only a foreign cluster waits for.
        """
        name = f"test-{uuid.uuid4().hex[:10]}"
        given = _RESTRICTED if labels is None else labels
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": given}})
        made = Namespace(self, name)
        try:
            self.wait_for(
                lambda: self.get("serviceaccount", "default", name), f"the default account of namespace {name}"
            )
            yield made
        finally:
            self.delete("pods", "--all", namespace=name)
            self.delete("namespace", name, wait=self.node is None)

    # --- the node itself ---

    def node_exec(self, *command: str, input: str | None = None) -> str:
        """The output of a command beside kubelet, with its mounts, network and processes."""
        return self.own_node().run(*command, given=input)

    def load_image(self, tar: Path) -> None:
        self.own_node().load_image(tar)

    def restart_kubelet(self) -> None:
        """It is stopped and started; returns when the new one knows the node's pods again."""
        self.own_node().restart("kubelet")
        self.wait_for(self._kubelet_knows_its_pods, "a kubelet that knows its pods")

    def kill(self, component: str) -> None:
        """SIGKILL; `start` it again. One of harness.settings.COMPONENTS."""
        self.own_node().stop(component, signal.SIGKILL)

    def start(self, component: str) -> None:
        self.own_node().start(component)

    def own_node(self) -> Node:
        """Skips the test where the node cannot be reached."""
        if self.node is None:
            pytest.skip("needs the node itself; KUBECONFIG_E2E gives only the API server")
        return self.node

    def network(self) -> contextlib.AbstractContextManager[None]:
        """Sockets of this thread, and processes it starts, reach nodes and pods by their addresses."""
        return self.own_node().network()

    def _kubelet_knows_its_pods(self) -> bool:
        """Until then it says of every pod that it does not exist."""
        words = ["get", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={NODE}", "--output=json"]
        wanted = {pod["metadata"]["uid"] for pod in json.loads(self.kubectl(*words))["items"]}
        try:
            known = json.loads(self.kubectl("get", f"--raw=/api/v1/nodes/{NODE}/proxy/pods"))["items"] or ()
        except ClusterFailed:
            return False  # it does not listen yet
        return wanted <= {pod["metadata"]["uid"] for pod in known}

    def _run(self, command: Sequence[str], input: str | None) -> str:
        with self._network():
            done = subprocess.run(
                command,
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True,
                text=True,
                check=False,
                env=self._environment(),
            )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise ClusterFailed(f"{Path(command[0]).name} {' '.join(command[1:])}: exit {done.returncode}: {said}")
        return done.stdout

    def _network(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.node is None else self.node.network()

    def _environment(self) -> dict[str, str]:
        helm = {f"HELM_{kind}_HOME": str(CACHE / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), **helm}


@dataclass(frozen=True)
class Namespace:
    """A cluster's methods for one namespace."""

    cluster: Cluster
    name: str

    def apply(self, manifest: Object | Sequence[Object] | str) -> None:
        self.cluster.apply(manifest, namespace=self.name)

    def get(self, kind: str, name: str) -> Object | None:
        return self.cluster.get(kind, name, self.name)

    def list(self, kind: str, selector: str = "") -> Objects:
        return self.cluster.list(kind, self.name, selector)

    def delete(self, kind: str, *names: str, wait: bool = True) -> None:
        self.cluster.delete(kind, *names, namespace=self.name, wait=wait)

    def events(self, name: str = "") -> Objects:
        return self.cluster.events(self.name, name)

    def logs(self, pod: str, container: str = "", *, previous: bool = False) -> str:
        return self.cluster.logs(pod, container, namespace=self.name, previous=previous)

    def exec(self, pod: str, *command: str, container: str = "", input: str | None = None) -> str:
        return self.cluster.exec(pod, *command, container=container, namespace=self.name, input=input)

    def wait_pod(self, pod: str, phase: str = "Running", timeout: float = WAIT) -> Object:
        return self.cluster.wait_pod(pod, phase, namespace=self.name, timeout=timeout)

    def wait_gone(self, kind: str, name: str, timeout: float = WAIT) -> None:
        self.cluster.wait_gone(kind, name, self.name, timeout)

    def wait_event(self, name: str, reason: str, text: str = "", timeout: float = WAIT) -> Object:
        """The first event of an object with that reason whose message has `text` in it."""

        def look() -> Object | None:
            of_reason = [event for event in self.events(name) if event["reason"] == reason]
            return next((event for event in of_reason if text in event["message"]), None)

        return self.cluster.wait_for(look, f"event {reason} of {name} saying {text!r}", timeout)


def _in(namespace: str) -> list[str]:
    return [f"--namespace={namespace}"] if namespace else []


def _listed(manifest: Object | Sequence[Object]) -> Object:
    if isinstance(manifest, dict):
        return manifest
    return {"apiVersion": "v1", "kind": "List", "items": [*manifest]}


def _is(pod: Object, phase: str) -> bool:
    if phase == "Ready":
        conditions = pod["status"].get("conditions", [])
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return bool(pod["status"].get("phase") == phase)
