"""How many threads of the device read: one while it keeps up, more when requests wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from csi.fuse.native.answers import Answers
from csi.fuse.native.device import Device
from csi.fuse.protocol.constants import Opcode
from csi.volume.units import Seconds
from tests.support.kernel_end import KernelEnd

THREADS, TURNS = 6, 4


@contextmanager
def unwatched(handle: Callable[[Device, memoryview], None]) -> Iterator[KernelEnd]:
    """A device that nobody keeps watch over: only its threads decide who reads."""
    kernel = KernelEnd()
    device = Device(kernel.descriptor, Answers(), 1 << 20, 8, TURNS)
    threads = [
        threading.Thread(target=device.run, args=(lambda message: handle(device, message),)) for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield kernel
    finally:
        device.stop()
        for thread in threads:
            while thread.is_alive():
                device.interrupt()
                thread.join(0.01)
        device.close(Seconds(1.0))
        kernel.unmount()


def answer(device: Device, message: memoryview) -> None:
    assert device.reply_soon(int.from_bytes(message[8:16], "little")) == 0


def test_one_thread_answers_who_asks_one_thing_at_a_time() -> None:
    answering: list[int] = []

    def note(device: Device, message: memoryview) -> None:
        answering.append(threading.get_ident())
        answer(device, message)

    with unwatched(note) as kernel:
        for _ in range(50):
            kernel.ask(Opcode.STATFS)

    assert len(answering) == 50
    assert len(set(answering)) == 1


class Rush:
    """Whose ninth request is not answered before two threads have come, and none after it."""

    def __init__(self) -> None:
        self.answering: list[int] = []
        self._two = threading.Event()
        self._lock = threading.Lock()

    def handle(self, device: Device, message: memoryview) -> None:
        with self._lock:
            self.answering.append(threading.get_ident())
            if len(set(self.answering)) > 1:
                self._two.set()
            waits = len(self.answering) > 8
        if waits:
            self._two.wait(20)
        answer(device, message)

    def ask(self, kernel: KernelEnd) -> None:
        for _ in range(30):
            kernel.send(Opcode.STATFS)
        for _ in range(30):
            kernel.receive()


def test_another_thread_reads_when_requests_wait_again_and_again() -> None:
    rush = Rush()

    with unwatched(rush.handle) as kernel:
        rush.ask(kernel)

    assert len(set(rush.answering)) > 1


def test_after_a_rush_one_thread_is_enough_again() -> None:
    rush = Rush()

    with unwatched(rush.handle) as kernel:
        rush.ask(kernel)
        for _ in range(100):
            kernel.ask(Opcode.STATFS)

    assert len(set(rush.answering[:30])) > 1
    assert len(set(rush.answering[-50:])) == 1
