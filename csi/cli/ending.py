"""Ctrl-C and SIGTERM for a command that stays in the foreground: noted in the handler, acted on where it is safe.

While a mount is being made, two things can take long: the first request to the bucket and the start of the sidecar.
`endable` waits for the request in a thread of its own, because libcurl hears of no signal; `EndableLauncher` kills a
sidecar that does not serve yet, which makes whoever waits for it fail and undo what was made. Nothing is raised out of
a signal handler, so nothing is ever left half undone.

Python runs a handler when the main thread next runs Python, which may be after it began to wait, or another thread took
the signal; so whoever waits here is woken through a pipe that the C handler writes to (`signal.set_wakeup_fd`).
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from csi.errors import OssFuseError
from csi.handover.cgroup import MemoryCgroup
from csi.handover.process import Launcher, SidecarProcess
from csi.handover.types import PublishRequest
from csi.volume.units import Bytes, Seconds

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Preflight = Callable[[PublishRequest, Seconds], None]


class GivenUp(OssFuseError):
    """The end of the command was asked for before the mount was made."""


class Ending:
    """Whether the end was asked for, and by which signal (0: not yet).

    Made by `ending_signals`. Only the main thread asks and is told, so there is no lock: one would be taken twice by a
    handler that interrupts its holder.
    """

    def __init__(self, signalled: int) -> None:
        self._signalled = signalled
        self._starting: SidecarProcess | None = None
        self.signal = 0

    def ask(self, number: int) -> None:
        """What the handlers do."""
        self.signal = self.signal or number
        self._kill()

    def wait(self, timeout: Seconds | None, other: int = -1) -> bool:
        """Whether the end was asked for within `timeout` (None: ever); False too when descriptor `other` becomes
        readable."""
        poll = select.poll()
        for descriptor in {self._signalled, other} - {-1}:
            poll.register(descriptor, select.POLLIN)
        while not self.signal:
            ready = {found for found, _ in poll.poll(None if timeout is None else max(0.0, timeout) * 1000)}
            if self._signalled not in ready:
                break
            os.read(self._signalled, 512)  # once it has returned, Python runs the handlers
        return self.signal != 0

    def started(self, process: SidecarProcess) -> None:
        """`process` is to be killed when the end is asked for, or was while it was started."""
        self._starting = process
        if self.signal:
            self._kill()

    def serving(self) -> None:
        """The sidecar serves now: from here on it is ended by unmounting, which loses nothing."""
        self._starting = None

    def _kill(self) -> None:
        if self._starting is not None:
            self._starting.signal(signal.SIGKILL)


@contextmanager
def ending_signals() -> Iterator[Ending]:
    """SIGINT and SIGTERM as an `Ending`; the handlers of before are put back."""
    signalled, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    ending = Ending(signalled)
    woken_before = signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda given, _: ending.ask(given)) for number in _SIGNALS}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken_before)
        os.close(signalled)
        os.close(woken)


def endable(preflight: _Preflight, ending: Ending) -> _Preflight:
    """`preflight`, but with GivenUp at once when the end is asked for."""

    def check(request: PublishRequest, deadline: Seconds) -> None:
        failures: list[Exception] = []
        readable, writable = os.pipe()

        def run() -> None:
            try:
                preflight(request, deadline)
            except Exception as error:  # whatever it is, it is raised where it was asked for
                failures.append(error)
            finally:
                os.close(writable)

        # a daemon: one that hangs in libcurl or the resolver must not keep the command from ending
        threading.Thread(target=run, name="preflight", daemon=True).start()
        try:
            if ending.wait(None, readable):  # the request keeps the deadline itself, give or take
                raise GivenUp("the end was asked for before the bucket answered")
        finally:
            os.close(readable)
        if failures:
            raise failures[0]

    return check


class EndableLauncher:
    """Starts sidecars that are killed when the end is asked for, until `Ending.serving`."""

    def __init__(self, launcher: Launcher, ending: Ending) -> None:
        self._launcher = launcher
        self._ending = ending

    def launch(self, runtime: Path, memory: MemoryCgroup, limit: Bytes) -> SidecarProcess:
        if self._ending.signal:
            raise GivenUp("the end was asked for before the sidecar was started")
        process = self._launcher.launch(runtime, memory, limit)
        self._ending.started(process)
        return process
