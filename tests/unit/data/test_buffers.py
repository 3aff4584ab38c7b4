"""Recycled buffers: they come back by themselves, and only when nobody can see them any more."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from csi.data.buffers import SMALLEST, BufferPool, charged_size, floor_power
from csi.data.ledger import MemoryLedger
from csi.volume.units import KIB, MIB, Bytes, Seconds
from tests.support.engines import LONG, Running, until


def pool(budget: int = 8 * MIB, keep: int = 8 * MIB) -> BufferPool:
    return BufferPool(MemoryLedger(Bytes(budget)), keep=keep)


@pytest.mark.parametrize(
    ("size", "charged"), [(1, SMALLEST), (16 * KIB, 16 * KIB), (16 * KIB + 1, 32 * KIB), (100 * KIB, 128 * KIB)]
)
def test_a_small_object_takes_a_small_buffer(size: int, charged: int) -> None:
    buffers = pool()
    view = buffers.try_take(size)
    assert view is not None
    assert len(view) == size
    assert charged_size(size) == charged == buffers.ledger.statistics().charged


def test_floor_power_is_the_power_of_two_below() -> None:
    assert [floor_power(size) for size in (1, 2, 3, 4, 1023, 1024)] == [1, 2, 2, 4, 512, 1024]


def test_a_buffer_stays_lent_while_a_slice_of_a_slice_is_alive() -> None:
    buffers = pool()
    view = buffers.try_take(1000)
    assert view is not None
    view[500:503] = b"abc"
    part = view[400:600][100:103]
    del view
    assert buffers.statistics().lent == SMALLEST
    assert bytes(part) == b"abc"
    del part
    assert buffers.statistics().lent == 0


def test_memory_is_used_again_rather_than_mapped_anew() -> None:
    buffers = pool()
    for _ in range(10):
        assert buffers.try_take(1 * MIB) is not None
    assert buffers.statistics().loans == 10
    assert buffers.statistics().fresh == 1


def test_a_buffer_in_use_is_never_lent_twice() -> None:
    buffers = pool()
    views = [buffers.try_take(1 * MIB) for _ in range(8)]
    for index, view in enumerate(views):
        assert view is not None
        view[:] = bytes([index]) * MIB
    assert [view[7] for view in views if view is not None] == list(range(8))
    assert buffers.try_take(1) is None


def test_kept_memory_of_another_size_makes_room() -> None:
    buffers = pool(budget=4 * MIB)
    small = [buffers.try_take(16 * KIB) for _ in range(256)]
    assert None not in small
    small.clear()
    assert buffers.try_take(4 * MIB) is not None


def test_no_more_is_kept_than_allowed() -> None:
    buffers = pool(keep=2 * MIB)
    views = [buffers.try_take(1 * MIB) for _ in range(8)]
    views.clear()
    assert buffers.statistics().kept == 2 * MIB
    assert buffers.ledger.statistics().charged == 2 * MIB


def test_close_gives_everything_back() -> None:
    buffers = pool()
    buffers.try_take(1 * MIB)
    buffers.close()
    gc.collect()
    assert buffers.ledger.statistics().charged == 0


def test_a_waiting_thread_gets_the_buffer_another_lets_go() -> None:
    buffers = pool(budget=1 * MIB)
    view = buffers.try_take(1 * MIB)
    running = Running()
    running.start(lambda: len(buffers.take(1 * MIB, Seconds(LONG)) or b""))
    until(lambda: buffers.ledger.contended)
    assert buffers.try_take(16 * KIB) is None, "nobody overtakes those who wait"
    del view
    assert running.join() == [1 * MIB]


def test_waiting_for_memory_ends() -> None:
    buffers = pool(budget=1 * MIB)
    view = buffers.try_take(1 * MIB)
    assert view is not None
    assert buffers.take(16 * KIB, Seconds(0.01)) is None
    assert buffers.take(2 * MIB, Seconds(3600)) is None, "more than there will ever be is refused at once"


INTERRUPTED = """
import _thread, signal, sys, threading
from csi.data.buffers import BufferPool
from csi.data.ledger import MemoryLedger

signal.signal(signal.SIGINT, signal.default_int_handler)
pool = BufferPool(MemoryLedger(1 << 24), keep=1 << 24)
lending, lost = threading.Event(), []

def miss(ignored):
    lost.append(ignored.exc_type)
    lending.set()

def interrupt():
    while True:
        lending.wait()
        lending.clear()
        _thread.interrupt_main()

sys.unraisablehook = miss
threading.Thread(target=interrupt, daemon=True).start()
for _ in range(200):
    try:
        lending.set()
        while True:
            views = [pool.try_take(1) for _ in range(50)]
            views.clear()
    except KeyboardInterrupt:
        pass
print(len(lost), pool.try_take(1) is not None)
"""


def test_ctrl_c_is_not_lost_in_a_buffer_that_comes_back() -> None:
    """Python drops what is raised in a weak reference's callback; nothing of Python runs in that of a loan."""
    run = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout.split() == ["0", "True"], run.stderr
