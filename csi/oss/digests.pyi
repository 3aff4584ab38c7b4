from csi.oss.store import Buffer

def hashed(kind: int, data: Buffer) -> bytes:
    """SHA-1 (1) or SHA-256 (256) of `data`."""

def authenticated(kind: int, key: bytes, data: Buffer) -> bytes:
    """HMAC of `data` with SHA-1 (1) or SHA-256 (256)."""

def checksum(data: Buffer) -> int:
    """CRC-64/XZ, OSS's CRC64."""
