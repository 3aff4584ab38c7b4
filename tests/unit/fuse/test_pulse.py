"""A read that sleeps with the GIL held is woken up."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from csi.fuse.pulse import read_pulse
from csi.volume.units import Seconds


def test_a_read_that_holds_the_gil_comes_back_with_eintr() -> None:
    # in a process of its own: without the pulse this never ends, and with the GIL held nothing here could stop it
    program = """
        import ctypes, os
        from csi.fuse.pulse import read_pulse
        libc = ctypes.PyDLL(None, use_errno=True)  # PyDLL keeps the GIL during the call, as pyfuse3 does
        reader, writer = os.pipe()
        with read_pulse(0.05):
            result = libc.read(reader, ctypes.create_string_buffer(10), 10)
        print(result, ctypes.get_errno())
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.split() == ["-1", str(errno.EINTR)]


def test_handler_and_timer_of_before_are_back_afterwards() -> None:
    def mine(_number: int, _frame: object) -> None: ...

    before = signal.signal(signal.SIGALRM, mine)
    timer = signal.setitimer(signal.ITIMER_REAL, 3600)
    try:
        with read_pulse(Seconds(0.05)):
            pass

        assert signal.getsignal(signal.SIGALRM) is mine
        assert signal.getitimer(signal.ITIMER_REAL)[0] == pytest.approx(3600, rel=0.01)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGALRM)
    seen: list[object] = []

    def enter() -> None:
        with read_pulse(Seconds(0.05)):
            seen.append(signal.getsignal(signal.SIGALRM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(20)

    assert seen == [before]
