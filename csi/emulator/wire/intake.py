"""The body of an aiohttp request as a `BodySource`: counted, answered with 100 Continue when asked, faults applied.

It must not know what the body is for.
"""

from __future__ import annotations

from aiohttp import web

from csi.emulator.control.faults import Plan
from csi.emulator.control.traffic import Entry
from csi.emulator.wire.pacing import Pace
from csi.emulator.wire.send import reset


class Intake:
    def __init__(self, request: web.BaseRequest, entry: Entry) -> None:
        self._request = request
        self._entry = entry
        self._plan = Plan()
        self._continue = request.headers.get("Expect", "").lower() == "100-continue"
        self._pace = Pace(0)

    @property
    def length(self) -> int | None:
        return self._request.content_length

    def suffer(self, plan: Plan) -> None:
        self._plan = plan
        self._pace = Pace(plan.bandwidth)

    async def read(self) -> bytes:
        if self._continue:
            self._continue = False
            transport = self._request.transport
            if transport is not None:
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        data = await self._request.content.readany()
        self._entry.bytes_in += len(data)
        limit = self._plan.reset_upload_after
        if data and 0 <= limit <= self._entry.bytes_in:
            self._entry.outcome = "reset"
            reset(self._request)
        await self._pace.spend(len(data))
        if data and self._plan.any("corrupt_upload") and self._entry.bytes_in == len(data):
            return bytes([data[0] ^ 1]) + data[1:]
        return data
