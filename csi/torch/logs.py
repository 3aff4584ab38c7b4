"""Where a training process writes its log, and which requests took long (the guide's `logPath` and `auditPath`).

Files are turned over at a size, by any number of processes that write to the same one. Logging never ends training: a
disk that is full loses lines. What looks like a credential is struck out.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pwd
import stat
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from csi.errors import InvalidOption, StoreError
from csi.oss.cancellation import Cancellation
from csi.oss.exchange import ConnectionStatistics, HttpAnswer, HttpRequest, Transport
from csi.torch.configuration import DEFAULT_AUDIT, DEFAULT_LOG, LogOptions
from csi.volume.redaction import redacted
from csi.volume.units import MIB, Seconds

LARGEST: Final = 32 * MIB
KEPT: Final = 3
SLOW: Final = Seconds(0.1)
"""Requests that took longer are told in the audit log."""

_OURS: Final = "csi"


class TurningFile:
    """A file that lines are added to; at `largest` bytes it becomes `.1`, the last `.1` becomes `.2` and so on.

    Any thread may write, and processes forked meanwhile: a line is one write(2). A lock of its own for each process
    guards `_descriptor`: a child must not wait for a thread that its parent had. Closed when nobody holds it any more.
    """

    def __init__(self, path: str, *, largest: int = LARGEST, kept: int = KEPT) -> None:
        self.path = path
        self._largest = largest
        self._kept = kept
        self._descriptor = -1
        self._closing: Callable[[], object] = _nothing  # closes `_descriptor`, if it is open
        self._locks: dict[int, threading.Lock] = {}

    def open(self) -> None:
        """Make the directory and the file. Raises OSError."""
        if self._descriptor < 0:
            os.makedirs(os.path.dirname(self.path) or ".", mode=0o750, exist_ok=True)
            self._begin()

    def write(self, line: str) -> None:
        """Add a line; it is lost if it cannot be written."""
        with contextlib.suppress(OSError), self._lock():
            self.open()
            if os.fstat(self._descriptor).st_size >= self._largest:
                self._turn()
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace") + b"\n")

    def close(self) -> None:
        with self._lock():
            self._descriptor = -1
            self._closing()

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _begin(self) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        closing = weakref.finalize(self, os.close, descriptor)
        closing.atexit = False
        self._descriptor, self._closing = descriptor, closing

    def _turn(self) -> None:
        """Go on with a new file; whoever is first makes it, the others find it made."""
        old, close = self._descriptor, self._closing
        fcntl.flock(old, fcntl.LOCK_EX)
        self._descriptor = -1  # if no file can be made, the next line must not go to whatever has this number then
        try:
            ours = os.fstat(old)
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(self.path)
                if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                    for number in range(self._kept, 1, -1):
                        with contextlib.suppress(FileNotFoundError):
                            os.replace(f"{self.path}.{number - 1}", f"{self.path}.{number}")
                    os.replace(self.path, f"{self.path}.1")
            self._begin()
        finally:
            close()  # lets go of the lock


class Audit:
    """Tells of slow requests in a file; '' tells nobody."""

    def __init__(self, file: TurningFile | None, *, slow: Seconds = SLOW) -> None:
        self._file = file
        self.slow = slow

    def tell(self, request: str, seconds: float, *, status: int, size: int, reference: str = "") -> None:
        """A request, as method and URL, that took `seconds`; `status` 0: there was no answer."""
        if self._file is None or seconds < self.slow:
            return
        outcome = f"status={status} bytes={size} ms={seconds * 1000:.0f} request={reference or '-'}"
        self._file.write(f"{_moment(time.time())} {os.getpid()} {redacted(request)} {outcome}")


class AuditedTransport:
    """A `Transport` whose slow exchanges are told."""

    def __init__(self, inner: Transport, audit: Audit) -> None:
        self._inner = inner
        self._audit = audit

    def send(self, request: HttpRequest, *, timeout: Seconds, stall: Seconds, patience: Seconds) -> HttpAnswer:
        started = time.monotonic()
        try:
            answer = self._inner.send(request, timeout=timeout, stall=stall, patience=patience)
        except StoreError:
            self._tell(f"{request.method} {request.url}", started, None)
            raise
        self._tell(f"{request.method} {request.url}", started, answer)
        return answer

    def send_plain(
        self,
        endpoint: str,
        head: bytes,
        target: memoryview,
        *,
        timeout: Seconds,
        stall: Seconds,
        cancellation: Cancellation | None = None,
    ) -> HttpAnswer | None:
        started = time.monotonic()
        answer = self._inner.send_plain(endpoint, head, target, timeout=timeout, stall=stall, cancellation=cancellation)
        if time.monotonic() - started >= self._audit.slow:
            method, _, rest = head.partition(b" ")
            path = rest.partition(b" ")[0].decode("utf-8", "replace")
            self._tell(f"{method.decode('ascii', 'replace')} {endpoint}{path}", started, answer)
        return answer

    def statistics(self) -> ConnectionStatistics:
        return self._inner.statistics()

    def close(self) -> None:
        self._inner.close()

    def _tell(self, request: str, started: float, answer: HttpAnswer | None) -> None:
        seconds = time.monotonic() - started
        if seconds < self._audit.slow:
            return
        if answer is None:
            self._audit.tell(request, seconds, status=0, size=0)
        else:
            reference = answer.headers.get("x-oss-request-id", "")
            size = answer.received + len(answer.body)
            self._audit.tell(request, seconds, status=answer.status, size=size, reference=reference)


def start_logs(options: LogOptions) -> Audit:
    """Write the log of this process as the options say, and return where slow requests are told.

    Raises InvalidOption for a path that was asked for and cannot be written; where nobody asked, the next place is
    tried: the home directory, then /tmp.
    """
    file = _file_of("logPath", options.path, DEFAULT_LOG)
    logger = logging.getLogger(_OURS)
    for handler in list(logger.handlers):
        if isinstance(handler, _FileHandler | _Onward):
            logger.removeHandler(handler)
            handler.close()
    logger.setLevel(options.level)
    logger.propagate = False
    logger.addHandler(_Onward())
    if file is not None:
        logger.addHandler(_FileHandler(file))
    return Audit(_file_of("auditPath", options.audit_path, DEFAULT_AUDIT))


class _FileHandler(logging.Handler):
    def __init__(self, file: TurningFile) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info:
                text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
            stamp = _moment(record.created)
            self._file.write(f"{stamp} {record.process} {record.levelname} {record.name}: {redacted(text)}")
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Onward(logging.Handler):
    """Hands on to the program's own log what that would have got anyway, and no more than that."""

    def emit(self, record: logging.LogRecord) -> None:
        root = logging.getLogger()
        if record.levelno >= root.getEffectiveLevel():
            root.handle(record)


def _file_of(key: str, path: str, default: str) -> TurningFile | None:
    if not path:
        return None
    if path != default:
        file = TurningFile(os.path.abspath(path))
        try:
            file.open()
        except OSError as error:
            raise InvalidOption(
                key, path, "a file that can be written", hint=f"{error.strerror}; '' writes none"
            ) from None
        return file
    for directory in (os.path.dirname(default), *_own_directories()):
        file = TurningFile(os.path.join(directory, os.path.basename(default)))
        with contextlib.suppress(OSError):
            file.open()
            return file
    return None


def _own_directories() -> list[str]:
    """Where this user may write without being root."""
    directories = []
    with contextlib.suppress(KeyError):  # a container may run as a user that nobody knows
        directories.append(os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".local", "state", "oss-connector"))
    shared = f"/tmp/oss-connector-{os.getuid()}"  # noqa: S108 - only if it is ours alone
    with contextlib.suppress(OSError):
        os.makedirs(shared, mode=0o700, exist_ok=True)
        found = os.lstat(shared)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            directories.append(shared)
    return directories


def _moment(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"


def _nothing() -> None:
    return
