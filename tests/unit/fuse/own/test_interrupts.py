"""INTERRUPT: who only asks is let go, who changes something goes on, and what is late is given back."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Iterator

import pytest

from csi.fs.types import Caller, OpenFile
from csi.fuse.own.exchange import Exchanges
from csi.fuse.own.interrupts import Interrupts
from csi.fuse.protocol.constants import INTERRUPT_BIT, Opcode
from csi.volume.units import InodeNumber, Seconds
from tests.support.kernel_end import open_body
from tests.support.tree_filesystem import TreeFilesystem
from tests.unit.fuse.own.conftest import Recorder, Served


class Waiting(TreeFilesystem):
    """Opens and removals wait until `unblock`."""

    def __init__(self) -> None:
        super().__init__(inline=False)
        self.waits = threading.Semaphore(0)

    def open(self, inode: InodeNumber, flags: int, caller: Caller) -> OpenFile:
        self.waits.release()
        self.unblock.wait(30)
        return super().open(inode, flags, caller)

    def unlink(self, parent: InodeNumber, name: bytes) -> None:
        self.waits.release()
        self.unblock.wait(30)
        super().unlink(parent, name)


@pytest.fixture
def filesystem() -> Iterator[Waiting]:
    made = Waiting()
    made.add("file", b"data")
    yield made
    made.unblock.set()


@pytest.fixture
def served(filesystem: Waiting) -> Iterator[Served]:
    made = Served(filesystem)
    yield made
    made.lanes.close()


def interrupt(served: Served, unique: int) -> int:
    return served.send(Opcode.INTERRUPT, struct.pack("<Q", unique), 0, unique | INTERRUPT_BIT)


def test_a_request_that_waits_is_answered_at_once(served: Served) -> None:
    unique = served.send(Opcode.LOOKUP, b"slow\0")

    interrupt(served, unique)

    assert served.device.answers[unique].error == errno.EINTR


def test_a_file_that_is_opened_too_late_is_released(served: Served, filesystem: Waiting) -> None:
    unique = served.send(Opcode.OPEN, open_body(os.O_RDONLY), 2)
    assert filesystem.waits.acquire(timeout=20)
    released = threading.Event()
    release = filesystem.release
    filesystem.release = lambda handle: (release(handle), released.set())[0]  # type: ignore[method-assign, func-returns-value]

    interrupt(served, unique)
    filesystem.unblock.set()

    assert released.wait(20)
    assert filesystem.handles == {}
    assert served.device.answers[unique].error == errno.EINTR


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC])
def test_an_open_that_empties_the_file_goes_on(served: Served, filesystem: Waiting, flags: int) -> None:
    unique = served.send(Opcode.OPEN, open_body(flags), 2)
    assert filesystem.waits.acquire(timeout=20)

    interrupt(served, unique)
    assert unique not in served.device.answers
    filesystem.unblock.set()

    assert served.device.wait_for(unique).error == 0


def test_what_changes_something_goes_on(served: Served, filesystem: Waiting) -> None:
    unique = served.send(Opcode.UNLINK, b"file\0")
    assert filesystem.waits.acquire(timeout=20)

    interrupt(served, unique)
    assert unique not in served.device.answers
    filesystem.unblock.set()

    assert served.device.wait_for(unique).error == 0


def test_an_interrupt_that_is_faster_than_its_request_is_asked_for_again(served: Served) -> None:
    assert served.device.answers[interrupt(served, 1000)].error == errno.EAGAIN


def test_a_caller_is_patient_for_a_while() -> None:
    now = [100.0]
    device = Recorder(stays=False)
    exchanges = Exchanges(device)
    interrupts = Interrupts(exchanges, Seconds(1.0), lambda: now[0])
    slow, quick = exchanges.begin(2, "read"), exchanges.begin(4, "lookup")
    slow.interruptible = quick.interruptible = True
    interrupts.interrupt(2)
    interrupts.interrupt(4)

    exchanges.answer(quick, (b"found",))
    now[0] += 0.9
    interrupts.answer_impatient()
    assert 2 not in device.answers
    now[0] += 0.2
    interrupts.answer_impatient()

    assert (device.answers[2].error, device.answers[4].error) == (errno.EINTR, 0)


def test_the_thread_of_the_patient_ends_when_it_is_closed() -> None:
    interrupts = Interrupts(Exchanges(Recorder(stays=False)))
    thread = threading.Thread(target=interrupts.run)
    thread.start()

    interrupts.close()

    thread.join(20)
    assert not thread.is_alive()
