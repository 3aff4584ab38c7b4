"""What a program sees when something fails, and what the log says about it."""

from __future__ import annotations

import errno
import inspect
import logging

import pytest

from csi import errors
from csi.fuse.errno_map import ERRNO_BY_CLASS, ErrorReporter, errno_of

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, errors.OssFuseError) and found.__module__ == errors.__name__
]

EXPECTED = {
    "AuthenticationFailed": errno.EACCES,
    "PermissionDenied": errno.EACCES,
    "ObjectArchived": errno.EACCES,
    "CredentialsMissing": errno.EACCES,
    "ObjectNotFound": errno.ENOENT,
    "BucketNotFound": errno.ENODEV,
    "AppendConflict": errno.EBUSY,
    "PreconditionFailed": errno.ESTALE,
    "ObjectTooLarge": errno.EFBIG,
    "DeadlineExceeded": errno.ETIMEDOUT,
    "EndpointUnreachable": errno.EHOSTUNREACH,
    "ServerFailure": errno.EIO,
    "ChecksumMismatch": errno.EIO,
    "OutOfMemoryBudget": errno.ENOMEM,
    "ReadOnlyVolume": errno.EROFS,
    "NoAttribute": errno.ENODATA,
    "StaleFile": errno.ESTALE,
}


def make(cls: type[errors.OssFuseError]) -> errors.OssFuseError:
    if cls is errors.InvalidOption:
        return errors.InvalidOption("key", "value", "a number")
    return cls("what failed")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_class_has_a_line_of_its_own(cls: type[errors.OssFuseError]) -> None:
    assert cls in ERRNO_BY_CLASS
    assert errno_of(make(cls)) == ERRNO_BY_CLASS[cls]


@pytest.mark.parametrize("cls", [c for c in CLASSES if (c.__doc__ or "")[:1] == "E"], ids=lambda cls: cls.__name__)
def test_the_posix_name_in_a_docstring_is_the_errno_it_gets(cls: type[errors.OssFuseError]) -> None:
    promised = (cls.__doc__ or "").split(":")[0].split(".")[0].split()[0]
    code = {"ENOTSUP": errno.EOPNOTSUPP}.get(promised) or getattr(errno, promised)

    assert errno_of(make(cls)) == code


@pytest.mark.parametrize(("name", "number"), EXPECTED.items())
def test_a_program_can_tell_failures_apart(name: str, number: int) -> None:
    assert errno_of(getattr(errors, name)("x")) == number


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (RuntimeError("bug"), errno.EIO),
        (KeyboardInterrupt(), errno.EIO),
        (MemoryError(), errno.ENOMEM),
        (OSError(errno.ENOSPC, "disk full"), errno.ENOSPC),
        (TimeoutError(errno.ETIMEDOUT, "late"), errno.ETIMEDOUT),
        (OSError(errno.ENOENT, "a file of ours"), errno.EIO),
        (OSError("no errno"), errno.EIO),
        (errors.MountError("mount", errno=errno.EPERM), errno.EPERM),
        (type("Later", (errors.PermissionDenied,), {})("x"), errno.EACCES),
    ],
    ids=repr,
)
def test_other_errors_become_what_is_true_for_the_caller(error: BaseException, number: int) -> None:
    assert errno_of(error) == number


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def reporter(caplog: pytest.LogCaptureFixture) -> tuple[ErrorReporter, Clock]:
    caplog.set_level(logging.DEBUG)
    clock = Clock()
    return ErrorReporter(logging.getLogger("fuse-test"), clock), clock


def denied(**extra: str) -> errors.PermissionDenied:
    return errors.PermissionDenied(
        "GetObject of a/b was refused",
        status=403,
        code="AccessDenied",
        request_id="5C3D9175B6FC201293AD4890",
        operation="GetObject",
        key="a/b",
        hint="grant oss:GetObject",
        **extra,
    )


def test_a_failure_of_oss_is_one_line_with_everything_support_asks_for(
    reporter: tuple[ErrorReporter, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    number = reporter[0].report("read", denied())

    assert number == errno.EACCES
    (record,) = caplog.records
    for part in ("read", "EACCES", "GetObject", "'a/b'", "AccessDenied", "5C3D9175B6FC201293AD4890", "grant oss:Get"):
        assert part in record.getMessage()


def test_the_store_error_behind_a_filesystem_error_is_logged_too(
    reporter: tuple[ErrorReporter, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    error = errors.StaleFile("a/b changed")
    error.__cause__ = errors.PreconditionFailed("412", code="PreconditionFailed", request_id="R2")

    assert reporter[0].report("read", error) == errno.ESTALE
    assert "R2" in caplog.records[0].getMessage()


def test_a_plain_refusal_is_not_worth_a_line(
    reporter: tuple[ErrorReporter, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    assert reporter[0].report("lookup", errors.NoSuchEntry("nope")) == errno.ENOENT
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("kind", [errors.FileBusy, errors.OutOfMemoryBudget])
def test_what_no_local_disk_says_is_logged_with_what_to_do(
    reporter: tuple[ErrorReporter, Clock], caplog: pytest.LogCaptureFixture, kind: type[errors.OssFuseError]
) -> None:
    reporter[0].report("open", kind("'a' is not to be had", hint="do this"))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith("'a' is not to be had; do this")


def test_a_bug_is_logged_with_its_traceback(
    reporter: tuple[ErrorReporter, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 1 // 0

    assert reporter[0].report("read", raised.value) == errno.EIO
    assert caplog.records[0].levelno == logging.ERROR
    assert caplog.records[0].exc_info is not None


def test_a_flood_of_one_kind_is_cut_and_counted_and_does_not_hide_another_kind(
    reporter: tuple[ErrorReporter, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    report, clock = reporter
    for _ in range(1000):
        report.report("read", denied())
    flood = len(caplog.records)
    report.report("read", errors.ServerFailure("503", status=503))
    clock.now += 5
    report.report("read", denied())

    assert 1 < flood < 50
    assert "ServerFailure" not in caplog.text
    assert "503" in caplog.records[flood].getMessage()
    assert f"{1000 - flood} more" in caplog.records[-1].getMessage()
