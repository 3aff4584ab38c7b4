import socket

from csi.volume.units import ETag, Seconds

class Stamp:
    """What the GETs of some seconds have in common, to be signed by HMAC `kind` (1, 256; 0: not at all) of `key`.

    The request is `path`, the quoted key, `fixed`, `if-match`, `lines`, signature and a line break. With kind 1 the
    signature is that of `before` and the resource, with kind 256 that of `text` and the hash of `before`, the quoted
    resource, and `after`. The resource is `resource` and the key.
    """

    def __init__(
        self,
        *,
        kind: int,
        path: bytes,
        fixed: bytes,
        resource: bytes,
        before: bytes,
        after: bytes,
        text: bytes,
        lines: bytes,
        key: bytes,
        crc: bool,
        timeout: Seconds,
        stall: Seconds,
        lasts: Seconds,
    ) -> None: ...
    def request(self, key: bytes, etag: ETag, span: tuple[int, int] | None = None) -> bytes:
        """The head of a GET, of the bytes `span` (first, end) if that is given. Raises ValueError when it would be too
        long."""
    def get(
        self,
        connection: socket.socket,
        key: bytes,
        etag: ETag,
        target: memoryview,
        begin: int = 0,
        total: int | None = None,
    ) -> tuple[int, bool]:
        """A GET of as many bytes as `target` has, from `begin`, of an object of `total` (None: of just those bytes): (0
        when they are there and right, 1 when the connection had ended before anything came, 2 when something else was
        answered; whether the connection can be used again)."""
