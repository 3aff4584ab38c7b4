"""Where a pod's sidecar is, asked of an API server over HTTP; and why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csi.cluster.pods import PodSidecars
from csi.errors import ApiUnreachable, SidecarNotInjected
from csi.handover.types import SidecarPlace
from csi.volume.naming import sidecar_name
from csi.volume.units import MIB, Bytes, Seconds
from tests.support.cluster_pods import POD, POD_PATH, claimed, pod_object, put_claim
from tests.support.stand_in_cluster import StandInCluster, api_of, stand_in_cluster

KUBELET = Path("/var/lib/kubelet")


def target(name: str) -> Path:
    return KUBELET / "pods" / POD.uid / "volumes" / "kubernetes.io~csi" / name / "mount"


@pytest.fixture
def cluster() -> Iterator[StandInCluster]:
    with stand_in_cluster() as running:
        yield running


@pytest.fixture
def sidecars(cluster: StandInCluster, tmp_path: Path) -> PodSidecars:
    return PodSidecars(api_of(cluster, tmp_path, timeout=1.0), KUBELET, excluded=["kube-system"])


def test_the_sidecar_of_a_claim_is_found_by_the_volume_it_is_bound_to(
    cluster: StandInCluster, sidecars: PodSidecars
) -> None:
    volumes = [claimed("data", "corpus"), claimed("out", "checkpoints")]
    cluster.put(POD_PATH, pod_object(volumes, injected=("data", "out")))
    put_claim(cluster, "corpus", "pv-corpus")
    put_claim(cluster, "checkpoints", "pv-checkpoints")

    place = sidecars.locate(POD, "checkpoints-handle", target("pv-checkpoints"))

    assert place == SidecarPlace(
        container="ossfuse-out",
        directory=KUBELET / "pods/uid-1/volumes/kubernetes.io~empty-dir/ossfuse-out",
        memory_limit=Bytes(512 * MIB),
        grace=Seconds(45.0),
    )


def test_an_inline_volume_is_named_by_its_target_and_costs_one_call(
    cluster: StandInCluster, sidecars: PodSidecars
) -> None:
    cluster.put(POD_PATH, pod_object([{"name": "data", "csi": {}}], injected=("data",)))

    place = sidecars.locate(replace(POD, ephemeral=True), "csi-0123", target("data"))

    assert place.container == "ossfuse-data"
    assert cluster.requests == [f"GET {POD_PATH}"]


def test_the_claim_of_a_generic_ephemeral_volume_is_named_after_pod_and_volume(
    cluster: StandInCluster, sidecars: PodSidecars
) -> None:
    cluster.put(POD_PATH, pod_object([{"name": "scratch", "ephemeral": {}}], injected=("scratch",)))
    put_claim(cluster, "train-0-scratch", "pvc-1")

    assert sidecars.locate(POD, "v", target("pvc-1")).container == "ossfuse-scratch"


def test_of_two_volumes_with_one_claim_the_injected_one_serves(cluster: StandInCluster, sidecars: PodSidecars) -> None:
    cluster.put(POD_PATH, pod_object([claimed("a", "corpus"), claimed("b", "corpus")], injected=("b",)))
    put_claim(cluster, "corpus", "pv-corpus")

    assert sidecars.locate(POD, "v", target("pv-corpus")).container == "ossfuse-b"


def test_a_long_volume_name_is_found_under_its_short_one(cluster: StandInCluster, sidecars: PodSidecars) -> None:
    name = "v" * 63
    cluster.put(POD_PATH, pod_object([claimed(name, "corpus")], injected=(name,)))
    put_claim(cluster, "corpus", "pv-corpus")

    assert sidecars.locate(POD, "v", target("pv-corpus")).directory.name == sidecar_name(name)


def test_asking_again_costs_no_call(cluster: StandInCluster, sidecars: PodSidecars) -> None:
    cluster.put(POD_PATH, pod_object([claimed("data", "corpus")], injected=("data",)))
    put_claim(cluster, "corpus", "pv-corpus")
    first = sidecars.locate(POD, "v", target("pv-corpus"))
    calls = len(cluster.requests)

    assert sidecars.locate(POD, "v", target("pv-corpus")) == first
    assert len(cluster.requests) == calls


def test_a_pod_that_was_not_injected_is_looked_at_again_each_time(
    cluster: StandInCluster, sidecars: PodSidecars
) -> None:
    cluster.put(POD_PATH, pod_object([{"name": "data", "csi": {}}], injected=()))
    inline = replace(POD, ephemeral=True)
    with pytest.raises(SidecarNotInjected):
        sidecars.locate(inline, "v", target("data"))
    cluster.put(POD_PATH, pod_object([{"name": "data", "csi": {}}], injected=("data",)))

    assert sidecars.locate(inline, "v", target("data")).container == "ossfuse-data"


def refusal(sidecars: PodSidecars, name: str = "data") -> SidecarNotInjected:
    with pytest.raises(SidecarNotInjected) as refused:
        sidecars.locate(replace(POD, ephemeral=True), "v", target(name))
    return refused.value


@pytest.mark.parametrize("there", [False, True], ids=["deleted", "made again under its name"])
def test_a_pod_that_is_gone_is_said_to_be_gone(cluster: StandInCluster, sidecars: PodSidecars, there: bool) -> None:
    if there:
        cluster.put(POD_PATH, pod_object([], injected=(), uid="uid-2"))

    error = refusal(sidecars)

    assert "pod team/train-0 with UID uid-1 is gone" in error.message
    assert ("another of its name" in error.message) == there


@pytest.mark.parametrize(
    ("metadata", "cause", "next_step"),
    [
        (
            {"annotations": {"ossfuse.csi.dev/inject": "false"}},
            'its annotation ossfuse.csi.dev/inject: "false" keeps it away',
            "remove the annotation",
        ),
        (
            {"annotations": {"ossfuse.csi.dev/not-injected": "claim corpus does not exist"}},
            "the webhook did not add one: claim corpus does not exist",
            "mend that, then delete the pod",
        ),
        ({}, "the webhook did not see this pod", "ossfuse-csi-controller"),
        ({"annotations": {"kubernetes.io/config.mirror": "x"}}, "static pods", "DaemonSet"),
        (
            {"ownerReferences": [{"kind": "ReplicaSet", "name": "train-6f", "controller": True}]},
            "the webhook did not see",
            "delete the pod so that its ReplicaSet train-6f recreates it",
        ),
        ({}, "the webhook did not see", "delete the pod and create it again: no controller will"),
    ],
)
def test_every_cause_of_a_missing_sidecar_has_words_of_its_own(
    cluster: StandInCluster, sidecars: PodSidecars, metadata: dict[str, Any], cause: str, next_step: str
) -> None:
    cluster.put(POD_PATH, pod_object([{"name": "data", "csi": {}}], injected=(), **metadata))

    error = refusal(sidecars)

    assert "pod team/train-0 has no sidecar for volume 'data'" in error.message
    assert cause in error.message
    assert next_step in error.hint


def test_a_namespace_that_is_never_injected_is_named(cluster: StandInCluster, sidecars: PodSidecars) -> None:
    pod = replace(POD, namespace="kube-system", ephemeral=True)
    cluster.put("/api/v1/namespaces/kube-system/pods/train-0", pod_object([{"name": "data", "csi": {}}], injected=()))

    with pytest.raises(SidecarNotInjected, match="namespace kube-system is excluded from injection"):
        sidecars.locate(pod, "v", target("data"))


def test_a_target_that_no_claim_of_the_pod_is_bound_to_lists_the_claims(
    cluster: StandInCluster, sidecars: PodSidecars
) -> None:
    cluster.put(POD_PATH, pod_object([claimed("data", "corpus"), claimed("new", "fresh")], injected=("data",)))
    put_claim(cluster, "corpus", "pv-other")
    put_claim(cluster, "fresh", "")

    with pytest.raises(SidecarNotInjected, match=r"PersistentVolume pv-1: .*corpus \(pv-other\), fresh \(unbound\)"):
        sidecars.locate(POD, "v", target("pv-1"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"restartPolicy": None}, "no restartPolicy: Always"),
        ({"volumeMounts": []}, "does not mount volume ossfuse-data at /run/ossfuse"),
        ({"volumeMounts": [{"name": "ossfuse-data", "mountPath": "/elsewhere"}]}, "at /run/ossfuse"),
        ({"resources": {}}, "no memory limit"),
        ({"resources": {"limits": {"memory": "much"}}}, "no memory limit"),
    ],
)
def test_a_sidecar_that_something_changed_is_refused_with_what_is_wrong(
    cluster: StandInCluster, sidecars: PodSidecars, change: dict[str, Any], words: str
) -> None:
    pod = pod_object([{"name": "data", "csi": {}}], injected=("data",))
    pod["spec"]["initContainers"][0].update(change)
    cluster.put(POD_PATH, pod)

    error = refusal(sidecars)

    assert words in error.message
    assert "admission webhook or policy" in error.hint


def test_a_sidecar_without_its_tmpfs_is_refused(cluster: StandInCluster, sidecars: PodSidecars) -> None:
    pod = pod_object([{"name": "data", "csi": {}}], injected=("data",))
    del pod["spec"]["volumes"][-1]
    cluster.put(POD_PATH, pod)

    assert "lacks its emptyDir volume ossfuse-data" in refusal(sidecars).message


def test_an_api_server_that_does_not_answer_is_not_taken_for_a_missing_sidecar(
    cluster: StandInCluster, sidecars: PodSidecars
) -> None:
    cluster.silent.set()

    with pytest.raises(ApiUnreachable):
        sidecars.locate(POD, "v", target("pv-1"))
