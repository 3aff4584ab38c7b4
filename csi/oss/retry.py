"""When a failed attempt is made again, and how long to wait before it.

Exponential backoff with full jitter, at least what the server asks for in Retry-After, never past the deadline of the
whole operation. Pure decisions: clock, sleep and chance belong to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from csi.errors import ChecksumMismatch, DeadlineExceeded, EndpointUnreachable, ServerFailure, StoreError
from csi.oss.credentials import Credentials
from csi.volume.spec import HttpOptions
from csi.volume.units import MIB, Seconds

LONGEST_WAIT = Seconds(10.0)
SLOWEST_RATE = 1 * MIB
"""Bytes per second a transfer may be as slow as: each MiB of a body adds a second to timeout and deadline."""

_PERMANENT_SERVER_CODES = frozenset({"NotImplemented"})
_ENDED_CODES = frozenset({"SecurityTokenExpired", "InvalidAccessKeyId"})
"""Of temporary credentials that have ended: after a while OSS does not know their AccessKey ID any more."""
_UNCLEAR_CODES = frozenset({"", "InvalidSecurityToken"})
"""Of them too, or of others; '' where a HEAD has no body."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`retries` attempts after the first, waits growing from `interval`; `timeout` bounds one attempt without progress,
    `deadline` everything."""

    retries: int
    interval: Seconds
    timeout: Seconds
    deadline: Seconds

    @classmethod
    def of(cls, options: HttpOptions) -> RetryPolicy:
        return cls(options.retries, options.retry_interval, options.timeout, options.deadline)

    def allowance(self, size: int) -> Seconds:
        """What a body of `size` bytes adds to timeout and deadline."""
        return Seconds(size / SLOWEST_RATE)

    def wait_before_retry(
        self,
        error: StoreError,
        attempt: int,
        left: float,
        random: Callable[[], float],
        *,
        renewal: bool = False,
    ) -> Seconds | None:
        """What to wait after failed attempt `attempt` (from 0), None to give up; `left` is until the deadline.

        `renewal`: for new credentials (`has_ended`), and without jitter: there is no server to spare, and whoever
        renews them has all the time that the options give.
        """
        if attempt >= self.retries or not (renewal or is_retryable(error)):
            return None
        wait = (1.0 if renewal else random()) * min(LONGEST_WAIT, self.interval * 2.0**attempt)
        if isinstance(error, ServerFailure):
            wait = max(wait, error.retry_after)
        return Seconds(wait) if wait < left else None


def is_retryable(error: StoreError) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, EndpointUnreachable):
        return not error.permanent
    if isinstance(error, ServerFailure):
        return error.code not in _PERMANENT_SERVER_CODES
    return isinstance(error, DeadlineExceeded | ChecksumMismatch)


def has_ended(error: StoreError, used: Credentials | None, now: float) -> bool:
    """Whether OSS refused a request because the temporary credentials it was signed with are over."""
    if used is None or not used.security_token or error.status != 403:
        return False
    is_past = used.expiration is not None and used.expiration <= now
    return error.code in _ENDED_CODES or (is_past and error.code in _UNCLEAR_CODES)


def may_have_arrived(error: StoreError) -> bool:
    """Whether OSS may have done what a failed attempt asked for."""
    return isinstance(error, EndpointUnreachable | DeadlineExceeded | ServerFailure | ChecksumMismatch)
