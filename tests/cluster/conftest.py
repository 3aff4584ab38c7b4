"""Fixtures of the cluster lane: a real Kubernetes node, an OSS that its pods reach, the driver installed in it.

With KUBECONFIG_E2E=FILE the tests use the cluster of that file; those that need its node are reported as not run.
K8S_VERSION chooses the version of the cluster made here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.harness.client import Cluster, Namespace, cluster_of, foreign_cluster
from tests.cluster.harness.diagnosis import diagnosis
from tests.cluster.harness.driver import CACHES, NAMESPACE, Driver, install
from tests.cluster.harness.emulators import emulator_in, trust_accounts, with_fresh_bucket
from tests.cluster.harness.images import cluster_images
from tests.cluster.harness.node import Node, start_node
from tests.cluster.harness.places import NEWEST, Places
from tests.cluster.tenant import Tenant
from tests.support.emulator import RunningEmulator
from tests.support.secret_watch import search_log

_PATIENCE = 600
"""Seconds for a test that names no limit of its own: clusters share a machine that may be busy with other things."""

_LONGEST_FIRST = (
    "test_many_pods.py",
    "test_credentials.py",
    "test_volumes.py",
    "test_upgrade.py",
    "test_restarts.py",
    "test_chart_combinations.py",
    "test_chart.py",
    "test_cert_manager.py",
    "test_cluster_itself.py",
    "test_examples.py",
)
"""A long file that began last would keep a cluster busy while the others are through. The fourth is short, because the
first is one test only: who takes such a file takes another one with it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_PATIENCE))
    places = {here / name: place for place, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places) if item.path.parent == here else -1))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster of the whole run: a fresh one, gone afterwards, or the one of KUBECONFIG_E2E."""
    given = os.environ.get("KUBECONFIG_E2E")
    if given:
        with foreign_cluster(Path(given).resolve(strict=True), _installed("kubectl"), _installed("helm")) as foreign:
            yield foreign
        return
    places = Places(f"tests-{os.getpid()}", os.environ.get("K8S_VERSION") or NEWEST)
    node = start_node(places, cluster_images(places))
    try:
        yield cluster_of(node)
    finally:
        node.end()
        for log in sorted(places.logs.rglob("*.log")):
            search_log(log)
        if not request.session.testsfailed:
            shutil.rmtree(places.logs)


def _installed(program: str) -> str:
    ours = Places("").program(program)
    found = shutil.which(program) or (str(ours) if ours.exists() else "")
    assert found, f"{program} is not installed"
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the cluster says about a test that has failed, beside the failure."""
    report = yield
    arguments = getattr(item, "funcargs", {})
    cluster = arguments.get("cluster")
    if report.failed and report.when != "teardown" and isinstance(cluster, Cluster):
        namespaces = [found.name for found in arguments.values() if isinstance(found, Namespace)]
        if any(isinstance(found, Driver) for found in arguments.values()):
            namespaces.append(NAMESPACE)
        report.sections.append(("the cluster", diagnosis(cluster, tuple(namespaces))))
    return report


@pytest.fixture
def node(cluster: Cluster) -> Node:
    """The node itself, for tests that cannot do without; they are reported as not run where it cannot be reached."""
    return cluster.own_node()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace of the test's own that enforces Pod Security "restricted"."""
    with cluster.namespace() as made:
        yield made


@pytest.fixture(scope="session")
def oss_process(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEmulator]:
    with emulator_in(cluster, tmp_path_factory.mktemp("oss")) as running:
        yield running


@pytest.fixture
def oss(oss_process: RunningEmulator) -> Iterator[RunningEmulator]:
    """The emulator with a fresh bucket, no faults, counters at zero. Pods reach it at `oss.endpoint`."""
    yield with_fresh_bucket(oss_process)
    oss_process.clear_faults()


@pytest.fixture(scope="session")
def driver(cluster: Cluster, oss_process: RunningEmulator) -> Iterator[Driver]:
    """ossfuse-csi installed by its chart, ready; roles are taken on at the emulator, which trusts the cluster."""
    trust_accounts(oss_process, cluster)
    installed = install(cluster, f"rrsa.stsEndpoint={oss_process.sts_endpoint}", f"cache.allowedHostPaths={{{CACHES}}}")
    yield installed
    if cluster.node is None:  # ours ends as a whole
        installed.uninstall()


@pytest.fixture(scope="session")
def certificate_kinds(cluster: Cluster) -> Iterator[None]:
    """The kinds of cert-manager, which is not running."""
    definitions = Places("", cluster.node.places.version if cluster.node else NEWEST).definitions
    kinds = [yaml.load(path.read_bytes(), yaml.CSafeLoader) for path in sorted(definitions.glob("*.yaml"))]
    assert kinds, f"{definitions} is empty; tools/cluster-binaries.sh fills it"
    for kind in kinds:
        cluster.create(kind)
    yield
    if cluster.node is None:  # ours ends as a whole
        cluster.delete("customresourcedefinitions", *(kind["metadata"]["name"] for kind in kinds))


@pytest.fixture
def tenant(namespace: Namespace, oss: RunningEmulator, driver: Driver) -> Iterator[Tenant]:
    """A namespace with the Secret `oss` for a bucket of its own, in a cluster that has the driver."""
    made = Tenant(namespace, oss)
    made.give_secret()
    yield made
    made.leave()
