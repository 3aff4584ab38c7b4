"""deploy/examples/, applied as a newcomer would: only bucket, endpoint, keys, image and namespace are replaced."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.cluster.harness.api import Object
from tests.cluster.harness.client import Cluster, Namespace
from tests.cluster.harness.driver import Driver
from tests.cluster.harness.emulators import PROVIDER
from tests.cluster.harness.places import CHECKOUT, DRIVER_IMAGE
from tests.cluster.tenant import Tenant
from tests.support.emulator import RunningEmulator

EXAMPLES = CHECKOUT / "deploy" / "examples"
CLUSTER_WIDE = ("PersistentVolume", "StorageClass")

# What is in the bucket before (key → content), what the pod says, which keys its pod has made (a regular expression).
RUNS: Mapping[str, tuple[Mapping[str, str], str, str]] = {
    "pv-fast.yaml": ({"imagenet/a.bin": "abc"}, "900150983cd24fb0d6963f7d28e17f72  /data/a.bin", ""),
    "pv-incremental.yaml": ({}, "1000000", r"runs/epoch-[123]\.bin"),
    "pv-consistent.yaml": ({}, "42", r"code/main\.py"),
    "pv-readonly.yaml": ({"coco/below/a": "abc"}, "cannot touch '/data/new': Read-only file system", ""),
    "pv-cached.yaml": ({"coco/a.bin": "abc"}, "900150983cd24fb0d6963f7d28e17f72  -", ""),
    "pv-custom.yaml": ({}, "UTC", r"training/log\.log"),
    "storageclass.yaml": ({}, "started", r"runs/{namespace}/resnet-run-1/started"),
    "inline-ephemeral.yaml": ({"resnet/layers/1": "abc"}, "/model/layers:", ""),
    "rrsa.yaml": ({"imagenet/a.bin": "abc"}, "a.bin", ""),
    "training-job.yaml": ({"data/text": "abcdefgh" * 100}, "epoch 5: loss", r"checkpoints/epoch-000[1-5]\.bin"),
}


def adapted(text: str, place: Tenant) -> str:
    """As a newcomer edits it."""
    replacements: tuple[tuple[str, str], ...] = (
        (r"oss://[a-z-]+/", f"oss://{place.oss.bucket}/"),
        (r"(?m)^  bucket: .*$", f"  bucket: {place.oss.bucket}"),
        (r"https://oss-cn-hangzhou-internal\.aliyuncs\.com", place.oss.endpoint),
        (r"acs:ram::\d+:oidc-provider/[\w-]+", PROVIDER),
        (r"<your AccessKey ID>", place.oss.access_key_id),
        (r"<your AccessKey secret>", place.oss.access_key_secret),
        (r"python:3\.12-slim", DRIVER_IMAGE),
        (r"namespace: default", f"namespace: {place.namespace}"),
    )
    return functools.reduce(lambda done, pair: re.sub(pair[0], pair[1], done), replacements, text)


@pytest.fixture
def place(driver: Driver, namespace: Namespace, oss: RunningEmulator) -> Iterator[Tenant]:
    made = Tenant(namespace, oss)
    yield made
    made.leave()


@pytest.fixture
def applied(place: Tenant, cluster: Cluster) -> Iterator[Callable[[Path], list[Object]]]:
    """Applies an example and returns its objects; takes back what does not go with the namespace."""
    elsewhere: list[Object] = []

    def apply(path: Path) -> list[Object]:
        text = adapted(path.read_text(), place)
        found: list[Object] = list(yaml.safe_load_all(text))
        elsewhere.extend(one for one in found if one["metadata"].get("namespace") != place.namespace)
        cluster.apply(text)
        return found

    yield apply
    place.leave()  # pods and claims first
    for one in reversed(elsewhere):
        cluster.delete(one["kind"], one["metadata"]["name"], namespace=one["metadata"].get("namespace", ""))
    for volume in cluster.list("persistentvolumes"):
        if volume["spec"].get("claimRef", {}).get("namespace") == place.namespace:
            cluster.delete("persistentvolume", volume["metadata"]["name"])


def finished(place: Tenant, name: str) -> Object:
    """The pod, or the pod of the Job, called `name`, once it has ended."""
    look = ("pods", f"job-name={name}")
    pod = name if place.space.get("pod", name) else ""
    pod = pod or place.until(lambda: place.space.list(*look) or None, f"a pod of Job {name}")[0]["metadata"]["name"]
    return place.space.wait_pod(pod, "Succeeded", 120)


@pytest.mark.parametrize(("before", "words", "made"), RUNS.values(), ids=RUNS)
def test_an_example_does_what_it_says(
    request: pytest.FixtureRequest,
    place: Tenant,
    applied: Callable[[Path], list[Object]],
    before: Mapping[str, str],
    words: str,
    made: str,
) -> None:
    for key, content in before.items():
        place.put(key, content)
    objects = applied(EXAMPLES / request.node.callspec.id)
    workload = next(one["metadata"]["name"] for one in objects if one["kind"] in ("Pod", "Job"))
    pod = finished(place, workload)
    said = place.logs(pod["metadata"]["name"], pod["spec"]["containers"][0]["name"])
    assert words in said
    new = place.keys() - before.keys()
    data = {key for key in new if not key.startswith(".")}
    assert bool(data) is bool(made)
    pattern = made.replace("{namespace}", place.namespace)
    assert [key for key in sorted(data) if not re.fullmatch(pattern, key) and not key.endswith("/")] == []


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.yaml")} == set(RUNS)
