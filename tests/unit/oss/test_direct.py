"""A GET spoken past libcurl: what is understood, what is left to libcurl, and that nothing waits for ever."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from csi.errors import DeadlineExceeded, EndpointUnreachable
from csi.oss import speaking
from csi.oss.checksum import crc64_of
from csi.oss.direct import DirectLine, endpoint_of
from csi.oss.exchange import HttpAnswer, HttpRequest
from csi.oss.speaking import Speak
from csi.volume.units import Seconds

ENDPOINT = "http://oss.test:81"


class Line:
    """A DirectLine and the server at its other end."""

    def __init__(self, speak: Speak) -> None:
        self.server, ours = socket.socketpair()
        self.server.settimeout(20)
        ours.setblocking(False)  # as libcurl has it
        self.ours = ours
        self.direct = DirectLine(ours.fileno(), ENDPOINT, "agent/1", speak=speak)
        self.target = memoryview(bytearray(8))

    def get(
        self, *answer: bytes, has_target: bool = True, timeout: float = 20.0, stall: float = 20.0
    ) -> HttpAnswer | None:
        """One GET, for which the server sends the pieces of `answer` one after another once it was asked."""

        pause = threading.Event()

        def serve() -> None:
            self.server.recv(65536)
            for piece in answer:
                if piece == b"EOF":
                    self.server.shutdown(socket.SHUT_WR)
                elif piece == b"WAIT":
                    pause.wait(0.05)
                else:
                    with contextlib.suppress(BrokenPipeError):  # given up
                        self.server.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            request = HttpRequest("GET", ENDPOINT + "/b/a?x", (), target=self.target if has_target else None)
            return self.direct.exchange(request, Seconds(timeout), Seconds(stall))
        finally:
            thread.join(20)

    @property
    def usable(self) -> bool:
        return self.direct.leads_to(ENDPOINT + "/")


SPEAKERS: dict[str, Speak] = {"Python": speaking.speak}
with contextlib.suppress(ImportError):
    from csi.oss import wire

    SPEAKERS["C"] = wire.speak


@pytest.fixture(params=list(SPEAKERS))
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    made = Line(SPEAKERS[request.param])
    yield made
    made.direct.close()
    made.server.close()
    made.ours.close()


def head(status: str = "200 OK", **fields: object) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode()


def test_the_request_is_what_libcurl_would_send(line: Line) -> None:
    seen: list[bytes] = []

    def serve() -> None:
        seen.append(line.server.recv(65536))
        line.server.sendall(head(Content_Length=0))

    thread = threading.Thread(target=serve)
    thread.start()
    request = HttpRequest("GET", ENDPOINT + "/b/a//../%2F?x=1", [b"Range: bytes=0-1", b"empty;"], target=line.target)
    line.direct.exchange(request, Seconds(20.0), Seconds(20.0))
    thread.join(20)

    lines = [b"GET /b/a//../%2F?x=1 HTTP/1.1", b"Host: oss.test:81", b"User-Agent: agent/1"]
    assert seen == [b"\r\n".join([*lines, b"Range: bytes=0-1", b"empty:", b"", b""])]


@pytest.mark.parametrize(
    "pieces",
    [
        [head(Content_Length=5, ETag='"E"') + b"12345"],
        [head(Content_Length=5, ETag='"E"'), b"12", b"345"],
        [bytes([byte]) for byte in head(Content_Length=5, ETag='"E"') + b"12345"],
    ],
    ids=["at once", "head first", "byte by byte"],
)
def test_an_answer_is_the_same_however_it_comes(line: Line, pieces: list[bytes]) -> None:
    answer = line.get(*pieces)

    assert answer == HttpAnswer(200, {"content-length": "5", "etag": '"E"'}, received=5)
    assert bytes(line.target) == b"12345\0\0\0"
    assert line.usable


def test_one_answer_follows_another(line: Line) -> None:
    for number in range(3):
        answer = line.get(head("206 Partial Content", Content_Length=1) + b"%d" % number)
        assert (answer is not None and answer.status, bytes(line.target[:1])) == (206, b"%d" % number)


def test_a_refusal_is_told_with_its_body_and_leaves_the_memory_alone(line: Line) -> None:
    answer = line.get(head("404 Not Found", Content_Length=20) + b"<Code>NoSuchKey</>..")

    assert answer is not None
    assert (answer.status, answer.body, answer.received) == (404, b"<Code>NoSuchKey</>..", 0)
    assert bytes(line.target) == bytes(8)
    assert line.usable


def test_a_body_longer_than_the_memory_is_told_and_not_read(line: Line) -> None:
    answer = line.get(head(Content_Length=9) + b"123456789")

    assert answer is not None
    assert answer.overflow
    assert not line.usable


@pytest.mark.parametrize(
    "answer",
    [
        head(Transfer_Encoding="chunked") + b"0\r\n\r\n",
        head(),
        head(Content_Length="-1"),
        head("204 No Content"),
        head("304 Not Modified", Content_Length=3),
        head("100 Continue") + head(Content_Length=0),
        head("503 Busy", Content_Length=2 << 20),
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"garbage\r\n\r\n",
        b"x" * (16 << 10),
        head(Content_Length=1) + b"xx",
    ],
    ids=[
        "chunks",
        "none",
        "negative",
        "no content",
        "not modified",
        "continue",
        "huge",
        "1.0",
        "garbage",
        "endless",
        "more",
    ],
)
def test_what_is_not_plain_is_left_to_libcurl(line: Line, answer: bytes) -> None:
    assert line.get(answer) is None
    assert not line.direct.understood
    assert not line.usable


@pytest.mark.parametrize("pieces", [[b"EOF"], [b"HTTP/1.1 2", b"EOF"]], ids=["nothing", "half a head"])
def test_a_connection_that_ends_before_the_body_is_left_to_libcurl(line: Line, pieces: list[bytes]) -> None:
    assert line.get(*pieces) is None
    assert line.direct.understood
    assert not line.usable


def test_a_connection_that_was_closed_while_idle_is_left_to_libcurl(line: Line) -> None:
    line.server.close()
    request = HttpRequest("GET", ENDPOINT + "/x", (), target=line.target)

    assert line.direct.exchange(request, Seconds(20.0), Seconds(20.0)) is None


def test_a_body_that_breaks_off_is_told_with_what_came(line: Line) -> None:
    answer = line.get(head(Content_Length=8) + b"123", b"EOF")

    assert answer is not None
    assert isinstance(answer.failure, EndpointUnreachable)
    assert (answer.received, bytes(line.target[:3])) == (3, b"123")
    assert not line.usable


def test_a_refusal_that_breaks_off_is_unreachable(line: Line) -> None:
    with pytest.raises(EndpointUnreachable, match=ENDPOINT):
        line.get(head("403 Forbidden", Content_Length=8) + b"123", b"EOF")


@pytest.mark.parametrize("bounds", [(0.2, 20.0), (20.0, 0.2)], ids=["timeout", "stall"])
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200", head(Content_Length=8)], ids=["nothing", "half", "head"])
def test_silence_ends_in_a_deadline(line: Line, bounds: tuple[float, float], begun: bytes) -> None:
    with pytest.raises(DeadlineExceeded, match=ENDPOINT):
        line.get(*([begun] if begun else []), timeout=bounds[0], stall=bounds[1])
    assert not line.usable


def test_a_head_that_drips_in_ends_in_a_deadline(line: Line) -> None:
    with pytest.raises(DeadlineExceeded, match=ENDPOINT):
        line.get(*[piece for letter in head(Content_Length=8) for piece in (bytes([letter]), b"WAIT")], timeout=0.3)
    assert not line.usable


def test_chunks_that_drip_in_end_in_a_deadline(line: Line) -> None:
    chunks = [piece for letter in b"1;" + b"x" * 60 for piece in (bytes([letter]), b"WAIT")]
    with pytest.raises(DeadlineExceeded, match=ENDPOINT):
        line.get(head(Transfer_Encoding="chunked"), *chunks, has_target=False, timeout=0.3)
    assert not line.usable


def test_silence_in_a_body_is_told_with_what_came(line: Line) -> None:
    answer = line.get(head(Content_Length=8) + b"123", stall=0.2)

    assert answer is not None
    assert isinstance(answer.failure, DeadlineExceeded)
    assert answer.received == 3


def test_a_body_that_keeps_coming_may_take_longer_than_a_stall() -> None:
    """With a clock of its own: each look finds a byte more, and only the timeout ends it."""
    now = 0.0
    server, ours = socket.socketpair()
    speak = partial(speaking.speak, monotonic=lambda: now)
    direct = DirectLine(ours.fileno(), ENDPOINT, "agent/1", speak=speak)

    class Slow:
        """The socket of the line: a receive takes a second and brings a byte."""

        def __init__(self, real: socket.socket) -> None:
            self.real = real

        def recv_into(self, target: memoryview, size: int, flags: int) -> int:
            nonlocal now
            if not flags:
                server.sendall(head(Content_Length=8))
                return self.real.recv_into(target, size)
            now += 1
            target[:1] = b"x"
            return 1

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

    direct._socket = Slow(direct._socket)  # type: ignore[assignment]
    target = memoryview(bytearray(8))
    answer = direct.exchange(HttpRequest("GET", ENDPOINT + "/", (), target=target), Seconds(20.0), Seconds(1.5))

    assert answer is not None
    assert (answer.failure, bytes(target)) == (None, b"x" * 8)
    direct.close()
    server.close()
    ours.close()


def test_a_connection_that_the_server_will_close_is_not_used_again(line: Line) -> None:
    answer = line.get(head(Content_Length=1, Connection="close") + b"x")

    assert answer is not None
    assert (answer.status, line.usable) == (200, False)


def test_libcurl_gets_the_descriptor_back_as_it_was(line: Line) -> None:
    line.get(head(Content_Length=1) + b"x")
    line.direct.release()

    with pytest.raises(BlockingIOError):
        line.ours.recv(1)


@pytest.mark.parametrize(
    ("url", "leads"),
    [
        (ENDPOINT + "/b/a", True),
        (ENDPOINT + "1/b/a", False),
        (ENDPOINT, False),
        ("http://oss.test/b/a", False),
        ("https://oss.test:81/b/a", False),
    ],
)
def test_a_line_leads_to_its_endpoint_only(line: Line, url: str, leads: bool) -> None:
    assert line.direct.leads_to(url) == leads


def test_only_plain_http_has_an_endpoint() -> None:
    assert endpoint_of("http://a:1/b?c/d") == "http://a:1"
    assert endpoint_of("https://a/b") == ""


# --- answers without a target ---


def in_chunks(body: bytes, size: int = 3000, end: bytes = b"0\r\n\r\n", status: str = "200 OK") -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return head(status, Transfer_Encoding="Chunked") + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + end


@pytest.mark.parametrize("size", [0, 1, 5_000, 100_000])
@pytest.mark.parametrize("coding", ["length", "chunks"])
@pytest.mark.parametrize("pieces", [1, 2, 50])
def test_a_body_without_a_target_is_told_whatever_its_length(line: Line, size: int, coding: str, pieces: int) -> None:
    body = bytes(index % 251 for index in range(size))
    whole = head(Content_Length=size) + body if coding == "length" else in_chunks(body)
    each = -(-len(whole) // pieces)
    for _ in range(2):
        answer = line.get(*(whole[at : at + each] for at in range(0, len(whole), each)), has_target=False)

        assert answer is not None
        assert (answer.status, answer.body, answer.received, answer.overflow) == (200, body, 0, False)
        assert line.usable


def test_a_refusal_in_chunks_is_told_with_its_body_and_leaves_the_memory_alone(line: Line) -> None:
    answer = line.get(in_chunks(b"<Code>SlowDown</Code>", 4, status="503 Slow Down"))

    assert answer is not None
    assert (answer.status, answer.body, answer.received) == (503, b"<Code>SlowDown</Code>", 0)
    assert bytes(line.target) == bytes(8)
    assert line.usable


def test_an_answer_in_chunks_after_which_the_server_closes_is_told(line: Line) -> None:
    whole = in_chunks(b"body").replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    answer = line.get(whole, has_target=False)

    assert answer is not None
    assert (answer.body, line.usable) == (b"body", False)


@pytest.mark.parametrize(
    "answer",
    [
        in_chunks(b"body", end=b"0\r\nExpires: 0\r\n\r\n"),
        in_chunks(b"body", end=b"-1\r\n\r\n"),
        in_chunks(b"body", end=b"0x1\r\nx\r\n0\r\n\r\n"),
        in_chunks(b"body", end=b"1\r\nxx\r\n0\r\n\r\n"),
        in_chunks(b"body", end=b"0\r\n\r\nHTTP/1.1"),
        in_chunks(b"body", end=b"0" * 2000),
        in_chunks(b"", end=b"fffffff\r\nx"),
        head(Transfer_Encoding="gzip, chunked") + b"0\r\n\r\n",
        head(Transfer_Encoding="chunked", Content_Length=5) + b"0\r\n\r\n",
        head(Content_Length=17 << 20),
        head("503 Busy", Content_Length=2 << 20),
        head(),
    ],
    ids=[
        "trailer",
        "negative",
        "0x",
        "longer than it says",
        "more",
        "no size",
        "huge chunk",
        "gzip",
        "both",
        "huge",
        "huge refusal",
        "none",
    ],
)
def test_what_is_no_plain_body_is_left_to_libcurl(line: Line, answer: bytes) -> None:
    assert line.get(answer, has_target=False) is None
    assert not line.direct.understood
    assert not line.usable


@pytest.mark.parametrize(
    "begun", [head(Content_Length=8) + b"123", in_chunks(b"12345", end=b"8\r\n123"), in_chunks(b"12345", end=b"")]
)
def test_a_body_without_a_target_is_all_or_nothing(line: Line, begun: bytes) -> None:
    with pytest.raises(EndpointUnreachable, match=ENDPOINT):
        line.get(begun, b"EOF", has_target=False)
    assert not line.usable


@pytest.mark.parametrize("begun", [head(Content_Length=8) + b"123", in_chunks(b"12345", end=b"8\r\n123")])
def test_silence_in_a_body_without_a_target_ends_in_a_deadline(line: Line, begun: bytes) -> None:
    with pytest.raises(DeadlineExceeded, match=ENDPOINT):
        line.get(begun, has_target=False, stall=0.2)
    assert not line.usable


@pytest.mark.parametrize("status", ["200 OK", "503 Busy"])
def test_a_body_that_keeps_coming_has_no_more_than_the_timeout_all_in_all(line: Line, status: str) -> None:
    """A byte every 0.15 s of six, after a head that took 0.6 s: neither 0.9 s alone is more than is allowed."""
    slow = [b"WAIT"] * 12 + [head(status, Content_Length=6)] + [b"WAIT", b"WAIT", b"WAIT", b"x"] * 6

    with pytest.raises(DeadlineExceeded, match=ENDPOINT):
        line.get(*slow, has_target=False, timeout=1.0)
    assert not line.usable


@pytest.mark.parametrize("stray", [head(Content_Length=0), b""], ids=["bytes that nobody asked for", "closed"])
def test_a_connection_out_of_step_is_left_to_libcurl(line: Line, stray: bytes) -> None:
    """What lies there would be taken for the answer to the next request."""
    assert line.get(head(Content_Length=8) + b"12345678") is not None
    line.server.sendall(stray)
    if not stray:
        line.server.shutdown(socket.SHUT_WR)

    assert (
        line.direct.exchange(HttpRequest("GET", ENDPOINT + "/", (), target=line.target), *[Seconds(20.0)] * 2) is None
    )
    assert not line.usable


# --- uploads ---


class Received:
    """What a server at the other end of a line got, up to the end of the body; then it sends `answer`."""

    def __init__(self, line: Line, body: int, *answer: bytes) -> None:
        self.data = b""
        self._line, self._body, self._answer = line, body, answer
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Received:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)

    def _serve(self) -> None:
        while self.data.partition(b"\r\n\r\n")[2][: self._body] != b"x" * self._body or b"\r\n\r\n" not in self.data:
            piece = self._line.server.recv(65536)
            if not piece:
                return
            self.data += piece
        for piece in self._answer:
            self._line.server.sendall(piece)


def put(size: int, **options: Any) -> HttpRequest:
    return HttpRequest("PUT", ENDPOINT + "/b/a", [b"Content-Type: text/plain"], body=[b"x" * size, b""], **options)


@pytest.mark.parametrize("size", [1, 3_000_000])
def test_a_body_goes_up_after_its_head_and_the_line_is_used_again(line: Line, size: int) -> None:
    for number in range(2):
        with Received(line, size, head(Content_Length=0, ETag=f'"{number}"')) as received:
            answer = line.direct.upload(put(size), Seconds(20), Seconds(20))
        assert answer is not None and (answer.status, answer.headers["etag"]) == (200, f'"{number}"')
        sent, _, body = received.data.partition(b"\r\n\r\n")
        assert sent.startswith(b"PUT /b/a HTTP/1.1\r\nHost: oss.test:81\r\n")
        assert b"Content-Length: %d" % size in sent.split(b"\r\n")
        assert body == b"x" * size
        assert line.usable


@pytest.mark.parametrize("summed", [True, False])
def test_the_checksum_of_a_body_is_known_when_it_is_sent_if_it_is_wanted(line: Line, summed: bool) -> None:
    body = [b"x" * 700_000, b"", b"x" * 300_001]
    request = HttpRequest("PUT", ENDPOINT + "/b/a", [], body=body, summed=summed)
    with Received(line, 1_000_001, head(Content_Length=0)):
        answer = line.direct.upload(request, Seconds(20), Seconds(20))
    assert answer is not None
    assert answer.sent_crc64 == (crc64_of(body) if summed else None)


def test_a_refused_upload_is_answered_with_what_the_server_says(line: Line) -> None:
    with Received(line, 10, head("403 Forbidden", Content_Length=4) + b"no!!"):
        answer = line.direct.upload(put(10), Seconds(20), Seconds(20))
    assert answer is not None and (answer.status, answer.body) == (403, b"no!!")
    assert line.usable


def test_an_upload_on_a_connection_that_was_closed_is_left_to_libcurl(line: Line) -> None:
    line.server.close()
    assert line.direct.upload(put(3_000_000), Seconds(20), Seconds(20)) is None
    assert not line.usable


def test_an_upload_on_a_connection_out_of_step_is_left_to_libcurl(line: Line) -> None:
    line.server.sendall(head(Content_Length=0))
    assert line.direct.upload(put(10), Seconds(20), Seconds(20)) is None
    assert not line.usable


def test_an_upload_whose_answer_never_begins_is_left_to_libcurl(line: Line) -> None:
    def serve() -> None:
        line.server.recv(65536)
        line.server.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=serve)
    thread.start()
    assert line.direct.upload(put(10), Seconds(20), Seconds(20)) is None
    thread.join(20)
    assert not line.usable


def test_a_server_that_reads_nothing_is_given_up(line: Line) -> None:
    with pytest.raises(DeadlineExceeded):
        line.direct.upload(put(30_000_000), Seconds(20), Seconds(0.2))
    assert not line.usable


def test_a_short_answer_to_an_upload_is_understood(line: Line) -> None:
    with Received(line, 10, head(Content_Length=5) + b"<xml>"):
        answer = line.direct.upload(put(10), Seconds(20), Seconds(20))
    assert answer is not None and (answer.body, answer.received) == (b"<xml>", 0)
    assert line.usable


@pytest.mark.parametrize("coding", ["length", "chunks"])
def test_a_long_answer_to_an_upload_is_understood(line: Line, coding: str) -> None:
    said = b"<a/>" * 25_000
    whole = head(Content_Length=len(said)) + said if coding == "length" else in_chunks(said)
    with Received(line, 10, whole):
        answer = line.direct.upload(put(10), Seconds(20), Seconds(20))
    assert answer is not None and (answer.status, answer.body) == (200, said)
    assert line.usable
