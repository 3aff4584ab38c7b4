"""What an operation answers, before anything is sent: status, headers, and a body in memory or in body files.

It must not know sockets or faults.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import formatdate

from csi.emulator.store.bodies import Piece
from csi.emulator.wire.call import Call
from csi.emulator.wire.documents import Node, document
from csi.emulator.wire.refusals import Refusal


@dataclass(slots=True)
class Answer:
    """`pieces` are sent after `body`; `length` overrides Content-Length for HEAD; `code` is the OSS error code."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces: Sequence[Piece] = ()
    length: int | None = None
    code: str = ""

    @property
    def content_length(self) -> int:
        if self.length is not None:
            return self.length
        return len(self.body) + sum(piece.count for piece in self.pieces)


def xml_answer(root: str, children: Sequence[Node], headers: dict[str, str] | None = None) -> Answer:
    return Answer(200, {"Content-Type": "application/xml", **(headers or {})}, document(root, children))


def refusal_answer(refusal: Refusal, call: Call) -> Answer:
    """The error XML; for HEAD it travels in the header x-oss-err, as there is no body."""
    if refusal.status == 304:
        return Answer(304, dict(refusal.headers), code=refusal.code)
    children: list[Node] = [
        ("Code", refusal.code),
        ("Message", refusal.message),
        ("RequestId", call.request_id),
        ("HostId", call.host),
        *refusal.fields.items(),
    ]
    body = document("Error", children)
    headers = {"Content-Type": "application/xml", **refusal.headers}
    if call.method == "HEAD":
        headers["x-oss-err"] = base64.b64encode(body).decode()
        return Answer(refusal.status, headers, length=0, code=refusal.code)
    return Answer(refusal.status, headers, body, code=refusal.code)


def http_date(seconds: float) -> str:
    return formatdate(seconds, usegmt=True)


def quoted(etag: str) -> str:
    return f'"{etag}"'
