"""Everything that holds bytes or threads tells of it in one place, and holds nothing once there is nothing to do."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from csi.data.disk.cache import DiskCache, Place
from csi.data.disk.naming import scope_of
from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger
from csi.errors import OssFuseError
from csi.fs.filesystem import Filesystem
from csi.fs.types import ROOT_INODE
from csi.fuse.requests import SessionStatistics
from csi.oss.client import OssClient
from csi.oss.credentials import Credentials, StaticCredentials
from csi.sidecar.assemble import ServedVolume
from csi.sidecar.health import flat_figures
from csi.volume.spec import HttpOptions, Location, MountArguments, ReadOptions, WriteOptions
from csi.volume.units import KIB, MIB, Bytes, ObjectKey, Seconds
from tests.support.emulator import RunningEmulator
from tests.support.engines import content, until
from tests.support.programs import APPEND, WRITE, Program

SO_FAR = {
    *("requests", "retries", "errors", "bytes_in", "bytes_out", "requested_bytes", "joined", "failed", "evicted"),
    *("repeated", "foretold", "met", "loans", "fresh", "peak", "refused", "started", "finished", "fetched", "used"),
    *("asked", "untold", "shared"),
    *("hits", "hit_bytes", "misses", "stored", "stored_bytes", "passed_over", "corrupt"),
}
"""What only grows."""

BOUNDS = {"budget", "limit", "threads", "allowance"}

REMEMBERED = {"idle", "inodes", "listings", "names", "absent", "directories", "held", "directory_bytes"}
"""What is kept at rest too, within bounds of its own: idle connections, the root and what is known of names."""


class NoSession:
    """A kernel session that nobody asks anything."""

    def statistics(self) -> SessionStatistics:
        return SessionStatistics({}, 0, "", Seconds(0.0))


class Volume:
    """Everything of one volume but the kernel."""

    def __init__(self, emulator: RunningEmulator, directory: Path) -> None:
        location = Location(bucket=emulator.bucket, endpoint=emulator.endpoint, region=emulator.region, path_style=True)
        write = WriteOptions(threads=2, part_size=Bytes(256 * KIB), buffer_size=Bytes(64 * KIB), flush_interval=3600.0)
        http = HttpOptions(retries=1, retry_interval=0.01)
        self.store = OssClient(
            location,
            http,
            write,
            StaticCredentials(Credentials(emulator.access_key_id, emulator.access_key_secret)),
        )
        self.ledger = MemoryLedger(Bytes(32 * MIB))
        place = Place(str(directory), Bytes(8 * MIB), scope_of(location.endpoint, location.bucket, "a test"))
        self.engine = DataEngine(
            self.store,
            read=ReadOptions(threads=4),
            write=write,
            ledger=self.ledger,
            disk=lambda pool: DiskCache(place, pool),
        )
        arguments = MountArguments(attr_timeout=Seconds(60.0), entry_timeout=Seconds(60.0))
        self.filesystem = Filesystem(self.store, self.engine, arguments=arguments, write=write, ledger=self.ledger)
        self.served = ServedVolume(self.store, self.engine, self.filesystem, NoSession())
        self.program = Program(self.filesystem)

    def figures(self) -> dict[str, int | float]:
        return flat_figures(self.served.activity().figures)

    def settle(self) -> None:
        assert self.engine.drain(Seconds(30.0))
        until(lambda: self.figures()["engine.disk.queued_bytes"] == 0)
        until(lambda: not self.filesystem.statistics().pages.running)
        self.engine.trim()


@pytest.fixture
def volume(emulator: RunningEmulator, tmp_path: Path) -> Iterator[Volume]:
    made = Volume(emulator, tmp_path)
    yield made
    made.served.close()


def gauges(figures: Mapping[str, int | float]) -> dict[str, int | float]:
    """The figures that tell what is going on now."""
    others = SO_FAR | BOUNDS | REMEMBERED
    return {name: value for name, value in figures.items() if name.rpartition(".")[2] not in others}


def holders(root: object) -> dict[str, object]:
    """Every object of the product that can be reached from `root` and has statistics, by its class."""
    found: dict[str, object] = {}
    seen: set[int] = set()
    pending = [root]
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Mapping):
            pending += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            pending += one
        elif hasattr(one, "__self__"):
            pending.append(one.__self__)
        elif type(one).__module__.startswith("csi.") and not isinstance(one, type):
            if callable(getattr(one, "statistics", None)):
                found[type(one).__name__] = one
            slots = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
            pending += [getattr(one, name) for name in (*slots, *getattr(one, "__dict__", ())) if hasattr(one, name)]
    return found


def kinds(value: object) -> set[type]:
    """The statistics classes in `value`."""
    if isinstance(value, Mapping):
        return set().union(*map(kinds, value.values()))
    if not dataclasses.is_dataclass(value):
        return set()
    return {type(value)}.union(*(kinds(getattr(value, field.name)) for field in dataclasses.fields(value)))


def test_whatever_has_statistics_is_in_the_one_report(volume: Volume) -> None:
    writers = [volume.program.open("written", WRITE), volume.program.open("appended", APPEND)]
    found = holders(volume.served)
    told = kinds(volume.served.activity().figures)
    for writer in writers:
        writer.close()

    assert {name for name, holder in found.items() if type(holder.statistics()) not in told} == set()
    assert set(found) >= {
        "BlockCache",
        "BufferPool",
        "CurlTransport",
        "DataEngine",
        "DiskCache",
        "Filesystem",
        "Flights",
        "Gate",
        "Knowledge",
        "Leftovers",
        "MemoryLedger",
        "MetadataMemory",
        "OssClient",
        "PartWriter",
        "Siblings",
        "StagingMemory",
        "Streams",
        "Ticker",
        "Walks",
        "WorkerPool",
    }


def test_all_gauges_are_at_nothing_again_after_a_bit_of_everything(volume: Volume, emulator: RunningEmulator) -> None:
    before = gauges(volume.figures())
    large = content(12 * MIB)
    volume.store.put(ObjectKey("large"), [large])
    emulator.seed("tree/{n:03d}", b"x" * 20_000, count=200)
    busy: list[dict[str, int | float]] = []

    with ThreadPoolExecutor(16) as pool:
        work = [
            *(pool.submit(_read_in_order, volume, large, start * MIB) for start in (0, 5)),
            pool.submit(_read_at_one_distance, volume, large),
            pool.submit(_leave_in_the_middle, volume),
            pool.submit(_read_a_directory, volume),
            *(pool.submit(_write, volume, f"new{number}", 100 * KIB + number * MIB) for number in range(3)),
            pool.submit(_fail_to_write, volume, emulator),
            pool.submit(_unlink_while_open, volume),
            pool.submit(_give_up, volume),
        ]
        while wait(work, timeout=0.02).not_done:  # asking without a pause would leave them no interpreter to work with
            busy.append(gauges(volume.figures()))
        for one in work:
            one.result()
    volume.settle()

    after = gauges(volume.figures())
    assert after == before
    assert {name for name, value in after.items() if value} == set(), "at rest nothing is held"
    seen = {name for figures in busy for name, value in figures.items() if value}
    assert {"engine.readers", "engine.writers", "engine.memory.charged", "filesystem.open_files"} <= seen
    assert volume.filesystem.statistics().inodes == 1
    assert emulator.count("AbortMultipartUpload") >= 1


def _read_in_order(volume: Volume, data: bytes, start: int) -> None:
    opened = volume.program.open("large", os.O_RDONLY)
    for offset in range(start, start + 6 * MIB, 128 * KIB):
        assert opened.pread(128 * KIB, offset) == data[offset : offset + 128 * KIB]
    opened.close()


def _read_at_one_distance(volume: Volume, data: bytes) -> None:
    opened = volume.program.open("large", os.O_RDONLY)
    for offset in range(300 * KIB, 11 * MIB, 512 * KIB):
        assert opened.pread(4 * KIB, offset) == data[offset : offset + 4 * KIB]
    opened.close()


def _leave_in_the_middle(volume: Volume) -> None:
    """Closed while requests for what follows are under way."""
    for _ in range(5):
        opened = volume.program.open("large", os.O_RDONLY)
        for offset in range(0, 3 * MIB, 128 * KIB):
            opened.pread(128 * KIB, offset)
        opened.close()


def _read_a_directory(volume: Volume) -> None:
    for name in volume.program.list("tree"):
        assert len(volume.program.read(f"tree/{name}")) == 20_000


def _write(volume: Volume, name: str, size: int) -> None:
    volume.program.write(name, content(size))
    assert volume.store.head(ObjectKey(name)).size == size


def _fail_to_write(volume: Volume, emulator: RunningEmulator) -> None:
    """OSS refuses every part of this object, and the abort of the upload at first too."""
    emulator.fault(operation="UploadPart", key="refused*", status=403)
    emulator.fault(operation="AbortMultipartUpload", key="refused*", status=503, count=1)
    opened = volume.program.open("refused", WRITE)
    with contextlib.suppress(OssFuseError):
        for offset in range(0, 4 * MIB, 256 * KIB):
            opened.pwrite(bytes(256 * KIB), offset)
    with pytest.raises(OssFuseError):
        opened.close()


def _unlink_while_open(volume: Volume) -> None:
    opened = volume.program.open("short-lived", WRITE)
    opened.write(content(700 * KIB))
    volume.filesystem.unlink(ROOT_INODE, b"short-lived")
    opened.write(content(100 * KIB))
    opened.close()


def _give_up(volume: Volume) -> None:
    """Written to in a wrong place, so that it never becomes an object."""
    opened = volume.program.open("never", WRITE)
    opened.write(content(600 * KIB))
    with pytest.raises(OssFuseError):
        opened.pwrite(b"x", 5 * MIB)
    with pytest.raises(OssFuseError):
        opened.close()
