from __future__ import annotations

import errno
import os

import pytest

from csi.errors import MountError
from csi.handover.kernel import LinuxKernel, mount_error


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EPERM, "CAP_SYS_ADMIN"),
        (errno.ENOENT, "/dev/fuse"),
        (errno.ENODEV, "modprobe fuse"),
        (errno.EBUSY, "fuser"),
        (errno.ENOSPC, "fs.mount-max"),
        (errno.EMFILE, "ulimit"),
    ],
)
def test_an_errno_comes_with_what_to_do_about_it(number, words):
    error = mount_error("mount of fuse.ossfuse on /x", number)
    assert error.errno == number
    assert errno.errorcode[number] in error.message
    assert "/x" in error.message
    assert words in error.hint


def test_an_errno_without_advice_is_still_named():
    assert "ELOOP" in str(mount_error("mount", errno.ELOOP))


def test_a_missing_fuse_device_is_explained(tmp_path):
    with pytest.raises(MountError, match="modprobe fuse") as caught:
        LinuxKernel(str(tmp_path / "fuse")).open_fuse_device()
    assert caught.value.errno == errno.ENOENT


def test_a_mount_on_nothing_carries_the_kernels_errno(tmp_path):
    with pytest.raises(MountError) as caught:
        LinuxKernel().mount("none", str(tmp_path / "missing"), "tmpfs", 0, "")
    assert caught.value.errno in (errno.ENOENT, errno.EPERM)


def test_an_unmount_of_nothing_carries_the_kernels_errno(tmp_path):
    with pytest.raises(MountError) as caught:
        LinuxKernel().umount2(str(tmp_path), 0)
    assert caught.value.errno in (errno.EINVAL, errno.EPERM)


def test_a_control_file_that_is_not_there_is_not_created(tmp_path):
    with pytest.raises(MountError):
        LinuxKernel().write_control(str(tmp_path / "abort"), "1")
    assert os.listdir(tmp_path) == []


def test_prctl_says_what_was_refused():
    with pytest.raises(MountError, match=r"prctl\(9999, 0\)"):
        LinuxKernel().prctl(9999)
