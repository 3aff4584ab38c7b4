"""What names cost and who pays; csi/fs/memory.py. And that nothing is left of anything when all is at rest."""

from __future__ import annotations

import os

import pytest

from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger, budget_for, metadata_allowance
from csi.fs.filesystem import Filesystem
from csi.fs.listings import Listing, ListingCache
from csi.fs.memory import INODE, NAME, MetadataMemory
from csi.fs.metadata import Facts
from csi.fs.reports import FilesystemReport
from csi.fs.types import ROOT_INODE, FileKind
from csi.volume.spec import MountArguments, ReadOptions, WriteOptions
from csi.volume.units import GIB, KIB, MIB, Bytes, Seconds
from tests.support.engines import content
from tests.support.memory_store import MemoryStore
from tests.support.programs import WRITE, Program

KEEPING = MountArguments(Seconds(60.0), Seconds(60.0), Seconds(60.0))


def test_what_is_set_aside_for_names_is_not_in_the_budget() -> None:
    assert budget_for(Bytes(1 * GIB)) + metadata_allowance(Bytes(1 * GIB)) < 1 * GIB
    assert metadata_allowance(Bytes(1 * GIB)) == 128 * MIB


def test_only_what_is_beyond_the_allowance_is_charged_and_all_of_it_is_paid_back() -> None:
    ledger, held = MemoryLedger(Bytes(16 * MIB)), [0]
    memory = MetadataMemory(ledger, Bytes(4 * MIB))
    memory.watch(lambda: held[0], lambda size: 0)
    for now, charged in [(4 * MIB, 0), (6 * MIB + 1, 3 * MIB), (5 * MIB, 1 * MIB), (0, 0)]:
        held[0] = now
        assert memory.statistics().charged == ledger.statistics().charged == charged
    held[0] = 10 * MIB
    memory.weigh()
    memory.close()
    assert ledger.statistics().charged == 0


def test_names_take_half_of_the_ledger_at_most_and_listings_beyond_that_are_given_up() -> None:
    ledger, held = MemoryLedger(Bytes(4 * MIB)), [10 * MIB]

    def give_up(size: int) -> int:
        held[0] -= size
        return size

    memory = MetadataMemory(ledger, Bytes(4 * MIB))
    memory.watch(lambda: held[0], give_up)
    memory.weigh()
    assert held[0] <= 4 * MIB + 2 * MIB
    assert ledger.statistics().charged == 2 * MIB


def test_listings_give_way_when_blocks_need_the_memory() -> None:
    ledger, held = MemoryLedger(Bytes(16 * MIB)), [10 * MIB]

    def give_up(size: int) -> int:
        given = min(size, held[0])
        held[0] -= given
        return given

    memory = MetadataMemory(ledger, Bytes(4 * MIB))
    memory.watch(lambda: held[0], give_up)
    memory.weigh()
    assert ledger.statistics().charged == 6 * MIB
    ledger.reserve(12 * MIB, Seconds(5.0)).release()
    assert ledger.statistics().charged < 6 * MIB


class Mounted:
    """One mount over the product's engine, with little memory set aside for names."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.ledger = MemoryLedger(Bytes(16 * MIB))
        write = WriteOptions(threads=2, part_size=Bytes(256 * KIB), buffer_size=Bytes(64 * KIB))
        self.engine = DataEngine(self.store, read=ReadOptions(threads=2), write=write, ledger=self.ledger)
        self.filesystem = Filesystem(
            self.store,
            self.engine,
            arguments=KEEPING,
            write=write,
            ledger=self.ledger,
            allowance=Bytes(64 * KIB),
        )
        self.program = Program(self.filesystem)


def test_names_are_charged_while_the_kernel_knows_them_and_paid_back_when_it_forgets() -> None:
    mounted = Mounted()
    for number in range(5_000):
        mounted.store.seed(f"d/{number:05}")
    filesystem = mounted.filesystem
    inode = filesystem.lookup(ROOT_INODE, b"d").attributes.inode
    handle = filesystem.opendir(inode)
    told = [entry.entry.attributes.inode for entry in filesystem.readdir(handle, 0)]
    filesystem.releasedir(handle)
    charged = filesystem.statistics().memory.charged
    assert charged >= 5_000 * (INODE + NAME) - 64 * KIB
    assert mounted.ledger.statistics().charged >= charged
    for each in (*told, inode):
        filesystem.forget(each, 1)
    assert filesystem.statistics().memory.charged < charged / 2
    filesystem.close()
    mounted.engine.close()
    assert mounted.ledger.statistics().charged == 0


@pytest.mark.parametrize("removed", [False, True], ids=["finished", "removed while it is written"])
def test_nothing_is_left_of_a_bit_of_everything(removed: bool) -> None:
    mounted = Mounted()
    program, store = mounted.program, mounted.store
    for number in range(30):
        store.seed(f"tree/{number:02}/file", content(5_000))
    store.seed("large", content(3 * MIB))
    store.seed("log", b"begun ")
    program.write("new", content(1 * MIB))
    program.append("log", b"more")
    program.mkdir("made")
    program.rename("new", "made/renamed")
    assert program.read("large")[:1000] == content(3 * MIB)[:1000]
    with program.walk("tree"):
        for name in program.list("tree")[:20]:
            program.list(f"tree/{name}")
            assert len(program.read(f"tree/{name}/file")) == 5_000
    given_up = program.open("never", WRITE)
    given_up.write(content(700 * KIB))
    reading = program.open("large", os.O_RDONLY)
    reading.pread(64 * KIB, 1 * MIB)
    if removed:
        mounted.filesystem.unlink(ROOT_INODE, b"never")
    given_up.close()
    reading.close()
    program.unlink("made/renamed")
    program.rmdir("made")

    assert mounted.engine.drain(Seconds(10.0))
    assert mounted.filesystem._workers.drain(Seconds(10.0))
    report, engine = mounted.filesystem.statistics(), mounted.engine.statistics()
    assert report == FilesystemReport(1, 0, 0, 0)
    assert (report.pages.queued, report.pages.running) == (0, 0)
    assert (engine.readers, engine.writers, engine.streams.open) == (0, 0, 0)
    assert (engine.staging.writers, engine.staging.held) == (0, 0)
    assert (engine.downloads.queued, engine.downloads.running) == (0, 0)
    assert (engine.uploads.queued, engine.uploads.running) == (0, 0)
    assert engine.memory.waiting == 0
    assert engine.memory_in_use == 0
    assert store.uploads == {}

    mounted.filesystem.close()
    mounted.engine.close()
    assert mounted.filesystem.statistics().walks.waiting == 0
    assert mounted.engine.statistics().buffers.lent == 0
    assert mounted.ledger.statistics().charged == 0


def test_a_directory_of_a_hundred_thousand_names_is_kept_whole_with_the_default_memory() -> None:
    memory = MetadataMemory(None, metadata_allowance(Bytes(1 * GIB)))
    names = {b"%06d" % number: Facts(FileKind.FILE) for number in range(100_000)}
    listing = Listing(names, 1, 0.0, complete=False)
    assert ListingCache(memory.most_names).has_room(listing)
