"""How pyfuse3 waits for the next request: without the event loop, as long as there is one.

For each request pyfuse3 takes a lock and waits for the descriptor, which costs two turns of the event loop and three
system calls before anything is read; with small requests that is half of all work. Under load the next request is there
already. So pyfuse3 gets a lock that only waits when it is taken, and a wait that first looks; after a few requests in a
row the event loop has its turn, since it delivers the answers that threads have found. The hook is pyfuse3's own
(`pyfuse3.asyncio` uses it): it reaches for what it needs of trio through its module variable `trio`.
"""

from __future__ import annotations

import ctypes
import select
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace, TracebackType

import pyfuse3
import trio

IN_A_ROW = 8
"""Requests received before the event loop has its turn."""


@contextmanager
def direct_receiving(descriptor: int) -> Iterator[None]:
    """While inside, pyfuse3 waits for `descriptor` in this way; for use around pyfuse3's init and main loop."""
    before = pyfuse3.trio  # type: ignore[attr-defined]  # a module variable of the extension
    pyfuse3.trio = SimpleNamespace(  # type: ignore[attr-defined]
        Lock=Turnstile,
        ClosedResourceError=trio.ClosedResourceError,
        open_nursery=trio.open_nursery,
        lowlevel=SimpleNamespace(
            current_task=trio.lowlevel.current_task,
            current_trio_token=trio.lowlevel.current_trio_token,
            notify_closing=trio.lowlevel.notify_closing,
            wait_readable=Readiness(descriptor).wait,
        ),
    )
    try:
        yield
    finally:
        pyfuse3.trio = before  # type: ignore[attr-defined]


class Turnstile:
    """A lock for tasks of one event loop. Unlike trio.Lock, taking it when it is free is no turn of the loop."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._taken:  # somebody may have been faster than who was woken
            await self._waiting.park()
        self._taken = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._taken = False
        if self._waiting:
            self._waiting.unpark()


class Readiness:
    """Waits until a descriptor can be read, or is closed or broken (poll(2))."""

    def __init__(self, descriptor: int) -> None:
        # PyDLL keeps the GIL: the call does not wait, and giving the GIL away would cost more than it
        self._poll = ctypes.PyDLL(None).poll
        self._descriptor = descriptor
        self._asked = _PollDescriptor(descriptor, select.POLLIN, 0)
        self._reference = ctypes.byref(self._asked)
        self._left = IN_A_ROW

    async def wait(self, descriptor: int) -> None:
        """`trio.lowlevel.wait_readable`. Raises trio.ClosedResourceError after `notify_closing`."""
        if descriptor == self._descriptor and self._left and self._poll(self._reference, 1, 0) > 0:
            self._left -= 1
            return
        self._left = IN_A_ROW
        await trio.lowlevel.wait_readable(descriptor)


class _PollDescriptor(ctypes.Structure):
    """struct pollfd."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))
