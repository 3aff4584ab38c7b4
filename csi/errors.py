"""The one exception hierarchy of the project.

Every error that a user can meet is raised as one of these classes: the message says what failed and with which
value, `hint` says what to do next. `csi/fuse/errno_map.py` maps them to errno, `csi/driver/calls/status.py` to gRPC
codes; nothing else decides either. No message ever contains a credential.
"""

from __future__ import annotations

from typing import Self


class OssFuseError(Exception):
    """Base class. `str(error)` is the message followed by the hint."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def without_frames(self) -> Self:
        """Before it is kept: let go of the frames that it, and what led to it, came through. They hold memory that was
        lent to a request, and often what keeps the error."""
        seen: set[int] = set()
        left: list[BaseException | None] = [self]
        while left:
            error = left.pop()
            if error is not None and id(error) not in seen:
                seen.add(id(error))
                error.__traceback__ = None
                left += [error.__cause__, error.__context__]
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[OssFuseError], args: tuple[object, ...], state: dict[str, object]) -> OssFuseError:
    """The error as it was in the process that raised it, whatever its constructor takes."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


# --- what the user asked for ---


class InvalidOption(OssFuseError):
    """A volume attribute, argument or quantity that cannot be accepted: names key, value and what is accepted."""

    def __init__(self, key: str, value: object = "", accepted: str | None = None, *, hint: str = "") -> None:
        """`accepted` None: `key` is all of the message, which is how PyTorch raises the error of a worker again."""
        if accepted is None:
            super().__init__(key, hint=hint)
            self.key, self.value = "", value
            return
        shown = str(value)
        if len(shown) > 200:
            shown = f"{shown[:200]}… ({len(shown)} characters)"
        super().__init__(f"{key}: {shown!r} is not accepted, expected {accepted}", hint=hint)
        self.key = key
        self.value = value

    @classmethod
    def stating(cls, key: str, statement: str, *, hint: str = "") -> InvalidOption:
        """A refusal in other words, for when the value must not be shown or is not what is wrong."""
        error = cls(key, "", "", hint=hint)
        error.message = statement
        error.args = (statement,)
        return error


class UnsupportedVolume(OssFuseError):
    """A well-formed request for something this driver does not do (OSS-HDFS, block volumes)."""


class CredentialsMissing(OssFuseError):
    """The credentials a volume needs are absent or incomplete (a Secret with one half, an unreadable file)."""


# --- what the object store answered ---


class StoreError(OssFuseError):
    """An answer of OSS, or its absence.

    `status` is the HTTP status (0 when there was no answer), `code` the `Code` of the XML error, `request_id` the
    `x-oss-request-id` that Alibaba's support asks for, `operation` the API name (GetObject, PutObject, …), `bucket` ''
    when it is not known.
    """

    bucket: str = ""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        request_id: str = "",
        operation: str = "",
        key: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.operation = operation
        self.key = key


class ObjectNotFound(StoreError):
    """404 NoSuchKey (also NoSuchUpload)."""


class BucketNotFound(StoreError):
    """404 NoSuchBucket."""


class AuthenticationFailed(StoreError):
    """403 InvalidAccessKeyId, SignatureDoesNotMatch, InvalidSecurityToken, SecurityTokenExpired, …"""


class PermissionDenied(StoreError):
    """403 AccessDenied and every other 403 that is about rights."""


class ObjectArchived(StoreError):
    """403 InvalidObjectState: the object is in an archive class and must be restored first."""


class PreconditionFailed(StoreError):
    """412: the object is no longer the version that was asked for (If-Match)."""


class ObjectExists(StoreError):
    """409 FileAlreadyExists: forbid-overwrite met an existing object."""


class AppendConflict(StoreError):
    """409 PositionNotEqualToLength or ObjectNotAppendable: somebody else appended, or the object is not appendable.

    `next_position` is OSS's x-oss-next-append-position, −1 when not told.
    """

    next_position: int = -1


class RangeNotSatisfiable(StoreError):
    """416 InvalidRange."""


class ObjectTooLarge(StoreError):
    """400 EntityTooLarge, or a write that would need more than 10,000 parts."""


class RequestRejected(StoreError):
    """Any other 4xx: the request itself was refused."""


class ServerFailure(StoreError):
    """5xx or 429 that outlived its retries. `retry_after`: seconds the server asked to wait, 0 when it did not."""

    retry_after: float = 0.0


class EndpointUnreachable(StoreError):
    """No HTTP answer: name resolution, connection refused, reset, TLS failure; retries are used up.

    `permanent`: trying again cannot help (a certificate that is not trusted, a malformed URL).
    """

    permanent: bool = False


class DeadlineExceeded(StoreError):
    """The total deadline of an operation passed."""


class ChecksumMismatch(StoreError):
    """CRC64 or length of a body differs from what OSS says."""


# --- what training code meets ---


class ExtraMissing(OssFuseError, ImportError):
    """A package that only `csi.torch` needs is not installed."""


class ManifestMalformed(OssFuseError):
    """A manifest, or the index of a tar archive, that cannot be understood. `line` counts from 1, 0: all of it."""

    def __init__(self, message: str, *, path: str = "", line: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.line = line


class StateMismatch(OssFuseError):
    """A state to be loaded that was saved by another data set, or by one split in another way."""


class SamplesUnavailable(OssFuseError):
    """None of the samples that were asked for together can be read."""


class WorkerKilled(OssFuseError, RuntimeError):
    """A data loading worker ended without a word. `process` is its pid, `sample` the address of what it had last,
    `signal` what ended it; 0 and '' where nobody knows."""

    def __init__(self, message: str, *, process: int = 0, sample: str = "", signal: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.process = process
        self.sample = sample
        self.signal = signal


class CheckpointIncomplete(OssFuseError):
    """What is stored is not a whole checkpoint, or cannot become one."""


class CheckpointMalformed(OssFuseError):
    """An object that should be a checkpoint of some format is none: truncated, or something else."""


# --- what the filesystem refuses (POSIX names in the docstrings) ---


class FilesystemError(OssFuseError):
    """Base of the refusals of `csi/fs`."""


class NoSuchEntry(FilesystemError):
    """ENOENT. `age`: for how many seconds that has been known."""

    age = 0.0


class EntryExists(FilesystemError):
    """EEXIST."""


class NotADirectory(FilesystemError):
    """ENOTDIR."""


class IsADirectory(FilesystemError):
    """EISDIR."""


class DirectoryNotEmpty(FilesystemError):
    """ENOTEMPTY."""


class ReadOnlyVolume(FilesystemError):
    """EROFS."""


class NameNotAllowed(FilesystemError):
    """EINVAL: a name OSS cannot hold as an object key, or that the mount could never show again."""


class NameTooLong(FilesystemError):
    """ENAMETOOLONG: a component over 255 bytes or a key over 1023 bytes."""


class OperationNotSupported(FilesystemError):
    """ENOTSUP: an operation this mode of mounting does not have."""


class OperationNotPermitted(FilesystemError):
    """EPERM."""


class InvalidOperation(FilesystemError):
    """EINVAL: e.g. a write at a position that is not the end of a sequentially written file."""


class BadHandle(FilesystemError):
    """EBADF: the handle is not open for this."""


class FileBusy(FilesystemError):
    """EBUSY: reading a file that is being written, or a second writer of one file."""


class StaleFile(FilesystemError):
    """ESTALE: the object changed or vanished under an open file."""


class FileTooLarge(FilesystemError):
    """EFBIG: beyond 5 GiB in append mode, 48.8 TiB otherwise."""


class NoSpaceForAttributes(FilesystemError):
    """ENOSPC: OSS keeps no more metadata with an object; setxattr(2)."""


class NoAttribute(FilesystemError):
    """ENODATA: no such extended attribute."""


class OutOfMemoryBudget(FilesystemError):
    """ENOMEM: too many files open for writing for the memory limit; raised at open only."""


class AccessRefused(FilesystemError):
    """EACCES."""


class CrossVolume(FilesystemError):
    """EXDEV."""


# --- what the node refuses ---


class MountError(OssFuseError):
    """mount(2), umount2(2), /dev/fuse or a cgroup refused; `errno` is the kernel's."""

    def __init__(self, message: str, *, errno: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class TargetConflict(OssFuseError):
    """The target path already holds a different volume or different options."""


class TargetNotUsable(OssFuseError):
    """The target path cannot be a mount point: a file, a symlink, a missing parent."""


class SidecarFailed(OssFuseError):
    """The sidecar did not get to READY, or died; `oom`: the kernel killed it for memory."""

    def __init__(self, message: str, *, oom: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.oom = oom


class SidecarNotInjected(OssFuseError):
    """The pod has no sidecar container for the volume: the webhook did not see it, or was told not to."""


class ProtocolError(OssFuseError):
    """A frame on the hand-over socket that the protocol does not allow."""


class OperationPending(OssFuseError):
    """Another call for the same volume or target is under way; try again."""


# --- what the CSI services refuse ---


class VolumeNotFound(OssFuseError):
    """No such volume: never created by this driver, deleted, or not published at the path that was named."""


class VolumeInUse(OssFuseError):
    """The volume is published at another target path and its access mode allows only one."""


class VolumeConflict(OssFuseError):
    """A volume of that name exists with another capacity or other parameters."""


class CapacityOutOfRange(OssFuseError):
    """A capacity range that no volume can satisfy (negative, or a limit below what is required)."""


class CallTimedOut(OssFuseError):
    """A CSI call did not end within its deadline; its work goes on and the next call will find the result."""


class ClusterMisconfigured(OssFuseError):
    """An object of the cluster (CSIDriver, a role's binding) does not give what a volume needs."""


class PluginNotHealthy(OssFuseError):
    """This process cannot do its work until it is restarted."""


# --- what the API server of the cluster answered ---


class ApiRefused(OssFuseError):
    """The API server answered with an error. `status` is the HTTP status, `reason` the word of the Status object
    (Forbidden, Invalid, …; '' when there was none)."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reason = reason


class ApiConflict(ApiRefused):
    """409: the object was changed meanwhile (reason Conflict), or is there already (AlreadyExists)."""


class ObjectMissing(ApiRefused):
    """404 to a call that changes something: the object, its namespace or its kind is not there."""


class ApiUnreachable(PluginNotHealthy):
    """No answer of the API server within the timeout, or none that is JSON, or no way to speak to it at all."""
