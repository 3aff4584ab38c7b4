"""INTERRUPT: a caller has a signal to deal with and would rather not wait.

A request that only asks is answered EINTR when it has waited for `patience` since: a program that is being killed, or
whose endpoint has gone silent, goes on at once or nearly so, while a stray signal does not make stat(2) fail, which
POSIX does not let it and no program expects. What changes something goes on to its end, since its caller could not know
whether it happened and would do it twice.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable

from csi.fuse.own.exchange import Exchange, Exchanges
from csi.volume.units import Seconds

PATIENCE = Seconds(1.0)
_GLANCE = Seconds(0.05)


class Interrupts:
    """`_lock` guards `_impatient`. `run` is a thread that sleeps while nobody is interrupted."""

    def __init__(
        self, exchanges: Exchanges, patience: Seconds = PATIENCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._exchanges = exchanges
        self._patience = patience
        self._clock = clock
        self._lock = threading.Condition(threading.RLock())
        self._impatient: list[tuple[float, Exchange]] = []
        self._closed = False

    def interrupt(self, unique: int) -> bool:
        """False when no such request is known: not yet, or not any more."""
        exchange = self._exchanges.find(unique)
        if exchange is None:
            return False
        if exchange.interruptible:
            if self._patience <= 0:
                self._exchanges.refuse(exchange, errno.EINTR)
            else:
                with self._lock:
                    self._impatient.append((self._clock() + self._patience, exchange))
                    self._lock.notify()
        return True

    def run(self) -> None:
        with self._lock:
            while not self._closed:
                if not self._impatient:
                    self._lock.wait()
                    continue
                self._lock.wait(_GLANCE)
                self.answer_impatient()

    def answer_impatient(self) -> None:
        """Once: those whose time is over get EINTR, those that were answered are not waited for any more."""
        now = self._clock()
        with self._lock:
            waiting = [(end, one) for end, one in self._impatient if self._exchanges.find(one.unique) is one]
            self._impatient = [(end, one) for end, one in waiting if end > now]
        for end, exchange in waiting:
            if end <= now:
                self._exchanges.refuse(exchange, errno.EINTR)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify()
