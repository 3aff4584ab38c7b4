"""The libcurl pool against servers that misbehave on the wire."""

import contextlib
import datetime
import gc
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from csi.errors import DeadlineExceeded, EndpointUnreachable
from csi.oss.exchange import HttpRequest
from csi.oss.transport import CurlTransport
from tests.support.raw_server import answering, closing_after_request, ok, raw_server, read_request

BOUNDS = {"timeout": 20.0, "stall": 20.0, "patience": 20.0}


@pytest.fixture
def transport():
    transport = CurlTransport()
    yield transport
    transport.close()


def get(url, target=None):
    return HttpRequest("GET", url, [], target=target)


def test_a_body_lands_in_the_memory_of_the_caller(transport):
    target = memoryview(bytearray(8))
    with raw_server(answering(ok(b"12345", etag='"E"'))) as server:
        answer = transport.send(get(server.url + "/x", target), **BOUNDS)

    assert (answer.status, answer.received, answer.body) == (200, 5, b"")
    assert answer.headers["etag"] == '"E"'
    assert bytes(target) == b"12345\0\0\0"


def test_the_body_of_a_refusal_does_not(transport):
    target = memoryview(bytearray(8))
    refused = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n<Err>"
    with raw_server(answering(refused)) as server:
        answer = transport.send(get(server.url + "/x", target), **BOUNDS)

    assert (answer.status, answer.body, bytes(target)) == (404, b"<Err>", bytes(8))


def test_a_body_longer_than_the_memory_is_cut_off_and_told(transport):
    target = memoryview(bytearray(4))
    with raw_server(answering(ok(b"x" * 100))) as server:
        answer = transport.send(get(server.url + "/x", target), **BOUNDS)

    assert answer.overflow
    assert bytes(target) in (bytes(4), b"xxxx")


def test_only_the_last_of_several_header_blocks_counts(transport):
    early = b"HTTP/1.1 100 Continue\r\nA: early\r\n\r\n"
    with raw_server(answering(early + ok(B="1: HTTP/2 é"))) as server:
        answer = transport.send(HttpRequest("PUT", server.url, [], [b"x"]), **BOUNDS)

    assert (answer.status, dict(answer.headers)) == (200, {"content-length": "0", "b": "1: HTTP/2 é"})


def test_a_connection_is_used_again(transport):
    with raw_server(answering(*[ok(b"a")] * 3)) as server:
        for _ in range(3):
            transport.send(get(server.url + "/x"), **BOUNDS)

        assert server.accepted == 1


def test_a_body_is_sent_from_several_buffers(transport):
    body = [b"one", bytearray(b"two"), b"", memoryview(b"three" * 100_000)]
    with raw_server(answering(ok())) as server:
        transport.send(HttpRequest("PUT", server.url + "/x", [b"A: b"], body), **BOUNDS)

        head, _, sent = server.requests[0].partition(b"\r\n\r\n")

    assert sent == b"onetwo" + b"three" * 100_000
    assert b"Content-Length: 500006" in head
    assert b"Expect:" not in head
    assert b"Content-Type:" not in head


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
def test_every_method_says_what_it_is_after_every_other(transport, method):
    sequence = ["HEAD", "PUT", "GET", "POST", "DELETE", method, "GET"]
    with raw_server(answering(*[ok()] * len(sequence))) as server:
        for each in sequence:
            transport.send(HttpRequest(each, server.url + "/x", []), **BOUNDS)

        methods = [request.split(b" ")[0].decode() for request in server.requests]

    assert methods == sequence
    assert server.accepted == 1


def test_paths_travel_as_they_are(transport):
    with raw_server(answering(ok())) as server:
        transport.send(get(server.url + "/b/a//./../c%2F%3F/.."), **BOUNDS)

        assert server.requests[0].startswith(b"GET /b/a//./../c%2F%3F/.. HTTP/1.1\r\n")


def test_the_environment_has_no_say(transport, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    with raw_server(answering(ok(b"direct"))) as server:
        assert transport.send(get(server.url + "/x"), **BOUNDS).body == b"direct"


def test_a_proxy_that_is_given_is_used():
    with raw_server(answering(ok(b"proxied"))) as server:
        transport = CurlTransport(proxy=server.url)
        answer = transport.send(get("http://bucket.invalid/x"), **BOUNDS)
        transport.close()

        assert answer.body == b"proxied"
        assert server.requests[0].startswith(b"GET http://bucket.invalid/x HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "handler",
    [
        closing_after_request,
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", then_close=True),
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", then_close=True),
        answering(b"garbage\r\n\r\n", then_close=True),
    ],
    ids=["no answer", "no body", "no chunks", "not HTTP"],
)
def test_half_an_answer_is_none(transport, handler):
    with raw_server(handler) as server, pytest.raises(EndpointUnreachable, match=f"127.0.0.1:{server.port}"):
        transport.send(get(server.url + "/x", memoryview(bytearray(200))), **BOUNDS)


@pytest.mark.parametrize(
    "begun",
    [b"Content-Length: 100\r\n\r\nshort", b"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n"],
    ids=["length", "chunks"],
)
def test_a_body_that_breaks_off_is_told_with_what_arrived(transport, begun):
    target = memoryview(bytearray(200))
    with raw_server(answering(b"HTTP/1.1 200 OK\r\n" + begun, then_close=True)) as server:
        answer = transport.send(get(server.url + "/x", target), **BOUNDS)

    assert isinstance(answer.failure, EndpointUnreachable)
    assert bytes(target[: answer.received]) == b"short"


def test_bodies_of_a_kept_connection_come_directly_and_other_requests_in_between(transport):
    """`csi/oss/direct.py`; a connection that goes to and fro between it and libcurl."""
    target = memoryview(bytearray(8))
    with raw_server(answering(*[ok(b"%d" % number) for number in range(6)])) as server:
        found = []
        for number in range(6):
            if number % 3 == 2:
                body = transport.send(HttpRequest("PUT", server.url + "/x", [], [b"x" * 100_000]), **BOUNDS).body
            else:
                answer = transport.send(get(server.url + "/x", target), **BOUNDS)
                body = bytes(target[: answer.received])
            found.append(body)

        assert found == [b"0", b"1", b"2", b"3", b"4", b"5"]
        assert server.accepted == 1


@pytest.mark.parametrize("ends", ["closes", "is not plain"])
def test_a_body_that_did_not_come_directly_is_asked_for_again(transport, ends):
    def first(server, connection):
        for answer in (ok(b"one"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n"):
            read_request(server, connection)
            if answer.endswith(b"one") or ends == "is not plain":
                connection.sendall(answer)

    target = memoryview(bytearray(8))
    with raw_server(first, answering(ok(b"two"), ok(b"three"))) as server:
        bodies = []
        for _ in range(3):
            answer = transport.send(get(server.url + "/x", target), **BOUNDS)
            bodies.append(bytes(target[: answer.received]))

        assert bodies == [b"one", b"two", b"three"]
        assert server.accepted == 2


def test_silence_on_a_kept_connection_ends_in_a_deadline(transport):
    target = memoryview(bytearray(8))
    with raw_server(answering(ok(b"one"))) as server:
        transport.send(get(server.url + "/x", target), **BOUNDS)

        with pytest.raises(DeadlineExceeded, match=f"127.0.0.1:{server.port}"):
            transport.send(get(server.url + "/x", target), timeout=0.3, stall=20.0, patience=20.0)


def test_closing_ends_a_body_that_comes_directly(transport):
    started = threading.Event()
    failures = []

    def hold(server, connection):
        read_request(server, connection)
        connection.sendall(ok(b"one"))
        read_request(server, connection)
        started.set()
        read_request(server, connection)

    def call(url):
        try:
            for _ in range(2):
                transport.send(get(url, memoryview(bytearray(8))), timeout=60.0, stall=60.0, patience=60.0)
        except EndpointUnreachable as error:
            failures.append(error)

    with raw_server(hold) as server:
        thread = threading.Thread(target=call, args=(server.url,))
        thread.start()
        assert started.wait(10)

        transport.close()
        thread.join(10)

        assert "closed" in str(failures[0])
        assert not _connections_to(server.port)


def test_nobody_listening_is_unreachable(transport):
    with raw_server(answering(ok())) as server:
        url = server.url

    with pytest.raises(EndpointUnreachable, match="check the endpoint"):
        transport.send(get(url), **BOUNDS)


def test_an_unknown_name_is_unreachable(transport):
    with pytest.raises(EndpointUnreachable, match="DNS"):
        transport.send(get("http://bucket.invalid/x"), **BOUNDS)


@pytest.mark.parametrize(
    "bounds",
    [
        {"timeout": 0.3, "stall": 20.0, "patience": 20.0},
        {"timeout": 20.0, "stall": 1.0, "patience": 20.0},
        {"timeout": 20.0, "stall": 20.0, "patience": 0.3},
    ],
    ids=["timeout", "stall", "patience"],
)
def test_silence_ends_in_a_deadline(transport, bounds):
    with raw_server(answering()) as server, pytest.raises(DeadlineExceeded):
        transport.send(get(server.url + "/x"), **bounds)


def test_waiting_for_a_connection_ends_in_a_deadline():
    transport = CurlTransport(max_connections=1)
    started = threading.Event()

    def hold(server, connection):
        read_request(server, connection)
        started.set()
        read_request(server, connection)

    def hold_one(url):
        with contextlib.suppress(EndpointUnreachable):
            transport.send(get(url), **BOUNDS)

    with raw_server(hold) as server:
        first = threading.Thread(target=hold_one, args=(server.url,))
        first.start()
        assert started.wait(10)

        with pytest.raises(DeadlineExceeded, match=r"fs\.oss\.max\.connections\.per\.host"):
            transport.send(get(server.url), timeout=20.0, stall=20.0, patience=0.2)

        transport.close()
        first.join(10)
        assert not first.is_alive()


def test_closing_ends_what_is_under_way_and_refuses_what_comes(transport):
    started = threading.Event()
    failures = []

    def hold(server, connection):
        read_request(server, connection)
        started.set()
        read_request(server, connection)

    def call(url):
        try:
            transport.send(get(url), timeout=60.0, stall=60.0, patience=60.0)
        except EndpointUnreachable as error:
            failures.append(error)

    with raw_server(hold) as server:
        thread = threading.Thread(target=call, args=(server.url,))
        thread.start()
        assert started.wait(10)

        transport.close()
        thread.join(10)

        assert "closed" in str(failures[0])
        with pytest.raises(EndpointUnreachable, match="closed"):
            transport.send(get(server.url), **BOUNDS)


def test_closing_leaves_no_descriptor(transport):
    with raw_server(answering(ok())) as server:
        transport.send(get(server.url), **BOUNDS)
        peer = f"127.0.0.1:{server.port}"
        assert _connections_to(server.port), peer

        transport.close()

        assert not _connections_to(server.port)


@pytest.mark.parametrize("body", [[b"payload"], []], ids=["with a body", "empty"])
def test_a_request_to_be_made_once_is_not_repeated_on_a_connection_that_died(transport, body):
    def first_then_close(server, connection):
        read_request(server, connection)
        connection.sendall(ok())
        read_request(server, connection)

    with raw_server(first_then_close, answering(ok())) as server:
        transport.send(get(server.url), **BOUNDS)
        request = HttpRequest("POST", server.url + "/once", [], body, once=True)
        with contextlib.suppress(EndpointUnreachable):
            transport.send(request, **BOUNDS)

        assert sum(b"/once" in seen for seen in server.requests) == 1


def test_a_repeatable_request_survives_a_connection_that_died(transport):
    def first_then_close(server, connection):
        read_request(server, connection)
        connection.sendall(ok())
        read_request(server, connection)

    with raw_server(first_then_close, answering(ok(b"second"))) as server:
        transport.send(get(server.url), **BOUNDS)

        answer = transport.send(HttpRequest("PUT", server.url, [], [b"payload"]), **BOUNDS)

        assert answer.body == b"second"
        assert server.requests[-1].endswith(b"payload")


def test_a_forked_child_has_connections_of_its_own(transport):
    with raw_server(answering(*[ok(b"parent")] * 2), answering(ok(b"child"))) as server:
        transport.send(get(server.url), **BOUNDS)

        child = os.fork()
        if child == 0:
            try:
                answer = transport.send(get(server.url), **BOUNDS)
                os._exit(0 if answer.body == b"child" else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        assert transport.send(get(server.url), **BOUNDS).body == b"parent"
        assert server.accepted == 2


_PARENT = """
import gc, os, signal, sys
from csi.errors import EndpointUnreachable
from csi.oss.exchange import HttpRequest
from csi.oss.transport import CurlTransport

transport = CurlTransport()
try:
    transport.send(HttpRequest("GET", "http://" + "a" * 64 + ".test/", [], []), timeout=5, stall=5, patience=5)
except EndpointUnreachable:
    pass  # no such name; libcurl's thread that looked for it waits for the next one
child = os.fork()
if not child:
    signal.alarm(20)
    {end}
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(
    "end",
    [
        "del transport; os._exit(0)",
        "around = [transport]; around.append(around); del transport, around; gc.collect(); os._exit(0)",
        "sys.exit(0)",
    ],
    ids=["let go", "garbage", "at its end"],
)
def test_a_forked_child_does_not_end_the_connections_of_its_parent(end):
    found = subprocess.run(
        [sys.executable, "-c", _PARENT.format(end=end)], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )

    assert found.stdout.split() == ["0"]


def test_a_connection_ends_with_the_last_who_uses_it():
    with raw_server(answering(ok())) as server:
        used = CurlTransport()
        used.send(get(server.url), **BOUNDS)
        gc.disable()  # it needs no other end
        try:
            before = len(os.listdir("/proc/self/fd"))
            del used
            after = len(os.listdir("/proc/self/fd"))
        finally:
            gc.enable()

        assert after < before


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1: (path of the certificate, server context)."""
    directory = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "oss.test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "cert.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, directory / "key.pem")
    return path, context


def test_tls_is_spoken_with_those_who_are_trusted(certificate):
    path, context = certificate
    transport = CurlTransport(ca_bundle=str(path))
    with raw_server(answering(ok(b"secret"), ok(b"again")), tls=context) as server:
        url = f"https://127.0.0.1:{server.port}/x"
        bodies = [transport.send(get(url), **BOUNDS).body for _ in range(2)]
        transport.close()

    assert bodies == [b"secret", b"again"]
    assert server.accepted == 1


def test_new_connections_resume_the_tls_session_of_an_earlier_one(certificate):
    path, context = certificate
    resumed = []
    both = threading.Barrier(2)

    def alone(server, connection):
        resumed.append(connection.session_reused)
        answering(ok(b"secret"), then_close=True)(server, connection)

    def at_the_same_time(server, connection):
        resumed.append(connection.session_reused)
        both.wait(10)
        answering(ok(b"secret"), then_close=True)(server, connection)

    transport = CurlTransport(ca_bundle=str(path))
    with raw_server(alone, at_the_same_time, tls=context) as server:
        url = f"https://127.0.0.1:{server.port}/x"
        transport.send(get(url), **BOUNDS)
        with ThreadPoolExecutor(2) as pool:
            bodies = [answer.body for answer in pool.map(lambda _: transport.send(get(url), **BOUNDS), range(2))]
        transport.close()

    assert bodies == [b"secret", b"secret"]
    assert resumed == [False, True, True]


def test_small_requests_do_not_wait_for_more_to_send(transport):
    with raw_server(answering(ok(b"x"))) as server:
        transport.send(get(server.url), **BOUNDS)
        ours = [socket.socket(fileno=os.dup(int(number))) for number in _connections_to(server.port)]
        delays = [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in ours]
        for one in ours:
            one.close()

    assert set(delays) == {1}


def test_a_certificate_nobody_trusts_is_refused_for_good(certificate, transport):
    _, context = certificate
    with raw_server(answering(ok(b"secret")), tls=context) as server:
        with pytest.raises(EndpointUnreachable, match="certificate") as failure:
            transport.send(get(f"https://127.0.0.1:{server.port}/x"), **BOUNDS)

    assert failure.value.permanent
    assert server.requests == []


def _connections_to(port):
    """Descriptors of this process that are TCP connections to `port` (as the connecting side)."""
    inodes = set()
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in list(table)[1:]:
            fields = line.split()
            if fields[2].endswith(f":{port:04X}"):
                inodes.add(f"socket:[{fields[9]}]")
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{descriptor}") in inodes:
                found.append(descriptor)
        except FileNotFoundError:
            continue
    return found


def test_a_connection_that_is_not_made_in_time_names_the_option_that_bounds_it():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection, says nothing of TLS
        transport = CurlTransport(connect_timeout=0.2)
        with pytest.raises(DeadlineExceeded) as failure:
            transport.send(get(f"https://127.0.0.1:{silent.getsockname()[1]}/x"), **BOUNDS)
        transport.close()

    assert "(allowed: 0.2 s to connect)" in failure.value.message
    assert failure.value.hint == "check the network to the endpoint, or raise fs.oss.connection.timeout.millisecond"


def test_an_answer_that_does_not_come_in_time_names_no_option_that_the_transport_cannot_know(transport):
    with raw_server(answering()) as server, pytest.raises(DeadlineExceeded) as failure:
        transport.send(get(f"http://127.0.0.1:{server.port}/x"), timeout=0.3, stall=10.0, patience=10.0)

    assert failure.value.hint == ""


def test_plain_http_that_is_asked_in_tls_says_which_scheme_to_write(transport):
    def refuse():
        connection, _ = plain.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as plain:
        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(EndpointUnreachable) as failure:
            transport.send(get(f"https://127.0.0.1:{plain.getsockname()[1]}/x"), **BOUNDS)
        thread.join()

    assert "write http:// before it" in failure.value.hint
