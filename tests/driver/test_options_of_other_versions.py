"""A volume that an earlier version published with options this one refuses: it goes on, and only it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from csi.driver.capabilities import parse_access
from csi.driver.pods import digest_of_call
from csi.handover.types import PublishRequest
from csi.v1 import csi_pb2
from csi.volume.spec import Location, VolumeSpec
from csi.volume.units import Seconds
from tests.support.csi_services import ATTRIBUTES, Services, csi_services, publish_request
from tests.support.recording_mounts import RecordingMounts
from tests.support.service_accounts import pod_context

FORMER = {**ATTRIBUTES, "formerOption": "1"}


@pytest.fixture
def mounts() -> RecordingMounts:
    return RecordingMounts()


@pytest.fixture
def plugin(tmp_path: Path, mounts: RecordingMounts) -> Iterator[Services]:
    with csi_services(tmp_path, mounts, in_pods=True) as running:
        yield running


def call(target: Path, attributes: dict[str, str]) -> csi_pb2.NodePublishVolumeRequest:
    return publish_request(target, attributes={**attributes, **pod_context()})


def published_before(mounts: RecordingMounts, request: csi_pb2.NodePublishVolumeRequest) -> None:
    access = parse_access(request.volume_capability, readonly=request.readonly)
    given = digest_of_call(request.volume_id, dict(request.volume_context), access)
    spec = VolumeSpec(Location("training", "http://127.0.0.1:1"))
    mounts.publish(
        PublishRequest(request.volume_id, Path(request.target_path), spec, False, None, None, given=given), Seconds(1.0)
    )


def test_publishing_it_again_succeeds_and_touches_nothing(
    plugin: Services, mounts: RecordingMounts, tmp_path: Path
) -> None:
    request = call(tmp_path / "t", FORMER)
    published_before(mounts, request)

    plugin.node.NodePublishVolume(request, timeout=30)

    assert len(mounts.requests) == 1


@pytest.mark.parametrize("published", [None, {**FORMER, "formerOption": "2"}])
def test_a_volume_that_is_not_published_so_is_refused(
    plugin: Services, mounts: RecordingMounts, tmp_path: Path, published: dict[str, str] | None
) -> None:
    if published is not None:
        published_before(mounts, call(tmp_path / "t", published))

    with pytest.raises(grpc.RpcError) as refused:
        plugin.node.NodePublishVolume(call(tmp_path / "t", FORMER), timeout=30)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "formerOption" in refused.value.details()
