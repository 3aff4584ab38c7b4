"""A gRPC call written out as HTTP/2 frames, for what no client library would send: an authority of one's own choice."""

from __future__ import annotations

import socket
from pathlib import Path

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_EMPTY_MESSAGE = b"\0\0\0\0\0"


def call_with_authority(path: Path, method: str, authority: str) -> bytes:
    """What the server sends in answer to `method` with an empty message, up to its grpc-status (or its good-bye)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    headers = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, headers)
            + _frame(_DATA, _END_STREAM, 1, _EMPTY_MESSAGE)
        )
        answer = b""
        while b"grpc-status" not in answer and (more := connection.recv(4096)):
            answer += more
        return answer


def _text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
