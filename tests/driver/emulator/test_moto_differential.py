"""Ranges and conditional reads answered as moto, an independently written S3 server, answers them.

Real OSS and S3 agree on these when the client asks for standard range behaviour. Cases where OSS documents something
else are in test_protocol.py, and so are tags together with dates: RFC 9110 lets the tag decide, moto does not.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

import oss2
import pytest

from tests.driver.emulator.conftest import make_bucket
from tests.support.emulator import RunningEmulator

DATA = bytes(range(256)) * 40


@dataclass(frozen=True)
class Observed:
    status: int
    body: bytes
    content_range: str | None
    length: str | None


@pytest.fixture(scope="module")
def moto() -> Iterator[oss2.Bucket]:
    """A bucket of a moto server, spoken to by oss2 with signature V1 (moto does not check it)."""
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if "Running on http://" in line)
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        endpoint = "http://" + line.split("http://")[1].split()[0]
        bucket = oss2.Bucket(oss2.Auth("id", "secret"), endpoint, "differential", connect_timeout=20)
        bucket.create_bucket()
        yield bucket
    finally:
        process.terminate()
        process.wait(timeout=20)
        drain.join(timeout=20)
        process.stderr.close()


def observe(bucket: oss2.Bucket, method: str, key: str, headers: dict[str, str]) -> Observed:
    """The answer as it is on the wire: oss2 signs, http.client asks."""
    url = bucket.sign_url(method, key, 600, headers={**headers, "x-oss-range-behavior": "standard"})
    host, _, target = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=20)
    try:
        connection.request(method, "/" + target, headers={**headers, "x-oss-range-behavior": "standard"})
        answer = connection.getresponse()
        body = answer.read()
        ok = answer.status in (200, 206)
        length = answer.headers["Content-Length"] if ok else None
        return Observed(
            answer.status,
            body if ok else b"",
            answer.headers["Content-Range"] if answer.status == 206 else None,
            length,
        )
    finally:
        connection.close()


RANGES = [
    "bytes=0-0",
    "bytes=0-9",
    "bytes=100-",
    "bytes=-1",
    "bytes=-10240",
    "bytes=-99999",
    "bytes=10239-10239",
    "bytes=10239-99999",
    "bytes=0-99999",
    "bytes=10240-",
    "bytes=10240-20000",
    "",
]


@pytest.mark.parametrize("wanted", RANGES)
@pytest.mark.parametrize("condition", ["", "match", "no match"])
def test_ranges_are_answered_alike(emulator: RunningEmulator, moto: oss2.Bucket, wanted: str, condition: str) -> None:
    ours = make_bucket(emulator, "V1")
    seen = []
    for bucket in (ours, moto):
        etag = bucket.put_object("k", DATA).resp.headers["ETag"]
        headers = {"Range": wanted} if wanted else {}
        if condition:
            headers["If-Match"] = etag if condition == "match" else '"00000000000000000000000000000000"'
        seen.append(observe(bucket, "GET", "k", headers))

    assert seen[0] == seen[1]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("if_match", "if_none_match", "since"),
    [(match, none_match, "") for match in ("", "same", "other") for none_match in ("", "same", "other")]
    + [("", "", since) for since in ("modified before", "modified after", "unmodified before", "unmodified after")],
)
def test_conditions_are_answered_alike(
    emulator: RunningEmulator, moto: oss2.Bucket, method: str, if_match: str, if_none_match: str, since: str
) -> None:
    ours = make_bucket(emulator, "V1")
    seen = []
    for bucket in (ours, moto):
        etag = bucket.put_object("k", DATA).resp.headers["ETag"]
        modified = parsedate_to_datetime(bucket.head_object("k").headers["Last-Modified"]).timestamp()
        tags = {"same": etag, "other": '"00000000000000000000000000000000"'}
        headers = {}
        if if_match:
            headers["If-Match"] = tags[if_match]
        if if_none_match:
            headers["If-None-Match"] = tags[if_none_match]
        if since:
            name, _, side = since.partition(" ")
            moment = modified + (-3600 if side == "before" else 0)
            headers[f"If-{name.capitalize()}-Since"] = formatdate(moment, usegmt=True)
        seen.append(observe(bucket, method, "k", headers))

    assert seen[0] == seen[1]
