"""The threads of the device: who reads, what a thread in Python holds up, and buffers whose bytes are kept."""

from __future__ import annotations

import ctypes
import importlib
import mmap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from csi.fuse.native.answers import Answers
from csi.fuse.native.device import Device
from csi.fuse.protocol.constants import Opcode
from csi.volume.units import Bytes, FileHandle, Seconds
from tests.support.kernel_end import KernelEnd, getattr_body, read_body
from tests.unit.fuse.native.conftest import attributes

HANDLE = FileHandle(5)


@contextmanager
def running(
    handle: Callable[[Device, memoryview], None],
    *,
    threads: int = 2,
    turns: int = 1,
    fewest: int = 2,
    buffers: int = 8,
    watched: bool = True,
) -> Iterator[tuple[KernelEnd, Device, Answers]]:
    kernel, answers = KernelEnd(), Answers()
    device = Device(kernel.descriptor, answers, 1 << 20, buffers, turns, fewest)
    started = [
        threading.Thread(target=device.run, args=(lambda message: handle(device, message),)) for _ in range(threads)
    ]
    if watched:
        started.append(threading.Thread(target=device.watch))
    for thread in started:
        thread.start()
    answers.publish_block(1, 0, b"published")
    answers.publish_file(HANDLE, 1, Bytes(9))
    try:
        yield kernel, device, answers
    finally:
        device.stop()
        for thread in started:
            while thread.is_alive():
                device.interrupt()
                thread.join(0.01)
        device.close(Seconds(1.0))
        kernel.unmount()


def unique_of(message: memoryview) -> int:
    return int.from_bytes(message[8:16], "little")


def test_who_stays_in_python_loses_its_turn_to_another() -> None:
    held = threading.Event()

    def hold(device: Device, message: memoryview) -> None:
        held.wait(30)
        device.reply(unique_of(message))

    with running(hold) as (kernel, device, _):
        stuck = kernel.send(Opcode.STATFS)

        answered = kernel.ask(Opcode.READ, read_body(HANDLE, 0, 9))

        held.set()
        assert answered.body == b"published"
        assert kernel.receive().unique == stuck
        assert device.counters() == (1, 1)


@pytest.mark.parametrize(("threads", "turns"), [pytest.param(3, 1, id="given up"), pytest.param(2, 2, id="kept")])
def test_who_says_that_it_will_wait_holds_nobody_up(threads: int, turns: int) -> None:
    came, held = threading.Event(), threading.Event()

    def wait(device: Device, message: memoryview) -> None:
        while not device.stay(long=True):  # the others have not begun yet
            time.sleep(0.001)
        came.set()
        held.wait(30)
        device.leave()
        device.reply(unique_of(message))

    with running(wait, threads=threads, turns=turns) as (kernel, device, _):
        stuck = kernel.send(Opcode.STATFS)
        assert came.wait(20)
        for _ in range(50):
            assert kernel.ask(Opcode.READ, read_body(HANDLE, 0, 9)).body == b"published"
        held.set()

        assert kernel.receive().unique == stuck
        assert device.counters() == (1, 0)


def test_a_thread_may_wait_as_long_as_another_is_left() -> None:
    stays: list[bool] = []
    came = threading.Semaphore(0)
    held = threading.Event()

    def stay(device: Device, message: memoryview) -> None:
        may = device.stay(long=True)
        stays.append(may)
        came.release()
        if may:
            held.wait(30)
            device.leave()
        device.reply(unique_of(message))

    with running(stay, threads=3) as (kernel, _, _answers):
        for _ in range(3):
            kernel.send(Opcode.STATFS)
            assert came.acquire(timeout=20)
        held.set()
        answered = {kernel.receive().unique for _ in range(3)}

    assert stays == [True, True, False]
    assert len(answered) == 3


def test_bytes_of_a_request_stay_while_somebody_looks_at_them() -> None:
    kept: list[memoryview] = []

    def keep(device: Device, message: memoryview) -> None:
        if len(message) > 40:
            kept.append(message[40:])
        device.reply(unique_of(message))

    with running(keep, threads=1, buffers=4) as (kernel, device, _):
        for number in range(3):
            kernel.ask(Opcode.STATFS, b"payload %d" % number)
        kernel.ask(Opcode.STATFS)  # read into the last buffer there is

        assert [bytes(view) for view in kept] == [b"payload 0", b"payload 1", b"payload 2"]
        assert not device.has_spare_buffer()
        kept.clear()
        assert device.has_spare_buffer()


def test_a_device_that_is_closed_takes_no_more_answers() -> None:
    with running(lambda *_: None) as (_, device, _answers):
        device.stop()

    assert device.close(Seconds(1.0))
    assert device.reply(2) != 0
    assert device.notify(bytes(16)) != 0


@pytest.mark.parametrize("turns", [1, 2, 8])
@pytest.mark.parametrize("every", [2, 100])
def test_every_request_is_answered_once_whatever_the_number_of_readers(turns: int, every: int) -> None:
    with running(lambda device, message: device.reply(unique_of(message)) and None, threads=8, turns=turns) as (
        kernel,
        _,
        _answers,
    ):
        asked = []
        answered = []
        for number in range(600):
            known = number // every % 2  # answered by the tables
            asked.append(
                kernel.send(Opcode.READ if known else Opcode.STATFS, read_body(HANDLE, 0, 9) if known else b"")
            )
            if number >= 50:
                answered.append(kernel.receive().unique)
        answered += [kernel.receive().unique for _ in range(50)]

    assert sorted(answered) == asked


class Held:
    """What came to Python is answered once it may go on."""

    def __init__(self) -> None:
        self._came = threading.Semaphore(0)
        self._free = threading.Event()
        self._free.set()

    def handle(self, device: Device, message: memoryview) -> None:
        self._came.release()
        self._free.wait(30)
        device.reply(unique_of(message))

    def ask(self, kernel: KernelEnd, size: int) -> None:
        for _ in range(20):
            kernel.ask(Opcode.WRITE, bytes(size))
            assert self._came.acquire(timeout=20)

    def under_way_at_once(self, kernel: KernelEnd, most: int) -> int:
        """How many of four requests are under way while none is answered; fewer than `most` only after a while."""
        self._free.clear()
        asked = [kernel.send(Opcode.STATFS) for _ in range(4)]
        count = 0
        while count < 4 and self._came.acquire(timeout=20 if count < most else 0.2):
            count += 1
        self._free.set()
        assert sorted(kernel.receive().unique for _ in range(4)) == asked
        for _ in range(4 - count):
            assert self._came.acquire(timeout=20)
        return count

    def gather(self, kernel: KernelEnd, requests: list[tuple[Opcode, bytes, int]]) -> None:
        """All of them are there before the first is read."""
        self._free.clear()
        asked = [kernel.send(Opcode.STATFS) for _ in range(4)]  # more than there are threads that read
        assert self._came.acquire(timeout=20)
        while self._came.acquire(timeout=0.05):
            pass
        asked += [kernel.send(*request) for request in requests]
        self._free.set()
        assert sorted(kernel.receive().unique for _ in asked) == asked
        while self._came.acquire(blocking=False):
            pass


def test_fewer_threads_read_while_large_requests_come_and_all_again_when_python_is_called_for_others() -> None:
    held = Held()
    with running(held.handle, threads=4, turns=4, fewest=1, watched=False) as (kernel, _, _answers):
        for _ in range(20):  # a thread that waited all the while still reads one
            held.ask(kernel, 100_000)
            if held.under_way_at_once(kernel, 1) == 1:
                break
        else:
            pytest.fail("more than one thread goes on reading")
        held.ask(kernel, 0)
        assert held.under_way_at_once(kernel, 4) == 4


def test_twice_as_many_threads_read_while_large_answers_are_given() -> None:
    held = Held()
    with running(held.handle, threads=4, turns=4, fewest=1, watched=False) as (kernel, _, _answers):

        def read(size: int) -> None:
            for _ in range(100):
                assert kernel.ask(Opcode.READ, read_body(HANDLE, 0, size)).body == b"published"

        for size, readers in ((9, 1), (1 << 20, 2), (9, 1)):
            for _ in range(20):  # a thread that waited all the while still reads one
                read(size)
                if held.under_way_at_once(kernel, readers) == readers:
                    break
            else:
                pytest.fail(f"other than {readers} threads go on reading")


def test_half_of_the_few_read_while_a_crowd_asks_for_attributes_and_all_again_when_it_is_gone() -> None:
    held = Held()
    with running(held.handle, threads=4, turns=4, fewest=2, watched=False) as (kernel, _, answers):
        answers.publish_inode(attributes(7), believed=Seconds(3600.0), told=Seconds(60.0))

        def one_by_one() -> None:
            for _ in range(1000):
                kernel.ask(Opcode.GETATTR, getattr_body(), node=7)

        def crowd() -> None:
            held.gather(kernel, [(Opcode.GETATTR, getattr_body(), 7)] * 1000)

        for ask, readers in ((one_by_one, 2), (crowd, 1), (one_by_one, 2)):
            for _ in range(20):  # a thread that waited all the while still reads one
                ask()
                if held.under_way_at_once(kernel, readers) == readers:
                    break
            else:
                pytest.fail(f"other than {readers} threads go on reading")


def test_one_thread_reads_alone_while_large_requests_come_one_by_one_and_another_helps_when_they_do_not() -> None:
    came, going = threading.Semaphore(0), threading.Semaphore(0)

    def hold(device: Device, message: memoryview) -> None:
        came.release()
        going.acquire(timeout=30)
        device.reply(unique_of(message))

    with running(hold, threads=3, turns=3, fewest=2, watched=False) as (kernel, _, _answers):

        def large() -> None:
            kernel.send(Opcode.WRITE, bytes(100_000))

        def under_way_at_once(patience: float) -> int:
            """Of two large requests that come while one is dealt with."""
            large()
            assert came.acquire(timeout=20)
            large()
            large()
            count = 0
            while count < 2 and came.acquire(timeout=patience):  # before the first is answered
                count += 1
            going.release(3)
            for _ in range(3):
                kernel.receive()
            for _ in range(2 - count):
                assert came.acquire(timeout=20)
            return count

        def one_by_one() -> None:
            for _ in range(20):
                large()
                assert came.acquire(timeout=20)
                going.release()
                kernel.receive()

        for _ in range(20):  # a thread that waited all the while still reads one
            one_by_one()
            if under_way_at_once(0.2) == 0:
                break
        else:
            pytest.fail("more than one thread goes on reading")
        large()
        assert came.acquire(timeout=20)
        large()
        large()
        going.release()  # who reads the second sees the third
        assert came.acquire(timeout=20)
        assert came.acquire(timeout=20)
        going.release(2)
        for _ in range(3):
            kernel.receive()


def test_an_answer_that_may_come_later_comes_when_its_thread_is_back() -> None:
    answered, held = threading.Event(), threading.Event()

    def answer(device: Device, message: memoryview) -> None:
        assert device.reply_soon(unique_of(message), 0, b"later") == 0
        answered.set()
        held.wait(30)

    with running(answer) as (kernel, device, _):
        unique = kernel.send(Opcode.STATFS)
        assert answered.wait(20)
        assert not kernel.has_answer(0.05)
        device.stop()
        assert not device.is_over()
        held.set()
        received = kernel.receive()

    assert (received.unique, received.error, received.body) == (unique, 0, b"later")


def test_only_one_short_answer_waits() -> None:
    def answer(device: Device, message: memoryview) -> None:
        device.reply_soon(unique_of(message), 0, bytes(4000))  # too long: at once
        device.reply_soon(1001, 5)
        device.reply_soon(1002, 6)  # at once

    with running(answer, threads=1) as (kernel, _, _answers):
        unique = kernel.send(Opcode.STATFS)
        received = [kernel.receive() for _ in range(3)]

    assert [(one.unique, one.error) for one in received] == [(unique, 0), (1002, 6), (1001, 5)]


def test_a_thread_of_another_place_answers_at_once() -> None:
    with running(lambda *_: None) as (kernel, device, _):
        assert device.reply_soon(77, 5) == 0
        assert (kernel.receive().unique, device.is_over()) == (77, False)


def test_the_beginning_of_a_request_has_its_memory_before_it_is_read() -> None:
    """Otherwise who is killed just then takes the request along, and no successor is asked."""
    buffers: Any = importlib.import_module("csi.fuse.native.buffers")
    buffer = buffers.RequestBuffer([], 1 << 30)  # more than the allocator has lying about
    view = ctypes.create_string_buffer(128)  # a Py_buffer, whose first field is the address

    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), view, 0)
    first = ctypes.c_uint64.from_buffer(view).value

    assert [is_there(first + page * mmap.PAGESIZE) for page in (0, 1, 2)] == [True, True, False]
    ctypes.pythonapi.PyBuffer_Release(view)


def is_there(address: int) -> bool:
    """Whether a page of this process has memory."""
    with Path("/proc/self/pagemap").open("rb") as pages:
        pages.seek(address // mmap.PAGESIZE * 8)
        return bool(pages.read(8)[7] & 0x80)
