"""A request body into storage: hashed and written on a worker thread while the next bytes arrive, memory bounded.

Checks the length announced, Content-MD5 and the size limit. A body that does not arrive whole leaves nothing. It must
not know what the body is for.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Sequence

from csi.emulator.store.bodies import BodyWriter, Written
from csi.emulator.store.storage import Storage
from csi.emulator.wire.call import Call
from csi.emulator.wire.left import LeftBody
from csi.emulator.wire.refusals import Refusal, entity_too_large

MAX_PUT = 5 << 30
"""PutObject, UploadPart and AppendObject: 5 GiB (API reference, limits)."""
MD5_FROM = 1 << 20
"""From this size on, a body that was left as a file gets no MD5 unless the client announced one."""
MAX_DOCUMENT = 4 << 20
_BATCH = 256 << 10


async def receive_body(call: Call, storage: Storage, *, keep_in_memory: int = -1, limit: int = MAX_PUT) -> Written:
    """Read the whole body; the caller owns the file in the result."""
    _check_length(call, limit)
    expected_md5 = _announced_md5(call)
    if isinstance(call.body, LeftBody) and call.body.length > max(keep_in_memory, 0):
        with_md5 = expected_md5 is not None or call.body.length < MD5_FROM
        written = await storage.on_thread(storage.bodies.adopt, call.body.path, with_md5=with_md5)
        return _checked(call, storage, written, expected_md5)
    writer = BodyWriter(storage.bodies, keep_in_memory)
    under_way: asyncio.Future[None] | None = None
    loop = asyncio.get_running_loop()
    received = 0
    try:
        batch: list[bytes] = []
        held = 0
        while data := await call.body.read():
            received += len(data)
            _check_size(received, limit)
            batch.append(data)
            held += len(data)
            if held >= _BATCH:
                if under_way is not None:
                    await under_way
                under_way = loop.run_in_executor(storage.threads, _write_all, writer, batch)
                batch, held = [], 0
        if under_way is not None:
            await under_way
        _write_all(writer, batch)
        written = writer.finish()
    except BaseException:
        await _settle(under_way)
        writer.discard()
        raise
    return _checked(call, storage, written, expected_md5)


def _checked(call: Call, storage: Storage, written: Written, expected_md5: bytes | None) -> Written:
    try:
        _check_received(call, written, expected_md5)
    except Refusal:
        discard(storage, written)
        raise
    return written


def discard(storage: Storage, written: Written) -> None:
    if written.file:
        storage.remove_files([written.file])


async def receive_document(call: Call) -> bytes:
    """A small body (XML, JSON, a form) in memory, at most 4 MiB."""
    _check_length(call, MAX_DOCUMENT, required=False)
    expected_md5 = _announced_md5(call)
    pieces: list[bytes] = []
    size = 0
    while data := await call.body.read():
        size += len(data)
        _check_size(size, MAX_DOCUMENT)
        pieces.append(data)
    body = b"".join(pieces)
    if expected_md5 not in (None, hashlib.md5(body, usedforsecurity=False).digest()):
        raise _invalid_digest(call)
    return body


def _check_length(call: Call, limit: int, *, required: bool = True) -> None:
    length = call.body.length
    if length is None:
        if required and "chunked" not in call.header("Transfer-Encoding").lower():
            raise Refusal(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        return
    _check_size(length, limit)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise entity_too_large(limit, size)


def _announced_md5(call: Call) -> bytes | None:
    header = call.header("Content-MD5")
    if not header:
        return None
    try:
        digest = base64.b64decode(header, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) < 16 or digest[16:].strip(b"\x00"):  # JindoSDK pads the digest of DeleteMultipleObjects with zeros
        raise _invalid_digest(call)
    return digest[:16]


def _check_received(call: Call, written: Written, expected_md5: bytes | None) -> None:
    length = call.body.length
    if length is not None and length != written.size:
        raise Refusal(400, "IncompleteBody", "The request body terminated unexpectedly.")
    if expected_md5 is not None and expected_md5 != written.md5:
        raise _invalid_digest(call)


def _invalid_digest(call: Call) -> Refusal:
    return Refusal(
        400,
        "InvalidDigest",
        "The Content-MD5 you specified was invalid.",
        fields={"Content-MD5": call.header("Content-MD5")},
    )


def _write_all(writer: BodyWriter, batch: Sequence[bytes]) -> None:
    for data in batch:
        writer.write(data)


async def _settle(under_way: asyncio.Future[None] | None) -> None:
    """Wait for the worker thread to let go of the writer, whatever became of its work."""
    if under_way is not None:
        await asyncio.wait([under_way])
