"""Bodies that a server in front has already received: it leaves them as files and names each in a header.

For benchmarks only: what a client uploads is then taken over by name, so that this process costs little beside the
client that is measured. It must not know what a body is for.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from multidict import CIMultiDict

from csi.emulator.wire.call import Call
from csi.emulator.wire.refusals import invalid_argument

HEADER = "X-Body-File"
_PIECE = 256 << 10


class LeftBody:
    """A `BodySource` over a finished file. The server in front removes its own name of it after the answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = path.stat().st_size
        self._source: BinaryIO | None = None

    @property
    def length(self) -> int:
        return self._size

    async def read(self) -> bytes:
        if self._source is None:
            self._source = self.path.open("rb", buffering=0)
        data = self._source.read(_PIECE)
        if not data:
            self._source.close()
        return data


def take(call: Call, directory: Path) -> None:
    """Make the file that a request names its body; a name outside `directory` is refused."""
    name = call.header(HEADER)
    if not name:
        return
    path = Path(name)
    if path.parent.resolve() != directory.resolve() or not path.is_file():
        raise invalid_argument("The body is not where bodies are left.", HEADER, name)
    call.body = body = LeftBody(path)
    # the server in front sends no body, so it says no length: but a client may have signed the one it said
    headers = CIMultiDict(call.headers)
    headers["Content-Length"] = str(body.length)
    call.headers = headers
