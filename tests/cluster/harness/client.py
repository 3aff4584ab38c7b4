"""What a test says to a cluster, this package's own or any other, with waits that are bounded.

Objects are asked for, made and deleted by this process itself (api.py); what only kubectl can do, it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from tests.cluster.harness.api import Api, Object, Objects, proxy_command
from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.harness.node import Node
from tests.cluster.harness.places import CACHE, NODE

_Found = TypeVar("_Found")

WAIT = 60.0
"""Seconds. Bounds a wait, so that a failure is told; nothing is said by how long it took."""
_POLL, _LONGEST_POLL = 0.1, 0.5
"""Seconds between two looks, more where looking takes long: it must not take the time of what is waited for."""
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Cluster:
    """`node` is None where the cluster is not this package's own: a test that needs it is then reported as not run."""

    kubeconfig: Path
    kubectl_program: str
    helm_program: str
    api: Api
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
        """Objects, or the text of a manifest, which kubectl applies; `namespace` is for those that name none."""
        if isinstance(manifest, str):
            self.kubectl("apply", *_in(namespace), "-f", "-", input=manifest)
            return
        for one in [manifest] if isinstance(manifest, dict) else manifest:
            self.api.apply(one, namespace)

    def create(self, manifest: Object, *, namespace: str = "") -> None:
        self.api.create(manifest, namespace)

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """The object, or None if there is none."""
        return self.api.get(kind, name, namespace)

    def list(self, kind: str, namespace: str = "", selector: str = "") -> Objects:
        return self.api.list(kind, namespace, selector)

    def delete(self, kind: str, *names: str, namespace: str = "", wait: bool = True) -> None:
        """Those that exist, or "--all"; with `wait` they are gone when this returns."""
        if names == ("--all",):
            names = tuple(one["metadata"]["name"] for one in self.list(kind, namespace))
        going = {name: uid for name in names if (uid := self.api.delete(kind, name, namespace))}

        for name, uid in going.items() if wait else ():
            self.wait_for(partial(self._is_gone, kind, name, namespace, uid), f"the end of {kind} {name}")

    def _is_gone(self, kind: str, name: str, namespace: str, uid: str) -> bool:
        """Another one may have its name."""
        found = self.get(kind, name, namespace)
        return found is None or found["metadata"]["uid"] != uid

    def events(self, namespace: str, name: str = "") -> Objects:
        """Of all objects of the namespace, or of those called `name`, oldest first."""
        found = self.list("events", namespace)
        of_name = [event for event in found if not name or event["involvedObject"].get("name") == name]
        return sorted(of_name, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))

    # --- pods ---

    def logs(self, pod: str, container: str = "", *, namespace: str, previous: bool = False) -> str:
        """Of one container, or of all, one after the other."""
        found = [container] if container else _containers(self.get("pod", pod, namespace))
        return "".join(self.api.log(pod, name, namespace, previous=previous) for name in found)

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
            began = time.monotonic()
            found = look()
            ended = time.monotonic()
            if found is not None and found is not False:
                return found
            if ended > deadline:
                raise ClusterFailed(f"waited {timeout:.0f} s for {what}")
            time.sleep(min(max(_POLL, 2 * (ended - began)), _LONGEST_POLL))

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
        wanted = {
            pod["metadata"]["uid"]
            for pod in self.api.request("GET", f"/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE}")["items"]
        }
        try:
            known = self.api.request("GET", f"/api/v1/nodes/{NODE}/proxy/pods")["items"] or ()
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
                env={**self._environment(), "GOGC": "off"},  # too short a life for collecting garbage
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


def cluster_of(node: Node) -> Cluster:
    places = node.places
    return Cluster(places.kubeconfig, str(places.program("kubectl")), str(places.program("helm")), node.api, node)


@contextlib.contextmanager
def foreign_cluster(kubeconfig: Path, kubectl: str, helm: str) -> Iterator[Cluster]:
    """Another one, as its kubeconfig leads to it, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="ossfuse-api-") as directory:
        socket = Path(directory, "api.sock")
        cluster = Cluster(kubeconfig, kubectl, helm, Api(socket))
        with subprocess.Popen(proxy_command(kubectl, kubeconfig, socket), stdout=subprocess.DEVNULL) as proxy:
            try:
                cluster.wait_for(cluster.api.answers, f"an answer of the API server of {kubeconfig}")
                yield cluster
            finally:
                proxy.terminate()


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


def _containers(pod: Object | None) -> list[str]:
    spec = pod["spec"] if pod else {}
    return [one["name"] for kind in ("initContainers", "containers") for one in spec.get(kind, ())]


def _in(namespace: str) -> list[str]:
    return [f"--namespace={namespace}"] if namespace else []


def _is(pod: Object, phase: str) -> bool:
    if phase == "Ready":
        conditions = pod["status"].get("conditions", [])
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return bool(pod["status"].get("phase") == phase)
