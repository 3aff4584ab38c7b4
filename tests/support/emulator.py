"""The OSS emulator as tests use it: a subprocess that never outlives the test run, with its admin calls as methods.

`start_emulator` runs one; the fixture `emulator` shares one process for the session and gives each test a bucket of
its own, no faults and counters at zero.
"""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.secret_watch import watch_secret


@dataclass(frozen=True)
class IssuedToken:
    """Temporary credentials. `expires`: seconds since the epoch."""

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str = field(repr=False)
    expires: float

    def pairs(self) -> dict[str, str]:
        """As a Secret or a credential file holds them."""
        return {
            "AccessKeyId": self.access_key_id,
            "AccessKeySecret": self.access_key_secret,
            "SecurityToken": self.security_token,
        }


@dataclass(frozen=True)
class RunningEmulator:
    """A server that answers. `endpoint` is `http://127.0.0.1:PORT` (path style), `bucket` exists."""

    endpoint: str
    access_key_id: str
    access_key_secret: str = field(repr=False)
    bucket: str
    data: Path
    process: subprocess.Popen[str] = field(repr=False)
    region: str = "cn-hangzhou"

    @property
    def port(self) -> int:
        return int(urlsplit(self.endpoint).port or 0)

    @property
    def sts_endpoint(self) -> str:
        return self.endpoint + "/sts"

    # --- faults (csi/emulator/control/faults.py names every setting) ---

    def fault(self, **rule: object) -> str:
        """Add a fault rule, e.g. fault(operation="GetObject", status=503, count=2); returns its id."""
        return str(self.admin("POST", "/faults", rule)["id"])

    def clear_faults(self) -> None:
        self.admin("DELETE", "/faults")

    # --- what happened ---

    def counters(self) -> dict[str, Any]:
        """requests, bytes_in/out, connections, peak_in_flight and the same by operation under `operations`."""
        return self.admin("GET", "/counters")

    def reset_counters(self) -> None:
        self.admin("DELETE", "/counters")

    def requests(self, operation: str = "", key: str | None = None) -> list[dict[str, Any]]:
        """The request log since the last reset, oldest first; of one operation and key when given."""
        found: list[dict[str, Any]] = self.admin("GET", "/requests")
        return [
            entry
            for entry in found
            if (not operation or entry["operation"] == operation) and (key is None or entry["key"] == key)
        ]

    def count(self, operation: str) -> int:
        found = self.counters()["operations"].get(operation)
        return int(found["requests"]) if found else 0

    # --- content ---

    def create_bucket(self, name: str = "", *, public: bool = False) -> str:
        name = name or f"test-{uuid.uuid4().hex[:16]}"
        self.admin("PUT", "/buckets", {"name": name, "public": public})
        return name

    def seed(self, key: str, content: bytes | str | None = None, **settings: object) -> None:
        """Make an object (or `count` of them, `{n}` in the key): see csi/emulator/control/seeds.py for the settings."""
        self.seed_many([{"key": key, **({} if content is None else {"content": content}), **settings}])

    def seed_many(self, objects: list[dict[str, Any]]) -> None:
        lines = []
        for values in objects:
            line = {"bucket": self.bucket, **values}
            if isinstance(line.get("content"), bytes):
                line["content_base64"] = base64.b64encode(line.pop("content")).decode()
            lines.append(json.dumps(line))
        self.admin("POST", "/seed", "\n".join(lines).encode())

    # --- credentials ---

    def issue_token(self, seconds: float = 3600) -> IssuedToken:
        found = self.admin("POST", "/tokens", {"seconds": seconds})
        secret, token = watch_secret(found["AccessKeySecret"]), watch_secret(found["SecurityToken"])
        return IssuedToken(found["AccessKeyId"], secret, token, float(found["Expires"]))

    @contextmanager
    def tokens_live_for(self, seconds: float) -> Iterator[None]:
        """No token given out in the block lives longer, whatever is asked."""
        self.admin("PUT", "/token-lifetime", {"seconds": seconds})
        try:
            yield
        finally:
            self.admin("PUT", "/token-lifetime", {"seconds": None})

    def expire_tokens(self) -> None:
        self.admin("DELETE", "/tokens")

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """One admin call; raises AssertionError with the server's words when it is refused."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, "/_emulator" + path, body=data)
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, f"{method} {path}: {answer.status} {text}"
            return json.loads(text)
        finally:
            connection.close()

    # --- process ---

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.process.kill()
        self.process.wait(timeout=10)


@contextmanager
def start_emulator(
    data: Path,
    *,
    bucket: str = "test-bucket",
    access_keys: dict[str, str] | None = None,
    port: int = 0,
    arguments: tuple[str, ...] = (),
) -> Iterator[RunningEmulator]:
    """Run an emulator on `data` until the block ends, also when it fails; it stops by itself if this process dies.

    `access_keys` (id → secret) default to one with a random secret. `arguments` are passed on to `csi.emulator`.
    """
    keys = access_keys or {"LTAI5tTestEmulatorKey": "s" + secrets.token_hex(14) + "Q"}
    for key_secret in keys.values():
        watch_secret(key_secret)
    data.mkdir(parents=True, exist_ok=True)
    key_file = data / "access-keys"
    key_file.touch(mode=0o600)
    key_file.write_text("".join(f"{key}:{secret}\n" for key, secret in keys.items()))
    command = [
        *(sys.executable, "-m", "csi.emulator", "--data", str(data), "--port", str(port)),
        *("--access-key-file", str(key_file), "--bucket", bucket, "--until-stdin-closes"),
        *arguments,
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line.startswith("listening "), f"the emulator did not start (exit {process.wait(timeout=10)})"
        access_key_id, secret = next(iter(keys.items()))
        yield RunningEmulator(line.split(" ")[1], access_key_id, secret, bucket, data, process)
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture(scope="session")
def emulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEmulator]:
    with start_emulator(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture
def emulator(emulator_process: RunningEmulator) -> Iterator[RunningEmulator]:
    """The shared emulator with a fresh bucket; faults are cleared and counters reset before and after."""
    _quiet(emulator_process)
    yield replace(emulator_process, bucket=emulator_process.create_bucket())
    if emulator_process.process.poll() is None:
        _quiet(emulator_process)


def _quiet(running: RunningEmulator) -> None:
    running.clear_faults()
    running.reset_counters()
