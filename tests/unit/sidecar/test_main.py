from __future__ import annotations

import os
import stat

import pytest

from csi.handover.wire import Mount
from csi.sidecar.main import ReadyFile, _parser, _within
from csi.volume.units import MIB, Bytes

MOUNT = Mount(1, "vol", "hash", "{}", False, "credentials", 512 * MIB, 30.0)


@pytest.fixture
def directory(tmp_path):
    descriptor = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_the_ready_file_is_made_and_taken_back(tmp_path, directory):
    ready = ReadyFile(directory, "READY")
    ready.remove()
    ready.make()
    assert stat.S_ISREG((tmp_path / "READY").lstat().st_mode)
    ready.make()
    ready.remove()
    assert not (tmp_path / "READY").exists()


def test_without_a_name_there_is_no_ready_file(tmp_path, directory):
    ReadyFile(directory, "").make()
    ReadyFile(directory, "").remove()
    assert list(tmp_path.iterdir()) == []


def test_a_ready_file_that_cannot_be_made_is_in_the_log_and_the_volume_works(tmp_path, directory, caplog):
    (tmp_path / "READY").symlink_to("/etc/hostname")
    ReadyFile(directory, "READY").make()
    assert "READY cannot be made beside the socket" in caplog.text


def test_who_waits_at_the_pipe_is_woken_also_who_opens_it_late(tmp_path, directory):
    os.mkfifo(tmp_path / "READY.pipe")
    ready = ReadyFile(directory, "READY")
    ready.make()
    with (tmp_path / "READY.pipe").open("rb", buffering=0) as pipe:
        assert (tmp_path / "READY").exists()
        assert pipe.read(1) == b"\n"
    ready.close()


def test_what_is_no_pipe_wakes_nobody_and_the_file_is_made(tmp_path, directory):
    (tmp_path / "READY.pipe").mkdir()
    ReadyFile(directory, "READY").make()
    assert (tmp_path / "READY").exists()


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(0, 512), (256 * MIB, 256), (512 * MIB, 512), (512 * MIB - 1, 512), (1024 * MIB, 512)],
    ids=["unknown", "less", "the same", "the same in pages", "more"],
)
def test_the_smaller_of_what_was_said_and_what_the_kernel_allows_counts(limit, expected):
    assert _within(MOUNT, Bytes(limit)).memory_limit == expected * MIB


def test_in_a_pod_nothing_but_the_socket_needs_to_be_said():
    options = _parser().parse_args(["--socket", "/run/ossfuse"])
    assert (options.ready_file, options.patience, options.log_format) == ("READY", float("inf"), "json")
