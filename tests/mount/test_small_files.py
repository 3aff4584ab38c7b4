"""Small files that the kernel session reads by itself: which bytes come, by how many requests, whatever else happens.

The listing has told of the files; what another client does is done with oss2, past the mount.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import MountVolume
from tests.support.volumes import MountedVolume

SIZE = 100 * 1024


def content(number: int) -> bytes:
    return bytes([number % 251]) * (SIZE - 8) + number.to_bytes(8, "big")


def filled(mount_volume: MountVolume, count: int = 40, **options: object) -> MountedVolume:
    volume = mount_volume(**options)
    for number in range(count):
        volume.put(f"d/{number:04}", content(number))
    assert len(os.listdir(volume.path / "d")) == count
    return volume


def served(volume: MountedVolume, name: str) -> int:
    """GETs of a file that were answered with its bytes: pages that the kernel was short of memory for are asked for
    again, in vain if the file has been replaced."""
    requests = volume.emulator.requests()
    return sum(
        (each["operation"], each["key"], each["status"]) == ("GetObject", volume.prefix + name, 200)
        for each in requests
    )


def test_each_listed_file_is_fetched_once(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda number: (volume.path / f"d/{number:04}").read_bytes(), range(40)))
    assert read == [content(number) for number in range(40)]
    assert [volume.gets(f"d/{number:04}") for number in range(40)] == [1] * 40


def test_bytes_come_in_whatever_pieces_they_are_asked_for(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 2)
    with open(volume.path / "d/0000", "rb", buffering=0) as file:
        pieces = [os.pread(file.fileno(), 5_000, offset) for offset in range(0, SIZE, 5_000)]
        assert os.pread(file.fileno(), 10, SIZE) == b""
    assert b"".join(pieces) == content(0)
    assert volume.gets("d/0000") == 1


def test_a_file_is_fetched_again_only_when_it_is_another_one(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 2)
    path = volume.path / "d/0000"
    assert [path.read_bytes(), path.read_bytes()] == [content(0)] * 2
    volume.put("d/0000", content(7))
    assert until(path.read_bytes, content(7)) == content(7)
    assert served(volume, "d/0000") == 2


def test_after_a_reader_was_told_that_a_file_was_replaced_the_next_one_sees_the_new_one(
    mount_volume: MountVolume,
) -> None:
    volume = filled(mount_volume, 2)
    path = volume.path / "d/0000"
    with open(path, "rb", buffering=0) as file:
        volume.put("d/0000", content(7))
        with pytest.raises(OSError) as failed:
            file.read()
    assert failed.value.errno == errno.ESTALE
    assert path.read_bytes() == content(7)
    assert served(volume, "d/0000") == 1


def test_a_file_that_was_replaced_after_it_was_opened_is_not_mixed(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 2)
    with open(volume.path / "d/0000", "rb", buffering=0) as file:
        volume.put("d/0000", content(7))
        with pytest.raises(OSError) as failed:
            file.read()
    assert failed.value.errno == errno.ESTALE
    assert until((volume.path / "d/0000").read_bytes, content(7)) == content(7)


def test_a_file_that_is_removed_after_it_was_opened_is_read_whole(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 2)
    with open(volume.path / "d/0000", "rb", buffering=0) as file:
        (volume.path / "d/0000").unlink()
        assert file.readall() == content(0)
    assert not (volume.path / "d/0000").exists()


def test_a_large_file_that_is_removed_after_it_was_opened_says_so(mount_volume: MountVolume) -> None:
    volume = mount_volume()
    volume.put("large", os.urandom(9 << 20))
    with open(volume.path / "large", "rb", buffering=0) as file:
        (volume.path / "large").unlink()
        with pytest.raises(OSError) as failed:
            file.readall()
    assert failed.value.errno == errno.ESTALE


def test_what_was_read_before_a_file_was_unlinked_stays(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 2)
    with open(volume.path / "d/0000", "rb", buffering=0) as file:
        assert os.pread(file.fileno(), SIZE, 0) == content(0)
        (volume.path / "d/0000").unlink()
        assert os.pread(file.fileno(), SIZE, 0) == content(0)


def test_a_file_that_is_renamed_while_it_is_open_is_read_on(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 2)
    with open(volume.path / "d/0000", "rb", buffering=0) as file:
        (volume.path / "d/0000").rename(volume.path / "d/moved")
        assert file.read() == content(0)
    assert (volume.path / "d/moved").read_bytes() == content(0)
    assert (volume.path / "d/0001").read_bytes() == content(1)


def test_a_file_in_a_directory_that_is_renamed_while_it_is_open_is_read_on(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 2)
    with open(volume.path / "d/0000", "rb", buffering=0) as file:
        (volume.path / "d").rename(volume.path / "e")
        assert file.read() == content(0)
    assert (volume.path / "e/0001").read_bytes() == content(1)


def test_who_writes_the_file_reads_what_was_written(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 2)
    path = volume.path / "d/0000"
    with open(path, "rb", buffering=0) as reader:
        path.write_bytes(b"new")
        assert path.read_bytes() == b"new"
        with contextlib.suppress(OSError):
            assert reader.read() in (b"new", content(0))
    assert volume.get("d/0000") == b"new"


def test_a_file_that_grows_is_read_on_by_who_has_it_open(mount_volume: MountVolume) -> None:
    volume = mount_volume(attributes={"fs.oss.append.enable": "true"})
    path = volume.path / "log"
    path.write_bytes(b"one")
    os.listdir(volume.path)
    with open(path, "rb", buffering=0) as reader:
        assert reader.read() == b"one"
        with open(path, "ab") as writer:
            writer.write(b"two")
        assert until(reader.read, b"two") == b"two"


def test_many_programs_open_and_close_without_reading(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 4)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: open(volume.path / f"d/{number % 4:04}", "rb").close(), range(400)))
    assert [volume.gets(f"d/{number:04}") for number in range(4)] == [0] * 4
    assert (volume.path / "d/0003").read_bytes() == content(3)


def test_close_to_open_holds_where_everything_is_asked_for(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 2, mode="consistent")
    path = volume.path / "d/0000"
    for number in range(10):
        volume.put("d/0000", content(number))
        assert path.read_bytes() == content(number)


def test_pages_are_kept_for_who_opens_the_same_version_again(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 2, mode="custom", arguments="-oattr_timeout=60 -oentry_timeout=60")
    path = volume.path / "d/0000"
    assert [path.read_bytes() for _ in range(3)] == [content(0)] * 3
    assert volume.gets("d/0000") == 1


@pytest.mark.parametrize("arguments", ["-odirect_io", "-opread"])
def test_files_are_read_where_the_session_does_not_read_them_by_itself(
    mount_volume: MountVolume, arguments: str
) -> None:
    volume = filled(mount_volume, 2, arguments=arguments)
    assert (volume.path / "d/0001").read_bytes() == content(1)


def test_a_read_only_volume_is_read_the_same_way(mount_volume: MountVolume) -> None:
    writer = mount_volume()
    for number in range(20):
        writer.put(f"d/{number:04}", content(number))
    volume = mount_volume(mode="readonly")
    names = sorted(os.listdir(volume.path / "d"))
    assert [(volume.path / "d" / name).read_bytes() for name in names] == [content(number) for number in range(20)]
    assert [volume.gets(f"d/{name}") for name in names] == [1] * 20


def test_a_forgotten_file_can_be_opened_again(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 20)
    for _ in range(3):
        assert (volume.path / "d/0005").read_bytes() == content(5)
        drop_names()
    assert sorted(os.listdir(volume.path / "d")) == [f"{number:04}" for number in range(20)]


def test_names_that_grew_old_cost_pages_and_not_requests(mount_volume: MountVolume) -> None:
    volume = filled(mount_volume, 120, arguments="-oattr_timeout=1 -oentry_timeout=0")
    time.sleep(1.2)  # the listing is older than its names may be believed
    for number in range(120):
        assert (volume.path / f"d/{number:04}").read_bytes() == content(number)
    lists = len(volume.emulator.requests("ListObjectsV2"))
    assert lists <= 40
    assert [volume.gets(f"d/{number:04}") for number in range(120)] == [1] * 120


def until(read: Callable[[], bytes], expected: bytes) -> bytes:
    """What `read` returns at last: names and attributes may be believed for a few seconds."""
    end = time.monotonic() + 20.0
    found = b""
    while found != expected and time.monotonic() < end:
        with contextlib.suppress(OSError):
            found = read()
        time.sleep(0.05)
    return found


def drop_names() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("2")
