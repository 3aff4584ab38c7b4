"""AppendObject, exactly once.

OSS refuses an append that is not at the end, so repeating a request whose answer was lost can never append twice; what
remains is to tell our own bytes from another writer's. That is read back from the object itself: its bytes at our
position either are ours or they are not.
"""

from __future__ import annotations

from collections.abc import Sequence

from csi.errors import AppendConflict, RangeNotSatisfiable
from csi.oss import reading
from csi.oss.answers import crc64_in
from csi.oss.checksum import EMPTY, crc64_of, update
from csi.oss.requests import Call, body_headers, write_headers
from csi.oss.session import Session, Trace
from csi.oss.store import AppendResult, Buffer
from csi.volume.units import MIB, ETag, ObjectKey

_PIECE = 1 * MIB


def append(session: Session, key: ObjectKey, position: int, body: Sequence[Buffer], content_type: str) -> AppendResult:
    """See `ObjectStore.append`."""
    query = [("append", ""), ("position", str(position))]
    headers = write_headers(session.write, content_type=content_type) | body_headers(session.write, body)
    call = Call("AppendObject", "POST", key, query=query, headers=headers, body=body, once=True)
    trace = Trace()
    try:
        answer = session.call(call, trace=trace)
    except AppendConflict as conflict:
        if not trace.lost or conflict.code != "PositionNotEqualToLength":
            raise
        result = _ours(session, key, position, body)
        if result is None:
            raise
        return result
    told = answer.headers.get("x-oss-next-append-position", "")
    return AppendResult(
        int(told) if told.isdigit() else position + call.body_size,
        ETag(answer.headers.get("etag", "")),
        crc64_in(answer.headers),
    )


def _ours(session: Session, key: ObjectKey, position: int, body: Sequence[Buffer]) -> AppendResult | None:
    """The result of the append whose answer was lost, None if the bytes at `position` are not `body`."""
    size = sum(memoryview(part).nbytes for part in body)
    metadata = reading.head(session, key)
    if metadata.size < position + size:
        return None
    crc = EMPTY
    scratch = memoryview(bytearray(min(size, _PIECE)))
    for offset in range(0, size, _PIECE):
        piece = scratch[: min(_PIECE, size - offset)]
        try:
            reading.read_into(session, key, position + offset, piece, None)
        except RangeNotSatisfiable:  # replaced by a shorter object meanwhile
            return None
        crc = update(crc, piece)
    if crc != crc64_of(body):
        return None
    whole = metadata.crc64 if metadata.size == position + size else None
    return AppendResult(position + size, metadata.etag, whole)
