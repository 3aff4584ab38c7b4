"""A limit on bytes per second for one request, in either direction. It must not know what the bytes are."""

from __future__ import annotations

import asyncio


class Pace:
    """`bytes_per_second` 0: no limit. Time lost elsewhere is made up for at most a tenth of a second."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._due = 0.0

    async def spend(self, count: int) -> None:
        """Return when `count` more bytes are due."""
        if not self._rate:
            return
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now - 0.1 if self._due else now) + count / self._rate
        await asyncio.sleep(max(0.0, self._due - now))
