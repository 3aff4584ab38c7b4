from __future__ import annotations

import grpc
import pytest

from csi import errors
from csi.driver.calls.status import CODES, code_of, message_of


def every_class(base: type[errors.OssFuseError] = errors.OssFuseError) -> list[type[errors.OssFuseError]]:
    return [
        base,
        *(found for kind in base.__subclasses__() if kind.__module__ == "csi.errors" for found in every_class(kind)),
    ]


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_its_own(kind):
    assert kind in CODES, f"{kind.__name__} is not in csi/driver/calls/status.py"
    assert CODES[kind] not in {grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN}


def test_the_map_names_no_class_that_is_gone():
    assert set(CODES) == set(every_class())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidOption("k", "v", "w"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.CredentialsMissing("half"), grpc.StatusCode.UNAUTHENTICATED),
        (errors.AuthenticationFailed("key"), grpc.StatusCode.UNAUTHENTICATED),
        (errors.PermissionDenied("no"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.BucketNotFound("b"), grpc.StatusCode.NOT_FOUND),
        (errors.EndpointUnreachable("e"), grpc.StatusCode.UNAVAILABLE),
        (errors.DeadlineExceeded("d"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.TargetConflict("t"), grpc.StatusCode.ALREADY_EXISTS),
        (errors.OperationPending("p"), grpc.StatusCode.ABORTED),
        (errors.SidecarFailed("killed", oom=True), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.SidecarFailed("died"), grpc.StatusCode.UNAVAILABLE),
        (errors.CapacityOutOfRange("c"), grpc.StatusCode.OUT_OF_RANGE),
    ],
)
def test_codes_follow_the_csi_error_tables(error, code):
    assert code_of(error) is code


def test_a_class_that_is_not_in_the_map_counts_as_its_base():
    class QuotaReached(errors.PermissionDenied):
        """A refusal that somebody adds later."""

    assert code_of(QuotaReached("q")) is grpc.StatusCode.PERMISSION_DENIED


def test_a_long_message_keeps_its_hint():
    text = message_of(errors.MountError("x" * 100_000, hint="load the fuse module"))

    assert text.endswith("…; load the fuse module")
    assert len(text) <= 2048


def test_a_long_hint_is_cut_too():
    assert len(message_of(errors.MountError("m" * 5000, hint="h" * 5000))) <= 2048
