"""The conservative kernel session: a mounted /dev/fuse descriptor served by pyfuse3 (libfuse) on a trio event loop.

mount(2) was done by somebody else, perhaps in another process; the session gets the descriptor, answers INIT and then
requests until the mount is gone. It mounts and unmounts nothing. It must not know what any operation means.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import select
import threading
import time
from collections.abc import Callable

import pyfuse3
import trio

from csi.fuse.errno_map import ErrorReporter
from csi.fuse.forgetting import Forgetting
from csi.fuse.operations import Operations
from csi.fuse.pulse import read_pulse
from csi.fuse.receiving import direct_receiving
from csi.fuse.requests import SessionStatistics
from csi.fuse.served import Overflowing, ServedFilesystem
from csi.fuse.workers import Lanes
from csi.volume.spec import MountArguments
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

_MAX_REQUESTS = 1000
"""Requests being answered at once. Each that carries a write costs up to 2 MiB (libfuse's buffer and pyfuse3's copy);
the kernel sends one write at a time for each open file, so the writers bound that, not this number."""

_IDLE_TASKS = 4
"""Tasks kept for the next request: making one costs more than a request. Each may hold a buffer of 1 MiB."""

STOP_GRACE = Seconds(5.0)

_WATCH_INTERVAL = Seconds(1.0)


_GLANCE = Seconds(0.02)

_CLOSES = frozenset({"flush", "fsync", "release"})


class Pyfuse3Session:
    """Implements `csi.fuse.session.KernelSession`; at most one per process, since pyfuse3 keeps it in module globals.

    `descriptor` is an open /dev/fuse whose mount(2) is done and whose INIT nobody has answered; the session owns it
    from `serve` on and closes it at the end. `workers` is the number of threads of each lane (`csi/fuse/workers.py`).
    `on_started` is called once, on a thread of its own, when INIT has been answered; what it raises ends `serve`.
    `stop_grace`: after `stop`, or when the connection was aborted, how long requests under way may take before they are
    answered with EIO.

    Threads: `serve` runs the event loop on the thread that calls it (the main thread, see `csi/fuse/pulse.py`); `stop`
    and `statistics` may be called from any other. `_stopping` and `_token` need no lock: each is set once, in an order
    that loses no `stop`.
    """

    def __init__(
        self,
        descriptor: int,
        filesystem: ServedFilesystem,
        arguments: MountArguments,
        *,
        workers: int,
        on_started: Callable[[], None],
        stop_grace: Seconds = STOP_GRACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._descriptor = descriptor
        self._filesystem = filesystem
        self._on_started = on_started
        self._stop_grace = stop_grace
        self._lanes = Lanes(workers)
        self._operations = Operations(filesystem, arguments, self._lanes, ErrorReporter(_log, clock), self._initialised)
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope: trio.CancelScope | None = None
        self._started: trio.Event | None = None
        self._stopping = False
        self._over = threading.Event()

    def serve(self) -> None:
        """Answer requests until the mount is gone, the connection is aborted, or `stop` is called.

        Raises RuntimeError when libfuse refuses the descriptor.
        """
        pyfuse3.init(self._operations, f"/dev/fd/{self._descriptor}", set())
        try:
            if isinstance(self._filesystem, Overflowing):
                target = functools.partial(self._let_forget, self._filesystem, os.dup(self._descriptor))
                threading.Thread(target=target, name="fuse-forget", daemon=True).start()
            with read_pulse(), direct_receiving(self._descriptor):
                trio.run(self._main)
        except BaseExceptionGroup as group:
            raise _only(group) from None
        finally:
            self._over.set()
            self._lanes.close()
            pyfuse3.close(unmount=False)

    def stop(self) -> None:
        """Make `serve` return soon: requests under way get `stop_grace`. Callable from any thread, signal handlers
        included, any number of times, also before `serve`."""
        self._stopping = True
        token = self._token
        if token is not None:
            try:
                token.run_sync_soon(self._terminate, idempotent=True)
            except trio.RunFinishedError:
                return  # it has stopped already

    def statistics(self) -> SessionStatistics:
        """Requests answered and under way; from any thread."""
        return self._operations.requests.statistics()

    def wait_for_closes(self, patience: Seconds) -> None:
        """Until no file is being closed or synced, for at most `patience`; from any thread but the session's."""
        end = time.monotonic() + patience
        while self._operations.requests.waiting(_CLOSES) and time.monotonic() < end:
            time.sleep(_GLANCE)

    def _let_forget(self, filesystem: Overflowing, descriptor: int) -> None:
        """On a thread of its own; `descriptor` is its own too, so that it cannot have become another file."""
        try:
            Forgetting(_Notified(descriptor)).run(filesystem, self._over.is_set)
        finally:
            os.close(descriptor)

    # --- on the event loop ---

    async def _main(self) -> None:
        self._started = trio.Event()
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            self._token = trio.lowlevel.current_trio_token()
            if self._stopping:
                return
            nursery.start_soon(self._announce)
            nursery.start_soon(self._watch_for_the_end)
            await pyfuse3.main(min_tasks=_IDLE_TASKS, max_tasks=_MAX_REQUESTS)
            nursery.cancel_scope.cancel()

    def _initialised(self) -> None:
        # called while INIT is being answered; the event's waiter runs when that is done
        if self._started is not None:
            self._started.set()

    async def _announce(self) -> None:
        assert self._started is not None  # noqa: S101 - set by _main before this task exists
        await self._started.wait()
        await self._lanes.names.run(self._on_started)

    async def _watch_for_the_end(self) -> None:
        """pyfuse3 notices an aborted connection but then waits for what is under way, whose callers are gone."""
        events = select.poll()
        events.register(self._descriptor, 0)  # no events asked for: POLLERR and POLLHUP are always told
        while not events.poll(0):
            await trio.sleep(_WATCH_INTERVAL)
        self._terminate()

    def _terminate(self) -> None:
        pyfuse3.terminate()
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + self._stop_grace)


class _Notified:
    """Implements `csi.fuse.forgetting.Notified`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def notify(self, message: bytes) -> int:
        try:
            os.write(self._descriptor, message)
        except OSError as error:
            return error.errno or errno.EIO
        return 0


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception itself when it is the only one: trio wraps whatever ends a nursery."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    return found
