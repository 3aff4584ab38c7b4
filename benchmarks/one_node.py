"""A real Kubernetes node with the driver and an OSS emulator, for benchmarks of pods; gone when they are done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cluster.harness.client import Cluster, cluster_of
from tests.cluster.harness.driver import install
from tests.cluster.harness.emulators import emulator_in
from tests.cluster.harness.images import cluster_images
from tests.cluster.harness.node import start_node
from tests.cluster.harness.places import NEWEST, Places
from tests.cluster.tenant import Tenant


@contextmanager
def tenant_of_a_cluster() -> Iterator[Tenant]:
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossfuse-bench-")))
        places = Places(f"bench-{os.getpid()}", NEWEST)
        node = start_node(places, cluster_images(places))
        stack.callback(node.end)
        cluster = cluster_of(node)
        oss = stack.enter_context(emulator_in(cluster, scratch / "oss"))
        install(cluster)
        tenant = Tenant(stack.enter_context(cluster.namespace()), oss)
        stack.callback(tenant.leave)
        yield tenant


def kubelet_version(cluster: Cluster) -> str:
    version: str = cluster.list("nodes")[0]["status"]["nodeInfo"]["kubeletVersion"]
    return version.removeprefix("v")
