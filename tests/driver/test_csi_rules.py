"""The rules of CSI that drivers get wrong, each with a test that names it by number.

What needs no real mount is shown here with mounts that only record; rules about dead and hung mounts, about enforcing
read-only in the kernel and about cheap republishing are shown on the real stack in test_csi_rules_on_mounts.py.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from csi.driver.calls.redaction import SERVICE_ACCOUNT_TOKENS
from csi.driver.identity import Readiness
from csi.driver.node import NodeService
from csi.driver.provisioning.volume_id import LONGEST_ID
from csi.driver.server import Server
from csi.errors import InvalidOption, PermissionDenied, SidecarFailed
from csi.handover.types import VolumeCondition
from csi.v1 import csi_pb2, csi_pb2_grpc
from csi.volume.naming import DRIVER_NAME
from csi.volume.units import Seconds
from tests.support.csi_services import (
    ATTRIBUTES,
    SECRETS,
    capability,
    create_request,
    credential_supply,
    csi_services,
    publish_request,
    refused,
    unpublish_request,
)
from tests.support.memory_store import MemoryStore
from tests.support.raw_grpc import call_with_authority
from tests.support.recording_mounts import Gate, RecordingMounts

INVALID = grpc.StatusCode.INVALID_ARGUMENT
CAPABILITY = capability()
ControllerRpc = csi_pb2.ControllerServiceCapability.RPC
NodeRpc = csi_pb2.NodeServiceCapability.RPC


def stats_request(path: object, volume_id: str = "pv-1") -> csi_pb2.NodeGetVolumeStatsRequest:
    return csi_pb2.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=str(path))


def validate_request(
    volume_id: str, *capabilities: object, **rest: object
) -> csi_pb2.ValidateVolumeCapabilitiesRequest:
    return csi_pb2.ValidateVolumeCapabilitiesRequest(
        volume_id=volume_id, volume_capabilities=capabilities, secrets=SECRETS, **rest
    )


def delete_request(volume_id: str) -> csi_pb2.DeleteVolumeRequest:
    return csi_pb2.DeleteVolumeRequest(volume_id=volume_id, secrets=SECRETS)


# --- 1: what is required ---


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("NodePublishVolume", csi_pb2.NodePublishVolumeRequest(secrets=SECRETS), "volume_id"),
        ("NodePublishVolume", csi_pb2.NodePublishVolumeRequest(volume_id="v"), "target_path"),
        ("NodePublishVolume", csi_pb2.NodePublishVolumeRequest(volume_id="v", target_path="/t"), "volume_capability"),
        ("NodeUnpublishVolume", csi_pb2.NodeUnpublishVolumeRequest(target_path="/t"), "volume_id"),
        ("NodeUnpublishVolume", csi_pb2.NodeUnpublishVolumeRequest(volume_id="v"), "target_path"),
        ("NodeGetVolumeStats", csi_pb2.NodeGetVolumeStatsRequest(volume_path="/t"), "volume_id"),
        ("NodeGetVolumeStats", csi_pb2.NodeGetVolumeStatsRequest(volume_id="v"), "volume_path"),
    ],
)
def test_rule_01_a_node_call_without_a_required_field_names_it(services, mounts, method, request_, field):
    with refused(INVALID, field):
        getattr(services.node, method)(request_)

    assert mounts.requests == []


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("CreateVolume", csi_pb2.CreateVolumeRequest(volume_capabilities=[CAPABILITY]), "name"),
        ("CreateVolume", csi_pb2.CreateVolumeRequest(name="n", parameters=ATTRIBUTES), "volume_capabilities"),
        ("DeleteVolume", csi_pb2.DeleteVolumeRequest(), "volume_id"),
        ("ValidateVolumeCapabilities", csi_pb2.ValidateVolumeCapabilitiesRequest(), "volume_id"),
        ("ValidateVolumeCapabilities", csi_pb2.ValidateVolumeCapabilitiesRequest(volume_id="v"), "volume_capabilities"),
    ],
)
def test_rule_01_a_controller_call_without_a_required_field_names_it(services, method, request_, field):
    with refused(INVALID, field):
        getattr(services.controller, method)(request_)


# --- 2, 3, 4: the same again, elsewhere, at the same time ---


def test_rule_02_publishing_twice_with_the_same_arguments_is_ok(services, mounts, tmp_path):
    services.node.NodePublishVolume(publish_request(tmp_path / "t"))
    services.node.NodePublishVolume(publish_request(tmp_path / "t"))

    assert len(mounts.published()) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"readonly": True},
        {"volume_id": "pv-2"},
        {"attributes": {**ATTRIBUTES, "path": "/other/"}},
        {"volume_mount_group": "2000"},
        {"mode": "MULTI_NODE_READER_ONLY"},
    ],
    ids=["readonly", "volume", "attributes", "group", "access mode"],
)
def test_rule_02_publishing_something_else_at_a_target_is_already_exists(services, tmp_path, other):
    services.node.NodePublishVolume(publish_request(tmp_path / "t"))

    with refused(grpc.StatusCode.ALREADY_EXISTS, str(tmp_path / "t")):
        services.node.NodePublishVolume(publish_request(tmp_path / "t", **other))


@pytest.mark.parametrize("mode", ["SINGLE_NODE_SINGLE_WRITER", "SINGLE_NODE_WRITER", "SINGLE_NODE_READER_ONLY"])
def test_rule_03_a_second_target_is_refused_where_the_access_mode_allows_one(services, mounts, tmp_path, mode):
    services.node.NodePublishVolume(publish_request(tmp_path / "one", mode=mode))

    with refused(grpc.StatusCode.FAILED_PRECONDITION, str(tmp_path / "one"), mode):
        services.node.NodePublishVolume(publish_request(tmp_path / "two", mode=mode))

    assert [found.target for found in mounts.published()] == [tmp_path / "one"]


@pytest.mark.parametrize(
    "mode",
    ["SINGLE_NODE_MULTI_WRITER", "MULTI_NODE_MULTI_WRITER", "MULTI_NODE_READER_ONLY", "MULTI_NODE_SINGLE_WRITER"],
)
def test_rule_03_a_second_target_is_fine_where_the_access_mode_allows_many(services, mounts, tmp_path, mode):
    services.node.NodePublishVolume(publish_request(tmp_path / "one", mode=mode))
    services.node.NodePublishVolume(publish_request(tmp_path / "two", mode=mode))

    assert len(mounts.published()) == 2


def test_rule_03_single_node_writer_is_accepted_because_single_node_multi_writer_is_advertised(services, tmp_path):
    services.node.NodePublishVolume(publish_request(tmp_path / "t", mode="SINGLE_NODE_WRITER"))

    advertised = {
        found.rpc.type for found in services.node.NodeGetCapabilities(empty("NodeGetCapabilities")).capabilities
    }
    assert NodeRpc.SINGLE_NODE_MULTI_WRITER in advertised


def test_rule_04_a_second_call_for_a_target_is_aborted_while_the_first_is_under_way(tmp_path):
    gate = Gate()

    with csi_services(tmp_path, RecordingMounts(before=gate)) as services, ThreadPoolExecutor(1) as pool:
        first = pool.submit(services.node.NodePublishVolume, publish_request(tmp_path / "t"))
        gate.wait_for(1)
        try:
            with refused(grpc.StatusCode.ABORTED, "under way"):
                services.node.NodePublishVolume(publish_request(tmp_path / "t"))
            with refused(grpc.StatusCode.ABORTED, "under way"):
                services.node.NodeUnpublishVolume(unpublish_request(tmp_path / "t"))
        finally:
            gate.open()
        first.result(20)


def meet(barrier: threading.Barrier) -> None:
    barrier.wait()


def test_rule_04_two_pods_may_publish_one_volume_at_the_same_moment(tmp_path):
    both = threading.Barrier(2, timeout=20)
    mounts = RecordingMounts(before=lambda operation, target: meet(both))

    with csi_services(tmp_path, mounts) as services, ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(services.node.NodePublishVolume, publish_request(tmp_path / name)) for name in "ab"]
        for call in calls:
            call.result(20)

    assert len(mounts.published()) == 2


# --- 5, 6: unpublishing (the rest is shown on real mounts) ---


def test_rule_05_unpublishing_what_was_never_published_is_ok(services, tmp_path):
    services.node.NodeUnpublishVolume(unpublish_request(tmp_path / "never"))
    services.node.NodeUnpublishVolume(unpublish_request(tmp_path / "no" / "such" / "parent"))


def test_rule_05_unpublishing_removes_the_target_path(services, tmp_path):
    services.node.NodePublishVolume(publish_request(tmp_path / "t"))

    services.node.NodeUnpublishVolume(unpublish_request(tmp_path / "t"))
    services.node.NodeUnpublishVolume(unpublish_request(tmp_path / "t"))

    assert not (tmp_path / "t").exists()


def test_rule_06_unpublishing_is_not_held_up_by_publishing_that_hangs(tmp_path):
    gate = Gate("publish")

    with csi_services(tmp_path, RecordingMounts(before=gate)) as services, ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(services.node.NodePublishVolume, publish_request(tmp_path / f"t{n}")) for n in range(16)]
        try:
            gate.wait_for(16)
            services.node.NodeUnpublishVolume(unpublish_request(tmp_path / "other"), timeout=20)
            with refused(grpc.StatusCode.NOT_FOUND):
                services.node.NodeGetVolumeStats(stats_request(tmp_path / "other"), timeout=20)
        finally:
            gate.open()
        for call in calls:
            call.result(30)


# --- 7, 8, 9: paths and read-only ---


def test_rule_07_staging_is_neither_advertised_nor_required(services, tmp_path):
    advertised = {
        found.rpc.type for found in services.node.NodeGetCapabilities(empty("NodeGetCapabilities")).capabilities
    }

    services.node.NodePublishVolume(publish_request(tmp_path / "t"))

    assert NodeRpc.STAGE_UNSTAGE_VOLUME not in advertised
    with refused(grpc.StatusCode.UNIMPLEMENTED, "NodeStageVolume"):
        services.node.NodeStageVolume(csi_pb2.NodeStageVolumeRequest(volume_id="v", secrets=SECRETS))


@pytest.mark.parametrize("target", ["relative/path", "/a/../b", "/", "/with\0zero"])
def test_rule_08_a_target_that_is_no_path_of_its_own_is_refused(services, mounts, target):
    with refused(INVALID, "target_path"):
        services.node.NodePublishVolume(publish_request(Path(target)))

    assert mounts.requests == []


@pytest.mark.parametrize("slashes", ["/t/", "//t", "/./t"])
def test_rule_08_different_spellings_of_a_target_are_one_target(services, mounts, tmp_path, slashes):
    request = publish_request(tmp_path / "t")
    services.node.NodePublishVolume(request)

    request.target_path = f"{tmp_path}{slashes}"
    services.node.NodePublishVolume(request)

    assert [found.target for found in mounts.published()] == [tmp_path / "t"]


@pytest.mark.parametrize(
    ("mode", "readonly"),
    [("MULTI_NODE_READER_ONLY", False), ("SINGLE_NODE_READER_ONLY", False), ("MULTI_NODE_MULTI_WRITER", True)],
)
def test_rule_09_read_only_reaches_both_the_mount_and_the_sidecar(services, mounts, tmp_path, mode, readonly):
    services.node.NodePublishVolume(publish_request(tmp_path / "t", mode=mode, readonly=readonly))

    assert mounts.requests[0].read_only
    assert mounts.requests[0].spec.arguments.read_only


def test_rule_09_the_readonly_mode_of_mounting_is_enforced_by_the_kernel_too(services, mounts, tmp_path):
    services.node.NodePublishVolume(publish_request(tmp_path / "t", attributes={**ATTRIBUTES, "mode": "ReadOnly"}))

    assert mounts.requests[0].read_only


# --- 10 to 16: the controller ---


def test_rule_10_an_unknown_volume_is_not_found(services):
    with refused(grpc.StatusCode.NOT_FOUND, "fake-vol-id"):
        services.controller.ValidateVolumeCapabilities(validate_request("fake-vol-id", CAPABILITY))


def test_rule_10_a_deleted_volume_is_not_found(services):
    volume = services.controller.CreateVolume(create_request("pvc-1")).volume
    services.controller.DeleteVolume(delete_request(volume.volume_id))

    with refused(grpc.StatusCode.NOT_FOUND, volume.volume_id):
        services.controller.ValidateVolumeCapabilities(validate_request(volume.volume_id, CAPABILITY))


def test_rule_10_capabilities_are_confirmed_only_if_all_of_them_hold(services):
    volume = services.controller.CreateVolume(create_request("pvc-1")).volume
    block = csi_pb2.VolumeCapability(block={}, access_mode=CAPABILITY.access_mode)

    good = services.controller.ValidateVolumeCapabilities(validate_request(volume.volume_id, CAPABILITY))
    bad = services.controller.ValidateVolumeCapabilities(validate_request(volume.volume_id, CAPABILITY, block))

    assert list(good.confirmed.volume_capabilities) == [CAPABILITY]
    assert not bad.HasField("confirmed")
    assert "volumeMode: Filesystem" in bad.message


def test_rule_10_a_restarted_controller_still_knows_the_volume(services, store, tmp_path):
    volume = services.controller.CreateVolume(create_request("pvc-1")).volume
    restarted = tmp_path / "restarted"

    with csi_services(restarted, stores=lambda spec, secrets: store) as later:
        answer = later.controller.ValidateVolumeCapabilities(validate_request(volume.volume_id, CAPABILITY))

    assert answer.HasField("confirmed")


def test_rule_10_another_context_than_the_volumes_own_is_not_confirmed(services):
    volume = services.controller.CreateVolume(create_request("pvc-1")).volume
    context = {**volume.volume_context, "path": "/elsewhere/"}

    answer = services.controller.ValidateVolumeCapabilities(
        validate_request(volume.volume_id, CAPABILITY, volume_context=context)
    )

    assert not answer.HasField("confirmed")
    assert "volume_context.path" in answer.message


def test_rule_10_a_volume_written_by_hand_is_what_its_attributes_say(services):
    answer = services.controller.ValidateVolumeCapabilities(
        validate_request("my-own-handle", CAPABILITY, volume_context=ATTRIBUTES)
    )

    assert answer.HasField("confirmed")


@pytest.mark.parametrize("pair", [(0, 0), (1 << 30, 0), (1 << 30, 1 << 30), (0, 1 << 30)])
def test_rule_11_the_same_name_and_capacity_give_the_same_volume(services, pair):
    request = create_request("pvc-1", required=pair[0], limit=pair[1])

    first, second = services.controller.CreateVolume(request), services.controller.CreateVolume(request)

    assert first == second
    assert first.volume.capacity_bytes == max(pair)


@pytest.mark.parametrize("pair", [(2 << 30, 2 << 30), (2 << 30, 0), (0, 1 << 20)])
def test_rule_11_the_same_name_with_an_incompatible_capacity_already_exists(services, pair):
    services.controller.CreateVolume(create_request("pvc-1", required=1 << 30, limit=1 << 30))

    with refused(grpc.StatusCode.ALREADY_EXISTS, "pvc-1", str(1 << 30)):
        services.controller.CreateVolume(create_request("pvc-1", required=pair[0], limit=pair[1]))


def test_rule_11_the_capacity_survives_a_restart_of_the_controller(services, store, tmp_path):
    services.controller.CreateVolume(create_request("pvc-1", required=1 << 30, limit=1 << 30))

    with csi_services(tmp_path / "restarted", stores=lambda spec, secrets: store) as later:
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            later.controller.CreateVolume(create_request("pvc-1", required=2 << 30, limit=2 << 30))


@pytest.mark.parametrize(
    "other",
    [{"mode": "consistent"}, {"onDelete": "delete"}, {"pathPattern": "elsewhere"}],
    ids=str,
)
def test_rule_11_the_same_name_with_other_parameters_already_exists(services, other):
    services.controller.CreateVolume(create_request("pvc-1"))
    request = create_request("pvc-1")
    request.parameters.update(other)

    with refused(grpc.StatusCode.ALREADY_EXISTS, "pvc-1"):
        services.controller.CreateVolume(request)


@pytest.mark.parametrize("pair", [(2, 1), (-1, 0), (0, -1)])
def test_rule_11_a_range_without_a_size_in_it_is_out_of_range(services, pair):
    with refused(grpc.StatusCode.OUT_OF_RANGE, str(pair[0]), str(pair[1])):
        services.controller.CreateVolume(create_request("pvc-1", required=pair[0], limit=pair[1]))


@pytest.mark.parametrize("name", ["n" * 128, "name with spaces", "名字", "a/b", ".."])
def test_rule_11_any_name_that_csi_allows_makes_a_volume(services, name):
    volume = services.controller.CreateVolume(create_request(name)).volume

    assert volume.volume_context["path"].count("/") == 2
    assert ".." not in volume.volume_context["path"].split("/")


@pytest.mark.parametrize("volume_id", ["fake-vol-id", "x" * 4000, "a/b/c", "oss-cn-hangzhou/data/" + "a" * 16])
def test_rule_12_deleting_an_unknown_or_garbage_id_is_ok(services, volume_id):
    services.controller.DeleteVolume(delete_request(volume_id))


def test_rule_12_data_is_kept_by_default(services, store):
    volume = services.controller.CreateVolume(create_request("pvc-1")).volume
    store.seed("pvc-1/checkpoint", b"weights")

    services.controller.DeleteVolume(delete_request(volume.volume_id))
    services.controller.DeleteVolume(delete_request(volume.volume_id))

    assert list(store.objects) == ["pvc-1/checkpoint"]


def test_rule_12_data_goes_when_the_class_says_so_and_the_volume_made_the_prefix(services, store):
    store.seed("other/file", b"somebody else's")
    volume = services.controller.CreateVolume(create_request("pvc-1", onDelete="delete")).volume
    store.seed("pvc-1/checkpoint", b"weights")

    services.controller.DeleteVolume(delete_request(volume.volume_id))

    assert list(store.objects) == ["other/file"]


def test_rule_12_data_that_was_there_before_the_volume_is_never_deleted(services, store):
    store.seed("pvc-1/precious", b"older than the volume")
    volume = services.controller.CreateVolume(create_request("pvc-1", onDelete="delete")).volume

    services.controller.DeleteVolume(delete_request(volume.volume_id))

    assert list(store.objects) == ["pvc-1/precious"]


def test_rule_13_ids_are_short_and_the_same_from_any_controller(services, tmp_path):
    first = services.controller.CreateVolume(create_request("n" * 128)).volume

    with csi_services(tmp_path / "other", stores=lambda spec, secrets: MemoryStore()) as other:
        second = other.controller.CreateVolume(create_request("n" * 128)).volume

    assert first.volume_id == second.volume_id
    assert len(first.volume_id.encode()) <= LONGEST_ID


def test_rule_13_attributes_beyond_the_size_limit_of_csi_are_refused(services):
    request = create_request("pvc-1", options='{"mode": "fast"' + " " * 4096 + "}")

    with refused(INVALID, "4096 bytes"):
        services.controller.CreateVolume(request)


def test_rule_14_only_what_is_implemented_is_advertised(services):
    answer = services.controller.ControllerGetCapabilities(empty("ControllerGetCapabilities"))

    assert {found.rpc.type for found in answer.capabilities} == {
        ControllerRpc.CREATE_DELETE_VOLUME,
        ControllerRpc.SINGLE_NODE_MULTI_WRITER,
    }


@pytest.mark.parametrize(
    "method",
    [
        *("ControllerPublishVolume", "ControllerUnpublishVolume", "CreateSnapshot", "DeleteSnapshot", "ListSnapshots"),
        *("ControllerExpandVolume", "ControllerGetVolume", "ControllerModifyVolume", "GetSnapshot"),
    ],
)
def test_rule_14_what_is_not_advertised_is_unimplemented(services, method):
    with refused(grpc.StatusCode.UNIMPLEMENTED, method):
        getattr(services.controller, method)(empty(method))


def test_rule_15_volumes_are_not_listed_so_no_token_is_ever_given_out(services):
    with refused(grpc.StatusCode.UNIMPLEMENTED, "ListVolumes"):
        services.controller.ListVolumes(csi_pb2.ListVolumesRequest(starting_token="invalid-token"))


def test_rule_16_an_object_store_tells_no_capacity(services):
    with refused(grpc.StatusCode.UNIMPLEMENTED, "GetCapacity"):
        services.controller.GetCapacity(csi_pb2.GetCapacityRequest())


# --- 17, 18: what the node says ---


def test_rule_17_statistics_of_a_published_volume_have_usage_and_condition(services, tmp_path):
    services.node.NodePublishVolume(publish_request(tmp_path / "t"))

    answer = services.node.NodeGetVolumeStats(stats_request(tmp_path / "t"))

    assert [(found.unit, found.total >= 0) for found in answer.usage] == [(csi_pb2.VolumeUsage.BYTES, True)]
    assert answer.HasField("volume_condition")
    assert not answer.volume_condition.abnormal


def test_rule_17_a_sidecar_in_trouble_is_an_abnormal_condition_in_words(services, mounts, tmp_path):
    services.node.NodePublishVolume(publish_request(tmp_path / "t"))
    mounts.conditions[tmp_path / "t"] = VolumeCondition(True, "the sidecar was killed at its memory limit 256Mi")

    answer = services.node.NodeGetVolumeStats(stats_request(tmp_path / "t"))

    assert answer.volume_condition.abnormal
    assert "256Mi" in answer.volume_condition.message


@pytest.mark.parametrize(("volume_id", "path"), [("pv-2", "t"), ("pv-1", "elsewhere")])
def test_rule_17_an_unknown_volume_or_path_is_not_found(services, tmp_path, volume_id, path):
    services.node.NodePublishVolume(publish_request(tmp_path / "t"))

    with refused(grpc.StatusCode.NOT_FOUND, volume_id, path):
        services.node.NodeGetVolumeStats(stats_request(tmp_path / path, volume_id))


def test_rule_17_a_relative_path_is_not_found(services):
    with refused(grpc.StatusCode.NOT_FOUND, "some/path"):
        services.node.NodeGetVolumeStats(stats_request("some/path"))


def test_rule_18_the_node_gives_its_name_no_topology_and_no_limit(services):
    answer = services.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())

    assert answer == csi_pb2.NodeGetInfoResponse(node_id="node-1")


@pytest.mark.parametrize("node_id", ["", "n" * 257])
def test_rule_18_a_node_id_that_csi_cannot_carry_is_refused_at_the_start(node_id):
    with pytest.raises(InvalidOption, match="node-id"):
        NodeService(RecordingMounts(), node_id=node_id, cpu_count=1, supply=credential_supply())


# --- 19, 20, 21: logs, errors, deadlines ---


def test_rule_19_secrets_and_tokens_are_in_no_log_line_and_reach_the_mount(services, mounts, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    attributes = {**ATTRIBUTES, SERVICE_ACCOUNT_TOKENS: '{"sts.aliyuncs.com": {"token": "marker-token-value"}}'}

    services.node.NodePublishVolume(publish_request(tmp_path / "t", attributes=attributes))
    services.controller.CreateVolume(create_request("pvc-1"))

    assert mounts.requests[0].credentials == SECRETS
    assert "NodePublishVolume OK" in caplog.text
    assert not [secret for secret in (*SECRETS.values(), "marker-token-value") if secret in caplog.text]


def test_rule_19_a_secret_inside_an_error_is_scrubbed_from_answer_and_log(tmp_path, caplog):
    def before(operation: str, target: Path) -> None:
        raise PermissionDenied(f"the key {SECRETS['akSecret']} is not allowed to list", hint="allow it")

    with csi_services(tmp_path, RecordingMounts(before=before)) as services:
        with refused(grpc.StatusCode.PERMISSION_DENIED, "is not allowed to list; allow it") as said:
            services.node.NodePublishVolume(publish_request(tmp_path / "t"))

    assert SECRETS["akSecret"] not in said[0] + caplog.text


def test_rule_19_a_secret_inside_an_unexpected_error_is_scrubbed_from_the_traceback(tmp_path, caplog):
    def before(operation: str, target: Path) -> None:
        raise RuntimeError(f"bug with {SECRETS['akSecret']}")

    with csi_services(tmp_path, RecordingMounts(before=before)) as services:
        with refused(grpc.StatusCode.INTERNAL, "NodePublishVolume failed unexpectedly (RuntimeError)") as said:
            services.node.NodePublishVolume(publish_request(tmp_path / "t"))

    assert "Traceback" in caplog.text
    assert SECRETS["akSecret"] not in said[0] + caplog.text


def test_rule_20_an_error_has_its_own_code_a_readable_message_and_no_details(tmp_path):
    def before(operation: str, target: Path) -> None:
        raise SidecarFailed(
            "the sidecar was killed at its memory limit of 256Mi", oom=True, hint="raise fs.jindo.fuse.pod.mem.limit"
        )

    with csi_services(tmp_path, RecordingMounts(before=before)) as services:
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "256Mi; raise fs.jindo.fuse.pod.mem.limit"):
            services.node.NodePublishVolume(publish_request(tmp_path / "t"))


def test_rule_21_the_work_gets_less_than_the_callers_time(services, mounts, tmp_path):
    services.node.NodePublishVolume(publish_request(tmp_path / "t"), timeout=60)

    assert 50 < mounts.deadlines[0] <= 54.9  # nine tenths; gRPC rounds a deadline up on the wire, to at most 61 s here


def test_rule_21_a_caller_without_a_deadline_gets_an_answer_before_kubelet_would_hang_up(services, mounts, tmp_path):
    services.node.NodePublishVolume(publish_request(tmp_path / "t"))

    assert 100 < mounts.deadlines[0] <= 108


def test_rule_21_the_driver_answers_before_the_callers_deadline_with_words_of_its_own(tmp_path):
    gate = Gate()

    with csi_services(tmp_path, RecordingMounts(before=gate)) as services:
        try:
            with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "publishing pv-1 at", "the next call will find its result"):
                services.node.NodePublishVolume(publish_request(tmp_path / "t"), timeout=2)
        finally:
            gate.open()


def test_rule_21_a_caller_that_hangs_up_leaves_work_that_the_retry_finds(tmp_path):
    gate = Gate()
    mounts = RecordingMounts(before=gate)
    with csi_services(tmp_path, mounts) as services:
        call = services.node.NodePublishVolume.future(publish_request(tmp_path / "t"))
        gate.wait_for(1)
        call.cancel()
        with refused(grpc.StatusCode.ABORTED):
            services.node.NodePublishVolume(publish_request(tmp_path / "t"))
        gate.open()

    assert [found.target for found in mounts.published()] == [tmp_path / "t"]


# --- 22, 23: probe and socket ---


def test_rule_22_probe_says_not_ready_while_starting_and_fails_when_broken(services):
    readiness: Readiness = services.server.readiness

    readiness.ready = False
    starting = services.identity.Probe(csi_pb2.ProbeRequest())
    readiness.ready = True
    ready = services.identity.Probe(csi_pb2.ProbeRequest())
    readiness.broken = "the state directory is gone"

    assert not starting.ready.value
    assert ready.ready.value
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "the state directory is gone"):
        services.identity.Probe(csi_pb2.ProbeRequest())


def test_rule_22_probe_answers_while_every_worker_hangs(tmp_path):
    gate = Gate()

    with csi_services(tmp_path, RecordingMounts(before=gate)) as services, ThreadPoolExecutor(40) as pool:
        calls = [pool.submit(services.node.NodePublishVolume, publish_request(tmp_path / f"t{n}")) for n in range(20)]
        calls += [
            pool.submit(services.node.NodeUnpublishVolume, unpublish_request(tmp_path / f"u{n}")) for n in range(20)
        ]
        try:
            gate.wait_for(32)
            assert services.identity.Probe(csi_pb2.ProbeRequest(), timeout=5).ready.value
        finally:
            gate.open()
        for call in calls:
            call.result(30)


def test_rule_23_the_plugin_has_the_name_of_the_csidriver_object(services):
    answer = services.identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest())

    assert answer.name == DRIVER_NAME == "ossfuse.csi.dev"
    assert re.fullmatch(r"[a-zA-Z][A-Za-z0-9.-]{0,61}[a-zA-Z]", answer.name)
    assert answer.vendor_version


@pytest.mark.parametrize("authority", ["localhost", "csi.sock", "10.0.0.1:80"])
def test_rule_23_any_authority_that_http_allows_is_served(services, authority):
    options = [("grpc.default_authority", authority)]

    with grpc.insecure_channel(f"unix:{services.socket}", options=options) as channel:
        answer = csi_pb2_grpc.IdentityStub(channel).Probe(csi_pb2.ProbeRequest(), timeout=10)

    assert answer.ready.value


@pytest.mark.parametrize("authority", ["/csi/csi.sock", "%2Fcsi%2Fcsi.sock", "localhost"])
def test_rule_23_kubelets_before_1_26_that_send_the_sockets_path_as_authority_are_served(services, authority):
    answer = call_with_authority(services.socket, "/csi.v1.Identity/Probe", authority)

    assert b"grpc-status\x010" in answer
    assert csi_pb2.ProbeResponse(ready={"value": True}).SerializeToString() in answer


def test_rule_23_the_socket_is_for_its_owner_only_and_its_directory_is_made(tmp_path):
    directory = tmp_path / "plugins" / "ossfuse.csi.dev"

    with csi_services(directory) as services:
        assert services.socket.stat().st_mode & 0o777 == 0o600
        assert directory.stat().st_mode & 0o777 == 0o700

    assert not (directory / "csi.sock").exists()


def test_rule_23_the_socket_of_a_dead_process_is_replaced(tmp_path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "csi.sock"))

    with csi_services(tmp_path) as services:
        assert services.identity.Probe(csi_pb2.ProbeRequest()).ready.value


def test_rule_23_the_socket_of_a_living_process_is_left_alone(services, tmp_path):
    async def second() -> None:
        await Server(f"unix://{services.socket}", Seconds(1)).start()

    with pytest.raises(Exception, match="another process listens on"):
        asyncio.run(second())

    assert services.identity.Probe(csi_pb2.ProbeRequest()).ready.value


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:9000", "csi.sock", "", "unix://relative", f"unix:///{'x' * 200}"])
def test_rule_23_an_endpoint_that_cannot_be_served_is_refused_with_its_name(endpoint):
    with pytest.raises(InvalidOption, match="endpoint"):
        Server(endpoint, Seconds(1))


def test_rule_23_a_file_in_the_sockets_place_is_not_removed(tmp_path):
    (tmp_path / "csi.sock").write_text("mine")

    with pytest.raises(Exception, match="is not a socket"), csi_services(tmp_path):
        pass

    assert (tmp_path / "csi.sock").read_text() == "mine"


# --- 24 to 27: Kubernetes around us ---


def test_rule_24_what_kubelet_adds_to_the_attributes_is_no_option(services, mounts, tmp_path):
    pod = {
        "csi.storage.k8s.io/pod.name": "trainer-0",
        "csi.storage.k8s.io/pod.namespace": "team-a",
        "csi.storage.k8s.io/pod.uid": "0123",
        "csi.storage.k8s.io/serviceAccount.name": "default",
        "csi.storage.k8s.io/ephemeral": "true",
    }

    services.node.NodePublishVolume(publish_request(tmp_path / "t"))
    services.node.NodePublishVolume(publish_request(tmp_path / "t", attributes={**ATTRIBUTES, **pod}))

    assert mounts.requests[0].spec == mounts.requests[1].spec


def test_rule_24_a_republish_with_a_rotated_secret_hands_the_new_one_on(services, mounts, tmp_path):
    rotated = {"akId": "LTAI-rotated-key-id", "akSecret": "rotated-secret-value"}

    services.node.NodePublishVolume(publish_request(tmp_path / "t"))
    services.node.NodePublishVolume(publish_request(tmp_path / "t", secrets=rotated))

    assert mounts.requests[1].credentials == rotated
    assert mounts.requests[0].spec == mounts.requests[1].spec


def test_rule_24_a_republish_logs_the_options_once(services, tmp_path, caplog):
    caplog.set_level(logging.INFO)

    services.node.NodePublishVolume(publish_request(tmp_path / "t"))
    services.node.NodePublishVolume(publish_request(tmp_path / "t"))

    assert caplog.text.count("mode=fast") == 1


def test_rule_25_the_pods_group_owns_the_files(services, mounts, tmp_path):
    services.node.NodePublishVolume(publish_request(tmp_path / "t", volume_mount_group="2000"))

    assert mounts.requests[0].mount_group == 2000
    assert mounts.requests[0].spec.ownership.gid == 2000


def test_rule_25_the_group_is_asked_for_so_that_kubelet_does_not_chown(services):
    advertised = {
        found.rpc.type for found in services.node.NodeGetCapabilities(empty("NodeGetCapabilities")).capabilities
    }

    assert NodeRpc.VOLUME_MOUNT_GROUP in advertised


def test_rule_26_health_is_told_by_the_node_which_advertises_it(services):
    node = {found.rpc.type for found in services.node.NodeGetCapabilities(empty("NodeGetCapabilities")).capabilities}
    controller = services.controller.ControllerGetCapabilities(empty("ControllerGetCapabilities")).capabilities

    assert {NodeRpc.GET_VOLUME_STATS, NodeRpc.VOLUME_CONDITION} <= node
    assert ControllerRpc.VOLUME_CONDITION not in {found.rpc.type for found in controller}


def test_rule_27_the_provisioners_extra_metadata_fills_the_path_pattern(services):
    request = create_request("pvc-0123", pathPattern="${.PVC.namespace}/${.PVC.name}")
    request.parameters.update(
        {
            "csi.storage.k8s.io/pvc/name": "data",
            "csi.storage.k8s.io/pvc/namespace": "team-a",
            "csi.storage.k8s.io/pv/name": "pvc-0123",
        }
    )

    volume = services.controller.CreateVolume(request).volume

    assert dict(volume.volume_context) == {**ATTRIBUTES, "path": "/team-a/data/"}


def test_rule_27_many_volumes_are_created_at_the_same_time(services):
    names = [f"pvc-{number}" for number in range(100)]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda name: services.controller.CreateVolume(create_request(name)), names))

    assert len({answer.volume.volume_id for answer in answers}) == 100


def test_rule_27_one_volume_is_created_once_however_many_ask(services, store):
    def create(_: int) -> str:
        try:
            return services.controller.CreateVolume(create_request("pvc-1")).volume.volume_id
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.ABORTED
            return ""

    with ThreadPoolExecutor(10) as pool:
        found = {volume_id for volume_id in pool.map(create, range(50)) if volume_id}

    assert len(found) == 1
    assert len([key for key in store.objects if key.startswith(".ossfuse/volumes/")]) == 1


def empty(method: str) -> object:
    """The empty request of a method."""
    return getattr(csi_pb2, f"{method}Request")()


def test_every_test_of_a_rule_names_one_that_exists():
    numbers = {int(name.split("_")[2]) for name in globals() if name.startswith("test_rule_")}

    assert numbers == set(range(1, 28))
