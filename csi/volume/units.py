"""Types that carry units. Plain data; any room may use them."""

from __future__ import annotations

from typing import NewType

Bytes = NewType("Bytes", int)
Seconds = NewType("Seconds", float)
ObjectKey = NewType("ObjectKey", str)
"""Key of an object in its bucket: 1–1023 bytes of UTF-8 (others surrogate-escaped), no leading slash."""
ETag = NewType("ETag", str)
"""As OSS sends it, quotes included: '"5EB63BBBE01EEED093CB22BB8F5ACDC3"'."""
Crc64 = NewType("Crc64", int)
InodeNumber = NewType("InodeNumber", int)
FileHandle = NewType("FileHandle", int)

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
