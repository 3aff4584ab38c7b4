"""What every handler of a request has in common: it answers, whatever happens, and it is counted.

No exception other than FUSEError may leave a handler (pyfuse3 would end the mount), and no request may be left
unanswered, also when the session is told to stop: its caller would wait for ever, unkillable.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pyfuse3
import trio

from csi.fuse.errno_map import ErrorReporter
from csi.fuse.requests import RequestTable


class Answering(Protocol):
    """Who has handlers."""

    requests: RequestTable
    reporter: ErrorReporter


H = TypeVar("H", bound=Answering)
P = ParamSpec("P")
R = TypeVar("R")

Handler = Callable[Concatenate[H, P], Awaitable[R]]
AnsweringHandler = Callable[Concatenate[H, P], Coroutine[Any, Any, R]]


def answered(operation: str) -> Callable[[Handler[H, P, R]], AnsweringHandler[H, P, R]]:
    """Make a handler answer whatever happens, and count it as the FUSE operation `operation`."""

    def decorate(handler: Handler[H, P, R]) -> AnsweringHandler[H, P, R]:
        async def answer(self: H, /, *arguments: P.args, **keywords: P.kwargs) -> R:
            ticket = self.requests.begin(operation)
            try:
                return await handler(self, *arguments, **keywords)
            except pyfuse3.FUSEError:
                raise
            except trio.Cancelled:
                # the session was told to stop and its grace is over; swallowed because the caller needs its answer,
                # and nothing in pyfuse3's task waits after it
                raise pyfuse3.FUSEError(errno.EIO) from None
            except BaseException as error:
                raise pyfuse3.FUSEError(self.reporter.report(operation, error)) from None
            finally:
                self.requests.end(ticket)

        functools.update_wrapper(answer, handler)
        return answer

    return decorate
