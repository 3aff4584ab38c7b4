"""Our own kernel session: a mounted /dev/fuse descriptor served by a few threads, mostly without the interpreter.

mount(2) was done by somebody else, perhaps in another process; the session gets the descriptor, answers INIT (or is
told what a predecessor answered) and then requests until the mount is gone. It mounts and unmounts nothing. What the
filesystem has published is answered by `csi/fuse/native`; the rest comes to `csi/fuse/own/dispatch.py`. All threads
share the one descriptor: a clone would take its requests with it when this process dies and another takes over, and is
worth nothing (`c-shared` of `benchmarks/session`).
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from csi.fs.published import ReadListener
from csi.fuse.errno_map import ErrorReporter
from csi.fuse.forgetting import Forgetting
from csi.fuse.native.answers import Answers
from csi.fuse.native.device import Device
from csi.fuse.own.directories import DirectoryHandlers
from csi.fuse.own.dispatch import Dispatch, handlers_of
from csi.fuse.own.exchange import Exchanges
from csi.fuse.own.files import FileHandlers
from csi.fuse.own.handshake import Handshake
from csi.fuse.own.interrupts import PATIENCE, Interrupts
from csi.fuse.own.names import NameHandlers
from csi.fuse.own.passthrough import KernelBackingFiles, Passthrough, Registrar, may_register
from csi.fuse.own.work import Lanes
from csi.fuse.protocol.constants import InitFlag
from csi.fuse.protocol.negotiation import LARGEST_WRITE, InitResult
from csi.fuse.requests import SessionStatistics
from csi.fuse.served import Backed, Overflowing, Scanning, ServedFilesystem
from csi.volume.spec import MountArguments
from csi.volume.units import FileHandle, Seconds

_log = logging.getLogger(__name__)

STOP_GRACE = Seconds(5.0)
_THREADS = 12
"""Of the device: a few read, the others are there when those are busy."""
_KEPT_BUFFERS = 8
"""Requests whose payload waits for a thread without being copied, 1 MiB each; more are copied."""
_HEADERS = 4096
_NEVER_DROPS_LISTINGS = frozenset({40, 41})
"""Linux 6.9 to 6.13 go on showing a listing they keep, whatever opendir is answered (gcsfuse issue 2792)."""
_MOST_TURNS = 8
_WAITING = 64
"""Threads for names and as many for reads, which wait for the network: what so many programs may wait for at a time."""
_CLOSES = frozenset({"flush", "fsync", "release"})
_GLANCE = Seconds(0.02)
_ROUND = Seconds(1.0)
_CLOSING_GRACE = Seconds(1.0)


class OwnSession:
    """Implements `csi.fuse.session.KernelSession`; any number per process.

    `descriptor` is an open /dev/fuse whose mount(2) is done; the session owns it from `serve` on and closes it at the
    end. INIT is not answered yet, or `resume` is what it was answered with. `answers` are the tables that `filesystem`
    publishes in. `registrar` sees to it that the kernel passes files through; None: this process does, where
    `may_register` says that the kernel lets it. `workers` is the number of threads of a lane (`_WAITING`: of two more).
    `on_started` is called once, on a thread of its own, when requests can be answered; what it raises ends `serve`.
    `stop_grace`: after `stop`, or when the connection was aborted, how long requests under way may take before they are
    answered with EIO.

    Threads: `serve` waits on the thread that calls it, `stop` and `statistics` may be called from any other.
    `_stopping` and `_device` need no lock: each is set once, in an order that loses no `stop`.
    """

    def __init__(
        self,
        descriptor: int,
        filesystem: ServedFilesystem,
        arguments: MountArguments,
        *,
        answers: Answers,
        workers: int,
        on_started: Callable[[], None],
        resume: InitResult | None = None,
        largest_write: int = LARGEST_WRITE,
        stop_grace: Seconds = STOP_GRACE,
        interrupt_patience: Seconds = PATIENCE,
        may_register: Callable[[], bool] = may_register,
        registrar: Registrar | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if resume is not None and resume.has(InitFlag.PASSTHROUGH):
            raise ValueError("a session that passes files through cannot be taken over: which, nobody else knows")
        self._descriptor = descriptor
        self._filesystem = filesystem
        self._arguments = arguments
        self._answers = answers
        self._on_started = on_started
        self._resume = resume
        self._largest_write = largest_write
        self._stop_grace = stop_grace
        self._interrupt_patience = interrupt_patience
        self._may_register = may_register
        self._registrar = registrar
        self._passthrough: Passthrough | None = None
        self._clock = clock
        self._lanes = Lanes(workers, max(workers, _WAITING))
        self._reporter = ErrorReporter(_log, clock)
        self._agreed: InitResult | None = None
        self._device: Device | None = None
        self._exchanges: Exchanges | None = None
        self._stopping = False
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        self._over = False

    @property
    def agreed(self) -> InitResult | None:
        """What INIT was answered with; None before. A successor's `resume`."""
        return self._agreed

    def serve(self) -> None:
        """Answer requests until the mount is gone, the connection is aborted, or `stop` is called.

        Raises VersionNotSupported for a kernel that is too old, and what `on_started` raised.
        """
        symlinks_last = (
            self._arguments.symlinks and min(self._arguments.entry_timeout, self._arguments.attr_timeout) > 0
        )
        handshake = Handshake(
            symlinks_last=symlinks_last,
            bare_names=isinstance(self._filesystem, Scanning),
            passthrough=self._wants_passthrough(),
            largest_write=self._largest_write,
            resume=self._resume,
        )
        processors = len(os.sched_getaffinity(0))
        turns = min(4 * processors, _MOST_TURNS), min(max(2, processors), _MOST_TURNS)  # measured on two of them
        buffers = _THREADS + _KEPT_BUFFERS
        device = Device(self._descriptor, self._answers, handshake.buffer_size + _HEADERS, buffers, *turns)
        self._exchanges = Exchanges(device, self._clock)
        interrupts = Interrupts(self._exchanges, self._interrupt_patience, self._clock)
        self._device = device
        if self._stopping:
            device.stop()
        try:
            self._start(lambda: self._begin(device, handshake, interrupts), "fuse-device-1")
            while not self._ended.wait(_ROUND):
                if self._stopping:
                    device.interrupt()
            self._settle(device, self._exchanges)
        finally:
            self._over = True
            interrupts.close()
            if self._answers.couriers is not None:
                self._answers.couriers.close()
            self._answers.close()
            self._lanes.close()
            if self._passthrough is not None:
                self._passthrough.close()
            device.close(_CLOSING_GRACE)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Make `serve` return soon: requests under way get `stop_grace`. Callable from any thread, signal handlers
        included, any number of times, also before `serve`."""
        self._stopping = True
        device = self._device
        if device is not None:
            device.stop()

    def statistics(self) -> SessionStatistics:
        """Requests answered and under way; from any thread."""
        by_tables = self._answers.statistics().answered
        if self._exchanges is None:
            return SessionStatistics({}, 0, "", Seconds(0.0))
        found = self._exchanges.statistics()
        passed = self._passthrough.statistics() if self._passthrough is not None else None
        return replace(found, answered=dict(Counter(found.answered) + Counter(by_tables)), passthrough=passed)

    def wait_for_closes(self, patience: Seconds) -> None:
        """Until no file is being closed or synced, for at most `patience`; from any thread but the session's."""
        end = time.monotonic() + patience
        while self._exchanges is not None and self._exchanges.waiting(_CLOSES) and time.monotonic() < end:
            time.sleep(_GLANCE)

    # --- threads of the session ---

    def _begin(self, device: Device, handshake: Handshake, interrupts: Interrupts) -> None:
        """On the first thread of the device: INIT, the other threads, and then requests like them."""
        try:
            agreed = handshake.agree(device)
            if agreed is None:
                return
            self._agreed = agreed
            handle = self._dispatch(device, interrupts, agreed).handle
            if self._arguments.xattrs:
                self._answers.deny_capabilities()
            couriers = self._answers.couriers
            if couriers is not None:
                couriers.start(lambda message: handle(memoryview(message)))
            self._start(self._announce, "fuse-started")
            self._start(device.watch, "fuse-watch")
            self._start(interrupts.run, "fuse-interrupts")
            filesystem = self._filesystem
            if isinstance(filesystem, ReadListener):
                self._start(functools.partial(self._tell, filesystem), "fuse-tell")
            if isinstance(filesystem, Overflowing):
                forgetting = Forgetting(device)
                self._start(functools.partial(forgetting.run, filesystem, lambda: self._over), "fuse-forget")
            for number in range(2, _THREADS + 1):
                self._start(functools.partial(self._run, device, handle), f"fuse-device-{number}")
            self._run(device, handle)
        except BaseException as error:
            self._failure = error
        finally:
            self._ended.set()

    def _run(self, device: Device, handle: Callable[[memoryview], None]) -> None:
        try:
            ended = device.run(handle)
            if ended == errno.ECONNABORTED:
                _log.info("the connection was aborted")
            elif ended not in _ENDINGS:
                _log.error("the descriptor of the mount cannot be read: %s", errno.errorcode.get(ended, ended))
        finally:
            self._ended.set()

    def _dispatch(self, device: Device, interrupts: Interrupts, agreed: InitResult) -> Dispatch:
        assert self._exchanges is not None  # noqa: S101 - made by `serve` before its threads
        names = NameHandlers(self._filesystem, self._arguments, self._lanes)
        if isinstance(self._filesystem, Backed) and agreed.has(InitFlag.PASSTHROUGH):
            registrar = self._registrar
            backing = registrar.files(self._descriptor) if registrar is not None else KernelBackingFiles(device)
            self._passthrough = Passthrough(self._filesystem, backing)
        files = FileHandlers(
            *(self._filesystem, self._arguments, self._lanes, self._reporter, device.has_spare_buffer),
            self._passthrough,
        )
        kept = Seconds(0.0) if agreed.minor in _NEVER_DROPS_LISTINGS else self._arguments.entry_timeout
        directories = DirectoryHandlers(
            self._filesystem, self._lanes, kept, self._clock, resumed=self._resume is not None
        )
        return Dispatch(
            self._filesystem,
            device,
            self._exchanges,
            interrupts,
            self._reporter,
            handlers_of(names, files, directories),
            setxattr_ext=agreed.has(InitFlag.SETXATTR_EXT),
        )

    def _wants_passthrough(self) -> bool:
        """Of volumes that cannot be written; see `csi/fuse/own/passthrough.py`."""
        if not isinstance(self._filesystem, Backed) or not self._arguments.read_only:
            return False
        able = self._registrar.is_there() if self._registrar is not None else self._may_register()
        if not able:
            # debug: so it is for every volume without a disk cache
            _log.debug("files of the disk cache are not passed through: that takes CAP_SYS_ADMIN on the node")
        return able

    def _announce(self) -> None:
        try:
            self._on_started()
        except BaseException as error:
            self._failure = error
            self.stop()

    def _tell(self, listener: ReadListener) -> None:
        while not self._over:
            for handle, offset, end in self._answers.take_told(_ROUND):
                try:
                    listener.read_reached(FileHandle(handle), offset, end)
                except Exception as error:
                    self._reporter.report("read_reached", error)

    def _start(self, target: Callable[[], object], name: str) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    # --- the end ---

    def _settle(self, device: Device, exchanges: Exchanges) -> None:
        """Nobody reads any more. Requests under way get their time, then EIO."""
        device.stop()
        end = time.monotonic() + self._stop_grace
        fetching = self._answers.fetching
        while not (exchanges.are_over() and not fetching().flying and device.is_over()) and time.monotonic() < end:
            device.interrupt()
            time.sleep(_GLANCE)
        for exchange in exchanges.all():
            exchanges.refuse(exchange, errno.EIO)


_ENDINGS = frozenset({0, errno.ENODEV})
"""Stopped, unmounted."""
