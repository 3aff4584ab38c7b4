"""THE mapping from errors to errno: what a program in the pod sees when something fails.

A program can tell refused from missing from slow: a 403 is never a bare EIO. What errno cannot carry (operation, key,
OSS code, request id) goes to the log, one line per failure and at most a few lines a second per kind of failure.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from types import MappingProxyType

from csi import errors

ERRNO_BY_CLASS = MappingProxyType(
    {
        errors.OssFuseError: errno.EIO,
        errors.InvalidOption: errno.EINVAL,
        errors.UnsupportedVolume: errno.EOPNOTSUPP,
        errors.CredentialsMissing: errno.EACCES,
        errors.StoreError: errno.EIO,
        errors.ObjectNotFound: errno.ENOENT,
        # not ENOENT: "no checkpoint yet, start from scratch" must not follow from a deleted or misspelt bucket
        errors.BucketNotFound: errno.ENODEV,
        errors.AuthenticationFailed: errno.EACCES,
        errors.PermissionDenied: errno.EACCES,
        errors.ObjectArchived: errno.EACCES,
        errors.PreconditionFailed: errno.ESTALE,
        errors.ObjectExists: errno.EEXIST,
        errors.AppendConflict: errno.EBUSY,
        # the object is shorter than when it was opened: another version
        errors.RangeNotSatisfiable: errno.ESTALE,
        errors.ObjectTooLarge: errno.EFBIG,
        errors.RequestRejected: errno.EIO,
        errors.ServerFailure: errno.EIO,
        # nobody answered at all (DNS, refused, reset, TLS), as opposed to an answer that is late
        errors.EndpointUnreachable: errno.EHOSTUNREACH,
        errors.DeadlineExceeded: errno.ETIMEDOUT,
        errors.ChecksumMismatch: errno.EIO,
        # of PyTorch's data sets and checkpoints only: there is no mount
        errors.ExtraMissing: errno.EIO,
        errors.ManifestMalformed: errno.EINVAL,
        errors.StateMismatch: errno.EINVAL,
        errors.SamplesUnavailable: errno.EIO,
        errors.WorkerKilled: errno.EIO,
        errors.CheckpointIncomplete: errno.EIO,
        errors.CheckpointMalformed: errno.EIO,
        errors.FilesystemError: errno.EIO,
        errors.NoSuchEntry: errno.ENOENT,
        errors.EntryExists: errno.EEXIST,
        errors.NotADirectory: errno.ENOTDIR,
        errors.IsADirectory: errno.EISDIR,
        errors.DirectoryNotEmpty: errno.ENOTEMPTY,
        errors.ReadOnlyVolume: errno.EROFS,
        errors.NameNotAllowed: errno.EINVAL,
        errors.NameTooLong: errno.ENAMETOOLONG,
        errors.OperationNotSupported: errno.EOPNOTSUPP,
        errors.OperationNotPermitted: errno.EPERM,
        errors.InvalidOperation: errno.EINVAL,
        errors.BadHandle: errno.EBADF,
        errors.FileBusy: errno.EBUSY,
        errors.StaleFile: errno.ESTALE,
        errors.FileTooLarge: errno.EFBIG,
        errors.NoSpaceForAttributes: errno.ENOSPC,
        errors.NoAttribute: errno.ENODATA,
        errors.OutOfMemoryBudget: errno.ENOMEM,
        errors.AccessRefused: errno.EACCES,
        errors.CrossVolume: errno.EXDEV,
        errors.MountError: errno.EIO,
        errors.TargetConflict: errno.EBUSY,
        errors.TargetNotUsable: errno.ENOTDIR,
        errors.SidecarFailed: errno.EIO,
        errors.ProtocolError: errno.EPROTO,
        errors.OperationPending: errno.EAGAIN,
        # of the CSI services only: no program can meet them through a mount
        errors.VolumeNotFound: errno.ENODEV,
        errors.VolumeConflict: errno.EBUSY,
        errors.VolumeInUse: errno.EBUSY,
        errors.CapacityOutOfRange: errno.EINVAL,
        errors.CallTimedOut: errno.ETIMEDOUT,
        errors.SidecarNotInjected: errno.EIO,
        errors.ClusterMisconfigured: errno.EIO,
        errors.PluginNotHealthy: errno.EIO,
        errors.ApiRefused: errno.EIO,
        errors.ApiConflict: errno.EIO,
        errors.ObjectMissing: errno.EIO,
        errors.ApiUnreachable: errno.EIO,
    }
)
"""Every class of `csi.errors` has its own line here; a test fails when one is missing."""

_LOCAL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.ETIMEDOUT})
"""What a local disk or allocator may say to the program; any other OSError inside the sidecar is our fault: EIO."""

_UNEXPECTED = (errors.OutOfMemoryBudget, errors.FileBusy)
"""Refusals that programs do not meet on a local disk: their text has the reason and what to do."""

_BURST = 10
_LINES_PER_SECOND = 1.0


def errno_of(error: BaseException) -> int:
    """The errno a program gets for `error`; EIO for what nobody foresaw."""
    if isinstance(error, errors.MountError) and error.errno:
        return error.errno
    if isinstance(error, OSError):
        return error.errno if error.errno in _LOCAL_ERRNOS else errno.EIO
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    for ancestor in type(error).__mro__:
        if ancestor in ERRNO_BY_CLASS:
            return ERRNO_BY_CLASS[ancestor]
    return errno.EIO


class ErrorReporter:
    """Maps an error and writes its log line; from any thread. `_lock` guards the allowances."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._allowances: dict[str, _Allowance] = {}
        self._lock = threading.Lock()

    def report(self, operation: str, error: BaseException) -> int:
        """errno of `error`, raised while answering the FUSE request `operation` ('lookup', 'read', …).

        Answers of OSS, lack of memory, files that are busy and bugs are logged (bugs with their traceback); plain
        refusals such as ENOENT or EEXIST are part of normal life and are not. An error that is kept (of a file that
        failed) holds no frames after that.
        """
        number = self._report(operation, error)
        if isinstance(error, errors.OssFuseError):
            error.without_frames()
        return number

    def _report(self, operation: str, error: BaseException) -> int:
        number = errno_of(error)
        store_error = _store_error_behind(error)
        foreseen = isinstance(error, errors.OssFuseError)
        if foreseen and store_error is None and not isinstance(error, _UNEXPECTED):
            self._log.debug("%s: %s: %s", operation, errno.errorcode[number], error)
            return number
        with self._lock:
            allowance = self._allowances.setdefault(type(error).__name__, _Allowance(self._clock()))
            withheld = allowance.take(self._clock())
        if withheld is None:
            return number
        more = f" ({withheld} more of this kind not shown)" if withheld else ""
        name = errno.errorcode.get(number, str(number))
        if not foreseen:
            self._log.error("%s failed with %s: %r%s", operation, name, error, more, exc_info=error)
        elif store_error is None:
            self._log.warning("%s failed with %s: %s%s", operation, name, error, more)
        else:
            self._log.warning(
                "%s failed with %s: %s [operation=%s key=%r status=%d code=%s request_id=%s]%s",
                operation,
                name,
                error,
                store_error.operation or "-",
                store_error.key,
                store_error.status,
                store_error.code or "-",
                store_error.request_id or "-",
                more,
            )
        return number


class _Allowance:
    """A token bucket that counts what it withheld."""

    def __init__(self, now: float) -> None:
        self._tokens = float(_BURST)
        self._at = now
        self._withheld = 0

    def take(self, now: float) -> int | None:
        """How many lines were withheld since the last one that was let through; None to withhold this one too."""
        self._tokens = min(float(_BURST), self._tokens + (now - self._at) * _LINES_PER_SECOND)
        self._at = now
        if self._tokens < 1:
            self._withheld += 1
            return None
        self._tokens -= 1
        withheld, self._withheld = self._withheld, 0
        return withheld


def _store_error_behind(error: BaseException) -> errors.StoreError | None:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, errors.StoreError):
            return found
        found = found.__cause__
    return None
