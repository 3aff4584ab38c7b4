"""An answer onto the wire: small bodies in one write, large ones by sendfile, faults carried out byte by byte.

It must not know operations. The files of an answer are pinned by the caller until `send` returns.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence

from aiohttp import web

from csi.emulator.control.faults import Plan
from csi.emulator.control.traffic import Entry
from csi.emulator.store.bodies import Bodies, Piece
from csi.emulator.wire.answers import Answer
from csi.emulator.wire.pacing import Pace

_IN_ONE_WRITE = 256 << 10
_PACED_CHUNK = 16 << 10
_FAULTY_CHUNK = 64 << 10


class ConnectionEnded(ConnectionError):
    """A fault ended the connection on purpose."""


async def send(
    request: web.BaseRequest, answer: Answer, plan: Plan, bodies: Bodies, entry: Entry, sent: Callable[[], None]
) -> web.StreamResponse:
    """Send `answer` under the faults of `plan`; raises ConnectionEnded when one of them ended the connection. `sent` is
    called before the last bytes are written, where that is known: the client may have them before this goes on."""
    if plan.any("drop_answer"):
        entry.outcome = "reset"
        reset(request)
    if plan.any("wrong_crc64") and "x-oss-hash-crc64ecma" in answer.headers:
        answer.headers["x-oss-hash-crc64ecma"] = str(int(answer.headers["x-oss-hash-crc64ecma"]) ^ 1)
    length = answer.content_length
    if request.method != "HEAD" and not plan.rules and length <= _IN_ONE_WRITE:
        body = answer.body + b"".join(_read(bodies, piece) for piece in answer.pieces)
        response = web.Response(status=answer.status, headers=answer.headers, body=body)
        sent()
        await response.prepare(request)
        await response.write_eof()
        entry.bytes_out += len(body)
        return response
    stream = web.StreamResponse(status=answer.status, headers=answer.headers)
    if answer.status not in (204, 304):
        stream.content_length = length
    if request.method == "HEAD" or answer.status in (204, 304):
        sent()
        await stream.prepare(request)
        await stream.write_eof()
        return stream
    writer = await stream.prepare(request)
    if writer is not None:
        writer.send_headers()  # sendfile below goes past aiohttp's buffer
    if plan.rules:
        await _send_faulty(request, stream, answer, plan, bodies, entry, sent)
    else:
        if answer.body:
            await stream.write(answer.body)
            entry.bytes_out += len(answer.body)
        for piece in answer.pieces:
            await _sendfile(request, bodies, piece)
            entry.bytes_out += piece.count
    await stream.write_eof()
    return stream


def reset(request: web.BaseRequest) -> None:
    """End the connection with RST; raises ConnectionEnded."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    raise ConnectionEnded("connection reset by a fault rule")


async def _sendfile(request: web.BaseRequest, bodies: Bodies, piece: Piece) -> None:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client went away")
    with open(bodies.path(piece.file), "rb", buffering=0) as source:
        await asyncio.get_running_loop().sendfile(transport, source, piece.offset, piece.count)


async def _send_faulty(
    request: web.BaseRequest,
    stream: web.StreamResponse,
    answer: Answer,
    plan: Plan,
    bodies: Bodies,
    entry: Entry,
    sent: Callable[[], None],
) -> None:
    flip = plan.any("corrupt_body")
    limits = {"reset": plan.reset_after, "truncated": plan.truncate_after}
    outcome, stop = min(
        ((name, limit) for name, limit in limits.items() if limit >= 0), key=lambda found: found[1], default=("", -1)
    )
    total = answer.content_length
    ends_early = 0 <= stop < max(total, 1)
    rest = stop if ends_early else total
    pace = Pace(plan.bandwidth)
    for chunk in _chunks(answer.body, bodies, answer.pieces, _PACED_CHUNK if plan.bandwidth else _FAULTY_CHUNK):
        data = chunk[:rest]
        if not data:
            break
        if flip:
            data, flip = bytes([data[0] ^ 0xFF]) + data[1:], False
        rest -= len(data)
        if not rest:
            sent()
        await stream.write(data)
        entry.bytes_out += len(data)
        await pace.spend(len(data))
    if ends_early:
        entry.outcome = outcome
        await _flush(request)
        if outcome == "reset":
            reset(request)
        if request.transport is not None:
            request.transport.close()
        raise ConnectionEnded("connection closed by a fault rule")


async def _flush(request: web.BaseRequest) -> None:
    """Give the kernel what was written so far, so that the peer sees exactly that much before the end."""
    transport = request.transport
    deadline = asyncio.get_running_loop().time() + 5
    while transport is not None and not transport.is_closing():
        if not transport.get_write_buffer_size() or asyncio.get_running_loop().time() > deadline:
            return
        await asyncio.sleep(0.001)


def _chunks(body: bytes, bodies: Bodies, pieces: Sequence[Piece], size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]
    for piece in pieces:
        for start in range(piece.offset, piece.offset + piece.count, size):
            yield _read(bodies, Piece(piece.file, start, min(size, piece.offset + piece.count - start)))


def _read(bodies: Bodies, piece: Piece) -> bytes:
    descriptor = os.open(bodies.path(piece.file), os.O_RDONLY)
    try:
        data = os.pread(descriptor, piece.count, piece.offset)
    finally:
        os.close(descriptor)
    if len(data) != piece.count:
        raise OSError(f"body {piece.file} has {len(data)} bytes at {piece.offset}, expected {piece.count}")
    return data
