from __future__ import annotations

from typing import Any

import pytest

from csi.cluster.api import JsonObject
from csi.cluster.webhook.binding import likely_volume, reserved_volume
from csi.cluster.webhook.volumes import OurVolume, UnknownVolume, VolumeResolver
from csi.errors import ApiUnreachable
from csi.volume.units import Seconds
from tests.support.memory_cluster import MemoryCluster

ATTRIBUTES = {"uri": "oss://data.oss-cn-hangzhou-internal.aliyuncs.com/"}


def pod(*volumes: JsonObject) -> JsonObject:
    mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes]
    return {"metadata": {}, "spec": {"containers": [{"name": "c", "volumeMounts": mounts}], "volumes": list(volumes)}}


def claimed(name: str = "data", claim: str = "data") -> JsonObject:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def claim(name: str = "data", **spec: Any) -> JsonObject:
    return {
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": "train", "name": name},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "5Gi"}}, **spec},
    }


def volume(
    name: str = "pv", driver: str = "ossfuse.csi.dev", labels: JsonObject | None = None, **spec: Any
) -> JsonObject:
    return {
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "accessModes": ["ReadWriteMany", "ReadOnlyMany"],
            "capacity": {"storage": "5Gi"},
            "csi": {"driver": driver, "volumeAttributes": ATTRIBUTES},
            **spec,
        },
    }


def storage_class(name: str = "oss", provisioner: str = "ossfuse.csi.dev", **more: Any) -> JsonObject:
    return {"kind": "StorageClass", "metadata": {"name": name}, "provisioner": provisioner, **more}


class Time:
    """A clock that only sleeping and asking move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.on_sleep: list[Any] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.on_sleep:
            self.on_sleep.pop(0)()


def resolve(cluster: MemoryCluster, *volumes: JsonObject, time: Time | None = None) -> list[OurVolume | UnknownVolume]:
    time = time or Time()
    return VolumeResolver(cluster, clock=time.clock, sleep=time.sleep).resolve(pod(*volumes), "train", Seconds(8.0))


# --- from a claim to its volume ---


def test_a_bound_claim_leads_to_its_volume_in_two_requests() -> None:
    cluster = MemoryCluster([claim(volumeName="pv"), volume(mountOptions=["-oro"])])
    assert resolve(cluster, claimed()) == [
        OurVolume("data", "claim/data", "PersistentVolume pv", ATTRIBUTES, ("-oro",))
    ]
    assert cluster.requests == [
        "/api/v1/namespaces/train/persistentvolumeclaims/data",
        "/api/v1/persistentvolumes/pv",
    ]


def test_a_claim_that_two_volumes_name_is_asked_for_once() -> None:
    cluster = MemoryCluster([claim(volumeName="pv"), volume()])
    found = resolve(cluster, claimed(), claimed("again"))
    assert [item.identity for item in found if isinstance(item, OurVolume)] == ["claim/data", "claim/data"]
    assert len(cluster.requests) == 2


def test_volumes_of_other_kinds_are_not_asked_for() -> None:
    cluster = MemoryCluster()
    others = [{"name": "a", "emptyDir": {}}, {"name": "b", "csi": {"driver": "other"}}, {"name": "c", "secret": {}}]
    assert resolve(cluster, *others) == []
    assert cluster.requests == []


def test_an_inline_volume_needs_no_request() -> None:
    cluster = MemoryCluster()
    inline = {"name": "data", "csi": {"driver": "ossfuse.csi.dev", "volumeAttributes": ATTRIBUTES}}
    assert resolve(cluster, inline) == [OurVolume("data", "volume/data", "the pod's own volume", ATTRIBUTES)]
    assert cluster.requests == []


def test_a_claim_that_names_a_volume_which_is_not_there_is_unknown() -> None:
    (found,) = resolve(MemoryCluster([claim(volumeName="pv")]), claimed())
    assert found == UnknownVolume(
        "data", "PersistentVolumeClaim train/data names PersistentVolume pv, which did not exist then"
    )


def test_a_class_gives_its_parameters_without_those_of_the_provisioner_alone() -> None:
    parameters = {**ATTRIBUTES, "pathPattern": "x", "onDelete": "retain", "fs.jindo.fuse.pod.mem.limit": "2Gi"}
    cluster = MemoryCluster(
        [claim(storageClassName="oss"), storage_class(parameters=parameters, mountOptions=["-oro"])]
    )
    expected = {**ATTRIBUTES, "fs.jindo.fuse.pod.mem.limit": "2Gi"}
    assert resolve(cluster, claimed()) == [OurVolume("data", "claim/data", "StorageClass oss", expected, ("-oro",))]


def test_the_newest_of_several_default_classes_counts() -> None:
    def default(name: str, created: str, provisioner: str) -> JsonObject:
        item = storage_class(name, provisioner)
        item["metadata"] |= {
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            "creationTimestamp": created,
        }
        return item

    cluster = MemoryCluster(
        [
            claim(),
            default("new", "2026-02-01T00:00:00Z", "ossfuse.csi.dev"),
            default("old", "2026-01-01T00:00:00Z", "disk.example"),
            storage_class("none", "disk.example"),
        ]
    )
    (found,) = resolve(cluster, claimed())
    assert isinstance(found, OurVolume)
    assert found.source == "StorageClass new"


# --- a claim and a volume made in the same breath as the pod ---


def test_the_binder_is_given_a_moment_where_only_it_can_say_which_volume_it_will_be() -> None:
    cluster = MemoryCluster([claim(storageClassName=""), volume("pv-a"), volume("pv-b")])
    time = Time()
    time.on_sleep = [lambda: None, lambda: cluster.add(claim(storageClassName="", volumeName="pv-b"))]
    (found,) = resolve(cluster, claimed(), time=time)
    assert isinstance(found, OurVolume)
    assert found.source == "PersistentVolume pv-b"


def test_a_binder_that_takes_longer_is_not_waited_for() -> None:
    cluster = MemoryCluster([claim(storageClassName=""), volume("pv-a")])
    time = Time()
    (found,) = resolve(cluster, claimed(), time=time)
    assert isinstance(found, OurVolume)
    assert found.source == "PersistentVolume pv-a"
    assert 2.5 < time.now < 4.0


def test_a_class_that_binds_when_a_pod_is_scheduled_is_not_waited_for() -> None:
    static = storage_class("static", "kubernetes.io/no-provisioner", volumeBindingMode="WaitForFirstConsumer")
    cluster = MemoryCluster([claim(storageClassName="static"), volume(storageClassName="static"), static])
    time = Time()
    (found,) = resolve(cluster, claimed(), time=time)
    assert isinstance(found, OurVolume)
    assert time.now == 0.0


def test_a_claim_that_another_drivers_volume_fits_is_no_concern_of_ours() -> None:
    cluster = MemoryCluster([claim(storageClassName=""), volume(driver="nfs.example")])
    assert resolve(cluster, claimed()) == []


def test_slow_answers_end_with_the_deadline() -> None:
    time = Time()
    cluster = MemoryCluster([claim(volumeName="pv"), volume()])
    read = cluster.get

    def slow(path: str, *, timeout: Seconds | None = None) -> JsonObject | None:
        assert timeout is not None
        assert timeout <= 5.0
        time.now += timeout
        return read(path)

    cluster.get = slow  # type: ignore[method-assign]
    with pytest.raises(ApiUnreachable, match="in time"):
        resolve(cluster, claimed(), claimed("b", "other"), time=time)


# --- the binder's choice ---


def test_a_volume_that_names_the_claim_is_its() -> None:
    named = volume("b", claimRef={"namespace": "train", "name": "data"})
    assert reserved_volume("train", "data", [volume("a"), named]) is named
    assert reserved_volume("other", "data", [volume("a"), named]) is None


@pytest.mark.parametrize(
    "unfit",
    [
        volume(accessModes=["ReadWriteOnce"]),
        volume(capacity={"storage": "1Gi"}),
        volume(capacity={"storage": "nonsense"}),
        volume(storageClassName="other"),
        volume(volumeMode="Block"),
        volume(claimRef={"namespace": "train", "name": "another"}),
        {**volume(), "status": {"phase": "Released"}},
        {**volume(), "metadata": {"name": "pv", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
    ],
)
def test_a_volume_that_the_binder_would_not_take_is_not_likely(unfit: JsonObject) -> None:
    assert likely_volume(claim(), "", [unfit]) is None
    assert likely_volume(claim(), "", [unfit, volume("fits")])["metadata"]["name"] == "fits"  # type: ignore[index]


@pytest.mark.parametrize(
    ("expression", "labels", "fits"),
    [
        ({"key": "set", "operator": "In", "values": ["a", "b"]}, {"set": "b"}, True),
        ({"key": "set", "operator": "In", "values": ["a"]}, {"set": "b"}, False),
        ({"key": "set", "operator": "NotIn", "values": ["a"]}, {}, True),
        ({"key": "set", "operator": "NotIn", "values": ["a"]}, {"set": "a"}, False),
        ({"key": "set", "operator": "Exists"}, {"set": ""}, True),
        ({"key": "set", "operator": "Exists"}, {}, False),
        ({"key": "set", "operator": "DoesNotExist"}, {}, True),
        ({"key": "set", "operator": "DoesNotExist"}, {"set": "a"}, False),
    ],
)
def test_a_selector_is_read_as_kubernetes_reads_it(expression: JsonObject, labels: JsonObject, fits: bool) -> None:
    wanted = claim(selector={"matchExpressions": [expression]})
    assert (likely_volume(wanted, "", [volume(labels=labels)]) is not None) is fits
