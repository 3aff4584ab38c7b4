"""What every CSI call goes through: a deadline, the error map, a log line without secrets, a timing.

One interceptor does the four because their order matters: the deadline is inside the error map (a call that ran out of
time is an error like others), the map is inside the log (the line shows the code that was sent), and the log never sees
the request itself, only a redacted copy. It knows no service; the services know no gRPC codes.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from csi.driver.calls.redaction import redacted, scrub, secret_values
from csi.driver.calls.status import code_of, message_of
from csi.errors import CallTimedOut, OssFuseError
from csi.volume.units import Seconds

log = logging.getLogger(__name__)

LONGEST_CALL = Seconds(120.0)
"""What kubelet gives a call; a caller that names no deadline, or a longer one, is taken for a kubelet."""

_WORK_SHARE = 0.9
"""Of the caller's time: what the work may use, so that its own error still reaches the event."""
_CALL_SHARE = 0.95
"""Of the caller's time: when the call is answered whatever the work does."""

_QUIET = frozenset({"Probe", "NodeGetCapabilities", "ControllerGetCapabilities", "GetPluginCapabilities"})
"""Asked every few seconds; logged only at DEBUG unless they fail."""

Behaviour = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]

_work_ends: contextvars.ContextVar[float] = contextvars.ContextVar("work_ends")


def patience() -> Seconds:
    """Seconds that the call being handled may still spend on its work; LONGEST_CALL outside of a call."""
    ends = _work_ends.get(None)
    return LONGEST_CALL if ends is None else Seconds(max(ends - time.monotonic(), 0.0))


@dataclass(slots=True)
class CallStatistics:
    """Count and time of the calls of one method, by status code name."""

    calls: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    longest: float = 0.0


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every unary call. `statistics()` maps method names to what they cost; used from one event loop."""

    def __init__(self) -> None:
        self._statistics: dict[str, CallStatistics] = {}

    def statistics(self) -> dict[str, CallStatistics]:
        return dict(self._statistics)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        method = handler_call_details.method.rsplit("/", 1)[-1]
        behaviour = cast(Behaviour, handler.unary_unary)

        async def wrapped(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
            return await self._handle(method, behaviour, request, context)

        return grpc.unary_unary_rpc_method_handler(
            cast(Any, wrapped),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _handle(
        self, method: str, behaviour: Behaviour, request: Message, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Message:
        began = time.monotonic()
        code, message = grpc.StatusCode.OK, ""
        try:
            return await self._within_deadline(method, behaviour, request, context)
        except asyncio.CancelledError:
            code, message = grpc.StatusCode.CANCELLED, "the caller hung up; work already begun goes on"
            raise
        except OssFuseError as error:
            code, message = code_of(error), scrub(message_of(error), secret_values(request))
        except NotImplementedError:
            code, message = grpc.StatusCode.UNIMPLEMENTED, f"{method} is not offered by this driver"
        except Exception as error:  # the last line of defence: a bug must become an answer
            code = grpc.StatusCode.INTERNAL
            message = f"{method} failed unexpectedly ({type(error).__name__}); the log of this process has the details"
            log.error("%s", scrub("".join(traceback.format_exception(error)), secret_values(request)))  # noqa: TRY400 - the traceback must be scrubbed first
        finally:
            took = time.monotonic() - began
            self._count(method, code, took)
            _write_line(method, request, code, message, took)
        await context.abort(code, message)
        raise AssertionError("abort returned")  # unreachable: abort always raises

    async def _within_deadline(
        self, method: str, behaviour: Behaviour, request: Message, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Message:
        remaining = context.time_remaining()
        allowed = LONGEST_CALL if remaining is None else min(remaining, LONGEST_CALL)
        ends = _work_ends.set(time.monotonic() + allowed * _WORK_SHARE)
        limit = asyncio.timeout(allowed * _CALL_SHARE)
        try:
            async with limit:
                return cast(Message, await behaviour(request, context))
        except TimeoutError:
            if not limit.expired():
                raise  # the handler's own
            raise CallTimedOut(
                f"{method} did not end within {allowed * _CALL_SHARE:.1f} s", hint="it will be tried again"
            ) from None
        finally:
            _work_ends.reset(ends)

    def _count(self, method: str, code: grpc.StatusCode, took: float) -> None:
        entry = self._statistics.setdefault(method, CallStatistics())
        entry.calls[code.name] = entry.calls.get(code.name, 0) + 1
        entry.seconds += took
        entry.longest = max(entry.longest, took)


def _write_line(method: str, request: Message, code: grpc.StatusCode, message: str, took: float) -> None:
    level = logging.INFO
    if code is not grpc.StatusCode.OK:
        level = logging.WARNING
    elif method in _QUIET:
        level = logging.DEBUG
    if log.isEnabledFor(level):
        said = f": {message}" if message else ""
        log.log(level, "%s %s in %.0f ms [%s]%s", method, code.name, took * 1000, redacted(request), said)
