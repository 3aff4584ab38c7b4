"""System calls that only our own kernel session brings to the filesystem, on a real mount."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest

from tests.mount.conftest import MountVolume
from tests.support.volumes import MountedVolume

DATA = os.urandom(3 << 20)


@pytest.fixture
def volume(mount_volume: MountVolume) -> Iterator[MountedVolume]:
    made = mount_volume(mode="fast")
    made.put("source", DATA)
    yield made


def test_a_file_that_is_allocated_and_then_written_is_whole(volume: MountedVolume) -> None:
    with (volume.path / "new").open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, len(DATA))
        shown = os.fstat(file.fileno()).st_size
        file.write(DATA)

    assert shown == len(DATA)
    assert volume.get("new") == DATA


def test_allocating_in_a_file_that_is_read_is_refused(volume: MountedVolume) -> None:
    descriptor = os.open(volume.path / "source", os.O_RDONLY)
    try:
        with pytest.raises(OSError) as refused:
            os.posix_fallocate(descriptor, 0, 1 << 30)
    finally:
        os.close(descriptor)

    assert refused.value.errno == errno.EBADF


def test_a_copied_range_has_the_bytes_of_the_source(volume: MountedVolume) -> None:
    assert copied(volume, "source", len(DATA)) == DATA


def test_a_large_range_is_copied_inside_oss(volume: MountedVolume) -> None:
    large = DATA * 6
    volume.put("large", large)
    volume.emulator.reset_counters()

    assert copied(volume, "large", len(large)) == large

    done = volume.emulator.counters()["operations"]
    assert done["UploadPartCopy"]["requests"] >= 1
    assert done["GetObject"]["requests"] == 1  # the test's own
    assert not {"UploadPart", "PutObject"} & set(done)


def copied(volume: MountedVolume, name: str, size: int) -> bytes:
    """What OSS holds after a program has copied that file by copy_file_range(2)."""
    with (volume.path / name).open("rb") as source, (volume.path / "copy").open("wb", buffering=0) as copy:
        done = 0
        while count := os.copy_file_range(source.fileno(), copy.fileno(), size - done):
            done += count
    assert done == size
    return volume.get("copy")


def test_a_file_has_no_holes_but_for_its_end(volume: MountedVolume) -> None:
    with (volume.path / "source").open("rb") as file:
        data = os.lseek(file.fileno(), 5, os.SEEK_DATA)
        hole = os.lseek(file.fileno(), 5, os.SEEK_HOLE)
        with pytest.raises(OSError) as refused:
            os.lseek(file.fileno(), len(DATA) + 1, os.SEEK_DATA)

    assert (data, hole, refused.value.errno) == (5, len(DATA), errno.ENXIO)


def test_a_killed_program_goes_although_the_server_is_silent(volume: MountedVolume) -> None:
    """It waits in the kernel for a request that was read, where no signal reaches it until the session answers."""
    program = textwrap.dedent(
        f"""
        import os
        print("asking", flush=True)
        os.stat({str(volume.path / "elsewhere")!r})
        """
    )
    volume.emulator.fault(operation="*", blackhole=True)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)  # until it waits; if it does not yet, it is killed all the sooner

    process.kill()

    assert process.wait(30) != 0
