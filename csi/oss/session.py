"""From a `Call` to a successful answer: addressing, signing, sending, retrying, refreshing credentials, counting.

Every operation of the client goes through `Session.call`. It ends within the policy's deadline (plus a second for each
MiB of body), raises typed errors only, and tells through `Trace` whether an earlier attempt may have taken effect.
"""

from __future__ import annotations

import logging
import random as chance
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from csi.errors import AuthenticationFailed, ChecksumMismatch, DeadlineExceeded, PermissionDenied, StoreError
from csi.oss.answers import error_of, is_unbelievable, shown
from csi.oss.cancellation import Cancellation
from csi.oss.credentials import CHECK_INTERVAL, Credentials, CredentialsProvider, StaticCredentials
from csi.oss.exchange import CHECK_NETWORK, ConnectionStatistics, HttpAnswer, HttpRequest, Transport
from csi.oss.heads import GetHeads
from csi.oss.lines import Lines
from csi.oss.requests import Call, header_lines, url_of
from csi.oss.retry import RetryPolicy, has_ended, is_retryable, may_have_arrived
from csi.oss.signing import Unsigned, signer_for
from csi.volume.spec import HttpOptions, Location, WriteOptions
from csi.volume.units import Bytes, ETag, ObjectKey, Seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """Since the client was made. `requests` counts attempts, `errors` operations that failed in the end."""

    requests: int = 0
    retries: int = 0
    errors: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connections: ConnectionStatistics = ConnectionStatistics()


_OVERRUN = 5.0
"""Seconds past its deadline that no operation reaches by itself: the machine stood still (a virtual machine that was
paused or moved), and what was under way has to be asked for again."""

_COUNTERS = tuple(field.name for field in fields(ClientStatistics) if field.name != "connections")


@dataclass(slots=True)
class Trace:
    """What happened on the way to an answer; `lost` attempts may have taken effect although they failed."""

    attempts: int = 0
    lost: int = 0


class Session:
    """The way to one bucket. `_closing` ends waits between attempts.

    There is no lock, so that a child forked at any moment can go on: each thread counts in a tally of its own.
    """

    def __init__(
        self,
        location: Location,
        http: HttpOptions,
        write: WriteOptions,
        credentials: CredentialsProvider,
        transport: Transport,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        random: Callable[[], float] = chance.random,
    ) -> None:
        self.location = location
        self.write = write
        self._policy = RetryPolicy.of(http)
        self._signer = signer_for(http.signature_version, location.region)
        self._credentials = credentials
        self._looked = float("-inf")  # when one of the threads that wait for new credentials looked for them
        self._transport = transport
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._closing = threading.Event()
        self._sleep = sleep or self._closing.wait
        self._tallies: dict[int, dict[str, int]] = {}
        self._heads = GetHeads(location, self._signer)
        self._http = http
        self._lines: Lines | None = None

    def try_get(
        self,
        key: ObjectKey,
        span: tuple[int, int] | None,
        target: memoryview,
        if_match: ETag,
        cancellation: Cancellation | None = None,
    ) -> HttpAnswer | None:
        """One attempt of a GET by the short way, of the object or the bytes `span` (first, end) of it.

        The answer may be any; `call` takes it for its first attempt. None: there was none, and `call` begins.
        """
        policy = self._policy
        try:
            credentials = self._credentials.current()
            head = self._heads.head(key, span, if_match, credentials, self._clock())
            if head is None:
                return None
            timeout = Seconds(policy.timeout + policy.allowance(len(target)))
            answer = self._transport.send_plain(
                self._heads.endpoint, head, target, timeout=timeout, stall=policy.timeout, cancellation=cancellation
            )
        except StoreError:
            return None  # the attempts of `call` will find the same, and know what to say
        if answer is not None:
            tally = self._tally()
            tally["requests"] += 1
            tally["bytes_in"] += answer.received + len(answer.body)
        return answer

    def call(
        self,
        call: Call,
        *,
        check: Callable[[HttpAnswer], None] | None = None,
        resume: Callable[[HttpAnswer], Call | None] | None = None,
        trace: Trace | None = None,
        policy: RetryPolicy | None = None,
        begun: HttpAnswer | None = None,
        cancellation: Cancellation | None = None,
    ) -> HttpAnswer:
        """The 2xx answer to `call`. `check` may raise ChecksumMismatch to have the attempt counted as failed.

        `begun` is what the first attempt was answered, when it has been made (`try_get`).

        `resume` is given an answer that broke off in its body, and may return the call that asks for the rest; that
        is progress, so attempts are counted from there.
        Raises a StoreError, or CredentialsMissing.
        """
        policy = policy or self._policy
        trace = trace or Trace()
        size = call.body_size + (len(call.target) if call.target is not None else 0)
        allowance = policy.allowance(size)
        deadline = self._monotonic() + policy.deadline + allowance
        refreshed = False
        attempt = 0
        while True:
            credentials = self._credentials.current()
            trace.attempts += 1
            try:
                if begun is not None:
                    answer, begun = begun, None
                    self._check_status(answer, call)
                else:
                    answer = self._attempt(call, credentials, policy, allowance, deadline, cancellation)
                if answer.failure is not None:
                    rest = resume(answer) if resume is not None else None
                    if rest is not None:
                        call, attempt = rest, 0
                    failure = answer.failure
                    del answer  # else it would lead to its own frames, which hold the caller's memory
                    try:
                        raise failure
                    finally:
                        del failure
                if check is not None:
                    check(answer)
            except StoreError as error:
                self._advise(error, policy)
                now = self._monotonic()
                if now > deadline + _OVERRUN:
                    deadline = now + policy.timeout + allowance
                self._name(error, call)
                trace.lost += may_have_arrived(error)
                if not refreshed and self._is_refusal(error):
                    refreshed = True
                    if self._has_newer_credentials(credentials):
                        continue
                left = deadline - self._monotonic()
                renewal = self._may_be_renewed(error, credentials)
                wait = policy.wait_before_retry(error, attempt, left, self._random, renewal=renewal)
                if wait is None or self._closing.is_set() or (cancellation is not None and cancellation.requested):
                    self._count("errors")
                    if wait is None and attempt < policy.retries and is_retryable(error):
                        raise self._too_late(error, call, attempt, Seconds(policy.deadline + allowance)) from error
                    raise
                attempt += 1
                self._count("retries")
                _log.info("attempt %d of %s failed, next in %.2f s: %s", attempt, call.operation, wait, error.message)
                if renewal:
                    self._await_renewal(credentials, wait, cancellation)
                else:
                    self._sleep(wait)
            else:
                return answer

    def lines(self, largest: Bytes, most: int = 1) -> Lines:
        """Connections beside those of the transport, for whole objects of at most `largest` bytes; one set of them, of
        at most `most` where somebody else does not count them."""
        if self._lines is None:
            self._lines = Lines(
                self._heads,
                self._signer,
                self._credentials,
                self._policy,
                most=most,
                connect_timeout=self._http.connection_timeout,
                crc=self.write.crc64,
                largest=largest,
                clock=self._clock,
                monotonic=self._monotonic,
            )
        return self._lines

    def identity(self) -> str:
        """Who signs, recognisable but of no use to others: for messages."""
        credentials = self._credentials.current()
        return "without credentials" if credentials is None else f"access key …{credentials.tail}"

    def statistics(self) -> ClientStatistics:
        tallies = list(self._tallies.values())
        counted = {name: sum(tally[name] for tally in tallies) for name in _COUNTERS}
        connections = self._transport.statistics()
        if self._lines is not None:
            used = self._lines.counted()
            counted["requests"] += used.requests
            counted["bytes_in"] += used.bytes_in
            connections = replace(connections, idle=connections.idle + used.idle, busy=connections.busy + used.busy)
        return ClientStatistics(**counted, connections=connections)

    def close(self) -> None:
        self._closing.set()
        self._transport.close()

    def _attempt(
        self,
        call: Call,
        credentials: Credentials | None,
        policy: RetryPolicy,
        allowance: Seconds,
        deadline: float,
        cancellation: Cancellation | None,
    ) -> HttpAnswer:
        headers = dict(call.headers)
        if credentials is not None:
            unsigned = Unsigned(call.method, self.location.bucket, call.key, call.query, headers)
            self._signer.sign(unsigned, credentials, self._clock())
        request = HttpRequest(
            call.method,
            url_of(self.location, call.key, call.query),
            header_lines(headers, call.operation),
            call.body,
            call.target,
            call.once,
            cancellation,
            call.summed,
        )
        self._count("requests")
        self._count("bytes_out", call.body_size)
        answer = self._transport.send(
            request,
            timeout=Seconds(policy.timeout + allowance),
            stall=policy.timeout,
            patience=Seconds(deadline - self._monotonic()),
        )
        self._count("bytes_in", answer.received + len(answer.body))
        self._check_status(answer, call)
        return answer

    def _check_status(self, answer: HttpAnswer, call: Call) -> None:
        if not 200 <= answer.status < 300 or (call.changes and is_unbelievable(answer)):
            raise error_of(answer, call, self.location)

    @staticmethod
    def _is_refusal(error: StoreError) -> bool:
        """Whether the credentials may be why; a HEAD may have no code that says."""
        return isinstance(error, AuthenticationFailed) or (isinstance(error, PermissionDenied) and not error.code)

    def _has_newer_credentials(self, used: Credentials | None) -> bool:
        """Whether the source, looked at again, holds others than the refused ones."""
        if self._credentials.current() == used:
            self._credentials.refresh()
        return self._credentials.current() != used

    def _may_be_renewed(self, error: StoreError, used: Credentials | None) -> bool:
        """Whether new credentials are to be expected: these have ended, and their source can change."""
        return not isinstance(self._credentials, StaticCredentials) and has_ended(error, used, self._clock())

    def _await_renewal(self, used: Credentials | None, wait: Seconds, cancellation: Cancellation | None) -> None:
        """Wait until there are other credentials than `used`, at most `wait`. However many threads wait, the source
        is looked at once in a while: it may be a server."""
        pause = min(wait, CHECK_INTERVAL)
        ends = self._monotonic() + wait
        while (left := ends - self._monotonic()) > 0:
            self._sleep(min(left, pause))
            if self._closing.is_set() or (cancellation is not None and cancellation.requested):
                return
            now = self._monotonic()
            if self._credentials.current() == used and now - self._looked >= pause:
                self._looked = now
                self._credentials.refresh()
            if self._credentials.current() != used:
                return

    def _advise(self, error: StoreError, policy: RetryPolicy) -> None:
        """Say what to do about an attempt that took too long: the option, where it is what bounded it. It is not in a
        policy of somebody else's, nor where an operation must end before one attempt may."""
        if isinstance(error, DeadlineExceeded) and not error.hint:
            error.hint = CHECK_NETWORK
            if policy is self._policy and policy.timeout <= policy.deadline:
                error.hint += ", or raise fs.oss.timeout.millisecond"

    @staticmethod
    def _name(error: StoreError, call: Call) -> None:
        if not error.operation:
            error.operation, error.key = call.operation, call.key
            error.message = f"{call.operation} {shown(call.key)}: {error.message}"
            error.args = (error.message,)

    @staticmethod
    def _too_late(error: StoreError, call: Call, attempt: int, deadline: Seconds) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{call.operation} {shown(call.key)}: not done within {deadline:.1f} s and {attempt + 1} attempts; "
            f"the last one: {error.message}",
            status=error.status,
            code=error.code,
            request_id=error.request_id,
            operation=call.operation,
            key=call.key,
            hint=error.hint,
        )

    def _count(self, name: str, amount: int = 1) -> None:
        self._tally()[name] += amount

    def _tally(self) -> dict[str, int]:
        tally = self._tallies.get(threading.get_ident())
        if tally is None:
            tally = self._tallies.setdefault(threading.get_ident(), dict.fromkeys(_COUNTERS, 0))
        return tally


def mismatch(what: str, call: Call, expected: object, found: object) -> ChecksumMismatch:
    """The error of a body that is not what OSS says it is."""
    return ChecksumMismatch(
        f"{call.operation} {shown(call.key)}: {what} is {found}, expected {expected}",
        operation=call.operation,
        key=call.key,
        hint="the data was damaged on the way; the attempt is repeated",
    )
