"""The Python path of our own session over a filesystem in memory, with a device that remembers what it is told."""

from __future__ import annotations

import errno
import logging
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from csi.fuse.errno_map import ErrorReporter
from csi.fuse.own.directories import DirectoryHandlers
from csi.fuse.own.dispatch import Dispatch, handlers_of
from csi.fuse.own.exchange import Exchanges
from csi.fuse.own.files import FileHandlers
from csi.fuse.own.interrupts import Interrupts
from csi.fuse.own.names import NameHandlers
from csi.fuse.own.work import Lanes
from csi.fuse.protocol.constants import Opcode
from csi.fuse.served import ServedFilesystem
from csi.oss.store import Buffer
from csi.volume.spec import MountArguments
from csi.volume.units import Seconds
from tests.support.kernel_end import Answered
from tests.support.tree_filesystem import TreeFilesystem

_IN = struct.Struct("<IIQQIIIHxx")


class Recorder:
    """Implements what `Dispatch` needs of a device. `gone`: the kernel refuses answers to these requests; `picky`:
    all that have a body."""

    def __init__(self, *, stays: bool) -> None:
        self.stays = stays
        self.staying = 0
        self.answers: dict[int, Answered] = {}
        self.refused: list[int] = []
        self.gone: dict[int, int] = {}
        self.picky = False
        self._came = threading.Condition()

    def reply(self, unique: int, error: int = 0, *parts: Buffer) -> int:
        with self._came:
            if self.picky and parts:
                return errno.EINVAL
            if unique in self.gone:
                self.refused.append(unique)
            else:
                assert unique not in self.answers, "answered twice"
                self.answers[unique] = Answered(unique, error, b"".join(bytes(part) for part in parts))
            self._came.notify_all()
            return self.gone.get(unique, 0)

    def reply_soon(self, unique: int, error: int = 0, *parts: Buffer) -> int:
        return self.reply(unique, error, *parts)

    def wait_for(self, unique: int) -> Answered:
        with self._came:
            assert self._came.wait_for(lambda: unique in self.answers, 20), "never answered"
            return self.answers[unique]

    def wait_for_refusal(self, unique: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: unique in self.refused, 20), "never answered"

    def stay(self, long: bool) -> bool:
        self.staying += self.stays
        return self.stays

    def leave(self) -> None:
        self.staying -= 1


class Served:
    def __init__(
        self, filesystem: ServedFilesystem, *, stays: bool = False, resumed: bool = False, **arguments: Any
    ) -> None:
        given = MountArguments(**arguments)
        self.device = Recorder(stays=stays)
        self.exchanges = Exchanges(self.device)
        self.interrupts = Interrupts(self.exchanges, Seconds(0.0))
        self.lanes = Lanes(4, 8)
        self.spare_buffer = True
        reporter = ErrorReporter(logging.getLogger("test"))
        names = NameHandlers(filesystem, given, self.lanes)
        files = FileHandlers(filesystem, given, self.lanes, reporter, lambda: self.spare_buffer)
        directories = DirectoryHandlers(filesystem, self.lanes, given.entry_timeout, resumed=resumed)
        handlers = handlers_of(names, files, directories)
        self._dispatch = Dispatch(
            filesystem, self.device, self.exchanges, self.interrupts, reporter, handlers, setxattr_ext=False
        )
        self._unique = 0

    def send(self, opcode: Opcode | int, body: bytes = b"", node: int = 1, unique: int | None = None) -> int:
        if unique is None:
            self._unique += 2
            unique = self._unique
        message = _IN.pack(_IN.size + len(body), opcode, unique, node, 1000, 1000, 1, 0) + body
        self._dispatch.handle(memoryview(message))
        return unique

    def next_unique(self) -> int:
        return self._unique + 2

    def ask(self, opcode: Opcode | int, body: bytes = b"", node: int = 1) -> Answered:
        return self.device.wait_for(self.send(opcode, body, node))


@pytest.fixture(params=["inline", "threads", "in place"])
def tree(request: pytest.FixtureRequest) -> Iterator[tuple[TreeFilesystem, Served]]:
    """A file `file` of ten bytes, answered at once, on lanes, or by the device's thread itself."""
    filesystem = TreeFilesystem(inline=request.param == "inline")
    filesystem.add("file", b"0123456789")
    served = Served(filesystem, stays=request.param == "in place")
    yield filesystem, served
    filesystem.unblock.set()
    served.lanes.close()


@pytest.fixture
def filesystem(tree: tuple[TreeFilesystem, Served]) -> TreeFilesystem:
    return tree[0]


@pytest.fixture
def served(tree: tuple[TreeFilesystem, Served]) -> Served:
    return tree[1]
