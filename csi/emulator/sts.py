"""Alibaba Cloud STS on a path of its own: AssumeRole and AssumeRoleWithOIDC answer with tokens this server accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from csi.emulator.answers import Answer
from csi.emulator.call import Call
from csi.emulator.index import Index
from csi.emulator.keyring import Keyring
from csi.emulator.refusals import not_implemented


class SecurityTokenService:
    def __init__(self, index: Index, keyring: Keyring, keys: Mapping[str, str], now: Callable[[], float]) -> None:
        self._index = index
        self._keyring = keyring
        self._keys = keys
        self._now = now

    async def answer(self, call: Call) -> Answer:
        raise not_implemented("sts")
