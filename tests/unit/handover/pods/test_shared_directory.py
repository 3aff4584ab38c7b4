from __future__ import annotations

import os
from dataclasses import replace

import pytest

from csi.errors import MountError
from csi.handover.pods.shared_directory import SharedDirectory
from csi.handover.types import SidecarPlace
from csi.volume.units import MIB, Bytes, Seconds
from tests.support.fake_kernel import FakeKernel, entry_at


@pytest.fixture
def shared(tmp_path):
    """A directory that the fake mount table may say is a tmpfs, and the waits that were made for it."""

    class Shared:
        kernel = FakeKernel()
        now = 0.0

        def __init__(self):
            self.waits = []
            place = SidecarPlace("ossfuse-data", tmp_path, Bytes(MIB), Seconds(30.0))
            self.directory = SharedDirectory(
                place, self.kernel, self.kernel.entries, clock=lambda: self.now, sleep=self.sleep
            )

        def sleep(self, seconds):
            self.waits.append(seconds)
            self.now += seconds

        def appear(self, fstype="tmpfs"):
            device = os.stat(tmp_path).st_dev
            entry = entry_at(str(tmp_path), fstype, "tmpfs", 50, 1)
            self.kernel.table.append(replace(entry, major=os.major(device), minor=os.minor(device)))

    return Shared()


def test_one_that_is_there_is_not_waited_for(shared):
    shared.appear()
    shared.directory.wait(Seconds(2.0))
    assert shared.waits == []


def test_one_that_comes_is_waited_for_and_one_that_does_not_is_named(shared, tmp_path):
    with pytest.raises(MountError, match=r"tmpfs of container ossfuse-data is not mounted at .*medium: Memory"):
        shared.directory.wait(Seconds(0.1))
    assert sum(shared.waits) >= 0.1


@pytest.mark.parametrize("what", ["nothing", "a disk"])
def test_no_secret_is_written_where_there_is_no_tmpfs(shared, tmp_path, what):
    if what == "a disk":
        shared.appear("ext4")
    with pytest.raises(MountError, match="is not mounted"):
        shared.directory.write_credentials({"akId": "id", "akSecret": "secret"})
    with pytest.raises(MountError, match="is not mounted"):
        shared.directory.listen()
    assert os.listdir(tmp_path) == []


def test_no_secret_is_written_when_the_tmpfs_has_just_gone(shared, tmp_path):
    shared.kernel.table.append(entry_at(str(tmp_path), "tmpfs", "tmpfs", 50, 1))  # another device than what is there
    with pytest.raises(MountError, match="is not mounted"):
        shared.directory.write_credentials({"akId": "id", "akSecret": "secret"})
    assert os.listdir(tmp_path) == []


def test_credentials_are_written_into_it(shared, tmp_path):
    shared.appear()
    assert shared.directory.write_credentials({"akId": "id", "akSecret": "secret"})
    assert not shared.directory.write_credentials({"akId": "id", "akSecret": "secret"})
    assert (tmp_path / "credentials" / "akSecret").read_text() == "secret"


def test_an_error_names_the_directory_as_people_know_it(shared, tmp_path):
    shared.appear()
    (tmp_path / "credentials").symlink_to("/etc")  # planted by whoever else may write there
    with pytest.raises(MountError, match=f"could not be written to {tmp_path}/credentials"):
        shared.directory.write_credentials({"akId": "id", "akSecret": "secret"})


def test_a_missing_clone_of_mounts_in_the_kernel_is_no_obstacle(shared):
    shared.appear()
    listener = shared.directory.listen()
    listener.close()
    assert ("clone_tree", str(listener.path.parent)) in shared.kernel.calls
