"""Filesystems over a store in memory, with a clock that only tests move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger
from csi.fs.filesystem import Filesystem
from csi.fs.journal import Journal
from csi.fs.openers import Openers
from csi.fs.published import Published
from csi.fs.reports import FilesystemReport
from csi.volume.spec import CachePolicy, MountArguments, ReadOptions, WriteOptions
from csi.volume.units import KIB, MIB, Bytes, Seconds
from tests.support.hand_tails import HandTails
from tests.support.memory_engine import MemoryEngine
from tests.support.memory_store import MemoryStore
from tests.support.programs import Clock, Program

CONSISTENT = MountArguments(Seconds(0.0), Seconds(0.0), Seconds(0.0))
FAST = MountArguments(Seconds(3.0), Seconds(0.0), Seconds(0.0))
READONLY = MountArguments(
    Seconds(7200.0), Seconds(7200.0), Seconds(7200.0), cache=CachePolicy.KERNEL, read_only=True, symlinks=False
)


class _Mount(NamedTuple):
    filesystem: Filesystem
    engine: Any
    tails: HandTails | None


class World:
    """One bucket and any number of mounts of it."""

    def __init__(self, engine: str) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        self.meanwhile: Callable[[], object] = lambda: None  # what others do while somebody waits
        self._engine = engine
        self._mounts: list[_Mount] = []
        self._dead: list[_Mount] = []

    def mount(
        self,
        arguments: MountArguments = CONSISTENT,
        *,
        prefix: str = "",
        append: bool = False,
        store: Any = None,
        read_only: bool = False,
        openers: Openers | None = None,
        published: Published | None = None,
        journal: Journal | None = None,
    ) -> Program:
        store = store if store is not None else self.store
        write = WriteOptions(threads=2, part_size=Bytes(100 * KIB), buffer_size=Bytes(64 * KIB), append=append)
        tails: HandTails | None = None
        if self._engine == "memory":
            engine: Any = MemoryEngine(store)
        else:
            tails = HandTails(self.clock)
            engine = DataEngine(
                store,
                read=ReadOptions(threads=2),
                write=write,
                ledger=MemoryLedger(Bytes(16 * MIB)),
                tails=tails.make,
            )
        filesystem = Filesystem(
            store,
            engine,
            prefix=prefix,
            arguments=arguments,
            write=write,
            read_only=read_only,
            openers=openers,
            published=published,
            journal=journal,
            clock=self.clock,
            sleep=self._sleep,
        )
        self._mounts.append(_Mount(filesystem, engine, tails))
        return Program(filesystem, tails=tails)

    def _sleep(self, _seconds: float) -> None:
        self.meanwhile()

    def kill(self, program: Program) -> None:
        """Its process is gone: nothing of it comes to rest."""
        self._dead += [mount for mount in self._mounts if mount.filesystem is program.filesystem]
        self._mounts = [mount for mount in self._mounts if mount.filesystem is not program.filesystem]

    def close(self) -> None:
        for mount in self._mounts + self._dead:
            mount.filesystem.close()
            if isinstance(mount.engine, DataEngine):
                mount.engine.close()

    def check_rest(self) -> None:
        """When every program has closed its files, nothing is kept for them, here or in OSS."""
        for mount in self._mounts:
            mount.filesystem._offers.take_back(everything=True)  # what nobody came for has its time otherwise
            assert mount.filesystem.statistics() == FilesystemReport(1, 0, 0, 0)
            assert mount.tails is None or not mount.tails.shown
        assert self.store.uploads == {}


@contextmanager
def world(engine: str) -> Iterator[World]:
    """`engine`: 'memory' (the least there can be) or 'data' (the product's, with a session that writes by itself)."""
    made = World(engine)
    try:
        yield made
        made.check_rest()
    finally:
        made.close()
