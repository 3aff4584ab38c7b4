import pytest

from csi import errors
from csi.oss.retry import LONGEST_WAIT, RetryPolicy, is_retryable
from csi.volume.spec import HttpOptions

POLICY = RetryPolicy.of(HttpOptions(retries=5, retry_interval=0.5))


def permanent():
    error = errors.EndpointUnreachable("bad certificate")
    error.permanent = True
    return error


@pytest.mark.parametrize(
    "error",
    [
        errors.EndpointUnreachable("reset"),
        errors.DeadlineExceeded("no answer"),
        errors.ServerFailure("busy", status=503),
        errors.ChecksumMismatch("crc"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_passing_trouble_is_worth_another_attempt(error):
    assert is_retryable(error)


@pytest.mark.parametrize(
    "error",
    [
        permanent(),
        errors.ObjectNotFound("no"),
        errors.PermissionDenied("no"),
        errors.AuthenticationFailed("no"),
        errors.PreconditionFailed("no"),
        errors.RequestRejected("no", status=400),
        errors.ServerFailure("no", status=501, code="NotImplemented"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_verdict_is_final(error):
    assert not is_retryable(error)


@pytest.mark.parametrize(("attempt", "most"), [(0, 0.5), (1, 1.0), (2, 2.0), (4, 8.0)])
def test_waits_grow_with_full_jitter(attempt, most):
    error = errors.EndpointUnreachable("reset")

    assert POLICY.wait_before_retry(error, attempt, 100.0, lambda: 0.0) == 0.0
    assert POLICY.wait_before_retry(error, attempt, 100.0, lambda: 1.0) == most


def test_no_wait_is_longer_than_the_longest():
    policy = RetryPolicy(50, 0.5, 30.0, 600.0)

    assert policy.wait_before_retry(errors.EndpointUnreachable("x"), 40, 600.0, lambda: 1.0) == LONGEST_WAIT


def test_the_server_may_ask_for_a_longer_wait():
    error = errors.ServerFailure("busy", status=503)
    error.retry_after = 7.0

    assert POLICY.wait_before_retry(error, 0, 100.0, lambda: 1.0) == 7.0


def test_there_is_no_wait_past_the_deadline():
    assert POLICY.wait_before_retry(errors.EndpointUnreachable("x"), 3, 0.1, lambda: 1.0) is None


def test_the_last_attempt_is_not_followed_by_another():
    assert POLICY.wait_before_retry(errors.EndpointUnreachable("x"), 5, 100.0, lambda: 0.0) is None


def test_a_wait_for_new_credentials_is_as_long_as_the_options_say():
    error = errors.AuthenticationFailed("over", status=403, code="SecurityTokenExpired")

    assert [POLICY.wait_before_retry(error, n, 100.0, lambda: 0.0, renewal=True) for n in (0, 1, 4, 5)] == [
        *(0.5, 1.0, 8.0),
        None,
    ]
