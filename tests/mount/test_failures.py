"""What a program is told when OSS refuses, fails, lies or falls silent."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from tests.mount.conftest import MountVolume
from tests.mount.test_posix import failure

QUICK = {
    "fs.oss.retry.count": "1",
    "fs.oss.retry.interval.millisecond": "50",
    "fs.oss.timeout.millisecond": "2000",
    "fs.oss.connection.timeout.millisecond": "1000",
}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"status": 403, "code": "AccessDenied"}, errno.EACCES),
        ({"status": 403, "code": "InvalidAccessKeyId"}, errno.EACCES),
        ({"status": 403, "code": "SignatureDoesNotMatch"}, errno.EACCES),
        ({"status": 403, "code": "InvalidObjectState"}, errno.EACCES),
        ({"status": 500, "code": "InternalError"}, errno.EIO),
        ({"status": 503, "code": "ServiceUnavailable"}, errno.EIO),
        ({"truncate_after": 10}, None),
        ({"blackhole": True}, errno.ETIMEDOUT),
    ],
    ids=["denied", "key", "signature", "archived", "500", "503", "truncated", "blackhole"],
)
def test_a_failing_read_has_the_errno_of_its_cause(
    mount_volume: MountVolume, fault: dict[str, object], code: int | None
) -> None:
    volume = mount_volume(mode="fast", attributes=QUICK)
    volume.put("f", b"x" * 300_000)
    assert os.listdir(volume.path) == ["f"]
    volume.emulator.fault(operation="GetObject", **fault)

    found = failure((volume.path / "f").read_bytes)

    assert found == code if code is not None else found in {errno.EIO, errno.EHOSTUNREACH, errno.ETIMEDOUT}
    volume.emulator.clear_faults()
    assert (volume.path / "f").read_bytes() == b"x" * 300_000


def test_a_read_that_is_given_up_after_its_deadline_is_not_made_twice(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast", attributes={**QUICK, "fs.oss.retry.count": "0"})
    volume.put("f", b"x" * 1000)
    volume.emulator.fault(operation="GetObject", blackhole=True)

    assert failure((volume.path / "f").read_bytes) == errno.ETIMEDOUT
    assert volume.gets("f") <= 2  # the request, and the one beside it that a straggler gets (csi/data/flights.py)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"status": 403, "code": "AccessDenied"}, errno.EACCES),
        ({"status": 503, "code": "ServiceUnavailable"}, errno.EIO),
        ({"blackhole": True}, errno.ETIMEDOUT),
    ],
    ids=["denied", "503", "blackhole"],
)
def test_a_failing_listing_is_an_error_and_not_an_empty_directory(
    mount_volume: MountVolume, fault: dict[str, object], code: int
) -> None:
    volume = mount_volume(mode="fast", attributes=QUICK)
    volume.put("f", b"x")
    volume.emulator.fault(operation="ListObjectsV2,ListObjects", **fault)
    volume.emulator.fault(operation="HeadObject", **fault)

    assert failure(os.listdir, volume.path) == code
    assert failure((volume.path / "f").stat) == code


def test_a_failure_that_passes_is_not_seen(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast", attributes={"fs.oss.retry.interval.millisecond": "10"})
    data = os.urandom(3 << 20)
    volume.put("f", data)
    volume.emulator.fault(operation="*", status=503, count=2)
    volume.emulator.fault(operation="GetObject", reset_after=70_000, count=2)

    assert (volume.path / "f").read_bytes() == data


@pytest.mark.parametrize("size", [1000, 12 << 20], ids=["one-put", "multipart"])
@pytest.mark.parametrize(
    ("fault", "code"),
    [({"status": 403, "code": "AccessDenied"}, errno.EACCES), ({"status": 503}, errno.EIO)],
    ids=["denied", "503"],
)
def test_close_reports_a_failed_upload_and_nothing_half_is_left(
    mount_volume: MountVolume, size: int, fault: dict[str, object], code: int
) -> None:
    volume = mount_volume(mode="fast", attributes={**QUICK, "fs.oss.blocklet.size.mb": "2"})
    volume.put("f", b"the old version")
    volume.emulator.fault(operation="PutObject,UploadPart", skip=2 if size > 1000 else 0, **fault)
    descriptor = os.open(volume.path / "f", os.O_WRONLY | os.O_TRUNC)
    told = None
    for _ in range(0, size, 1 << 20):
        told = told or failure(os.write, descriptor, bytes(min(size, 1 << 20)))

    told = failure(os.close, descriptor) or told

    assert told == code
    volume.emulator.clear_faults()
    assert (volume.path / "f").read_bytes() == b"the old version"
    assert volume.uploads() == []


def test_a_wrong_checksum_is_never_taken_for_data(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast", attributes=QUICK)
    volume.put("f", b"x" * 1000)
    volume.emulator.fault(operation="GetObject", corrupt_body=True)

    assert failure((volume.path / "f").read_bytes) == errno.EIO


@pytest.mark.parametrize("size", [1000, 3 << 20])
def test_with_md5_an_object_outlives_an_overwrite_that_is_damaged_on_the_way(
    mount_volume: MountVolume, size: int
) -> None:
    attributes = {**QUICK, "fs.oss.checksum.md5.enable": "true", "fs.oss.blocklet.size.mb": "1"}
    volume = mount_volume(mode="fast", attributes=attributes)
    volume.put("f", b"x" * size)
    volume.emulator.fault(operation="PutObject,UploadPart", corrupt_upload=True)

    assert failure((volume.path / "f").write_bytes, b"y" * size) == errno.EIO

    assert volume.get("f") == b"x" * size
    volume.emulator.clear_faults()
    (volume.path / "f").write_bytes(b"y" * size)
    assert volume.get("f") == b"y" * size


def test_a_lost_answer_to_a_put_is_not_an_error(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast", attributes={"fs.oss.retry.interval.millisecond": "10"})
    volume.emulator.fault(operation="PutObject", drop_answer=True, count=1)

    (volume.path / "f").write_bytes(b"x" * 1000)

    assert (volume.path / "f").read_bytes() == b"x" * 1000


def test_while_one_read_hangs_others_go_on(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast", attributes=QUICK)
    volume.put("stuck", b"x" * 1000)
    volume.put("fine", b"y" * 1000)
    volume.emulator.fault(operation="GetObject", key="*stuck", blackhole=True)
    script = f"open({str(volume.path / 'stuck')!r}, 'rb').read()"
    stuck = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)

    assert (volume.path / "fine").read_bytes() == b"y" * 1000
    assert stuck.poll() is None
    _, complaint = stuck.communicate(timeout=60)
    assert b"TimeoutError" in complaint


def test_a_silent_server_ends_in_etimedout_within_the_deadline(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast", attributes={**QUICK, "fs.oss.retry.count": "3"})
    volume.put("f", b"x" * 1000)
    assert os.listdir(volume.path) == ["f"]
    volume.emulator.fault(operation="*", blackhole=True)

    # the mount is aborted after 150 seconds (ENOTCONN), so this is the deadline of the operation
    assert failure((volume.path / "f").read_bytes) == errno.ETIMEDOUT


def test_a_dead_server_is_told_from_a_silent_one(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast", attributes={**QUICK, "url": "http://127.0.0.1:9"})

    assert failure(os.listdir, volume.path) == errno.EHOSTUNREACH


def test_errors_are_logged_with_what_support_asks_for(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast", attributes=QUICK)
    volume.put("f", b"x")
    assert os.listdir(volume.path) == ["f"]
    volume.emulator.fault(operation="GetObject", status=403, code="AccessDenied")

    failure((volume.path / "f").read_bytes)

    log = volume.served.log()
    request_id = volume.emulator.requests("GetObject")[-1]["request_id"]
    assert request_id in log
    assert "AccessDenied" in log
    assert "GetObject" in log
    assert "data/f" in log
    assert volume.emulator.access_key_secret not in log


def test_a_read_only_mount_refuses_changes_with_erofs_before_the_server_is_asked(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="readonly")
    volume.put("f", b"x")
    volume.emulator.reset_counters()
    path = volume.path
    refusals = [
        failure((path / "new").write_bytes, b""),
        failure((path / "f").write_bytes, b""),
        failure((path / "f").unlink),
        failure((path / "d").mkdir),
        failure((path / "f").rename, path / "g"),
        failure(os.truncate, path / "f", 0),
        failure(os.setxattr, path / "f", "user.a", b"1"),
    ]

    assert refusals == [errno.EROFS] * len(refusals)
    assert (path / "f").read_bytes() == b"x"
    assert volume.emulator.count("PutObject") == 0


def test_sigterm_finishes_what_is_being_written(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast")
    file = (volume.path / "f").open("wb", buffering=0)
    file.write(b"written before the end")

    assert volume.served.terminate() == 0

    with pytest.raises(OSError):
        file.close()
    volume.served.abort()
    again = mount_volume(mode="fast")
    assert (again.path / "f").read_bytes() == b"written before the end"


def test_unmounting_ends_the_server_with_success(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast")
    (volume.path / "f").write_bytes(b"x")

    assert volume.served.unmount() == 0
