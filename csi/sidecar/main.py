"""The entry point of a sidecar: `python -m csi.sidecar --socket DIRECTORY`.

The order matters: everything is imported while the process may still read the interpreter's directories, then the
rights are given up, and only then does it listen to anybody. An error before the volume is served is told to the
node plugin as FAILED, so that it ends up in the event on the pod, and is the last line of the log.

In a pod a file beside the socket says that the volume can be used; the containers after this one wait for it. It is
removed before anything else, because the directory outlives a container that is started again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gc
import logging
import math
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from csi.errors import OssFuseError, SidecarFailed
from csi.fuse.own.passthrough import Registrar
from csi.handover.kernel import LinuxKernel
from csi.handover.wire import Failed, Mount
from csi.sidecar.health import limit_of, own_memory
from csi.sidecar.legacy import Legacy, journal_size
from csi.sidecar.logs import LEVELS, SidecarLog, configure
from csi.sidecar.node_link import NodeLink
from csi.sidecar.openers import Informant
from csi.sidecar.privileges import give_up_rights
from csi.sidecar.service import Serving, SidecarService
from csi.volume.naming import READY_FILE, READY_PIPE, SESSIONS
from csi.volume.units import Bytes, Seconds

_log = logging.getLogger(__name__)

SOCKET_NAME: Final = "s"
_NOBODY: Final = 65534
_COLLECT_AFTER: Final = 20_000
"""New objects before the garbage collector looks at them: inodes are many and live long, and looking at them every 700
objects was a quarter of the time a listing takes."""
_SWITCH_INTERVAL: Final = 0.0005
"""Seconds. At Python's 5 ms one busy thread makes every system call of the others wait 5 ms for the GIL."""


class Assemble(Protocol):
    """`csi.sidecar.assemble.assemble`; a stand-in in tests."""

    def __call__(
        self,
        volume: Mount,
        descriptor: int,
        credentials: str,
        on_started: Callable[[], None],
        informant: Informant | None = None,
        *,
        wanted: str = "",
        registrar: Registrar | None = None,
        legacy: Legacy | None = None,
    ) -> Serving: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Means:
    """What serves a volume. `lasts`: it can be told by a `Legacy` what to go on with."""

    assemble: Assemble
    lasts: bool = False


def main(arguments: Sequence[str] | None = None, load: Callable[[], Means] | None = None) -> int:
    """Run one sidecar; the exit status. `load` imports what serves the volume."""
    options = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    # held back from every thread that will ever be; one of them takes the signals in turn
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    log = configure(options.log_format, options.log_level)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.set_threshold(_COLLECT_AFTER)
    try:
        directory, name = _open_runtime(options.socket)
    except OSError as error:
        _log.error("the runtime directory %s cannot be opened: %s", options.socket, error.strerror)
        return 2
    ready_file = ReadyFile(directory, options.ready_file)
    ready_file.remove()
    loaded = _Loaded(load or functools.partial(_load_means, options.session, options.cache))
    try:
        give_up_rights(LinuxKernel(), _NOBODY, _NOBODY)
    except (OssFuseError, OSError) as error:
        _log.error("%s", error)
        return 2
    _allow_many_files()
    return _serve(directory, name, log, loaded, ready_file, Seconds(options.patience))


_ENDINGS: Final = frozenset({signal.SIGTERM, signal.SIGINT})


class _Loaded:
    """The result of importing, or why it failed: told to the node plugin once there is a connection to it."""

    def __init__(self, load: Callable[[], Means]) -> None:
        self._means: Means | None = None
        self._error: Exception | None = None
        try:
            self._means = load()
        except Exception as error:
            _log.exception("the sidecar's modules cannot be loaded")
            self._error = error

    @property
    def lasts(self) -> bool:
        return self._means is not None and self._means.lasts

    def assemble(self) -> Assemble:
        if self._means is None:
            raise SidecarFailed(
                f"the sidecar's modules cannot be loaded: {self._error}", hint="install ossfuse-csi again on this node"
            )
        return self._means.assemble


class ReadyFile:
    """An empty file `name` in `directory`, a descriptor; without a name there is none.

    Who waits for it may have made a pipe beside it, which is written to when the file is there. The pipe stays open, so
    that what was written is still in it for a reader who comes later.
    """

    def __init__(self, directory: int, name: str) -> None:
        self._directory = directory
        self._name = name
        self._pipe = -1

    def remove(self) -> None:
        if self._name:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._directory)

    def make(self) -> None:
        """An error is logged: whoever waits for the file then says so, and the volume works all the same."""
        if not self._name:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.close(os.open(self._name, flags, 0o444, dir_fd=self._directory))  # empty, so whole as soon as there
        except OSError as error:
            _log.error("%s cannot be made beside the socket: %s", self._name, error.strerror)
        self._wake()

    def _wake(self) -> None:
        """Without a pipe nobody has begun to wait, or looks for the file now and then."""
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            self.close()
            self._pipe = os.open(READY_PIPE, flags, dir_fd=self._directory)
            os.write(self._pipe, b"\n")

    def close(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def _serve(
    directory: int, name: str, log: SidecarLog, loaded: _Loaded, ready_file: ReadyFile, patience: Seconds
) -> int:
    link = NodeLink(directory, name, lasts=loaded.lasts)
    endings = _Endings(link.interrupt)
    try:
        try:
            volume, descriptor = link.take_volume(patience)
        except (OssFuseError, OSError) as error:
            if endings.came:
                _log.info("leaving before there was a volume: %s", endings.came)
                return 0
            _log.error("%s", error)
            return 1
        log.add_context(volume=volume.volume_id)
        memory = own_memory()
        volume = _within(volume, limit_of(memory))
        service = SidecarService(volume, link, log, announce=ready_file.make, memory=memory)
        endings.then(service.leave)
        credentials = f"/proc/self/fd/{directory}/{volume.credentials}" if volume.credentials else ""
        try:
            serving = loaded.assemble()(
                *(volume, descriptor, credentials, service.started, link.questions),
                wanted=link.session,
                registrar=link.passing,
                legacy=_legacy(link, descriptor, Bytes(volume.memory_limit)),
            )
        except Exception as error:
            os.close(descriptor)
            _report_failure(link, error)
            return 1
        try:
            return service.run(serving)
        except Exception as error:
            _report_failure(link, error)
            return 1
    finally:
        link.close()


def _legacy(link: NodeLink, descriptor: int, memory_limit: Bytes) -> Legacy | None:
    """Without one it is served all the same, unless there is something to go on with."""
    if not link.keeps:
        return None
    left = link.take_left()
    try:
        return Legacy(descriptor, left, journal_size(memory_limit))
    except OSError as error:
        if left >= 0:
            raise
        _log.warning("no other sidecar can go on should this one die: there is no journal: %s", error.strerror)
        return None


def _within(volume: Mount, limit: Bytes) -> Mount:
    """`volume` with no more memory than this process may use: the kernel's word counts, not the node plugin's. The
    kernel counts whole pages."""
    if not 0 < limit <= volume.memory_limit - os.sysconf("SC_PAGE_SIZE"):
        return volume
    _log.warning("limited to %d bytes of memory by its cgroup, not to %d as was said", limit, volume.memory_limit)
    return dataclasses.replace(volume, memory_limit=limit)


def _report_failure(link: NodeLink, error: Exception) -> None:
    known = isinstance(error, OssFuseError)
    _log.error("the volume cannot be served: %s", error, exc_info=None if known else error)
    message, hint = (error.message, error.hint) if isinstance(error, OssFuseError) else (repr(error), "")
    link.send(Failed(type(error).__name__, message, hint or "the sidecar's log has the details"))


class _Endings:
    """Takes SIGTERM and SIGINT on a thread of its own: no Python code runs inside a signal handler, and none of the
    others is interrupted. `_lock` guards both fields."""

    def __init__(self, first: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._first = first
        self._leave: Callable[[str], None] | None = None
        self.came = ""
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def then(self, leave: Callable[[str], None]) -> None:
        """From now on a signal (also one that came already) means `leave(reason)`."""
        with self._lock:
            self._leave = leave
            came = self.came
        if came:
            leave(came)

    def _wait(self) -> None:
        while True:
            name = signal.Signals(signal.sigwait(_ENDINGS)).name
            with self._lock:
                self.came = name
                leave = self._leave
            self._first()
            if leave is not None:
                leave(name)


def _load_means(session: str, cache: str) -> Means:
    from csi.fuse.choice import choose  # noqa: PLC0415 - a failure of these must be reportable
    from csi.sidecar.assemble import assemble  # noqa: PLC0415

    chosen = choose(session)
    bound = functools.partial(assemble, environ=os.environ, session=chosen, cache=cache, descriptors=_descriptors())
    return Means(bound, chosen.lasts)


def _open_runtime(socket: Path) -> tuple[int, str]:
    directory, name = (socket, SOCKET_NAME) if socket.is_dir() else (socket.parent, socket.name)
    return os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), name


def _descriptors() -> int:
    """How many may be open once `_allow_many_files` was called; 0: any number."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 0 if hard == resource.RLIM_INFINITY else hard


def _allow_many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ossfuse sidecar", description="Serve one volume handed over by a node plugin."
    )
    parser.add_argument(
        "--socket", type=Path, required=True, help="the node plugin's socket, or the directory it is in (as 's')"
    )
    parser.add_argument(
        "--ready-file", default=READY_FILE, help="made beside the socket once the volume can be used; '' for none"
    )
    parser.add_argument(
        "--patience", type=float, default=math.inf, help="seconds to wait for a volume (default: without limit)"
    )
    parser.add_argument(
        "--session",
        choices=SESSIONS,
        default=SESSIONS[0],
        help="which code talks to the kernel: our own, or libfuse through pyfuse3 (default: %(default)s)",
    )
    parser.add_argument(
        "--cache",
        default="",
        metavar="DIRECTORY",
        help="where the volume's disk cache is, if it asks for one (default: the host path that it names)",
    )
    parser.add_argument("--log-format", choices=("json", "text"), default="json")
    parser.add_argument("--log-level", choices=LEVELS, default="info")
    return parser
