"""The one map from errors to gRPC status codes, and the message that reaches kubelet's event.

It promises an explicit code for every class of csi/errors.py (a test fails on a class that is missing here) and a
message that fits a gRPC trailer. Nothing else in the project decides about codes. The choice follows the CSI error
tables; kubelet and the provisioner retry whatever the code, so it serves the reader of the event more than the caller.
"""

from __future__ import annotations

import grpc

from csi import errors

CODES: dict[type[errors.OssFuseError], grpc.StatusCode] = {
    errors.OssFuseError: grpc.StatusCode.INTERNAL,
    # what the user asked for
    errors.InvalidOption: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnsupportedVolume: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CredentialsMissing: grpc.StatusCode.UNAUTHENTICATED,
    # what the object store answered
    errors.StoreError: grpc.StatusCode.INTERNAL,
    errors.ObjectNotFound: grpc.StatusCode.NOT_FOUND,
    errors.BucketNotFound: grpc.StatusCode.NOT_FOUND,
    errors.AuthenticationFailed: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.ObjectArchived: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PreconditionFailed: grpc.StatusCode.ABORTED,
    errors.ObjectExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.AppendConflict: grpc.StatusCode.ABORTED,
    errors.RangeNotSatisfiable: grpc.StatusCode.OUT_OF_RANGE,
    errors.ObjectTooLarge: grpc.StatusCode.OUT_OF_RANGE,
    errors.RequestRejected: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ServerFailure: grpc.StatusCode.UNAVAILABLE,
    errors.EndpointUnreachable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ChecksumMismatch: grpc.StatusCode.DATA_LOSS,
    # what PyTorch's data sets and checkpoints refuse: no CSI call reaches them either
    errors.ExtraMissing: grpc.StatusCode.INTERNAL,
    errors.ManifestMalformed: grpc.StatusCode.INVALID_ARGUMENT,
    errors.StateMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SamplesUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.WorkerKilled: grpc.StatusCode.INTERNAL,
    errors.CheckpointIncomplete: grpc.StatusCode.ABORTED,
    errors.CheckpointMalformed: grpc.StatusCode.DATA_LOSS,
    # what the filesystem refuses: no CSI call reaches it, but an error that strays here keeps its meaning
    errors.FilesystemError: grpc.StatusCode.INTERNAL,
    errors.NoSuchEntry: grpc.StatusCode.NOT_FOUND,
    errors.EntryExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.NotADirectory: grpc.StatusCode.FAILED_PRECONDITION,
    errors.IsADirectory: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DirectoryNotEmpty: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ReadOnlyVolume: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NameNotAllowed: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NameTooLong: grpc.StatusCode.INVALID_ARGUMENT,
    errors.OperationNotSupported: grpc.StatusCode.UNIMPLEMENTED,
    errors.OperationNotPermitted: grpc.StatusCode.PERMISSION_DENIED,
    errors.InvalidOperation: grpc.StatusCode.INVALID_ARGUMENT,
    errors.BadHandle: grpc.StatusCode.INTERNAL,
    errors.FileBusy: grpc.StatusCode.ABORTED,
    errors.StaleFile: grpc.StatusCode.ABORTED,
    errors.FileTooLarge: grpc.StatusCode.OUT_OF_RANGE,
    errors.NoSpaceForAttributes: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NoAttribute: grpc.StatusCode.NOT_FOUND,
    errors.OutOfMemoryBudget: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.AccessRefused: grpc.StatusCode.PERMISSION_DENIED,
    errors.CrossVolume: grpc.StatusCode.FAILED_PRECONDITION,
    # what the node refuses
    errors.MountError: grpc.StatusCode.INTERNAL,
    errors.TargetConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.TargetNotUsable: grpc.StatusCode.INVALID_ARGUMENT,
    errors.SidecarFailed: grpc.StatusCode.UNAVAILABLE,
    errors.SidecarNotInjected: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ProtocolError: grpc.StatusCode.INTERNAL,
    errors.OperationPending: grpc.StatusCode.ABORTED,
    # what the services refuse
    errors.VolumeNotFound: grpc.StatusCode.NOT_FOUND,
    errors.VolumeInUse: grpc.StatusCode.FAILED_PRECONDITION,
    errors.VolumeConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.CapacityOutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.CallTimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ClusterMisconfigured: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PluginNotHealthy: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ApiUnreachable: grpc.StatusCode.UNAVAILABLE,
    errors.ApiRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ApiConflict: grpc.StatusCode.ABORTED,
    errors.ObjectMissing: grpc.StatusCode.FAILED_PRECONDITION,
}

_LONGEST_MESSAGE = 2048
"""Characters. A trailer of more than 8 KiB after percent-encoding is dropped by gRPC peers, an event keeps 1 KiB."""


def code_of(error: errors.OssFuseError) -> grpc.StatusCode:
    """The status code of `error`; a class added later counts as its nearest mapped base."""
    if isinstance(error, errors.SidecarFailed) and error.oom:
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return grpc.StatusCode.INTERNAL


def message_of(error: errors.OssFuseError) -> str:
    """Message and hint; a long message loses its end, never the hint."""
    hint = f"; {error.hint}" if error.hint else ""
    room = max(_LONGEST_MESSAGE - len(hint), 256)
    message = error.message if len(error.message) <= room else f"{error.message[: room - 1]}…"
    return (message + hint)[:_LONGEST_MESSAGE]
