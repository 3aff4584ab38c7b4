"""A timer signal that frees the event loop from a read of /dev/fuse that has nothing to read.

pyfuse3 waits until the descriptor is readable and then reads it, blocking and with the GIL held. When the request that
made it readable is withdrawn in between (its caller was killed), that read sleeps until somebody makes another request,
and with it every thread of the process: replies that are ready, health reports, uploads. A non-blocking descriptor is
no way out: pyfuse3 ends the mount on EAGAIN. It does go on after EINTR, so a signal twice a second bounds the nap.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from csi.volume.units import Seconds

PULSE = Seconds(0.5)


@contextlib.contextmanager
def read_pulse(interval: Seconds = PULSE) -> Iterator[None]:
    """SIGALRM every `interval` while inside; what was set before is back afterwards.

    Only the main thread can do this (signal(2) handlers in Python); elsewhere it does nothing, and a session served
    from another thread keeps the nap.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _interrupt)
    timer = signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """The system call has returned with EINTR: that was all."""
