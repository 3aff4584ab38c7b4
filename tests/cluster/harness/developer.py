"""What the cluster of `make cluster-up` has beside the driver, and what its owner is told."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys

import yaml

from tests.cluster.harness.client import cluster_of
from tests.cluster.harness.driver import CHART
from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.harness.node import Node, start_listening
from tests.cluster.harness.places import (
    CHECKOUT,
    DEVELOPER,
    DRIVER_IMAGE,
    LIVENESS_IMAGE,
    REGISTRAR_IMAGE,
    Places,
)

EMULATOR = "emulator"
"""The name of its program on the node."""
PORT = 18080
KEY, SECRET = "LTAI5tDeveloperKey", "secret-of-the-developer-cluster"
_BUCKETS = ("training", "training-data", "training-checkpoints", "models", "team-workspace", "public-datasets")
"""Those of deploy/examples."""
_OBJECTS = (
    {"bucket": "training", "key": "data/{n:02}.txt", "count": 8, "content": "to be or not to be " * 500},
    {"bucket": "training-data", "key": "imagenet/{n:04}.bin", "count": 16, "size": 1 << 20},
)
_PYTHON = "docker.io/library/python:3.12-slim"
"""Of deploy/examples; the driver's own image, which holds a Python, goes by that name too."""
_HOW_TO = """\
Kubernetes {version} with ossfuse-csi is up ({seconds:.0f} s); `make cluster-down{named}` ends it.

    export KUBECONFIG={kubeconfig}
    export PATH={programs}:$PATH    # kubectl and helm
    kubectl get pods -A

or `{called}tools/cluster-shell.sh` for a shell with both set. Logs of the components: {logs}

OSS emulator, for pods and for this machine: http://{address}:{port}
    buckets {buckets}
    AccessKeyId {key}, AccessKeySecret {secret}
    Secret `oss` in namespace default holds them: kubectl get secret oss
Images of pods must be in the cluster: docker.io/library/busybox:test is, and python:3.12-slim, which stands for the
driver's own image here; another one comes by
    {called}tools/cluster-shell.sh load IMAGE.tar        # as `docker save` writes it
"""


def furnish(node: Node) -> None:
    """An OSS with sample objects, a Secret with its key, images by the names that people call them, and what
    tools/cluster-shell.sh looks for."""
    (node.places.state / "bin").symlink_to(node.places.programs)
    _start_emulator(node)
    metadata = {"name": "oss", "namespace": "default"}
    keys = {"akId": KEY, "akSecret": SECRET}
    cluster_of(node).apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys})
    _name_images(node)


def how_to(places: Places, seconds: float) -> str:
    ours = places.name == DEVELOPER
    return _HOW_TO.format(
        version=places.version,
        named="" if ours else f" CLUSTER={places.name}",
        called="" if ours else f"CLUSTER={places.name} ",
        seconds=seconds,
        kubeconfig=places.kubeconfig,
        programs=places.programs,
        logs=places.logs,
        address=places.address,
        port=PORT,
        buckets=", ".join(_BUCKETS),
        key=KEY,
        secret=SECRET,
    )


def _start_emulator(node: Node) -> None:
    data = node.places.state / "oss"
    data.mkdir()
    keys = data / "access-keys"
    keys.touch(mode=0o600)
    keys.write_text(f"{KEY}:{SECRET}\n")
    words = ["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "csi.emulator", "--data", str(data)]
    words += ["--host", "0.0.0.0", "--port", str(PORT), "--access-key-file", str(keys)]
    words += [word for bucket in _BUCKETS for word in ("--bucket", bucket)]
    start_listening(node, EMULATOR, words, PORT)
    with node.network(), contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT)) as connection:
        connection.request("POST", "/_emulator/seed", body="\n".join(map(json.dumps, _OBJECTS)).encode())
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise ClusterFailed(f"the emulator refuses the sample objects: {answer.read().decode()}")


def _name_images(node: Node) -> None:
    """As the examples and the chart's default values call them, so that `helm install` needs no value here."""
    node.tag_image(DRIVER_IMAGE, _PYTHON)
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for part, stand_in in (("registrar", REGISTRAR_IMAGE), ("livenessProbe", LIVENESS_IMAGE)):
        node.tag_image(stand_in, "{repository}:{tag}".format(**values[part]["image"]))
