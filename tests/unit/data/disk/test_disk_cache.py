"""The disk cache as the block cache sees it: what it keeps, what it believes, what it does when the disk fails."""

import errno
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csi.data.buffers import BufferPool
from csi.data.disk.cache import DiskCache, Place
from csi.data.disk.entries import SMALL
from csi.data.disk.files import Files
from csi.data.disk.naming import scope_of
from csi.data.ledger import MemoryLedger
from csi.handover.kernel import MNT_DETACH, LinuxKernel
from csi.volume.naming import CACHE_FOLDER
from csi.volume.units import KIB, MIB, Bytes, Seconds
from tests.support.descriptors import open_files
from tests.support.disk_caches import (
    SCOPE,
    FailingFiles,
    bytes_of,
    disk_cache,
    files_in,
    keep,
    kept,
    version,
)
from tests.support.engines import LONG, ManualClock

UNIT = 128 * KIB
SIZES = [1, UNIT, 300_000, SMALL, SMALL + 1, 5 * MIB, 5 * MIB + 12345]


# --- what is kept ---


@pytest.mark.parametrize("size", SIZES)
def test_what_was_kept_is_there_for_the_next_process(tmp_path: Path, size: int) -> None:
    of = version("a", size)
    with disk_cache(tmp_path) as cache:
        assert kept(cache, of) == 0
        keep(cache, of)
        assert kept(cache, of) == size
    with disk_cache(tmp_path) as cache:
        assert kept(cache, of) == size
        assert (cache.statistics().hits, cache.statistics().hit_bytes) == (1, size)


@pytest.mark.parametrize("size", SIZES)
def test_a_part_of_what_is_kept_can_be_read_by_itself(tmp_path: Path, size: int) -> None:
    of = version("a", size)
    start, end = size // 3, max(size // 3 + 1, size // 2)
    with disk_cache(tmp_path) as cache:
        keep(cache, of)
        assert kept(cache, of, start, end) == end - start


def test_a_large_object_is_kept_unit_by_unit_and_given_as_far_as_it_goes(tmp_path: Path) -> None:
    of = version("a", 3 * MIB + 5)
    with disk_cache(tmp_path) as cache:
        keep(cache, of, MIB, 2 * MIB)
        assert kept(cache, of, MIB, 2 * MIB) == MIB
        assert kept(cache, of, 0, MIB) == 0
        assert kept(cache, of, 2 * MIB - 7, 2 * MIB + 7) == 7
        keep(cache, of, 2 * MIB)
        assert kept(cache, of, MIB + 5) == 2 * MIB
        assert kept(cache, of) == 0


def test_of_a_range_off_the_grid_the_units_it_covers_are_kept(tmp_path: Path) -> None:
    of = version("a", 3 * MIB)
    with disk_cache(tmp_path) as cache:
        keep(cache, of, UNIT - 1, 3 * UNIT + 1)
        assert kept(cache, of, UNIT, 3 * UNIT) == 2 * UNIT
        assert kept(cache, of, 0, UNIT) == kept(cache, of, 3 * UNIT, 4 * UNIT) == 0


def test_a_part_of_a_small_object_is_not_kept(tmp_path: Path) -> None:
    of = version("a", 300_000)
    with disk_cache(tmp_path) as cache:
        keep(cache, of, 0, 200_000)
        assert kept(cache, of) == 0
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    "other",
    [version("a", 300_000, "two"), version("b", 300_000), version("a", 300_001)],
    ids=["another ETag", "another key", "another size"],
)
def test_another_version_is_another_entry(tmp_path: Path, other: object) -> None:
    with disk_cache(tmp_path) as cache:
        keep(cache, version("a", 300_000))
        assert kept(cache, other) == 0  # type: ignore[arg-type]


def test_another_identity_finds_nothing(tmp_path: Path) -> None:
    of = version("a", 300_000)
    with disk_cache(tmp_path) as cache:
        keep(cache, of)
    with disk_cache(tmp_path, scope=scope_of("http://h", "bucket", "somebody else")) as cache:
        assert kept(cache, of) == 0


def test_an_object_without_an_etag_is_not_kept(tmp_path: Path) -> None:
    of = version("a", 300_000, etag="")
    with disk_cache(tmp_path) as cache:
        keep(cache, of)
        assert kept(cache, of) == 0


def test_nobody_else_may_look_into_it_and_names_tell_nothing(tmp_path: Path) -> None:
    with disk_cache(tmp_path) as cache:
        keep(cache, version("secret-plans", 300_000))
        keep(cache, version("secret-plans-2", 3 * MIB))
    found = [path for path in tmp_path.rglob("*") if path != tmp_path]
    assert {path.stat().st_mode & 0o777 for path in found if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in found if path.is_file()} == {0o600}
    assert not [path for path in found if "secret" in str(path.relative_to(tmp_path))]


# --- what is believed ---


@pytest.mark.parametrize("size", [300_000, 3 * MIB])
def test_a_byte_that_changed_on_the_disk_is_never_given_and_its_entry_removed(tmp_path: Path, size: int) -> None:
    of = version("a", size)
    with disk_cache(tmp_path) as cache:
        keep(cache, of)
        data = next(path for path in files_in(tmp_path) if path.suffix != ".map")
        with data.open("r+b") as file:
            file.seek(200_000)
            file.write(bytes([bytes_of(of)[200_000] ^ 1]))
        assert kept(cache, of) == 0
        assert cache.settle(Seconds(LONG))
        assert files_in(tmp_path) == []
        assert (cache.statistics().corrupt, cache.statistics().directory_bytes) == (1, 0)
        keep(cache, of)
        assert kept(cache, of) == size


@pytest.mark.parametrize("size", [300_000, 3 * MIB])
def test_a_file_that_was_cut_off_is_not_believed(tmp_path: Path, size: int) -> None:
    of = version("a", size)
    with disk_cache(tmp_path) as cache:
        keep(cache, of)
    data = next(path for path in files_in(tmp_path) if path.suffix != ".map")
    os.truncate(data, 150_000)
    with disk_cache(tmp_path) as cache:
        assert kept(cache, of) == 0


def test_bytes_without_their_checksums_are_not_there(tmp_path: Path) -> None:
    of = version("a", 3 * MIB)
    with disk_cache(tmp_path) as cache:
        keep(cache, of)
    next(path for path in files_in(tmp_path) if path.suffix == ".map").unlink()
    with disk_cache(tmp_path) as cache:
        assert kept(cache, of) == 0
        keep(cache, of)
        assert kept(cache, of) == 3 * MIB


def test_what_a_dead_process_was_writing_is_removed_and_all_counted_anew(tmp_path: Path) -> None:
    of = version("a", 300_000)
    with disk_cache(tmp_path) as cache:
        keep(cache, of)
        before = cache.statistics().directory_bytes
    entry = files_in(tmp_path)[0]
    entry.with_name(f"{entry.name}.0123-1.tmp").write_bytes(b"half" * 10_000)
    (tmp_path / CACHE_FOLDER / "usage").write_bytes(b"\xff\xff\xff\x7f" * 16)
    with disk_cache(tmp_path) as cache:
        assert cache.settle(Seconds(LONG))
        assert files_in(tmp_path) == [entry]
        assert cache.statistics().directory_bytes == before
        assert kept(cache, of) == 300_000


# --- the bound ---


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    wall = ManualClock()
    objects = [version(f"k{number}", 900 * KIB) for number in range(8)]
    with disk_cache(tmp_path, limit=8 * MIB, wall=wall) as cache:
        for number, of in enumerate(objects):
            before = set(files_in(tmp_path))
            keep(cache, of)
            (made,) = set(files_in(tmp_path)) - before
            os.utime(made, (number, number))
        assert kept(cache, objects[0]) == 900 * KIB  # used again: it is the newest now
        for number in range(3):
            keep(cache, version(f"new{number}", 900 * KIB))
        assert [bool(kept(cache, of)) for of in objects[:3]] == [True, False, False]
        assert kept(cache, objects[-1])
        assert cache.statistics().evicted >= 2
        assert cache.statistics().directory_bytes <= 8 * MIB


def test_the_order_of_use_outlives_the_process(tmp_path: Path) -> None:
    objects = [version(f"k{number}", 900 * KIB) for number in range(8)]
    with disk_cache(tmp_path, limit=8 * MIB) as cache:
        for of in objects:
            keep(cache, of)
    for path in files_in(tmp_path):
        os.utime(path, (1, 1))
    wall = ManualClock()
    with disk_cache(tmp_path, limit=8 * MIB, wall=wall) as cache:
        assert kept(cache, objects[5])
    with disk_cache(tmp_path, limit=1 * MIB) as cache:
        assert cache.settle(Seconds(LONG))
        assert [bool(kept(cache, of)) for of in objects] == [number == 5 for number in range(8)]


def test_an_object_larger_than_the_bound_is_kept_as_far_as_there_is_room(tmp_path: Path) -> None:
    of = version("a", 6 * MIB)
    with disk_cache(tmp_path, limit=4 * MIB) as cache:
        for start in range(0, 6 * MIB, MIB):
            keep(cache, of, start, start + MIB)
        assert kept(cache, of) == 3 * MIB
        assert cache.statistics().passed_over == 3
    assert sum(path.stat().st_blocks * 512 for path in files_in(tmp_path)) <= 4 * MIB


def test_a_bound_that_became_smaller_is_kept_from_the_start(tmp_path: Path) -> None:
    with disk_cache(tmp_path) as cache:
        for number in range(20):
            keep(cache, version(f"k{number}", 900 * KIB))
    with disk_cache(tmp_path, limit=5 * MIB) as cache:
        assert cache.settle(Seconds(LONG))
        assert 0 < cache.statistics().directory_bytes <= 5 * MIB
    assert sum(path.stat().st_blocks * 512 for path in files_in(tmp_path)) <= 5 * MIB


# --- the disk fails ---


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("size", [300_000, 3 * MIB])
def test_a_disk_that_refuses_writes_is_left_alone_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, number: int, size: int
) -> None:
    caplog.set_level(logging.INFO)
    files, clock = FailingFiles(), ManualClock()
    old, new = version("old", size), version("new", size)
    with disk_cache(tmp_path, files=files, clock=clock) as cache:
        keep(cache, old)
        files.fail(number, "write")
        for _ in range(3):
            keep(cache, new)
        assert kept(cache, new) == 0
        assert kept(cache, old) == (0 if number == errno.EIO else size)
        files.mend()
        keep(cache, new)
        assert kept(cache, new) == 0, "it was tried again too early"
        assert os.strerror(number) in cache.statistics().trouble
        assert cache.statistics().failed == 1
        clock.now += 301
        keep(cache, new)
        assert kept(cache, new) == kept(cache, old) == size
        assert cache.statistics().trouble == ""
    said = [record.message for record in caplog.records if record.name.startswith("csi.data.disk")]
    assert said == [
        f"disk cache in {tmp_path}: writing: {os.strerror(number)}; it is not used for now, OSS is",
        f"disk cache in {tmp_path}: it is used again",
    ]


def test_a_disk_that_cannot_be_read_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files, clock = FailingFiles(), ManualClock()
    of = version("a", 300_000)
    with disk_cache(tmp_path, files=files, clock=clock) as cache:
        keep(cache, of)
        files.fail(errno.EIO, "read")
        assert [kept(cache, of) for _ in range(5)] == [0] * 5
        assert cache.statistics().failed == 1
    assert len([record for record in caplog.records if "reading: Input/output error" in record.message]) == 1


@pytest.mark.parametrize("size", [300_000, 3 * MIB])
def test_a_disk_on_which_no_use_can_be_noted_is_read_all_the_same(tmp_path: Path, size: int) -> None:
    files, wall, of = FailingFiles(), ManualClock(), version("a", size)
    with disk_cache(tmp_path, files=files, wall=wall) as cache:
        keep(cache, of)
        files.fail(errno.EROFS, "used_now")
        assert kept(cache, of) == size
        assert cache.statistics().failed == 0


def test_a_directory_that_is_removed_is_no_error_and_used_again_when_it_is_back(tmp_path: Path) -> None:
    clock, of = ManualClock(), version("a", 300_000)
    place = tmp_path / "place"
    place.mkdir()
    with disk_cache(place, clock=clock) as cache:
        keep(cache, of)
        shutil.rmtree(place)
        assert kept(cache, of) == 0
        keep(cache, of)
        assert cache.statistics().trouble == "writing: No such file or directory"
        clock.now += 301
        keep(cache, of)
        assert cache.statistics().trouble == "opening: No such file or directory"
        place.mkdir()
        clock.now += 301
        keep(cache, of)
        assert kept(cache, of) == 300_000


@pytest.mark.parametrize("call", ["write", "open"])
def test_trying_again_takes_no_more_descriptors(tmp_path: Path, call: str) -> None:
    files, clock, of = FailingFiles(), ManualClock(), version("a", 300_000)
    with disk_cache(tmp_path, files=files, clock=clock) as cache:
        files.fail(errno.ENOSPC, call)
        keep(cache, of)
        before = open_files()
        for _ in range(5):
            clock.now += 301
            keep(cache, of)
        assert cache.statistics().failed == 6
        assert open_files() == before


def test_a_directory_that_was_never_there_is_no_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    of = version("a", 300_000)
    with disk_cache(tmp_path / "nowhere") as cache:
        keep(cache, of)
        assert kept(cache, of) == 0
        assert cache.whole(of) is None
    assert len(caplog.records) == 1


def test_a_folder_of_another_user_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / CACHE_FOLDER).mkdir()
    os.chown(tmp_path / CACHE_FOLDER, 1234, 1234)
    with disk_cache(tmp_path) as cache:
        assert "belongs to user 1234" in cache.statistics().trouble


def test_a_symbolic_link_in_the_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / CACHE_FOLDER).symlink_to(tmp_path / "elsewhere")
    with disk_cache(tmp_path) as cache:
        assert cache.statistics().trouble
        keep(cache, version("a", 300_000))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_full_file_system_ends_nothing_but_the_writing(tmp_path: Path) -> None:
    place = tmp_path / "tmpfs"
    place.mkdir()
    LinuxKernel().mount("tmpfs", str(place), "tmpfs", 0, "size=2m")
    try:
        with disk_cache(place) as cache:
            objects = [version(f"k{number}", 900 * KIB) for number in range(5)]
            for of in objects:
                keep(cache, of)
            assert [bool(kept(cache, of)) for of in objects] == [True, True, False, False, False]
            assert cache.statistics().trouble == "writing: No space left on device"
    finally:
        LinuxKernel().umount2(str(place), MNT_DETACH)


# --- memory ---


def test_offers_beyond_the_queue_are_passed_over_and_nobody_waits(tmp_path: Path) -> None:
    with disk_cache(tmp_path, budget=16 * MIB) as cache:
        data = memoryview(bytes_of(version("a", 1 * MIB)))
        for number in range(200):
            cache.offer(version(f"k{number}", MIB), 0, data)
            assert cache.statistics().queued_bytes <= 16 * MIB // 8 + MIB
        assert cache.settle(Seconds(LONG))
        found = cache.statistics()
        assert found.stored + found.passed_over == 200
        assert found.queued_bytes == 0


class StoppedFiles(FailingFiles):
    """Writing does not come back while `gate` is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def write(self, descriptor: int, parts: Sequence[memoryview | bytes], offset: int) -> None:
        assert self.gate.wait(LONG)
        super().write(descriptor, parts, offset)


def test_queued_blocks_are_given_up_when_somebody_waits_for_memory(tmp_path: Path) -> None:
    ledger = MemoryLedger(Bytes(16 * MIB))
    pool = BufferPool(ledger, keep=0)
    files = StoppedFiles()
    cache = DiskCache(Place(str(tmp_path), Bytes(64 * MIB), SCOPE), pool, files=files)
    assert cache.settle(Seconds(LONG))
    files.gate.clear()
    for number in range(2):
        block = pool.try_take(MIB)
        assert block is not None
        cache.offer(version(f"k{number}", MIB), 0, block)
        del block
    others = [pool.try_take(MIB) for _ in range(14)]
    assert None not in others
    assert pool.try_take(MIB) is None
    got = pool.take(MIB, Seconds(LONG))
    assert got is not None, "the block that waited was given up"
    files.gate.set()
    cache.close(Seconds(LONG))
    assert (cache.statistics().stored, cache.statistics().passed_over) == (1, 1)


def test_nothing_is_offered_or_given_after_the_end(tmp_path: Path) -> None:
    of = version("a", 300_000)
    with disk_cache(tmp_path) as cache:
        keep(cache, of)
        cache.close(Seconds(LONG))
        cache.offer(of, 0, memoryview(bytes_of(of)))
        assert cache.statistics().queued_bytes == 0


# --- several at once ---


def test_many_threads_read_while_others_write_and_evict(tmp_path: Path) -> None:
    objects = [version(f"k{number}", 400 * KIB + number * 1000) for number in range(40)]
    large = version("large", 4 * MIB + 1)
    with disk_cache(tmp_path, limit=10 * MIB) as cache, ThreadPoolExecutor(8) as threads:
        keep(cache, objects[0])

        def work(seed: int) -> None:
            for step in range(40):
                of = objects[(seed * 7 + step) % len(objects)]
                if not kept(cache, of):
                    cache.offer(of, 0, memoryview(bytes_of(of)))
                start = (seed * 3 + step) % 33 * UNIT
                end = min(start + UNIT, int(large.size))
                if kept(cache, large, start, end) < end - start:
                    cache.offer(large, start, memoryview(bytes_of(large)[start:end]))

        for done in [threads.submit(work, seed) for seed in range(8)]:
            done.result()
        assert cache.settle(Seconds(LONG))
        found = cache.statistics()
        assert found.corrupt == found.failed == 0
        assert found.hits > 0
        assert found.directory_bytes <= 10 * MIB


def test_an_entry_that_another_process_removed_and_made_anew_meanwhile_is_not_there(tmp_path: Path) -> None:
    """Its checksums were read before, its bytes after."""
    of = version("a", 5 * MIB)

    class Overtaken(Files):
        """Another process comes between the first opens of a map and of the data."""

        def __init__(self) -> None:
            self.comes = False

        def read(self, descriptor: int, targets: Sequence[memoryview | bytearray], offset: int) -> int:
            got = super().read(descriptor, targets, offset)
            if self.comes:
                self.comes = False
                for path in files_in(tmp_path):
                    size = path.stat().st_size
                    path.unlink()
                    path.touch()
                    os.truncate(path, size)
            return got

    files = Overtaken()
    with disk_cache(tmp_path, files=files) as cache:
        keep(cache, of)
        files.comes = True
        assert kept(cache, of) == 0
        assert not files.comes
        assert cache.statistics().corrupt == 0


_OTHER_PROCESS = """
import sys
from pathlib import Path
from csi.volume.units import KIB, MIB
from tests.support.disk_caches import disk_cache, keep, kept, version
with disk_cache(Path(sys.argv[1]), limit=6 * MIB) as cache:
    for step in range(60):
        number = (step * int(sys.argv[2])) % 20
        of = version(f"k{number}", 300 * KIB + number)
        if not kept(cache, of):
            keep(cache, of)
        large = version("large", 3 * MIB)
        if kept(cache, large, number * 128 * KIB, (number + 1) * 128 * KIB) == 0:
            keep(cache, large, number * 128 * KIB, (number + 1) * 128 * KIB)
    found = cache.statistics()
    assert found.corrupt == found.failed == 0 and found.hits > 0, found
"""


def test_processes_share_a_directory_and_its_bound(tmp_path: Path) -> None:
    others = [
        subprocess.Popen(
            [sys.executable, "-c", _OTHER_PROCESS, str(tmp_path), str(step)], cwd=Path(__file__).parents[4]
        )
        for step in (3, 7, 11)
    ]
    assert [other.wait(120) for other in others] == [0, 0, 0]
    assert sum(path.stat().st_blocks * 512 for path in files_in(tmp_path)) <= 6 * MIB
    with disk_cache(tmp_path, limit=6 * MIB) as cache:
        assert cache.settle(Seconds(LONG))
        counted = cache.statistics().directory_bytes
        assert counted == sum(path.stat().st_blocks * 512 for path in files_in(tmp_path))


def test_what_one_process_kept_the_other_finds_at_once(tmp_path: Path) -> None:
    of, large = version("a", 300_000), version("b", 3 * MIB)
    with disk_cache(tmp_path) as one, disk_cache(tmp_path) as other:
        keep(one, of)
        keep(one, large)
        assert (kept(other, of), kept(other, large)) == (300_000, 3 * MIB)
        keep(other, of)
        assert other.statistics().stored == 0, "it was there already"


# --- whole files ---


def test_a_file_that_is_wholly_there_and_checked_is_given_out(tmp_path: Path) -> None:
    of = version("a", 5 * MIB + 12345)
    with disk_cache(tmp_path) as cache:
        keep(cache, of)
        assert cache.whole(of) is None, "nobody has looked at all of it yet"
        assert cache.settle(Seconds(LONG))
        descriptor = cache.whole(of)
        assert descriptor is not None
        with os.fdopen(descriptor, "rb") as file:
            assert file.read() == bytes_of(of)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(file.fileno(), b"x")


def test_a_file_that_lacks_something_or_is_wrong_is_not_given_out(tmp_path: Path) -> None:
    part, wrong, small = version("a", 3 * MIB), version("b", 3 * MIB), version("c", 300_000)
    with disk_cache(tmp_path) as cache:
        keep(cache, part, MIB)
        keep(cache, small)
        before = set(files_in(tmp_path))
        keep(cache, wrong)
        data = next(path for path in set(files_in(tmp_path)) - before if path.suffix != ".map")
        with data.open("r+b") as file:
            file.write(b"\0" * 100)
        for _ in range(2):
            assert [cache.whole(of) for of in (part, wrong, small)] == [None] * 3
            assert cache.settle(Seconds(LONG))
        assert cache.statistics().corrupt == 1
        assert kept(cache, wrong) == 0


def test_an_entry_that_was_removed_and_made_again_is_looked_at_again(tmp_path: Path) -> None:
    of = version("a", 3 * MIB)
    with disk_cache(tmp_path) as cache:
        for _ in range(20):  # sooner or later the file system uses the inode numbers again
            keep(cache, of)
            cache.whole(of)
            assert cache.settle(Seconds(LONG))
            descriptor = cache.whole(of)
            assert descriptor is not None
            os.close(descriptor)
            for path in files_in(tmp_path):
                path.unlink()
            keep(cache, of, MIB)
            assert cache.whole(of) is None, "the first megabyte is not there"
            assert cache.settle(Seconds(LONG))
            assert cache.whole(of) is None
            assert cache.settle(Seconds(LONG))
            for path in files_in(tmp_path):
                path.unlink()


def test_a_file_given_out_stays_what_it_is_when_its_entry_goes(tmp_path: Path) -> None:
    of = version("a", 3 * MIB)
    with disk_cache(tmp_path, limit=4 * MIB) as cache:
        keep(cache, of)
        cache.whole(of)
        assert cache.settle(Seconds(LONG))
        descriptor = cache.whole(of)
        assert descriptor is not None
        keep(cache, version("b", 3 * MIB))
        assert kept(cache, of) == 0, "it had to go"
        with os.fdopen(descriptor, "rb") as file:
            assert file.read() == bytes_of(of)
        assert cache.whole(of) is None
