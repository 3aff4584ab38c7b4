"""GETs in C: the request is the one that Python would send, and no other answer is accepted."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import fastcrc
import pytest

from csi.oss.credentials import Credentials
from csi.oss.getting import Stamp
from csi.oss.heads import GetHeads
from csi.oss.signing import signer_for
from csi.volume.spec import Location
from csi.volume.units import ETag, ObjectKey, Seconds
from tests.support.raw_server import RawServer, raw_server, read_request

NOW = 1_700_000_000.0
ETAG = ETag('"0123"')
BODY = bytes(range(256)) * 30
GOT, AGAIN, UNUSUAL = 0, 1, 2


def stamp_of(heads: GetHeads, version: int, credentials: Credentials | None, **changed: float) -> Stamp:
    path, fixed, resource = heads.parts()
    kind, before, after, text, lines, key = 0, b"", b"", b"", b"", b""
    if credentials is not None:
        kind, before, after, text, lines, key = signer_for(version, "cn-x").recipe_of_gets(credentials, NOW)
    times = {"timeout": 5.0, "stall": 5.0, "lasts": 60.0} | changed
    return Stamp(
        kind=kind,
        path=path,
        fixed=fixed,
        resource=resource,
        before=before,
        after=after,
        text=text,
        lines=lines,
        key=key,
        crc=True,
        timeout=Seconds(times["timeout"]),
        stall=Seconds(times["stall"]),
        lasts=Seconds(times["lasts"]),
    )


@pytest.mark.parametrize("version", [1, 4])
@pytest.mark.parametrize("token", ["", "token/with=signs+"])
@pytest.mark.parametrize("path_style", [True, False])
@pytest.mark.parametrize("key", ["a", "deep/er/a.txt", "with space/ü/%41+~", "x" * 1023, "\udcff"])
def test_a_request_is_the_one_python_makes(version: int, token: str, path_style: bool, key: str) -> None:
    location = Location(bucket="bucket", endpoint="http://oss.example:8080", region="cn-x", path_style=path_style)
    heads = GetHeads(location, signer_for(version, "cn-x"))
    credentials = Credentials("id", "secret", token)

    made = stamp_of(heads, version, credentials).request(key.encode("utf-8", "surrogateescape"), ETAG)

    assert made == heads.head(ObjectKey(key), None, ETAG, credentials, NOW)


def test_a_request_without_credentials_is_the_one_python_makes() -> None:
    heads = GetHeads(Location(bucket="bucket", endpoint="http://oss.example"), signer_for(1, ""))

    assert stamp_of(heads, 1, None).request(b"a", ETAG) == heads.head(ObjectKey("a"), None, ETAG, None, NOW)


@pytest.mark.parametrize("span", [(0, 1), (5, 4101), (3_999_999_999, 4_000_004_096)])
def test_a_request_for_a_range_says_which(span: tuple[int, int]) -> None:
    heads = GetHeads(Location(bucket="bucket", endpoint="http://oss.example", region="cn-x"), signer_for(4, "cn-x"))
    stamp = stamp_of(heads, 4, Credentials("id", "secret"))

    whole, ranged = stamp.request(b"a", ETAG), stamp.request(b"a", ETAG, span)

    line = f"range: bytes={span[0]}-{span[1] - 1}\r\n".encode()
    assert ranged == whole.replace(b'if-match: "0123"\r\n', b'if-match: "0123"\r\n' + line)


def test_a_head_that_is_too_long_is_not_sent() -> None:
    heads = GetHeads(Location(bucket="bucket", endpoint="http://oss.example"), signer_for(1, ""))

    with pytest.raises(ValueError, match="8192"):
        stamp_of(heads, 1, Credentials("id", "secret", "t" * 9000)).request(b"a", ETAG)


Answer = Callable[[], bytes]


def good(status: str = "200 OK", etag: str = ETAG, crc: str = str(fastcrc.crc64.xz(BODY)), more: str = "") -> bytes:
    fields = f"Content-Length: {len(BODY)}\r\nETag: {etag}\r\nx-oss-hash-crc64ecma: {crc}\r\n{more}"
    return f"HTTP/1.1 {status}\r\n{fields}\r\n".encode() + BODY


def ask(*answers: bytes, begin: int = 0, total: int | None = None) -> Iterator[tuple[int, bool, bytes]]:
    """What comes of one GET after the other, on one connection."""

    def play(server: RawServer, connection: socket.socket) -> None:
        for answer in answers:
            if not read_request(server, connection):
                return
            connection.sendall(answer)

    with raw_server(play) as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        heads = GetHeads(Location(bucket="bucket", endpoint=server.url), signer_for(1, ""))
        stamp = stamp_of(heads, 1, None, timeout=1.0, stall=0.3)
        for _ in answers:
            target = memoryview(bytearray(len(BODY)))
            outcome, usable = stamp.get(connection, b"a", ETAG, target, begin, total)
            yield outcome, usable, bytes(target)


def test_what_was_asked_for_is_there() -> None:
    assert list(ask(good(), good())) == [(GOT, True, BODY)] * 2


def test_a_head_that_drips_in_is_given_up() -> None:
    def play(server: RawServer, connection: socket.socket) -> None:
        read_request(server, connection)
        with contextlib.suppress(OSError):
            for letter in good():
                connection.sendall(bytes([letter]))
                time.sleep(0.05)

    with raw_server(play) as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        heads = GetHeads(Location(bucket="bucket", endpoint=server.url), signer_for(1, ""))
        stamp = stamp_of(heads, 1, None, timeout=0.5, stall=0.3)
        outcome, usable = stamp.get(connection, b"a", ETAG, memoryview(bytearray(len(BODY))), 0, None)
    assert (outcome, usable) == (UNUSUAL, False)


def test_a_range_is_there_whatever_the_checksum_of_the_object() -> None:
    more = f"Content-Range: bytes 100-{99 + len(BODY)}/9000\r\n"

    assert list(ask(good("206 Partial Content", crc="1", more=more), begin=100, total=9000)) == [(GOT, True, BODY)]


@pytest.mark.parametrize(
    ("status", "more"),
    [
        ("200 OK", ""),
        ("200 OK", "Content-Range: bytes 100-7779/9000\r\n"),
        ("206 Partial Content", ""),
        ("206 Partial Content", "Content-Range: bytes 0-7679/9000\r\n"),
        ("206 Partial Content", "Content-Range: bytes 1001-8680/9000\r\n"),
        ("206 Partial Content", "Content-Range: bytes -\r\n"),
        ("206 Partial Content", "Content-Range: bytes\r\n"),
        ("206 Partial Content", "Content-Range: pages 100-7779/9000\r\n"),
    ],
)
def test_another_range_is_unusual(status: str, more: str) -> None:
    answers = list(ask(good(status, more=more), begin=100, total=9000))

    assert [(outcome, usable) for outcome, usable, _ in answers] == [(UNUSUAL, False)]


def test_a_range_of_another_version_is_unusual() -> None:
    answer = good("206 Partial Content", etag='"4567"', more="Content-Range: bytes 100-7779/9000\r\n")

    assert [outcome for outcome, _, _ in ask(answer, begin=100, total=9000)] == [UNUSUAL]


def test_a_range_instead_of_the_whole_is_unusual() -> None:
    answer = good("206 Partial Content", more=f"Content-Range: bytes 0-{len(BODY) - 1}/{len(BODY)}\r\n")

    assert [outcome for outcome, _, _ in ask(answer)] == [UNUSUAL]


def test_an_empty_checksum_is_none_of_an_empty_object() -> None:
    def play(server: RawServer, connection: socket.socket) -> None:
        read_request(server, connection)
        connection.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: {ETAG}\r\nx-oss-hash-crc64ecma: \r\n\r\n".encode()
        )

    with raw_server(play) as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        stamp = stamp_of(GetHeads(Location(bucket="bucket", endpoint=server.url), signer_for(1, "")), 1, None)

        assert stamp.get(connection, b"a", ETAG, memoryview(bytearray())) == (UNUSUAL, False)


def test_an_answer_without_a_checksum_is_good() -> None:
    answer = good().replace(b"x-oss-hash", b"x-other")

    assert [outcome for outcome, _, _ in ask(answer)] == [GOT]


def test_a_connection_that_is_closed_after_the_answer_is_not_used_again() -> None:
    assert [(outcome, usable) for outcome, usable, _ in ask(good(more="Connection: close\r\n"))] == [(GOT, False)]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(good(etag='"4567"'), id="another version"),
        pytest.param(good().replace(b"ETag", b"X-Tag"), id="no version"),
        pytest.param(good(crc="1"), id="damaged"),
        pytest.param(good(crc="x"), id="a checksum that is none"),
        pytest.param(good(status="206 Partial Content"), id="a part"),
        pytest.param(good(status="404 Not Found"), id="refused"),
        pytest.param(good().replace(b"7680", b"7679", 1)[:-1], id="shorter"),
        pytest.param(good().replace(b"7680", b"7681", 1) + b"x", id="longer"),
        pytest.param(good()[:-1], id="broken off or late"),
        pytest.param(good().replace(b"HTTP/1.1", b"HTTP/1.0"), id="another protocol"),
    ],
)
def test_everything_else_is_left_to_python(answer: bytes) -> None:
    assert [(outcome, usable) for outcome, usable, _ in ask(answer)] == [(UNUSUAL, False)]


def test_bytes_that_nobody_asked_for_are_no_answer_to_the_next_request() -> None:
    outcomes = [(outcome, usable) for outcome, usable, _ in ask(good() + good(), good())]
    assert outcomes == [(GOT, True), (AGAIN, False)]


def test_a_connection_that_had_ended_can_be_told_from_a_failure() -> None:
    assert [(outcome, usable) for outcome, usable, _ in ask(b"")] == [(AGAIN, False)]
