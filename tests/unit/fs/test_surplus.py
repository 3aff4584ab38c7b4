"""What the kernel is asked to forget, when and in which order: csi/fs/surplus.py, csi/fs/memory.py."""

from __future__ import annotations

import os
from collections.abc import Sequence

from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger
from csi.fs.filesystem import Filesystem
from csi.fs.memory import INODE
from csi.fs.types import ROOT_INODE, KnownName
from csi.volume.spec import MountArguments, ReadOptions, WriteOptions
from csi.volume.units import KIB, MIB, Bytes, InodeNumber, Seconds
from tests.support.memory_store import MemoryStore
from tests.support.programs import WRITE, Program

KEEPING = MountArguments(Seconds(60.0), Seconds(60.0), Seconds(60.0))
NOW = Seconds(0.0)
ALLOWANCE = Bytes(64 * KIB)
FILES = 15_000


class Kernel:
    """A mount of `FILES` files, all of which the kernel was told of, and a kernel that forgets what it is asked to."""

    def __init__(self, budget: Bytes, *, allowance: Bytes = ALLOWANCE, directories: int = 1) -> None:
        self.store = MemoryStore()
        for number in range(FILES):
            for directory in range(directories):
                self.store.seed(f"d{directory or ''}/{number:05}")
        self.ledger = MemoryLedger(budget)
        write = WriteOptions(threads=2, part_size=Bytes(256 * KIB), buffer_size=Bytes(64 * KIB))
        self.engine = DataEngine(self.store, read=ReadOptions(threads=2), write=write, ledger=self.ledger)
        self.filesystem = Filesystem(
            *(self.store, self.engine), arguments=KEEPING, write=write, ledger=self.ledger, allowance=allowance
        )
        self.program = Program(self.filesystem)
        self.told: dict[InodeNumber, int] = {}

    def look_up(self, parent: InodeNumber, name: bytes) -> InodeNumber:
        inode = self.filesystem.lookup(parent, name).attributes.inode
        self.told[inode] = self.told.get(inode, 0) + 1
        return inode

    def list_all(self, directory: bytes = b"d") -> None:
        handle = self.filesystem.opendir(self.look_up(ROOT_INODE, directory))
        for entry in self.filesystem.readdir(handle, 0):
            inode = entry.entry.attributes.inode
            self.told[inode] = self.told.get(inode, 0) + 1
        self.filesystem.releasedir(handle)

    def forget(self, names: Sequence[KnownName]) -> None:
        for known in names:
            self.filesystem.forget(InodeNumber(known.inode), self.told.pop(InodeNumber(known.inode)))

    def close(self) -> None:
        self.filesystem.close()
        self.engine.close()
        assert self.ledger.statistics().charged == 0


def test_what_there_is_memory_for_may_stay() -> None:
    kernel = Kernel(Bytes(64 * MIB))
    kernel.list_all()
    assert kernel.filesystem.surplus(NOW) == ()
    assert kernel.filesystem.statistics().memory.charged >= FILES * INODE - ALLOWANCE
    kernel.close()


def test_beyond_half_of_the_budget_the_first_ones_go_until_there_is_memory_for_the_rest() -> None:
    kernel = Kernel(Bytes(16 * MIB))
    kernel.list_all()
    asked: list[KnownName] = []
    while names := kernel.filesystem.surplus(NOW):
        kernel.forget(names)
        asked.extend(names)
    assert [known.name for known in asked] == [f"{number:05}".encode() for number in range(len(asked))]
    assert {known.parent for known in asked} == {kernel.look_up(ROOT_INODE, b"d")}
    memory = kernel.filesystem.statistics().memory
    assert memory.held <= ALLOWANCE + 8 * MIB
    assert memory.charged <= 8 * MIB
    assert kernel.filesystem.statistics().inodes > 5_000, "more is gone than had to go"
    kernel.close()


def test_open_files_what_is_written_and_directories_of_either_are_not_asked_for() -> None:
    kernel = Kernel(Bytes(2 * MIB))
    reading, writing = kernel.program.open("d/00000", os.O_RDONLY), kernel.program.open("d/new", WRITE)
    writing.write(b"bytes")
    kernel.list_all()
    asked = [known.name for _ in range(20) for known in kernel.filesystem.surplus(NOW)]
    assert b"00001" in asked
    assert not {b"00000", b"new", b"d"} & set(asked)
    reading.close()
    writing.close()
    again = [known.name for _ in range(20) for known in kernel.filesystem.surplus(NOW)]
    assert {b"00000", b"new"} <= set(again), "what was left out once is not asked for again"
    kernel.close()


def test_memory_that_others_wait_for_is_given_back() -> None:
    kernel = Kernel(Bytes(32 * MIB))
    kernel.list_all()
    assert kernel.filesystem.surplus(NOW) == ()
    before = kernel.filesystem.statistics().memory.charged
    kernel.ledger.relieve(8 * MIB)
    names = kernel.filesystem.surplus(NOW)
    assert names
    kernel.forget(names)
    kernel.filesystem.surplus(NOW)
    assert kernel.filesystem.statistics().memory.charged < before
    kernel.close()


def test_a_kernel_that_forgets_is_asked_again_soon_and_one_that_does_not_less_and_less() -> None:
    kernel = Kernel(Bytes(2 * MIB))
    kernel.list_all()
    rests = []
    for _ in range(4):
        names = kernel.filesystem.surplus(NOW)
        rests.append(kernel.filesystem._surplus._rest)
        kernel.forget(names)
        kernel.list_all()  # as many come as go
    assert len(set(rests)) == 1
    for _ in range(12):
        assert kernel.filesystem.surplus(NOW)
        rests.append(kernel.filesystem._surplus._rest)
    assert rests[-1] == 5.0
    kernel.close()


def test_a_directory_is_kept_listed_whatever_else_the_kernel_knows() -> None:
    kernel = Kernel(Bytes(16 * MIB), allowance=Bytes(16 * MIB), directories=4)  # a sidecar with 128Mi
    for directory in (b"d", b"d1", b"d2", b"d3"):
        kernel.list_all(directory)
        while names := kernel.filesystem.surplus(NOW):
            kernel.forget(names)
    handle = kernel.filesystem.opendir(kernel.look_up(ROOT_INODE, b"d"))
    assert len(list(kernel.filesystem.scan(handle, 0, plus=False))) == FILES
    kernel.filesystem.releasedir(handle)
    kernel.filesystem.surplus(NOW)
    assert kernel.filesystem.statistics().knowledge.names >= FILES
    kernel.close()
