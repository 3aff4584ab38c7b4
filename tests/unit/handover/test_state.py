from __future__ import annotations

import errno
import os
import stat

import pytest

from csi.errors import MountError
from csi.handover.state import StateDirectory, runtime_name
from tests.support.descriptors import open_files
from tests.support.fake_kernel import FakeKernel, entry_at


@pytest.fixture
def kernel():
    return FakeKernel()


def state_of(path, kernel):
    return StateDirectory(path, kernel, kernel.entries, uid=os.getuid(), gid=os.getgid())


def test_a_state_directory_on_a_disk_gets_a_private_tmpfs_and_loses_it_at_the_end(tmp_path, kernel):
    state = state_of(tmp_path / "a" / "state", kernel)
    state.open()
    assert [entry.fstype for entry in kernel.table] == ["ext4", "tmpfs"]
    assert stat.S_IMODE(os.stat(state.path).st_mode) == 0o700
    state.close()
    assert [entry.fstype for entry in kernel.table] == ["ext4"]
    assert not state.path.exists()


def test_a_state_directory_on_a_tmpfs_is_used_as_it_is(tmp_path, kernel):
    kernel.table.append(entry_at(str(tmp_path), "tmpfs", "tmpfs", 2, 1))
    state = state_of(tmp_path / "state", kernel)
    state.open()
    assert ("mount", str(tmp_path / "state")) not in kernel.calls
    state.close()


def test_the_tmpfs_stays_as_long_as_a_volume_is_published(tmp_path, kernel):
    state = state_of(tmp_path / "state", kernel)
    state.open()
    runtime = state.runtime(runtime_name("v", "/t"))
    runtime.create()
    state.close()
    assert [entry.fstype for entry in kernel.table] == ["ext4", "tmpfs"]
    again = state_of(tmp_path / "state", kernel)
    again.open()
    assert again.names() == [runtime_name("v", "/t")]
    again.runtime(runtime_name("v", "/t")).remove()
    again.close()


def test_a_kernel_that_does_not_know_noswap_is_asked_without(tmp_path, kernel):
    kernel.refuse["mount"] = [errno.EINVAL]
    state = state_of(tmp_path / "state", kernel)
    state.open()
    assert kernel.calls.count(("mount", str(tmp_path / "state"))) == 2
    state.close()


def test_a_tmpfs_that_cannot_be_mounted_is_an_error_and_nothing_is_left(tmp_path, kernel):
    kernel.refuse["mount"] = [errno.EPERM, errno.EPERM]
    with pytest.raises(MountError, match="EPERM"):
        state_of(tmp_path / "state", kernel).open()
    assert os.listdir(tmp_path) == []


def test_two_node_plugins_cannot_share_a_state_directory(tmp_path, kernel):
    first = state_of(tmp_path / "state", kernel)
    first.open()
    with pytest.raises(MountError, match="is in use by another ossfuse process; stop that one, or give this one"):
        state_of(tmp_path / "state", kernel).open()
    first.close()
    second = state_of(tmp_path / "state", kernel)
    second.open()
    second.close()


def test_a_state_directory_that_is_a_file_is_an_error(tmp_path, kernel):
    (tmp_path / "state").touch()
    with pytest.raises(MountError, match="cannot be used"):
        state_of(tmp_path / "state", kernel).open()


def test_opening_and_closing_leaves_no_descriptor(tmp_path, kernel):
    before = open_files()
    state = state_of(tmp_path / "state", kernel)
    state.open()
    state.close()
    state.close()
    assert open_files() == before


def test_a_runtime_directory_can_be_passed_through_by_the_sidecars_group_only(tmp_path, kernel):
    state = state_of(tmp_path / "state", kernel)
    state.open()
    runtime = state.runtime(runtime_name("v", "/t"))
    runtime.create()
    assert stat.S_IMODE(os.stat(runtime.path).st_mode) == 0o710
    runtime.note("cgroup", "/sys/fs/cgroup/ossfuse/é")
    assert runtime.noted("cgroup") == "/sys/fs/cgroup/ossfuse/é"
    assert runtime.noted("other") == ""
    runtime.remove()
    runtime.remove()
    state.close()


def test_other_files_in_the_state_directory_are_not_taken_for_volumes(tmp_path, kernel):
    state = state_of(tmp_path / "state", kernel)
    state.open()
    (state.path / ".connections").mkdir()
    (state.path / "notes").mkdir()
    assert state.names() == []
    (state.path / "notes").rmdir()
    (state.path / ".connections").rmdir()
    state.close()


def test_volume_and_target_together_name_the_runtime_directory():
    names = {runtime_name("a", "/b"), runtime_name("a", "/c"), runtime_name("b", "/b"), runtime_name("a\0/b", "")}
    assert len(names) == 4
    assert runtime_name("a", "/b") == runtime_name("a", "/b")


def test_state_directories_have_identities_of_their_own(tmp_path, kernel):
    assert state_of(tmp_path / "a", kernel).identity != state_of(tmp_path / "b", kernel).identity
    (tmp_path / "link").symlink_to("a")
    assert state_of(tmp_path / "a", kernel).identity == state_of(tmp_path / "link", kernel).identity


def test_a_state_directory_without_secrets_may_lie_on_a_disk(tmp_path, kernel):
    state = StateDirectory(tmp_path / "state", kernel, kernel.entries, uid=os.getuid(), gid=os.getgid(), secret=False)
    state.open()
    assert [entry.fstype for entry in kernel.table] == ["ext4"]
    state.runtime("0" * 24).create()
    state.close()
    assert state.path.exists()
