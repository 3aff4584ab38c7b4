"""A proxy in front of an OSS server for who only reads: it answers in chunks, without Content-Length."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

_CHUNK = 1000


@dataclass
class ChunkingProxy:
    """`cuts`: the next bodies of GETs that break off in the middle, `losses`: those that lose their second half before
    they come to a proper end. `gets` counts GETs."""

    port: int
    cuts: int = 0
    losses: int = 0
    gets: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def chunking_proxy(endpoint: str) -> Iterator[ChunkingProxy]:
    """In front of the http://host:port `endpoint`."""
    address = urlsplit(endpoint).netloc

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            connection = http.client.HTTPConnection(address, timeout=60)
            try:
                connection.request(self.command, self.path, None, dict(self.headers))
                answer = connection.getresponse()
                body = answer.read()
            finally:
                connection.close()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if self.command != "HEAD":
                self.pass_on(body)

        def pass_on(self, body: bytes) -> None:
            is_cut = proxy.cuts > 0
            is_lossy = not is_cut and proxy.losses > 0
            half = body[: len(body) // 2] if is_cut or is_lossy else body
            proxy.gets += 1
            proxy.cuts -= is_cut
            proxy.losses -= is_lossy
            for start in range(0, len(half), _CHUNK):
                piece = half[start : start + _CHUNK]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if is_cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_HEAD = forward  # noqa: N815 - names of http.server

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True  # a connection that is kept is waited on
    proxy = ChunkingProxy(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
