"""Files of a disk cache that the kernel reads itself: whatever comes together, the bytes are those of the version that
was opened, and what is passed through is never asked for."""

from __future__ import annotations

import json
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.support.linux_releases import needs_linux
from tests.support.mounts import ServedMount, served_mount

pytestmark = needs_linux(6, 9, "FUSE passthrough")

OLD, NEW = b"old " * 50_000, b"new!" * 70_000


class Volume:
    """A bucket with one file `file`, and the cache of a node."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "origin").mkdir(parents=True)
        (directory / "cache").mkdir()
        self.replace(OLD)

    def replace(self, data: bytes) -> None:
        made = self.directory / "origin/made"
        made.write_bytes(data)
        made.rename(self.directory / "origin/file")

    def fetch(self) -> None:
        """The version of now is wholly in the cache from now on."""
        self.evict()
        (self.directory / "cache/file").hardlink_to(self.directory / "origin/file")

    def evict(self) -> None:
        (self.directory / "cache/file").unlink(missing_ok=True)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "volume")


Mount = Callable[..., AbstractContextManager[ServedMount]]


@pytest.fixture(params=["inline", "threads"])
def mount(tmp_path: Path, volume: Volume, request: pytest.FixtureRequest) -> Mount:
    def make(*, read_only: bool = True) -> AbstractContextManager[ServedMount]:
        command = ["tests.support.tree_server", "--calls", str(tmp_path / "calls.json")]
        command += ["--backed", str(volume.directory), "--arguments", json.dumps({"read_only": read_only})]
        command += ["--threads-only"] if request.param == "threads" else []
        return served_mount(tmp_path / "m", command)

    return make


@contextmanager
def opened(served: ServedMount, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(served.path / "file", flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def reads(tmp_path: Path, served: ServedMount) -> int:
    """How often the server was asked for bytes; ends it."""
    assert served.unmount() == 0
    return int(json.loads((tmp_path / "calls.json").read_text()).get("read", 0))


def whole(descriptor: int) -> bytes:
    return os.pread(descriptor, 1 << 20, 0)


def test_a_file_that_is_wholly_in_the_cache_is_read_without_the_server(
    mount: Mount, volume: Volume, tmp_path: Path
) -> None:
    volume.fetch()
    with mount() as served:
        with opened(served) as first, opened(served) as second:
            assert (whole(first), whole(second)) == (OLD, OLD)
            assert os.pread(first, 100, len(OLD) - 10) == OLD[-10:]
            with mmap.mmap(first, len(OLD), prot=mmap.PROT_READ) as mapped:
                assert mapped[:] == OLD
        assert (served.path / "file").read_bytes() == OLD
        assert reads(tmp_path, served) == 0


def test_what_is_not_in_the_cache_comes_from_the_server(mount: Mount, tmp_path: Path) -> None:
    with mount() as served:
        assert (served.path / "file").read_bytes() == OLD
        assert reads(tmp_path, served) > 0


def test_a_file_that_gets_there_while_it_is_open_is_passed_through_once_nobody_has_it_open(
    mount: Mount, volume: Volume, tmp_path: Path
) -> None:
    with mount() as served:
        with opened(served) as before:
            volume.fetch()
            with opened(served) as after:
                assert (whole(before), whole(after)) == (OLD, OLD)
        volume.replace(NEW)
        volume.fetch()
        _until_released(served)
        with opened(served) as descriptor:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            assert whole(descriptor) == NEW
        first = 2 * -(-len(OLD) // (128 << 10))
        assert 0 < reads(tmp_path, served) <= first  # those of before


def test_another_version_is_read_by_who_opens_it_and_the_old_one_by_who_has_it(
    mount: Mount, volume: Volume, tmp_path: Path
) -> None:
    volume.fetch()
    with mount() as served:
        with opened(served) as old:
            volume.replace(NEW)
            with opened(served) as uncached:
                volume.fetch()
                with opened(served) as cached:
                    assert (whole(uncached), whole(cached), whole(old)) == (NEW, NEW, OLD)
                    assert os.pread(cached, 100, len(NEW)) == b""
        assert reads(tmp_path, served) > 0


def test_the_next_version_is_passed_through_when_the_old_one_is_closed(
    mount: Mount, volume: Volume, tmp_path: Path
) -> None:
    volume.fetch()
    with mount() as served:
        assert (served.path / "file").read_bytes() == OLD
        volume.replace(NEW)
        volume.fetch()
        _until_released(served)
        assert (served.path / "file").read_bytes() == NEW
        assert reads(tmp_path, served) == 0


def test_what_is_thrown_out_of_the_cache_is_still_read_by_who_has_it_open(
    mount: Mount, volume: Volume, tmp_path: Path
) -> None:
    volume.fetch()
    with mount() as served:
        with opened(served) as descriptor:
            volume.evict()
            assert whole(descriptor) == OLD
            with opened(served) as later:
                assert whole(later) == OLD
        assert reads(tmp_path, served) > 0


def test_direct_io_reads_the_same_bytes_beside_it(mount: Mount, volume: Volume) -> None:
    volume.fetch()
    with mount() as served, opened(served) as ordinary, opened(served, os.O_RDONLY | os.O_DIRECT) as direct:
        page = mmap.mmap(-1, 1 << 20)
        assert os.preadv(direct, [page], 0) == len(OLD)
        assert page[: len(OLD)] == whole(ordinary) == OLD


def test_a_volume_that_can_be_written_passes_nothing_through(mount: Mount, volume: Volume, tmp_path: Path) -> None:
    volume.fetch()
    with mount(read_only=False) as served:
        with opened(served) as descriptor:
            assert whole(descriptor) == OLD
            with opened(served, os.O_RDWR) as writing:
                assert whole(writing) == OLD
        assert reads(tmp_path, served) > 0


def test_opens_and_closes_at_the_same_time_never_fail(mount: Mount, volume: Volume) -> None:
    """While the file comes and goes in the cache."""
    failures: list[BaseException] = []
    over = threading.Event()

    def read_again_and_again() -> None:
        try:
            while not over.is_set():
                with opened(served) as descriptor:
                    assert whole(descriptor) == OLD
        except BaseException as error:
            failures.append(error)

    with mount() as served:
        threads = [threading.Thread(target=read_again_and_again) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(300):
            volume.fetch()
            with opened(served) as descriptor:
                assert whole(descriptor) == OLD
            volume.evict()
        over.set()
        for thread in threads:
            thread.join()

    assert failures == []


def _until_released(served: ServedMount) -> None:
    """close(2) does not wait for the server to hear of it; a request after it is answered after it, or nearly so."""
    waiting = served.connection / "waiting"
    while waiting.read_text().strip() != "0":
        os.stat(served.path)
