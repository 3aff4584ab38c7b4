"""`python -m tests.cluster.harness up|down|load TAR`: the cluster of `make cluster-up`, with driver and OSS in it.

CLUSTER=NAME is for one of that name instead, so that people who share a checkout do not end each other's.
`… images` makes the images that any cluster of the tests needs, for one that is not made here.
"""

from __future__ import annotations

import os
import sys
import time

from tests.cluster.harness.client import cluster_of
from tests.cluster.harness.developer import furnish, how_to
from tests.cluster.harness.driver import install
from tests.cluster.harness.failures import ClusterFailed
from tests.cluster.harness.images import cluster_images
from tests.cluster.harness.node import find_node, start_node
from tests.cluster.harness.places import CHECKOUT, DEVELOPER, NEWEST, Places


def up(places: Places) -> None:
    started = time.monotonic()
    node = start_node(places, cluster_images(places), stays=True)
    try:
        install(cluster_of(node))
        furnish(node)
    except BaseException:
        node.end()
        raise
    print(how_to(node.places, time.monotonic() - started))


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
