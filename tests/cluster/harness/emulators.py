"""The OSS emulator where pods of a cluster reach it: a process in the node's network, or a pod of a foreign cluster."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.cluster.harness.api import Object
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.places import DRIVER_IMAGE
from tests.support.emulator import RunningEmulator, start_emulator
from tests.support.secret_watch import watch_secret

PROVIDER = "acs:ram::1000000000000000:oidc-provider/cluster"
_BUCKET = "test-bucket"
_KEY = "LTAI5tTestEmulatorKey"
_PORT = 18080
_POD = "ossfuse-emulator"


@dataclass(frozen=True)
class NodeEmulator(RunningEmulator):
    """`endpoint` is what pods and the node use; admin calls are made in the node's network, as they must be local."""

    cluster: Cluster | None = None

    def admin(self, method: str, path: str, body: object = None) -> Any:
        assert self.cluster is not None
        with self.cluster.network():
            return super().admin(method, path, body)


@contextmanager
def emulator_in(cluster: Cluster, data: Path) -> Iterator[RunningEmulator]:
    """An emulator for the pods of `cluster` until the block ends."""
    if cluster.node is None:
        with _pod(cluster, data) as running:
            yield running
        return
    with cluster.network():  # for this thread, whose child keeps that network; the block itself must be outside of it
        starting = start_emulator(data, bucket=_BUCKET, arguments=("--host", "0.0.0.0"))
        running = starting.__enter__()
    try:
        yield NodeEmulator(
            f"http://{cluster.node.places.address}:{running.port}",
            running.access_key_id,
            running.access_key_secret,
            running.bucket,
            running.data,
            running.process,
            cluster=cluster,
        )
    finally:
        starting.__exit__(None, None, None)


@contextmanager
def _pod(cluster: Cluster, data: Path) -> Iterator[RunningEmulator]:
    """The driver's own image holds an emulator; admin calls come through a port-forward, which is local to the pod."""
    secret = watch_secret("s" + secrets.token_hex(14) + "Q")
    with cluster.namespace() as place:
        place.apply([_key_file(secret), _manifest()])
        pod = place.wait_pod(_POD, "Ready")
        forward = cluster.background("port-forward", f"--namespace={place.name}", f"pod/{_POD}", f":{_PORT}")
        try:
            assert forward.stdout is not None
            line = forward.stdout.readline()  # Forwarding from 127.0.0.1:40123 -> 18080
            local = f"http://{line.split(' ')[2]}"
            running = RunningEmulator(local, _KEY, secret, _BUCKET, data, forward)
            yield _Forwarded(
                f"http://{pod['status']['podIP']}:{_PORT}", _KEY, secret, _BUCKET, data, forward, local=running
            )
        finally:
            forward.terminate()
            forward.wait(10)
            if forward.stdout is not None:
                forward.stdout.close()


@dataclass(frozen=True)
class _Forwarded(RunningEmulator):
    local: RunningEmulator | None = None

    def admin(self, method: str, path: str, body: object = None) -> Any:
        assert self.local is not None
        return self.local.admin(method, path, body)


def trust_accounts(oss: RunningEmulator, cluster: Cluster) -> None:
    """From now on the emulator's STS takes the tokens of the cluster's service accounts, as provider PROVIDER."""
    keys = json.loads(cluster.kubectl("get", "--raw", "/openid/v1/jwks"))
    issuer = json.loads(cluster.kubectl("get", "--raw", "/.well-known/openid-configuration"))["issuer"]
    trusted = {"arn": PROVIDER, "issuer": issuer, "client_ids": ["sts.aliyuncs.com"], "keys": keys}
    oss.admin("PUT", "/oidc-providers", trusted)


def _key_file(secret: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _POD},
        "stringData": {"access-keys": f"{_KEY}:{secret}\n"},
    }


def _manifest() -> Object:
    arguments = ["emulator", "--data=/data", "--host=0.0.0.0", f"--port={_PORT}", f"--bucket={_BUCKET}"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _POD},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65534,
                "fsGroup": 65534,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "emulator",
                    "image": DRIVER_IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "args": [*arguments, "--access-key-file=/keys/access-keys"],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "readinessProbe": {"tcpSocket": {"port": _PORT}, "periodSeconds": 1},
                    "volumeMounts": [
                        {"name": "data", "mountPath": "/data"},
                        {"name": "keys", "mountPath": "/keys", "readOnly": True},
                    ],
                }
            ],
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "keys", "secret": {"secretName": _POD}}],
        },
    }


@contextmanager
def reached(oss: RunningEmulator) -> Iterator[str]:
    """The endpoint at which this thread reaches an emulator of a cluster in the block, as clients outside pods do."""
    if isinstance(oss, NodeEmulator) and oss.cluster is not None:
        with oss.cluster.network():
            yield oss.endpoint
    elif isinstance(oss, _Forwarded) and oss.local is not None:
        yield oss.local.endpoint
    else:
        yield oss.endpoint


def with_fresh_bucket(running: RunningEmulator) -> RunningEmulator:
    """For one test: a bucket of its own, no faults, counters at zero."""
    running.clear_faults()
    running.reset_counters()
    return replace(running, bucket=running.create_bucket())
