"""Threads that fetch small objects for who reads them without Python, each with a connection of its own.

A courier waits and works without the interpreter (`Errands.serve`); it comes back here for a connection, for what signs
its requests, and with READs whose object it could not get as expected: those it hands on. Couriers come when there is
more to do than those there are can begin, and go when there has been nothing to do for a while. Their memory is one
reservation of the ledger, made when the first comes and given back with the last.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from csi.data.ledger import MemoryLedger, Reservation
from csi.errors import OssFuseError
from csi.oss.lines import Lines, LinesUsed
from csi.volume.units import MIB, Bytes, Seconds

if TYPE_CHECKING:
    from csi.oss.getting import Stamp

_log = logging.getLogger(__name__)

MOST = 64
RESERVE = Bytes(32 * MIB)
IDLE = Seconds(10.0)
"""After which a courier goes, and bytes are given up that were fetched ahead and that nobody has come for."""
_LOOK = Seconds(1.0)
_SHARE = 8  # of the budget that couriers may take at most: one in so many
_CLOSING = Seconds(5.0)

Handle = Callable[[bytes], None]
"""Has a READ answered, on the calling thread."""


class Errands(Protocol):
    """What couriers are asked for: `csi.fuse.native.answers.Answers`, which has the queue."""

    def start_fetching(self, most: int, reserve: int) -> None:
        """From now on there may be jobs, for at most `most` couriers, with `reserve` bytes of buffers; 0 couriers: no
        more jobs."""

    def wait_for_want(self, patience: float) -> int:
        """How many more couriers there is work for; waits for some, at most `patience` seconds."""

    def courier_comes(self) -> None: ...

    def courier_starts(self) -> None:
        """One that has come has its connection."""

    def courier_goes(self) -> None: ...

    def serve(self, descriptor: int, stamp: Stamp, idle: float) -> tuple[int, bool, list[bytes]]:
        """Fetch on a connected socket for as long as `stamp` is good for: (why it ended, as in IDLE and CLOSED of
        `csi/fuse/native/fetches.pxd`; whether the connection can be used again; READs to be handed on)."""

    def refuse_waiting(self) -> list[bytes]:
        """No courier can come: the READs that wait for one."""

    def tidy(self, older: float) -> None: ...

    def stop_fetching(self) -> None:
        """Couriers come back, and nothing is answered by them when this returns."""

    def fetching(self) -> Figures: ...


class Figures(Protocol):
    """Of what couriers do: how many there are, how many `flying` for a job; GETs made so far, and bytes received."""

    @property
    def couriers(self) -> int: ...
    @property
    def flying(self) -> int: ...
    @property
    def gets(self) -> int: ...
    @property
    def bytes(self) -> int: ...


class Couriers:
    """`_lock` guards `_threads`, `_reserved` and `_closed`."""

    def __init__(self, errands: Errands, lines: Lines, ledger: MemoryLedger, *, idle: Seconds = IDLE) -> None:
        self._errands = errands
        self._lines = lines
        self._ledger = ledger
        self._idle = idle
        self._most = lines.most
        self._size = min(RESERVE, ledger.budget // _SHARE)
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._reserved: Reservation | None = None
        self._closed = threading.Event()
        lines.counted = self._count

    def start(self, handle: Handle) -> None:
        """`handle` answers READs that couriers could not; it never raises."""
        self._errands.start_fetching(self._most, self._size)
        threading.Thread(target=self._keep, args=(handle,), name="ossfuse-couriers", daemon=True).start()

    def close(self) -> None:
        """No courier writes anything any more when this returns; those under way end by themselves."""
        self._closed.set()
        self._errands.stop_fetching()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(_CLOSING / len(threads))
        self._settle()

    def _count(self) -> LinesUsed:
        figures = self._errands.fetching()
        busy = figures.flying
        return LinesUsed(figures.gets, figures.bytes, max(0, figures.couriers - busy), busy)

    # --- the thread that looks after them ---

    def _keep(self, handle: Handle) -> None:
        while not self._closed.is_set():
            wanted = self._errands.wait_for_want(_LOOK if self._threads else _LOOK * 60)
            if wanted and not self._reserve():
                self._hand_on(handle, self._errands.refuse_waiting())
                continue
            for _ in range(wanted):
                self._call(handle)
            self._errands.tidy(self._idle)
            if not wanted:
                self._settle()

    def _reserve(self) -> bool:
        with self._lock:
            if self._reserved is None and not self._closed.is_set():
                self._reserved = self._ledger.try_reserve(self._size)
            return self._reserved is not None

    def _settle(self) -> None:
        """Give the memory back when nobody uses it."""
        with self._lock:
            if self._threads or self._reserved is None:
                return
            reserved, self._reserved = self._reserved, None
        self._errands.tidy(0.0)
        reserved.release()

    def _call(self, handle: Handle) -> None:
        thread = threading.Thread(target=self._run, args=(handle,), name="ossfuse-courier", daemon=True)
        self._errands.courier_comes()
        try:
            with self._lock:  # `close` joins only what has been started
                thread.start()
                self._threads.add(thread)
        except RuntimeError as error:  # as many threads as this process may have
            _log.info("no thread for small files: %s", error)
            self._errands.courier_starts()
            self._errands.courier_goes()
            self._hand_on(handle, self._errands.refuse_waiting())

    # --- a courier ---

    def _run(self, handle: Handle) -> None:
        started = False
        try:
            while not self._closed.is_set():
                try:
                    connection = self._lines.connect()
                except OSError as error:
                    _log.info("no connection for small files: %s", error)
                    self._hand_on(handle, self._errands.refuse_waiting())
                    return
                if not started:
                    self._errands.courier_starts()
                    started = True
                with contextlib.closing(connection):
                    if not self._serve(connection, handle):
                        return
        except Exception:
            _log.exception("a courier ended in a way nobody foresaw")
        finally:
            if not started:
                self._errands.courier_starts()
            with self._lock:
                self._threads.discard(threading.current_thread())
            self._errands.courier_goes()

    def _serve(self, connection: socket.socket, handle: Handle) -> bool:
        """Until the connection ends; False when the courier is not wanted any more."""
        while True:
            try:
                stamp = self._lines.stamp()
            except OssFuseError as error:
                _log.info("small files cannot be asked for: %s", error)
                self._hand_on(handle, self._errands.refuse_waiting())
                return False
            reason, usable, messages = self._errands.serve(connection.fileno(), stamp, self._idle)
            if messages and not usable:
                connection.close()
            self._hand_on(handle, messages)
            if reason in _OVER:
                return False
            if not usable:
                return True

    def _hand_on(self, handle: Handle, messages: list[bytes]) -> None:
        for message in messages:
            handle(message)


_OVER = frozenset({1, 3})
"""CLOSED and IDLE of csi/fuse/native/fetches.pxd."""
