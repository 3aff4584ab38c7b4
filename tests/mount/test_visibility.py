"""What one client sees of another's changes, and when: kernel timeouts, cache policies, close-to-open."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from tests.mount.conftest import MountVolume
from tests.support.volumes import MountedVolume

DEADLINE = 30.0


def until(condition: object, seconds: float = DEADLINE) -> bool:
    """Whether `condition()` becomes true: for what is promised to happen after a timeout, not at a moment."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        threading.Event().wait(0.02)
    return False


# --- attributes and names ---


def test_in_consistent_mode_the_next_stat_sees_another_clients_change(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="consistent")
    volume.put("f", b"one")
    assert (volume.path / "f").stat().st_size == 3

    volume.put("f", b"three")

    assert (volume.path / "f").stat().st_size == 5


def test_in_consistent_mode_the_next_open_reads_another_clients_bytes(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="consistent")
    seen = []
    for text in (b"aaa", b"bbb", b"cccc"):
        volume.put("f", text)
        seen.append((volume.path / "f").read_bytes())

    assert seen == [b"aaa", b"bbb", b"cccc"]


def test_in_consistent_mode_appearing_and_vanishing_names_are_seen_at_once(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="consistent")
    assert not (volume.path / "f").exists()
    volume.put("f", b"x")
    assert (volume.path / "f").exists()
    assert os.listdir(volume.path) == ["f"]

    volume.emulator.admin("PUT", "/buckets", {"name": "other-" + volume.emulator.bucket})
    volume.put("dir/g", b"x")

    assert sorted(os.listdir(volume.path)) == ["dir", "f"]


def test_attributes_are_trusted_for_attr_timeout_and_not_longer(mount_volume: MountVolume) -> None:
    volume = mount_volume(
        mode="custom", arguments="-oattr_timeout=1 -oentry_timeout=1 -onegative_timeout=0 -oauto_cache"
    )
    volume.put("f", b"one")
    assert (volume.path / "f").stat().st_size == 3
    volume.put("f", b"three")

    assert until(lambda: (volume.path / "f").stat().st_size == 5)


def test_within_the_timeouts_a_stat_costs_no_request(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="readonly")
    volume.put("f", b"one")
    (volume.path / "f").stat()
    volume.emulator.reset_counters()

    for _ in range(20):
        (volume.path / "f").stat()

    assert volume.emulator.counters()["requests"] == 0


def test_an_absent_name_is_trusted_for_negative_timeout(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="readonly")
    assert not (volume.path / "nope").exists()
    volume.emulator.reset_counters()

    for _ in range(20):
        assert not (volume.path / "nope").exists()

    assert volume.emulator.counters()["requests"] == 0


def test_in_fast_mode_a_name_that_appears_is_seen_at_once(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast")
    assert not (volume.path / "f").exists()

    volume.put("f", b"x")

    assert (volume.path / "f").exists()


# --- the page cache ---


def test_auto_cache_reads_an_unchanged_object_once(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="consistent")
    volume.put("f", b"x" * 200_000)
    for _ in range(5):
        (volume.path / "f").read_bytes()

    assert volume.gets("f") == 1


def test_kernel_cache_keeps_what_it_has_read(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="readonly")
    volume.put("f", b"old" * 1000)
    first = (volume.path / "f").read_bytes()
    volume.put("f", b"new" * 1000)

    assert (volume.path / "f").read_bytes() == first == b"old" * 1000
    assert volume.gets("f") == 1


def test_a_reader_never_sees_two_versions_mixed(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="consistent")
    size = 6 << 20
    volume.put("f", b"a" * size)
    with (volume.path / "f").open("rb", buffering=0) as file:
        assert file.read(1000) == b"a" * 1000
        volume.put("f", b"b" * size)
        try:
            rest = b"".join(iter(lambda: file.read(1 << 20), b""))
        except OSError as error:
            assert error.errno == errno.ESTALE
            rest = b"a"

    assert set(rest) == {ord("a")}
    assert (volume.path / "f").read_bytes() == b"b" * size


def test_an_overwrite_of_the_same_size_in_the_same_second_is_noticed(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="consistent")
    moment = 1_700_000_000
    volume.emulator.seed(volume.prefix + "f", b"one", modified=moment)
    before = ((volume.path / "f").read_bytes(), (volume.path / "f").stat().st_mtime_ns)

    volume.emulator.seed(volume.prefix + "f", b"two", modified=moment)

    after = ((volume.path / "f").read_bytes(), (volume.path / "f").stat().st_mtime_ns)
    assert (before[0], after[0]) == (b"one", b"two")
    assert before[1] != after[1]
    assert before[1] // 10**9 == after[1] // 10**9 == moment


# --- two mounts ---


@pytest.fixture(params=["", "-odirect_io"], ids=["page-cache", "direct"])
def pair(request: pytest.FixtureRequest, mount_volume: MountVolume) -> tuple[Path, Path]:
    volumes: list[MountedVolume] = [mount_volume(mode="consistent", arguments=request.param) for _ in range(2)]
    return volumes[0].path, volumes[1].path


def test_what_one_mount_closes_the_next_open_on_another_sees(pair: tuple[Path, Path]) -> None:
    one, two = pair
    for round_ in range(5):
        (one / "f").write_bytes(b"one %d" % round_)
        assert (two / "f").read_bytes() == b"one %d" % round_
        (two / "f").write_bytes(b"and two %d" % round_)
        assert (one / "f").read_bytes() == b"and two %d" % round_


def test_a_file_is_invisible_to_another_mount_until_it_is_closed(pair: tuple[Path, Path]) -> None:
    one, two = pair
    with (one / "f").open("wb", buffering=0) as file:
        file.write(b"x")
        before = (two / "f").exists()
        listed = os.listdir(two)

    assert (before, listed) == (False, [])
    assert (two / "f").read_bytes() == b"x"


def test_renames_and_removals_are_seen_on_another_mount(pair: tuple[Path, Path]) -> None:
    one, two = pair
    (one / "dir").mkdir()
    (one / "dir/f").write_bytes(b"x")
    assert (two / "dir/f").read_bytes() == b"x"

    (two / "dir").rename(two / "moved")
    assert (one / "moved/f").read_bytes() == b"x"
    assert not (one / "dir").exists()
    (one / "moved/f").unlink()
    (one / "moved").rmdir()
    assert os.listdir(two) == []


def test_of_two_mounts_that_make_one_directory_one_gets_eexist(pair: tuple[Path, Path]) -> None:
    one, two = pair
    (one / "dir").mkdir()

    with pytest.raises(FileExistsError):
        (two / "dir").mkdir()


# --- append mode ---


def test_in_append_mode_a_file_is_read_elsewhere_while_it_grows(mount_volume: MountVolume) -> None:
    attributes = {"fs.oss.append.enable": "true"}
    writer = mount_volume(mode="incremental", attributes=attributes)
    reader = mount_volume(mode="consistent", attributes=attributes)
    seen = []
    with (writer.path / "log").open("ab", buffering=0) as file:
        for line in (b"one\n", b"two\n", b"three\n"):
            file.write(line)
            os.fsync(file.fileno())
            seen.append((reader.path / "log").read_bytes())

    assert seen == [b"one\n", b"one\ntwo\n", b"one\ntwo\nthree\n"]


def test_in_append_mode_data_is_pushed_every_flush_interval(mount_volume: MountVolume) -> None:
    attributes = {"fs.oss.append.enable": "true", "fs.oss.flush.interval.millisecond": "200"}
    writer = mount_volume(mode="incremental", attributes=attributes)
    reader = mount_volume(mode="consistent")
    with (writer.path / "log").open("ab", buffering=0) as file:
        file.write(b"tick\n")

        assert until(lambda: (reader.path / "log").read_bytes() == b"tick\n")


@pytest.mark.parametrize("read_back", [False, True], ids=["wronly", "rdwr"])
def test_in_append_mode_what_is_appended_goes_to_the_end_that_another_client_made(
    mount_volume: MountVolume, read_back: bool
) -> None:
    attributes = {"fs.oss.append.enable": "true"}
    one = mount_volume(mode="fast", attributes=attributes)
    two = mount_volume(mode="fast", attributes=attributes)
    flags = os.O_APPEND | (os.O_RDWR if read_back else os.O_WRONLY)
    (one.path / "log").write_bytes(b"first\n")
    assert (two.path / "log").stat().st_size == 6  # and is believed to be for a while
    with (one.path / "log").open("ab") as file:
        file.write(b"second\n")
    for line in (b"third\n", b"fourth\n"):
        descriptor = os.open(two.path / "log", flags)
        assert os.write(descriptor, line[:2]) == 2
        assert os.write(descriptor, line[2:]) == len(line) - 2
        if read_back:
            assert os.pread(descriptor, 100, 0).startswith(b"first\nsecond\nthird\n")
        os.close(descriptor)
    everything = b"first\nsecond\nthird\nfourth\n"
    assert (two.path / "log").read_bytes() == everything
    assert (two.path / "log").stat().st_size == len(everything)
    with (one.path / "log").open("ab") as file:  # which does not know either
        file.write(b"fifth\n")
    assert until(lambda: (one.path / "log").read_bytes() == everything + b"fifth\n")


def test_in_append_mode_two_appenders_are_told_and_no_byte_is_mixed(mount_volume: MountVolume) -> None:
    attributes = {"fs.oss.append.enable": "true"}
    one = mount_volume(mode="consistent", attributes=attributes)
    two = mount_volume(mode="consistent", attributes=attributes)
    first = (one.path / "log").open("ab", buffering=0)
    first.write(b"first\n")
    os.fsync(first.fileno())
    second = (two.path / "log").open("ab", buffering=0)
    second.write(b"second\n")
    os.fsync(second.fileno())

    with pytest.raises(OSError) as refused:
        first.write(b"late\n")
        os.fsync(first.fileno())

    assert refused.value.errno == errno.EBUSY
    second.close()
    with pytest.raises(OSError):
        first.close()
    assert (two.path / "log").read_bytes() == b"first\nsecond\n"
