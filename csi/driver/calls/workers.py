"""Blocking work of the CSI calls, off the event loop: bounded, keyed, and finished even when the caller has gone.

A mount is not a thing to be left half made because kubelet hung up. So work, once begun, runs to its end with its keys
held; the call merely stops waiting for it. The retry finds either OperationPending or the finished result, and since
all work here is idempotent, both lead to the same place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

from csi.driver.calls.locks import KeyedLocks
from csi.errors import CallTimedOut
from csi.volume.units import Seconds

Result = TypeVar("Result")


class Workers:
    """A bounded pool of threads behind keyed try-locks. Use from one event loop.

    `name`: prefix of the threads' names. `count`: how many calls work at a time; more wait for a thread within their
    own deadline. `locks` may be shared by several pools.
    """

    def __init__(self, name: str, count: int, locks: KeyedLocks) -> None:
        self._executor = ThreadPoolExecutor(max_workers=count, thread_name_prefix=name)
        self._locks = locks
        self._under_way: set[asyncio.Future[Any]] = set()

    async def run(
        self, work: Callable[[], Result], *, keys: tuple[Hashable, ...] = (), what: str, patience: Seconds
    ) -> Result:
        """The result of `work()` on a thread, awaited for `patience` seconds.

        Raises OperationPending when a key is taken, CallTimedOut when patience ends, and what `work` raises.
        """
        with ExitStack() as stack:
            stack.enter_context(self._locks.hold(*keys, what=what))
            future = asyncio.get_running_loop().run_in_executor(self._executor, work)
            held = stack.pop_all()
        self._under_way.add(future)
        # registered before anyone waits: by the time the caller sees the result the keys are free again
        future.add_done_callback(lambda ended: self._release(ended, held))
        done, _ = await asyncio.wait({future}, timeout=patience)
        if done:
            return future.result()
        raise CallTimedOut(
            f"{what} did not end within {patience:.1f} s",
            hint="the work goes on and the next call will find its result; the node plugin's log says how it ended",
        )

    async def close(self) -> None:
        """Wait for what has begun (every piece of work has a deadline of its own), then let the threads go."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        self._executor.shutdown(wait=True)

    def _release(self, ended: asyncio.Future[Result], held: ExitStack) -> None:
        self._under_way.discard(ended)
        held.close()
        if not ended.cancelled():
            ended.exception()  # seen, also when the caller has gone: asyncio need not complain about it
