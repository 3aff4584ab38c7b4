"""Ways to reach the emulator that several modules share."""

from __future__ import annotations

import hashlib
import http.client
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import oss2
import pytest
from oss2.http import Request as Oss2Request

from tests.support.emulator import RunningEmulator


@dataclass(frozen=True)
class RawAnswer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def code(self) -> str:
        text = self.body.decode()
        return text.partition("<Code>")[2].partition("</Code>")[0]


class RawClient:
    """Requests exactly as written, signed with V1 by oss2: for what SDKs cannot or will not send."""

    def __init__(self, emulator: RunningEmulator) -> None:
        self._emulator = emulator

    def __call__(
        self,
        method: str,
        key: str = "",
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        *,
        signed: bool = True,
        raw_path: str = "",
    ) -> RawAnswer:
        bucket = self._emulator.bucket
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        if signed:
            request = Oss2Request(method, self._emulator.endpoint, params=dict(query or {}), headers=sent)
            auth = oss2.Auth(self._emulator.access_key_id, self._emulator.access_key_secret)
            auth._sign_request(request, bucket, key)
            sent = {name: value for name, value in request.headers.items() if name.lower() != "user-agent" and value}
        path = raw_path or f"/{bucket}/{quote(key, safe='')}"
        target = path + ("?" + urlencode(query) if query else "")
        connection = http.client.HTTPConnection("127.0.0.1", self._emulator.port, timeout=20)
        try:
            connection.request(method, target, body=body, headers=sent)
            answer = connection.getresponse()
            return RawAnswer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


@pytest.fixture
def raw(emulator: RunningEmulator) -> RawClient:
    return RawClient(emulator)


@pytest.fixture
def bucket(emulator: RunningEmulator) -> oss2.Bucket:
    return make_bucket(emulator, "V4")


def make_bucket(
    emulator: RunningEmulator, version: str, *, secret: str = "", endpoint: str = "", name: str = ""
) -> oss2.Bucket:
    auth: Any = {"V1": oss2.Auth, "V4": oss2.AuthV4}[version]
    return oss2.Bucket(
        auth(emulator.access_key_id, secret or emulator.access_key_secret),
        endpoint or emulator.endpoint,
        name or emulator.bucket,
        region="cn-hangzhou",
        connect_timeout=20,
    )


@pytest.fixture
def oss_local_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """`*.oss.local` is this machine, as an entry in /etc/hosts for each bucket would say."""
    real: Callable[..., Any] = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        local = isinstance(name, str) and (name == "oss.local" or name.endswith(".oss.local"))
        return real("127.0.0.1" if local else host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; fails when it does not within 20 s."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("did not happen within 20 s")


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest().upper()
