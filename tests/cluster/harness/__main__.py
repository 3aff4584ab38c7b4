"""`python -m tests.cluster.harness up|down|load TAR`: the cluster of `make cluster-up`, with driver and OSS in it.

CLUSTER=NAME is for one of that name instead, so that people who share a checkout do not end each other's.
`… images` makes the images that any cluster of the tests needs, for one that is not made here.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import time

from tests.cluster.harness.client import cluster_of
from tests.cluster.harness.driver import install
from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.harness.images import cluster_images
from tests.cluster.harness.node import Node, find_node, start_node, wait_listening
from tests.cluster.harness.places import CHECKOUT, DEVELOPER, DRIVER_IMAGE, NEWEST, Places

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

or `tools/cluster-shell.sh` for a shell with both set. Logs of the components: {logs}

OSS emulator, for pods and for this machine: http://{address}:{port}
    buckets {buckets}
    AccessKeyId {key}, AccessKeySecret {secret}
    Secret `oss` in namespace default holds them: kubectl get secret oss
Images of pods must be in the cluster: docker.io/library/busybox:test is, and python:3.12-slim, which stands for the
driver's own image here; another one comes by
    tools/cluster-shell.sh load IMAGE.tar        # as `docker save` writes it
"""


def up(places: Places) -> None:
    started = time.monotonic()
    node = start_node(places, cluster_images(places), stays=True)
    try:
        places = node.places
        (places.state / "bin").symlink_to(places.programs)
        cluster = cluster_of(node)
        _start_emulator(places, node)
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "oss", "namespace": "default"},
                "stringData": {"akId": KEY, "akSecret": SECRET},
            }
        )
        install(cluster)
        node.tag_image(DRIVER_IMAGE, _PYTHON)
    except BaseException:
        node.end()
        raise
    print(
        _HOW_TO.format(
            version=places.version,
            named="" if places.name == DEVELOPER else f" CLUSTER={places.name}",
            seconds=time.monotonic() - started,
            kubeconfig=places.kubeconfig,
            programs=places.programs,
            logs=places.logs,
            address=places.address,
            port=PORT,
            buckets=", ".join(_BUCKETS),
            key=KEY,
            secret=SECRET,
        )
    )


def down(places: Places) -> None:
    node = find_node(places)
    if node is None:
        print("no cluster is up")
        return
    node.end()
    print("the cluster is gone")


def load(places: Places, tar: str) -> None:
    node = find_node(places)
    if node is None:
        raise ClusterFailed("no cluster is up; `make cluster-up` starts one")
    node.load_image(CHECKOUT / tar)


def _start_emulator(places: Places, node: Node) -> None:
    data = places.state / "oss"
    data.mkdir()
    keys = data / "access-keys"
    keys.touch(mode=0o600)
    keys.write_text(f"{KEY}:{SECRET}\n")
    words = ["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "csi.emulator", "--data", str(data)]
    words += ["--host", "0.0.0.0", "--port", str(PORT), "--access-key-file", str(keys)]
    node.start_program("emulator", [*words, *(word for bucket in _BUCKETS for word in ("--bucket", bucket))])
    wait_listening(node, PORT)
    with node.network(), contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT)) as connection:
        connection.request("POST", "/_emulator/seed", body="\n".join(map(json.dumps, _OBJECTS)).encode())
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise ClusterFailed(f"the emulator refuses the sample objects: {answer.read().decode()}")


def main() -> None:
    places = Places(os.environ.get("CLUSTER") or DEVELOPER, os.environ.get("K8S_VERSION") or NEWEST)
    try:
        match sys.argv[1:]:
            case ["up"]:
                up(places)
            case ["down"]:
                down(places)
            case ["images"]:
                print(*cluster_images(places), sep="\n")
            case ["load", tar]:
                load(places, os.path.abspath(tar))
            case _:
                sys.exit(__doc__)
    except ClusterFailed as failed:
        sys.exit(f"cluster: {failed}")


if __name__ == "__main__":
    main()
