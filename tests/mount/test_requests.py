"""How many requests things cost, counted by the server."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.mount.conftest import MountVolume
from tests.support.volumes import MountedVolume

SMALL_FILES = 60
LATENCY = 0.1
RANGE = 128 << 10


@pytest.fixture(params=["fast", "readonly", "consistent"])
def listed(request: pytest.FixtureRequest, mount_volume: MountVolume) -> MountedVolume:
    volume = mount_volume(mode=request.param)
    volume.emulator.seed(volume.prefix + "set/f{n:03d}", b"x" * 100_000, count=SMALL_FILES)
    return volume


def test_ls_l_costs_one_listing_and_no_head(listed: MountedVolume) -> None:
    with os.scandir(listed.path / "set") as entries:
        sizes = [entry.stat().st_size for entry in entries]
    operations = listed.emulator.counters()["operations"]

    assert sizes == [100_000] * SMALL_FILES
    assert "HeadObject" not in operations
    # consistent mode promises fresh attributes, so each stat after the listing may ask again; the others may not
    lists = sum(operations[name]["requests"] for name in operations if name.startswith("ListObjects"))
    assert lists <= (3 if listed.emulator.count("GetObject") == 0 else 0) or "consistent" in _mode(listed)


def test_after_a_listing_a_small_file_costs_exactly_one_get_and_no_head(listed: MountedVolume) -> None:
    # in consistent mode every open asks OSS whether the version is still the one listed: the promise of the mode
    allowed_lists = 2 + 3 * SMALL_FILES if "consistent" in _mode(listed) else 3
    names = sorted(os.listdir(listed.path / "set"))
    listed_at = listed.emulator.counters()["requests"]

    with ThreadPoolExecutor(4) as pool:
        data = list(pool.map(lambda name: (listed.path / "set" / name).read_bytes(), names))

    operations = listed.emulator.counters()["operations"]
    assert data == [b"x" * 100_000] * SMALL_FILES
    assert [listed.gets(f"set/{name}") for name in names] == [1] * SMALL_FILES
    assert "HeadObject" not in operations
    assert operations["GetObject"]["requests"] == SMALL_FILES
    assert listed_at <= 4
    assert listed.emulator.counters()["requests"] - SMALL_FILES <= allowed_lists


def test_a_small_file_is_one_put(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast")
    volume.emulator.reset_counters()

    (volume.path / "new").write_bytes(b"x" * 100_000)

    operations = volume.emulator.counters()["operations"]
    assert operations["PutObject"]["requests"] == 1
    assert "InitiateMultipartUpload" not in operations


def test_a_large_file_is_uploaded_in_parts_that_are_all_used(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast", attributes={"fs.oss.blocklet.size.mb": "1"})
    data = os.urandom(5 << 20)

    (volume.path / "large").write_bytes(data)

    assert volume.emulator.count("InitiateMultipartUpload") == 1
    assert volume.emulator.count("UploadPart") >= 4
    assert volume.emulator.count("CompleteMultipartUpload") == 1
    assert volume.emulator.count("AbortMultipartUpload") == 0
    assert (volume.path / "large").read_bytes() == data


def test_a_rename_moves_no_bytes_through_the_mount(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast")
    volume.put("a", b"x" * (3 << 20))
    volume.emulator.reset_counters()

    (volume.path / "a").rename(volume.path / "b")

    assert volume.emulator.count("CopyObject") == 1
    assert volume.emulator.count("GetObject") == 0
    assert volume.emulator.count("PutObject") == 0


def test_a_sequential_read_moves_every_byte_once(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast")
    volume.put("f", bytes(20 << 20))
    (volume.path / "f").read_bytes()
    moved = volume.emulator.counters()["operations"]["GetObject"]["bytes_out"]

    assert 20 << 20 <= moved <= 21 << 20


def test_records_at_equal_distances_are_fetched_once_and_little_else(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast")
    record, step, count = 16 << 10, 1 << 20, 40
    data = os.urandom(step) * (count + 20)
    volume.put("columns", data)
    descriptor = os.open(volume.path / "columns", os.O_RDONLY)
    try:
        for number in range(count):
            offset = (number + 3) * step + (300 << 10)
            assert os.pread(descriptor, record, offset) == data[offset : offset + record]
    finally:
        os.close(descriptor)
    gets = volume.emulator.requests("GetObject", volume.prefix + "columns")
    moved = sum(entry["bytes_out"] for entry in gets)

    assert len({entry["range"] for entry in gets}) == len(gets), "nothing is fetched twice"
    assert count <= len(gets) <= count + 16, "those of the records, and at most 16 ahead of the last one"
    assert moved <= 2 * (count + 16) * record


def test_reads_at_random_fetch_nothing_ahead(mount_volume: MountVolume) -> None:
    volume = mount_volume(mode="fast")
    data = os.urandom(1 << 20) * 64
    volume.put("large", data)
    offsets = [((number * number * 7919) % 15_000 + 300) * 4096 for number in range(40)]
    descriptor = os.open(volume.path / "large", os.O_RDONLY)
    try:
        for offset in offsets:
            assert os.pread(descriptor, 4096, offset) == data[offset : offset + 4096]
    finally:
        os.close(descriptor)

    # a request that straggles is made a second time, for the same range
    ranges = {entry["range"] for entry in volume.emulator.requests("GetObject", volume.prefix + "large")}
    assert len(ranges) <= len(set(offsets))


def _mode(volume: MountedVolume) -> str:
    return (volume.path.parent / "volume.json").read_text()


@pytest.mark.parametrize("connections", [1, 4])
def test_no_more_requests_are_under_way_than_there_may_be_connections(
    mount_volume: MountVolume, connections: int
) -> None:
    volume = mount_volume(mode="fast", attributes={"fs.oss.max.connections.per.host": str(connections)})
    volume.emulator.seed(volume.prefix + "set/f{n:03d}", b"x" * 100_000, count=SMALL_FILES)
    large = os.urandom(1 << 20) * 20
    volume.put("large", large)
    names = sorted(os.listdir(volume.path / "set"))
    volume.emulator.reset_counters()
    volume.emulator.fault(operation="GetObject", latency=LATENCY / 4)

    with ThreadPoolExecutor(8) as pool:
        whole = pool.submit((volume.path / "large").read_bytes)
        small = list(pool.map(lambda name: (volume.path / "set" / name).read_bytes(), names))

    assert small == [b"x" * 100_000] * SMALL_FILES
    assert whole.result() == large
    assert volume.emulator.counters()["peak_in_flight"] == connections


@pytest.mark.parametrize("threads", [1, 3])
def test_as_many_parts_are_sent_at_a_time_as_the_option_says(mount_volume: MountVolume, threads: int) -> None:
    attributes = {"fs.oss.upload.thread.concurrency": str(threads), "fs.oss.blocklet.size.mb": "1"}
    volume = mount_volume(mode="custom", attributes=attributes)
    data = os.urandom(1 << 20) * 20
    volume.emulator.reset_counters()
    volume.emulator.fault(operation="UploadPart", latency=LATENCY)

    (volume.path / "large").write_bytes(data)

    assert volume.emulator.counters()["operations"]["UploadPart"]["peak_in_flight"] == threads
    assert volume.get("large") == data


@pytest.mark.parametrize("threads", [2, 8])
def test_as_many_ranges_are_read_ahead_at_a_time_as_the_option_says(mount_volume: MountVolume, threads: int) -> None:
    attributes = {
        "fs.oss.download.thread.concurrency": str(threads),
        "fs.oss.read.readahead.buffer.size": str(RANGE),
    }
    # past the page cache, for which the kernel asks for several ranges at a time itself: one is waited for, no more
    volume = mount_volume(mode="custom", arguments="-odirect_io", attributes=attributes)
    large = os.urandom(1 << 20) * 8
    volume.put("large", large)
    volume.emulator.reset_counters()
    volume.emulator.fault(operation="GetObject", latency=LATENCY)

    with (volume.path / "large").open("rb", buffering=0) as file:
        read = b"".join(iter(lambda: file.read(RANGE), b""))

    assert read == large
    gets = volume.emulator.requests("GetObject", volume.prefix + "large")
    made_twice = len(gets) - len({entry["range"] for entry in gets})  # those that straggled, on threads of their own
    peak = volume.emulator.counters()["operations"]["GetObject"]["peak_in_flight"]
    assert threads <= peak <= threads + 1 + made_twice
