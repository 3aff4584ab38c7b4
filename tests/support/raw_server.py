"""A TCP server on an ephemeral port whose connections are played by functions: HTTP as it should never be."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Handler = Callable[[socket.socket], None]


@dataclass
class RawServer:
    """`accepted` counts connections; the nth is played by the nth handler, later ones by the last."""

    port: int
    accepted: int = 0
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def raw_server(
    *handlers: Callable[[RawServer, socket.socket], None], tls: ssl.SSLContext | None = None
) -> Iterator[RawServer]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = RawServer(listener.getsockname()[1])
    open_sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def play(handler: Callable[[RawServer, socket.socket], None], connection: socket.socket) -> None:
        with suppress(OSError):
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
                open_sockets.append(connection)
            handler(server, connection)
        with suppress(OSError):
            connection.close()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            handler = handlers[min(server.accepted, len(handlers) - 1)]
            server.accepted += 1
            open_sockets.append(connection)
            thread = threading.Thread(target=play, args=(handler, connection))
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(timeout=10)
        for connection in open_sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(timeout=10)


def read_request(server: RawServer, connection: socket.socket) -> bytes:
    """One request with its body (by Content-Length), b'' when the peer closed; also kept in `server.requests`."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(v) for n, _, v in (h.partition(b":") for h in head.split(b"\r\n")) if n.lower() == b"content-length"), 0
    )
    while len(body) < length:
        more = connection.recv(65536)
        if not more:
            break
        body += more
    request = head + b"\r\n\r\n" + body
    server.requests.append(request)
    return request


def answering(*answers: bytes, then_close: bool = False) -> Callable[[RawServer, socket.socket], None]:
    """Answer requests in order; then close, or read on and never answer."""

    def handler(server: RawServer, connection: socket.socket) -> None:
        for answer in answers:
            if not read_request(server, connection):
                return
            connection.sendall(answer)
        if not then_close:
            while read_request(server, connection):
                pass

    return handler


def closing_after_request(server: RawServer, connection: socket.socket) -> None:
    """Take one request and close without a word."""
    read_request(server, connection)


def ok(body: bytes = b"", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body
