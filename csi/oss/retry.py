"""When a failed attempt is made again, and how long to wait before it.

Exponential backoff with full jitter, at least what the server asks for in Retry-After, never past the deadline of the
whole operation. Pure decisions: clock, sleep and chance belong to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from csi.errors import ChecksumMismatch, DeadlineExceeded, EndpointUnreachable, ServerFailure, StoreError
from csi.volume.spec import HttpOptions
from csi.volume.units import MIB, Seconds

LONGEST_WAIT = Seconds(10.0)
SLOWEST_RATE = 1 * MIB
"""Bytes per second a transfer may be as slow as: each MiB of a body adds a second to timeout and deadline."""

_PERMANENT_SERVER_CODES = frozenset({"NotImplemented"})


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
        self, error: StoreError, attempt: int, left: float, random: Callable[[], float]
    ) -> Seconds | None:
        """What to wait after failed attempt `attempt` (from 0), None to give up; `left` is until the deadline."""
        if attempt >= self.retries or not is_retryable(error):
            return None
        wait = random() * min(LONGEST_WAIT, self.interval * 2.0**attempt)
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


def may_have_arrived(error: StoreError) -> bool:
    """Whether OSS may have done what a failed attempt asked for."""
    return isinstance(error, EndpointUnreachable | DeadlineExceeded | ServerFailure | ChecksumMismatch)
