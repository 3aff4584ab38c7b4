"""Publishing volumes with a disk cache: the directory is there before the sidecar, or the publish is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from csi.handover.cache_places import CachePlaces
from csi.volume.naming import CACHE_FOLDER
from tests.support.csi_services import ATTRIBUTES, Services, csi_services, publish_request
from tests.support.recording_mounts import RecordingMounts
from tests.support.service_accounts import pod_context


@contextmanager
def services(home: Path, mounts: RecordingMounts, *allowed: Path, in_pods: bool = True) -> Iterator[Services]:
    caches = CachePlaces(tuple(map(str, allowed)), in_pods=in_pods)
    with csi_services(home, mounts, in_pods=in_pods, caches=caches) as found:
        yield found


def publish(found: Services, home: Path, cache: str) -> None:
    request = publish_request(home / "target", attributes={**ATTRIBUTES, **pod_context(), "cache": cache})
    found.node.NodePublishVolume(request, timeout=60)


def test_an_allowed_directory_is_made_before_the_volume_is_mounted(tmp_path: Path) -> None:
    place = tmp_path / "caches" / "a"
    seen = []
    mounts = RecordingMounts(before=lambda *_: seen.append((place / CACHE_FOLDER).is_dir()))
    with services(tmp_path, mounts, tmp_path / "caches") as found:
        publish(found, tmp_path, str(place))
    assert True in seen


def test_a_directory_that_is_not_allowed_is_refused_and_nothing_is_mounted(tmp_path: Path) -> None:
    mounts = RecordingMounts()
    with (
        services(tmp_path, mounts, tmp_path / "caches") as found,
        pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT") as refused,
    ):
        publish(found, tmp_path, str(tmp_path / "elsewhere"))
    assert "administrator allows for caches" in str(refused.value.details())
    assert mounts.published() == []
    assert not (tmp_path / "elsewhere").exists()


def test_a_volume_that_is_published_goes_on_when_its_directory_is_no_longer_allowed(tmp_path: Path) -> None:
    place = tmp_path / "caches" / "a"
    mounts = RecordingMounts()
    with services(tmp_path, mounts, tmp_path / "caches") as found:
        publish(found, tmp_path, str(place))
    with services(tmp_path, mounts) as found:
        publish(found, tmp_path, str(place))
    assert len(mounts.published()) == 1


def test_an_empty_dir_is_left_to_the_pod_and_refused_without_one(tmp_path: Path) -> None:
    mounts = RecordingMounts()
    with services(tmp_path, mounts) as found:
        publish(found, tmp_path, "emptyDir")
    with (
        services(tmp_path, RecordingMounts(), in_pods=False) as found,
        pytest.raises(grpc.RpcError, match="served by a process of the machine"),
    ):
        publish(found, tmp_path, "emptyDir")
