"""What `helm test` runs in the cluster, with the driver's own image: does a pod with a volume of ours get its sidecar?

It asks the API server what it would make of such a pod (a dry run), which takes the whole way: API server, webhook
configuration, certificate, Service, controller. Then it counts the nodes that can mount. Nothing is created. What is
wrong may come right within two minutes: `helm install` does not wait for its pods. Only what Python brings is used, so
that it tells as much in a broken installation as it can.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

DRIVER: Final = "ossfuse.csi.dev"
SIDECAR: Final = "ossfuse-data"
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT: Final = 30.0
_LOOKS: Final = 60
_PAUSE: Final = 2.0

Findings = tuple[list[str], list[str]]
"""What is well and what is not, one sentence each."""

Call = Callable[[str, str, dict[str, Any] | None], dict[str, Any]]
"""Method, path, body → answer. Raises Refused."""


class Refused(Exception):
    """The API server said no, or nothing; the text is for people."""


def settled(look: Callable[[], Findings], pause: Callable[[float], None]) -> Findings:
    """What is found once all is well, or in the end."""
    for _ in range(_LOOKS - 1):
        found = look()
        if not found[1]:
            return found
        pause(_PAUSE)
    return look()


def check(call: Call, namespace: str) -> Findings:
    """`namespace` is one whose pods get sidecars."""
    well: list[str] = []
    wrong: list[str] = []
    for step in (_driver, _sidecar, _nodes):
        try:
            well.append(step(call, namespace))
        except Refused as error:
            wrong.append(str(error))
    return well, wrong


def _driver(call: Call, namespace: str) -> str:
    call("GET", f"/apis/storage.k8s.io/v1/csidrivers/{DRIVER}", None)
    return f"the cluster knows the driver {DRIVER}"


def _sidecar(call: Call, namespace: str) -> str:
    try:
        pod = call("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", _pod())
    except Refused as error:
        raise Refused(
            f"a pod with a volume of ours is refused: {error}. Look at `kubectl logs deploy/ossfuse-csi-controller` in "
            "the release's namespace; when the API server cannot reach pods, set controller.hostNetwork"
        ) from None
    containers = pod["spec"].get("initContainers") or [{}]
    if containers[0].get("name") != SIDECAR or containers[0].get("restartPolicy") != "Always":
        raise Refused(
            f"a pod with a volume of ours gets no sidecar in namespace {namespace}: the webhook did not answer, or it "
            "leaves this namespace alone (webhook.excludedNamespaces, webhook.namespaceSelector, tests.namespace)"
        )
    return f"a pod with a volume of ours gets the sidecar {containers[0].get('image')}"


def _nodes(call: Call, namespace: str) -> str:
    nodes = call("GET", "/apis/storage.k8s.io/v1/csinodes", None)["items"]
    able = [node for node in nodes if any(one["name"] == DRIVER for one in node["spec"].get("drivers") or ())]
    if not able:
        raise Refused("no node can mount yet: look at `kubectl get pods` of the DaemonSet ossfuse-csi-node")
    return f"{len(able)} of {len(nodes)} nodes can mount"


def _pod() -> dict[str, Any]:
    """Never made: only asked for."""
    volume = {
        "driver": DRIVER,
        "volumeAttributes": {"uri": "oss://example.oss-cn-hangzhou.aliyuncs.com/", "authType": "public"},
    }
    container = {
        "name": "test",
        "image": "example",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "ossfuse-csi-test-"},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "data", "csi": volume}],
        },
    }


def _in_cluster() -> Call:
    """As the service account of this pod."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    trust = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))

    def call(method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        token = (_ACCOUNT / "token").read_text(encoding="ascii").strip()
        request = urllib.request.Request(  # noqa: S310 - the API server's address, always https
            server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT, context=trust) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            try:
                text = json.loads(text)["message"]
            except (ValueError, KeyError, TypeError):
                text = text or error.reason
            raise Refused(f"{method} {path}: {text}") from None
        except OSError as error:
            raise Refused(f"{method} {path}: no answer: {error}") from None

    return call


def main() -> int:
    call, namespace = _in_cluster(), os.environ["TEST_NAMESPACE"]
    well, wrong = settled(lambda: check(call, namespace), time.sleep)
    for line in well:
        sys.stdout.write(f"ok: {line}\n")
    for line in wrong:
        sys.stdout.write(f"FAILED: {line}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
